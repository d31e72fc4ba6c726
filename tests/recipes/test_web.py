"""The web applications in `examples/web` under their real frameworks, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_client.conftest import token_of, url_of
from tests.support.program import Server, beaver, environment, events_of, serving

WEB = Path(__file__).parents[2] / "examples" / "web"

TALK = """
def talk(client, status, body):
    placed = client.post("/orders/{order}?to=ada@example.org")
    assert status(placed) == 202, placed
    job = body(placed)["job"]
    assert body(client.post("/orders/{order}?to=ada@example.org"))["job"] == job
    ended = client.get(f"/jobs/{{job}}?wait=20")
    assert body(ended) == {{
        "state": "completed", "result": "receipt for {order} sent to ada@example.org"
    }}
    assert status(client.get("/jobs/nobody")) == 404


def sockets():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{{name}}"))
        except OSError:
            pass
    return [one for one in found if one.startswith("socket:")]


import os
"""

FASTAPI = """
from fastapi.testclient import TestClient
from fastapi_app import app

with TestClient(app) as client:
    talk(client, lambda answer: answer.status_code, lambda answer: answer.json())
assert not sockets(), "the end of the application has closed its connections"
"""

FLASK = """
from flask_app import app, queue

def served():
    talk(app.test_client(), lambda answer: answer.status_code, lambda answer: answer.get_json())

served()
child = os.fork()  # As gunicorn with --preload.
if child == 0:
    try:
        served()
        os._exit(0)
    finally:
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
served()
queue.close()
assert not sockets(), "close has ended the connections"
"""

DJANGO = """
import django_app
from django.db import connection
from django.test import Client

django_app.migrate()
client = Client(raise_request_exception=False)
for way in ("", "/now"):
    order = {order} + len(way)
    placed = client.post(f"/orders/{{order}}{{way}}?to=ada@example.org")
    assert placed.status_code == 202, placed
assert client.post("/orders/13?to=ada@example.org").status_code == 500
assert client.get("/jobs/nobody").status_code == 404
assert client.get("/jobs/receipt-{order}").status_code == 404, "no relay has run yet"
ended = client.get(f"/jobs/receipt-{{order}}?wait=20").json()
assert ended["state"] == "completed", ended
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("web") / "data"
    with serving(data, "-A", "jobs:queue", "--http", "127.0.0.1:0", cwd=WEB) as running:
        yield running


def run(server: Server, program: str, order: int, **more: str) -> None:
    """Runs a program as a web process, which knows the server by its URL."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program.format(order=order)],
        cwd=WEB,
        env=environment(
            BEAVER_URL=url_of(server.data),
            BEAVER_TOKEN=token_of(server.data),
            PYTHONDONTWRITEBYTECODE="1",
            **more,
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Unclosed" not in done.stderr
    assert "ResourceWarning" not in done.stderr


def test_fastapi_enqueues_tells_results_and_closes_its_connections(server: Server) -> None:
    run(server, TALK + FASTAPI, 7_001)


def test_flask_enqueues_and_tells_results_from_forked_processes_too(server: Server) -> None:
    run(server, TALK + FLASK, 7_002)


def test_django_writes_the_job_into_the_transaction_of_the_order(
    server: Server, tmp_path: Path
) -> None:
    """What was rolled back has no job; what was committed has one, once a relay has run."""
    database = tmp_path / "shop.db"
    run(server, DJANGO, 7_003, SHOP_DB=str(database))
    db = ("--db", f"sqlite:///{database}")
    assert json.loads(beaver("outbox", "status", *db, "--json"))["waiting"] == 1
    told = beaver("outbox", "relay", "--once", *db, "--data", str(server.data))
    assert told == "1 job handed over, 0 set aside\n"
    assert events_of(server.data, "receipt-7003")[:1] == ["ENQUEUE"]
    assert events_of(server.data, "receipt-7007")[:1] == ["ENQUEUE"]
    assert events_of(server.data, "receipt-13") == []
