"""Clients that are slow, greedy or many: the server answers all others.

The slow ones are there from before the first test to the last one.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beaver.server.http import doors
from tests.http_api.attacks import CONNECTIONS, Target, hear
from tests.support.program import eventually

SLOW_HEADS = (b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")


class Slow:
    """Clients that send a byte now and then, from before the first test to the last one."""

    def __init__(self, target: Target) -> None:
        self.began_s = time.monotonic()
        self.clients = [target.connect() for _ in SLOW_HEADS]
        for client, head in zip(self.clients, SLOW_HEADS, strict=True):
            client.sendall(head)
        self._stop = threading.Event()
        self._drip = threading.Thread(target=self._go, daemon=True)
        self._drip.start()

    def _go(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self.clients[-1].sendall(b"x")
            except OSError:
                return

    def close(self) -> None:
        self._stop.set()
        for client in self.clients:
            client.close()


@pytest.fixture(scope="module", autouse=True)
def slow(attacked: Target) -> Iterator[Slow]:
    clients = Slow(attacked)
    yield clients
    clients.close()


# -- order and half-open connections ---------------------------------------------------------------


def test_pipelining_a_thousand_requests(target: Target) -> None:
    """Each is answered, in order; another client is served meanwhile."""
    count = 1_000
    with target.connect() as client:
        sending = threading.Thread(
            target=client.sendall,
            args=(b"".join(target.head(path=f"/v1/jobs/n{n}") for n in range(count)),),
        )
        sending.start()
        assert target.http.get("/v1/status").status == 200
        heard = hear(client, count)
        sending.join()
    assert heard.statuses == [404] * count
    told = [int(n) for n in re.findall(rb'"detail":"no job n(\d+)', heard.raw)]
    assert told == list(range(count))


def test_pipelining_without_reading_takes_no_memory_of_the_server(target: Target) -> None:
    def resident() -> int:
        text = Path(f"/proc/{target.pid}/statm").read_text()
        return int(text.split()[1]) * 4_096

    target.send(target.head() * 50, answers=50)
    before = resident()
    clients = [target.connect() for _ in range(5)]
    flood = target.head() * 300_000
    for client in clients:
        client.settimeout(1.0)
        try:
            client.sendall(flood)
        except TimeoutError:
            pass  # The server reads no more: so it should be.
        else:
            pytest.fail("the server reads requests whose answers nobody takes")
    grown = resident() - before
    assert target.http.get("/v1/status").status == 200
    for client in clients:
        client.close()
    assert grown < len(flood)


def test_leaving_at_any_byte(target: Target) -> None:
    """Gently or by a reset: nothing is enqueued, and nothing is left."""
    body = b'{"id": "left", "task": "nobody"}'
    head = target.head(f"Content-Length: {len(body)}", method="POST", path="/v1/jobs")
    raw = head + body
    for length in range(0, len(raw), 5):
        with target.connect() as client:
            client.sendall(raw[:length])
        with target.connect() as client:
            client.sendall(raw[:length])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert target.http.get("/v1/jobs/left").status == 404


# -- crowds ----------------------------------------------------------------------------------------


def test_too_many_connections_for_all(target: Target) -> None:
    """One more than there may be reads 503 with `Retry-After`; who leaves makes room."""
    crowd: list[socket.socket] = []
    refused = None
    for _ in range(CONNECTIONS + 20):
        client = target.connect()
        crowd.append(client)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = hear(client)
        if heard.statuses != [200]:
            refused = heard
            break
    assert refused is not None, "nobody was refused"
    assert refused.statuses == [503]
    assert b"Retry-After" in refused.raw
    assert b"urn:beaver:unavailable" in refused.raw
    assert len(crowd) <= CONNECTIONS + 1
    crowd.pop(0).close()
    eventually(lambda: target.send(target.head()).statuses == [200], "there is room again", 20)
    for client in crowd:
        client.close()


def test_too_many_streams_for_one_token(target: Target) -> None:
    """With so few connections the bound of a token is not reached; the others are served."""
    streams = [target.connect() for _ in range(CONNECTIONS // 2)]
    for stream in streams:
        stream.sendall(target.head(path="/v1/events"))
    assert all(hear(stream).statuses == [200] for stream in streams)
    assert target.http.get("/v1/status").status == 200
    for stream in streams:
        stream.close()


# -- patience --------------------------------------------------------------------------------------


def test_slowloris_in_a_body(target: Target) -> None:
    """A body holds its connection and nothing else; `test_doors` has its time."""
    crowd = [target.connect() for _ in range(CONNECTIONS // 2)]
    head = target.head("Content-Length: 8000000", method="POST", path="/v1/jobs")
    for client in crowd:
        client.sendall(head + b"[")
    body = b'{"id": "beside the slow", "task": "nobody"}'
    for _ in range(3):
        for client in crowd:
            client.sendall(b" ")
        assert target.http.get("/v1/status").status == 200
    assert target.http.post("/v1/jobs", body).status in (200, 201)
    for client in crowd:
        client.close()


def test_slowloris_in_a_head(attacked: Target, slow: Slow) -> None:
    """The last test: by now the slow clients have had their time, byte by byte or not."""
    for client in slow.clients:
        heard = hear(client)
        assert heard.statuses == [408]
        assert heard.closed
    assert time.monotonic() - slow.began_s >= doors.HEAD_S
    slow.close()
    attacked.check()
