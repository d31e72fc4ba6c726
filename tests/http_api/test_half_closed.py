"""Clients that end their sending side behind their request, as `nc -N` and some proxies do."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

import pytest

from beaver.server.http.site import HELD_MAX
from tests.http_api.client import Http
from tests.http_api.remote import Worker
from tests.support.program import beaver, eventually


def request(http: Http, method: str, path: str, body: Any = None, secret: str = "") -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {secret or http.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def half_closed(http: Http, sent: bytes) -> socket.socket:
    """A client that has sent, and sends no more."""
    client = socket.create_connection((http.host, http.port), timeout=30)
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    return client


def read_all(client: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    with client:
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def bodies(answers: bytes) -> list[Any]:
    """The JSON of answers, one behind the other."""
    found = []
    while answers:
        head, _, rest = answers.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None, head
        size = int(length[1])
        found.append(json.loads(rest[:size]))
        answers = rest[size:]
    return found


def waiting_pulls(http: Http) -> float:
    found = re.search(
        r"^beaver_remote_pulls (\S+)", http.get("/metrics").raw.decode(), re.MULTILINE
    )
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/status", None, 200),
        ("GET", "/v1/nowhere", None, 404),
        ("GET", "/healthz", None, 200),
        ("POST", "/v1/jobs", {"task": "nobody"}, 201),
        ("POST", "/v1/jobs", {"task": 1}, 400),
        ("GET", "/v1/jobs?limit=1000", None, 200),
    ],
)
def test_the_answer_comes_and_then_the_end(
    http: Http, method: str, path: str, body: Any, status: int
) -> None:
    answer = read_all(half_closed(http, request(http, method, path, body)))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]


def test_each_request_that_was_sent_is_answered(http: Http) -> None:
    """Also those behind the first one, in the order in which they came."""
    sent = b"".join(request(http, "POST", "/v1/jobs", {"task": "nobody"}) for _ in range(5))
    told = bodies(read_all(half_closed(http, sent)))
    assert len(told) == 5
    seqs = [one["seq"] for one in told]
    assert seqs == sorted(seqs)


def test_half_a_request_is_not_answered_and_ends_at_once(http: Http) -> None:
    whole = request(http, "POST", "/v1/jobs", {"task": "nobody"})
    began_s = time.monotonic()
    for part in (whole[:30], whole[:-5]):
        assert read_all(half_closed(http, part)) == b""
    assert time.monotonic() - began_s < 8.0, "before its head or body is late"


def test_a_wait_ends_at_once_since_the_client_may_have_gone(http: Http) -> None:
    """The long poll of one that has gone would be held for its whole wait."""
    http.post("/v1/jobs", {"id": "never-ends", "task": "nobody"})
    sent = request(http, "GET", "/v1/jobs/never-ends/result?wait=60s")
    answer = read_all(half_closed(http, sent))
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert bodies(answer) == [{"state": "pending"}]
    http.post("/v1/jobs/never-ends/cancel")
    answer = read_all(half_closed(http, sent))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert bodies(answer)[0]["state"] == "cancelled"


def test_a_pull_gets_what_there_is_and_waits_for_nothing(http: Http) -> None:
    worker = Worker(http, capacity=5)
    sent = request(http, "POST", f"/v1/workers/{worker.number}/pull", {"wait_ms": 60_000})
    assert bodies(read_all(half_closed(http, sent)))[0]["attempts"] == []
    worker.enqueue("half")
    [told] = bodies(read_all(half_closed(http, sent)))
    assert [attempt["job"] for attempt in told["attempts"]] == ["half"]
    client = socket.create_connection((http.host, http.port), timeout=30)
    client.sendall(sent)
    eventually(lambda: waiting_pulls(http) == 1, "it waits")
    client.shutdown(socket.SHUT_WR)
    assert bodies(read_all(client))[0]["attempts"] == []
    worker.leave()


def test_a_reader_of_events_reads_on_and_one_that_has_gone_is_noticed(http: Http) -> None:
    new = beaver("token", "create", "--role", "read", "--data", str(http.data), "--json")
    reader = Http(http.data, json.loads(new)["token"])
    sent = request(http, "GET", "/v1/events?event=ENQUEUE", secret=reader.token)
    clients = [half_closed(http, sent) for _ in range(HELD_MAX)]
    seen = b""
    while b": beaver" not in seen:
        seen += clients[0].recv(1 << 16)
    http.post("/v1/jobs", {"id": "seen-by-half", "task": "nobody"})
    while b"seen-by-half" not in seen:
        piece = clients[0].recv(1 << 16)
        assert piece
        seen += piece
    eventually(lambda: reader.get("/v1/events").status == 429, "all of them are held")
    for client in clients:
        client.close()
    eventually(lambda: reader.get("/v1/events").status == 200, "they are not held any more")
