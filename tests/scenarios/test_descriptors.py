"""Descriptors run out: clients take their share and no more, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from beaver.client.blocking import Client, connect
from beaver.errors import HelperFailed, StoreUnavailable
from beaver.request.requests import make_request
from beaver.transport import endpoint
from tests.support import program
from tests.support.program import Server, enqueue, events, eventually, run_beaver, serving, status

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="counts descriptors in /proc")

LIMIT = 128
SMALL_SEGMENTS: dict[str, Any] = {"BEAVER_SEGMENT_SIZE": "16MiB"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def limited(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Has every `beaver` started with so many descriptors, and no means to get more."""
    shell = ["sh", "-c", f'ulimit -n {limit}; exec "$0" "$@"', sys.executable, "-m", "beaver"]
    monkeypatch.setattr(program, "BEAVER", shell)


def http_of(data: Path) -> tuple[str, int]:
    address = json.loads((data / "server.json").read_text())["http"]
    host, _, port = address.removeprefix("http://").rpartition(":")
    return host, int(port)


def half_requests(address: tuple[str, int], count: int, stack: ExitStack) -> None:
    """Opens connections to HTTP that begin a request and never end it."""
    for _ in range(count):
        connection = stack.enter_context(closing(socket.create_connection(address, timeout=10)))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n")


def dial(path: str, stack: ExitStack) -> str:
    """Connects to the socket; returns why not, where that is refused."""
    try:
        stack.enter_context(closing(endpoint.dial(path)[0]))
    except StoreUnavailable as error:
        return str(error)
    return ""


def fill(client: Client, count: int, size: int = 1_000_000) -> int:
    """Enqueues up to so many jobs that nobody runs, each large: a segment holds sixteen."""
    there = client.status().pending
    for n in range(there, count):
        client.enqueue([make_request("nobody", "x" * size, id=f"big-{n}")])
    return count


def fill_until(client: Client, done: Callable[[], object], what: str) -> int:
    """Fills a segment, and goes on with small jobs: a commit seals once the next is prepared."""
    fill(client, client.status().pending + 17)

    def is_done() -> bool:
        fill(client, client.status().pending + 1, size=1)
        return bool(done())

    eventually(is_done, what)
    return client.status().pending


def fill_until_prepared(client: Client, data: Path) -> int:
    """Fills with one large job at a time: the next segment stands ready until a commit comes."""
    adopted = data / "wal.adopted"

    def is_ready() -> bool:
        fill(client, client.status().pending + 1)
        waited_until = time.monotonic() + 0.5
        while not adopted.exists() and time.monotonic() < waited_until:
            time.sleep(0.01)
        return adopted.exists()

    eventually(is_ready, "a next segment is prepared")
    return client.status().pending


def is_alive(server: Server) -> bool:
    assert server.process.poll() is None, "".join(server.stderr)
    return True


