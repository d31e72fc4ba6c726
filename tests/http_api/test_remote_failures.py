"""Remote workers and servers that are killed, frozen and started again: the real ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.http_api.client import Http
from tests.http_api.remote import Worker, causes, report
from tests.support.program import Server, eventually, serving

OPTIONS = ("--http", "127.0.0.1:0", "--workers", "1")

WORKER = """
import json, sys, threading, time
from urllib.request import Request, urlopen
from urllib.error import HTTPError

base, token, task, work_s = sys.argv[1:5]

def ask(path, body):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = Request(base + path, json.dumps(body).encode(), headers)
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)

_, me = ask("/v1/workers", {"name": task, "tasks": [task], "capacity": 1})
running = []

def beat():
    while True:
        ask(f"/v1/workers/{me['worker']}/heartbeat", {"running": list(running)})
        time.sleep(me["heartbeat_ms"] / 1000)

threading.Thread(target=beat, daemon=True).start()
status, got = ask(f"/v1/workers/{me['worker']}/pull", {"max": 1, "wait_ms": 60000})
[attempt] = got["attempts"]
running.append(attempt["token"])
print("runs", attempt["token"], flush=True)
sys.stdin.readline()
print(*ask(f"/v1/attempts/{attempt['token']}/ack", {"result": "mine"}), flush=True)
"""


@contextmanager
def process(http: Http, task: str) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own, which reports once it is told to."""
    arguments = [f"http://{http.host}:{http.port}", http.token, task, "0"]
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            assert stream is not None
            stream.close()


def said(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline()


def tell(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_remote_job_outlives_its_server_and_is_reported_to_the_next(
    tmp_path: Path, how: str
) -> None:
    """The same outcome is 200 again, and another one 409, after one more restart, too."""
    data = tmp_path / "data"
    server = Server(data, *OPTIONS)
    server.ready()
    worker = Worker(Http(data), capacity=3)
    for job in ("done", "told", "open"):
        worker.enqueue(job, backoff="1h")
    tokens = {attempt["job"]: attempt["token"] for attempt in worker.pull(3, 5_000)}
    assert report(worker.http, tokens["done"], "ack", result={"a": [1]}).status == 200
    getattr(server, how)()
    with serving(data, *OPTIONS) as server:
        http = Http(data)
        assert http.post(f"/v1/workers/{worker.number}/heartbeat", {}).type == "not_found"
        assert http.job("told")["token"] == tokens["told"], "no BOOT ends it"
        failed = report(http, tokens["told"], "fail", error="no")
        assert failed.json["state"] == "pending"
        server.kill()
    with serving(data, *OPTIONS):
        http = Http(data)
        again = report(http, tokens["done"], "ack", result={"a": [1]})
        assert (again.status, again.json["state"]) == (200, "completed")
        assert again.json["seq"] == http.get("/v1/jobs/done/history").json["events"][-1]["seq"]
        assert report(http, tokens["told"], "fail", error="no").json == failed.json
        for job, kind, members in (
            ("done", "ack", {"result": {"a": [2]}}),
            ("done", "fail", {"error": "no"}),
            ("told", "fail", {"error": "yes"}),
            ("told", "fail", {"error": "no", "final": True}),
            ("told", "ack", {}),
        ):
            assert report(http, tokens[job], kind, **members).type == "stale_token"
        assert report(http, tokens["open"], "ack").status == 200, "after two restarts"
        assert causes(http, "open") == ["ENQUEUE", "DISPATCH", "ACK"]


def test_a_worker_that_registers_again_adopts_what_it_runs_and_the_rest_goes(
    tmp_path: Path,
) -> None:
    """What nobody names is at once available again, a lease after the start."""
    data, quick = tmp_path / "data", (*OPTIONS, "--lease", "2s")
    server = Server(data, *quick)
    server.ready()
    worker = Worker(Http(data), capacity=3)
    for job in ("named", "over", "lost"):
        worker.enqueue(job)
    tokens = {attempt["job"]: attempt["token"] for attempt in worker.pull(3, 5_000)}
    assert len(tokens) == 3
    server.kill()
    with serving(data, *quick):
        http = Http(data)
        again = Worker(http, "another", capacity=1)
        assert again.number != worker.number
        heard = again.beat(tokens["named"])
        assert heard == {"cancel": [], "lost": [], "drain": False}
        assert again.pull() == [], "what it has adopted takes its room"
        # There is no room for a second one, and it is not lost yet.
        assert again.beat(tokens["named"], tokens["over"])["lost"] == []

        def gone() -> bool:
            again.beat(tokens["named"])
            return causes(http, "lost")[-1] == "TIMEOUT lease_expired"

        eventually(gone, "what nobody names goes")
        assert http.job("lost")["waiting"] == "unknown_task"
        assert again.beat(tokens["named"], tokens["lost"])["lost"] == [tokens["lost"]]
        assert report(http, tokens["lost"], "ack").type == "stale_token"
        http.post("/v1/jobs/named/cancel")
        assert again.beat(tokens["named"])["cancel"] == [tokens["named"]]
        assert report(http, tokens["named"], "ack").json["state"] == "completed"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_frozen_loses_its_job_to_another(
    tmp_path: Path, how: signal.Signals
) -> None:
    """The frozen one comes back, reports, and is refused: the job completes once."""
    data = tmp_path / "data"
    with serving(data, *OPTIONS, "--lease", "1s"):
        http = Http(data)
        http.post("/v1/jobs", {"id": "j", "task": "shared", "backoff": "1h"})
        with process(http, "shared") as first:
            token = int(said(first).split()[1])
            with process(http, "shared") as second:
                eventually(
                    lambda: "beaver_remote_pulls 1.0" in http.get("/metrics").raw.decode(),
                    "the second one waits",
                )
                first.send_signal(how)
                assert said(second).startswith("runs"), "at once, not after its backoff"
                assert causes(http, "j") == [
                    "ENQUEUE",
                    "DISPATCH",
                    "TIMEOUT lease_expired",
                    "DISPATCH",
                ]
                tell(second)
                assert said(second).startswith("200")
                if how is signal.SIGSTOP:
                    first.send_signal(signal.SIGCONT)
                    tell(first)
                    assert said(first).startswith("409")
                assert report(http, token, "ack", result="mine").type == "stale_token"
        assert causes(http, "j").count("ACK") == 1
        assert http.ended("j")["result"] == "mine"
