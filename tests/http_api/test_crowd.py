"""A crowd of clients that wait: no thread each, little memory, and nobody waits for them."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from beaver.access import tokens
from beaver.server.http.site import HELD_MAX
from beaver.system import descriptors
from beaver.system.clock import SystemEntropy
from tests.http_api.client import Http
from tests.support.program import Server, eventually, run_beaver, serving

BYTES_EACH = 20_000
"""Of the server's memory, for one client that waits."""


def bearers(data: Path, count: int) -> Iterator[str]:
    """Yields a token for each of so many clients, as many times as one may wait."""
    for number in range(-(-count // HELD_MAX)):
        _, secret = tokens.create(
            str(data), "read", now_ms=1, entropy=SystemEntropy(), name=f"crowd-{number}"
        )
        yield from [secret] * min(HELD_MAX, count - number * HELD_MAX)


def facts(pid: int) -> dict[str, int]:
    """Memory (in bytes) and threads of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return {"bytes": int(told["VmRSS"].split()[0]) << 10, "threads": int(told["Threads"])}


class Crowd:
    """Clients that wait, every other one for a result, the others for events."""

    def __init__(self, http: Http, stack: ExitStack) -> None:
        self._http, self._stack = http, stack
        self.sockets: list[socket.socket] = []
        self.streams = 0

    def grow(self, secrets: list[str]) -> None:
        for number, secret in enumerate(secrets):
            path = "/v1/jobs/never/result?wait=60s" if number % 2 else "/v1/events?job=never"
            self.streams += not number % 2
            sent = (
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n\r\n"
            )
            client = socket.create_connection((self._http.host, self._http.port), timeout=30)
            self._stack.callback(client.close)
            client.sendall(sent.encode())
            self.sockets.append(client)

    def answered(self) -> int:
        """How many have got something: the streams their head, and nobody anything else."""
        with selectors.DefaultSelector() as selector:
            for client in self.sockets:
                selector.register(client, selectors.EVENT_READ)
            return len(selector.select(0))

    def settle(self) -> None:
        eventually(lambda: self.answered() >= self.streams, "every stream has begun", 120)
        time.sleep(0.5)  # The long polls that came last have no sign.
        assert self.answered() == self.streams, "the others wait"


def await_crowd(
    server: Server, http: Http, counts: tuple[int, int], bytes_each: float = BYTES_EACH
) -> None:
    """Lets one number of clients wait, then another; both cost what they may."""
    few, many = counts
    http.ask("PATCH", "/v1/queues/still", {"paused": True})
    assert http.post("/v1/jobs", {"id": "never", "queue": "still"}).status == 201
    secrets = list(bearers(server.data, many))
    with ExitStack() as stack:
        crowd = Crowd(http, stack)
        crowd.grow(secrets[:few])
        crowd.settle()
        before = facts(server.process.pid)
        crowd.grow(secrets[few:])
        crowd.settle()
        after = facts(server.process.pid)
        each = (after["bytes"] - before["bytes"]) / (many - few)
        assert each < bytes_each, f"{each:.0f} bytes for a client that waits"
        print(f"{each:.0f} bytes for a client that waits")
        # The server's own few threads come and go.
        assert after["threads"] - before["threads"] < (many - few) / 100
        jobs = [{"queue": "still", "payload": n} for n in range(500)]
        for _ in range(20):
            assert http.post("/v1/jobs", jobs).status == 200
        assert crowd.answered() == crowd.streams, "nobody got what they do not wait for"
        assert http.post("/v1/jobs/never/cancel").status == 200
        eventually(lambda: crowd.answered() == many, "everybody has heard of the end", 60)


def test_each_client_that_waits_costs_little(tmp_path: Path) -> None:
    """The slope from a hundred to several hundred; and all of them hear of the end."""
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0") as server:
        # The rest of the server grows as well, which a few hundred do not outweigh.
        await_crowd(server, Http(data), (100, 600), 1.25 * BYTES_EACH)


@pytest.mark.nightly
def test_five_thousand_clients_wait_while_others_enqueue(tmp_path: Path) -> None:
    """With the setting that lets so many in."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 12_000:
        pytest.skip(f"12,000 descriptors are needed, and {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 12_000), hard))
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0", "--http-connections", "5500") as server:
        await_crowd(server, Http(data), (1_000, 5_000))


def test_connections_are_let_in_up_to_the_setting(tmp_path: Path) -> None:
    """And the next one is told that there are too many."""
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0", "--http-connections", "10"):
        http = Http(data)
        assert http.get("/v1/status").status == 200
        with ExitStack() as stack:
            for _ in range(10):
                client = socket.create_connection((http.host, http.port), timeout=30)
                stack.callback(client.close)
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            answer = http.get("/v1/status")
            assert (answer.status, answer.type) == (503, "unavailable")
            assert "10 connections are open" in answer.json["detail"]
        eventually(lambda: http.get("/v1/status").status == 200, "they have left")


@pytest.mark.parametrize("count", ["7", "50001", "x"])
def test_a_number_of_connections_out_of_bounds_is_refused(tmp_path: Path, count: str) -> None:
    done = run_beaver("run", "--data", str(tmp_path / "data"), "--http-connections", count)
    assert done.returncode == 2
    assert "http-connections" in done.stderr or "http_connections" in done.stderr


def test_more_connections_than_descriptors_are_refused_and_fewer_shared_out() -> None:
    """On both sides of what fits; the usual number shrinks by itself."""
    assert descriptors.shares(65_536, 20, 2, 20_000).http == 20_000
    clients = 10_000 - descriptors.OWN
    assert descriptors.shares(10_000, 20, 2, clients // 2).http == clients // 2
    with pytest.raises(Exception, match="http_connections"):
        descriptors.shares(10_000, 20, 2, clients // 2 + 1)
    assert descriptors.shares(1_024, 20, 2).http == (1_024 - descriptors.OWN) // 3
    assert descriptors.shares(65_536, 20, 2, 8).http == 8