def test_clients_that_take_every_descriptor_cannot_end_the_server(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: half-sent requests and open sockets, many times the limit, while segments are sealed."""
    limited(monkeypatch, LIMIT)
    with (
        ExitStack() as stack,
        serving(data, "--http", "127.0.0.1:0", "--workers", "1", **SMALL_SEGMENTS) as server,
        closing(connect(str(data))) as client,
    ):
        half_requests(http_of(data), 2 * LIMIT, stack)
        path = json.loads((data / "server.json").read_text())["socket"]
        said = [said for _ in range(2 * LIMIT) if (said := dial(path, stack))]
        assert all("connections open, which is the limit" in why for why in said)
        assert LIMIT < len(said) < 2 * LIMIT, "some get in, and the rest are told why not"
        count = fill_until(client, lambda: list((data / "archive").iterdir()), "one is sealed")
        assert client.explain("big-0").events, "the history is read, by a helper that was started"
        assert is_alive(server)
    assert status(data)["pending"] == count


def test_http_answers_503_beyond_its_share_and_200_again_below_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, LIMIT)
    with serving(data, "--http", "127.0.0.1:0", "--workers", "1"):
        host, port = http_of(data)

        def answer() -> str:
            with closing(socket.create_connection((host, port), timeout=10)) as one:
                one.sendall(b"GET /healthz HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
                said = b""
                while piece := one.recv(1 << 16):
                    said += piece
            return said.decode()

        with ExitStack() as stack:
            half_requests((host, port), LIMIT // 2, stack)
            refused = answer()
            assert refused.startswith("HTTP/1.1 503 ")
            assert "Retry-After: 1" in refused
            assert json.loads(refused.partition("\r\n\r\n")[2])["type"] == "urn:beaver:unavailable"
        eventually(lambda: answer().startswith("HTTP/1.1 200 "), "there is room again")


@contextmanager
def exhausted(server: Server) -> Iterator[None]:
    """Leaves a running server without one free descriptor."""
    pid = server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def writers_of(server: Server) -> list[int]:
    """The process that writes the log beside the loop, if there is one."""
    found = Path("/proc").glob("[0-9]*/cmdline")
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(p.parent.name) for p in found if p.parent.name in children.split()
            and b"writer_child" in p.read_bytes()]  # fmt: skip


@pytest.mark.parametrize("commit", ["inline", "writer"])
def test_a_server_without_a_free_descriptor_goes_on_and_recovers(data: Path, commit: str) -> None:
    """No sealing, no helper, no worker, no writer finds one: it is put off, and told once."""
    more = {**SMALL_SEGMENTS, "BEAVER_COMMIT": commit}
    with serving(data, "--workers", "1", **more) as server, closing(connect(str(data))) as client:
        archive = data / "archive"
        client.enqueue([make_request("echo", 1, id="before")])
        eventually(lambda: client.status().completed == 1, "a job ran")
        count = fill_until_prepared(client, data)
        sealed = len(list(archive.iterdir()))
        with exhausted(server):
            worker = eventually(lambda: client.status().workers, "there is a worker")[0]
            for pid in [worker.pid, *writers_of(server)]:
                os.kill(pid, 9)
            count = fill(client, count + 40)
            client.enqueue([make_request("echo", 2, id="within")])
            eventually(lambda: "is tried again" in "".join(server.stderr), "it is told")
            if commit == "writer":
                assert any("writer process cannot be started" in line for line in server.stderr)
            assert len(list(archive.iterdir())) == sealed + 1, "one was sealed, and none since"
            with suppress(HelperFailed):  # An answer is right, or it is said that there is none.
                assert client.explain("before").events
            assert is_alive(server)
        eventually(lambda: client.status().completed == 2, "the worker was started again")
        assert client.explain("within").events
        count = fill_until(
            client, lambda: len(list(archive.iterdir())) > sealed + 1, "segments are sealed again"
        )
        said = [line for line in server.stderr if "Traceback" in line]
        assert not said, "".join(server.stderr)
        assert sum("cannot be started" in line for line in server.stderr) <= 3, server.stderr
    assert status(data)["pending"] == count
    assert {e["job"] for e in events(data) if e["event"] == "ACK"} == {"before", "within"}


def test_clients_that_find_no_descriptor_are_told_of_in_one_line(
    data: Path, tmp_path: Path
) -> None:
    """They wait in the kernel, on both doors; nothing shows a traceback, and then they get in.

    asyncio's own loop would show one a second; uvloop says nothing.
    """
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "uvloop.py").write_text("raise ImportError")
    more: dict[str, Any] = {"PYTHONPATH": f"{hidden}:{os.environ.get('PYTHONPATH', '')}"}
    with serving(data, "--workers", "1", "--http", "127.0.0.1:0", **more) as server:
        host, port = http_of(data)
        path = json.loads((data / "server.json").read_text())["socket"]
        with ExitStack() as stack, exhausted(server):
            for _ in range(20):
                local = stack.enter_context(socket.socket(socket.AF_UNIX))
                local.connect(path)
                stack.enter_context(socket.create_connection((host, port), timeout=10))
            waits = "clients wait for a descriptor"
            eventually(lambda: waits in "".join(server.stderr), "it is told")
        eventually(lambda: status(data)["running"], "who connects now gets in")
        with urllib.request.urlopen(f"http://{host}:{port}/healthz", timeout=30) as answer:
            assert answer.status == 200, "whoever knocked while there was none has spoilt nothing"
        said = "".join(server.stderr)
        assert "Traceback" not in said
        assert said.count(waits) == 1
        assert len(server.stderr) <= 5, said


def test_a_limit_too_low_for_anybody_is_said_at_the_start(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, 40)
    done = run_beaver("run", "--data", str(data), "--http", "off", "--workers", "1")
    assert done.returncode == 3
    assert "ulimit -n" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_smallest_limit_that_is_taken_serves(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the refusal names is enough: with it a server starts and does its work."""
    limited(monkeypatch, 40)
    said = run_beaver("run", "--data", str(data), "--http", "off", "--workers", "1").stderr
    wanted = int(said.split("needs ")[1].split(";")[0])
    limited(monkeypatch, wanted + 1)
    enqueue(data, *({"id": str(n)} for n in range(50)))
    with serving(data, "--http", "127.0.0.1:0", "--workers", "1", **SMALL_SEGMENTS) as server:
        server.drained(50)
        host, port = http_of(data)
        with urllib.request.urlopen(f"http://{host}:{port}/metrics") as page:
            assert b"queue_jobs_completed_total 50.0" in page.read()
        with closing(connect(str(data))) as client:
            fill(client, 30)
            assert client.explain("0").events
