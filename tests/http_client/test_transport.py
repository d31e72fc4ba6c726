"""The client by URL against servers that are strange, slow or behind TLS; crowds and forks."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from beaver import (
    AccessDenied,
    Beaver,
    DiskFull,
    InvalidInput,
    NoServer,
    QueueFull,
    ServerGone,
    StoreUnavailable,
)
from beaver.client.http.pool import CONNECTIONS_MAX
from tests.http_client.conftest import token_of, url_of
from tests.support.certificates import Authority
from tests.support.program import Server, serving

Talk = Callable[[socket.socket, bytes], bool]
"""Answers one request, given its bytes; false ends the connection."""


class Stranger:
    """A server that answers as a test says."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.requests: list[bytes] = []
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with closing(connection):
            received = b""
            while True:
                while not is_whole(received):
                    try:
                        piece = connection.recv(65_536)
                    except OSError:
                        return
                    if not piece:
                        return
                    received += piece
                self.requests.append(received)
                request, received = received, b""
                try:
                    if not self._talk(connection, request):
                        return
                except OSError:
                    return

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) >= int(length or 0)


def answer(status: int, body: bytes = b"", *more: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem(status: int, name: str, *more: str, error: str = "") -> bytes:
    told = f'"error":"{error}",' if error else ""
    body = f'{{{told}"type":"urn:beaver:{name}","title":"t","status":{status},"detail":"said so"}}'
    return answer(status, body.encode(), *more, kind="application/problem+json")


@contextmanager
def stranger(talk: Talk) -> Iterator[Stranger]:
    running = Stranger(talk)
    try:
        yield running
    finally:
        running.close()


def says(*answers: bytes) -> Talk:
    """Says one after another, and the last one for ever."""
    left = list(answers)

    def talk(connection: socket.socket, request: bytes) -> bool:
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])
        return True

    return talk


TAKEN = answer(201, b'{"id":"a","seq":7,"created":true}')
BOTH = pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])


def enqueue(app: Beaver, awaited: bool) -> int:
    if awaited:
        return asyncio.run(app.aenqueue("echo", 1, id="a")).seq
    return app.enqueue("echo", 1, id="a").seq


async def told(call: Awaitable[Any]) -> Any:
    return await call


def show(app: Beaver, awaited: bool) -> Any:
    return asyncio.run(told(app.aclient.show("a"))) if awaited else app.client.show("a")


def retry(app: Beaver, awaited: bool) -> Any:
    return asyncio.run(told(app.aclient.requeue("a"))) if awaited else app.client.requeue("a")


@BOTH
def test_retry_after_is_honoured_within_the_time_of_the_call(awaited: bool) -> None:
    full = problem(429, "queue_full", "Retry-After: 1", error="QueueFull")
    with stranger(says(full, problem(503, "unavailable", "Retry-After: 0"), TAKEN)) as server:
        started = time.monotonic()
        assert enqueue(Beaver(server.url, token="t"), awaited) == 7
        assert time.monotonic() - started >= 1
        ids = {request.partition(b"\r\n\r\n")[2] for request in server.requests}
        assert (len(server.requests), len(ids)) == (3, 1), "the same job each time"
    late = problem(429, "queue_full", "Retry-After: 600", error="QueueFull")
    with stranger(says(late)) as server, pytest.raises(QueueFull, match="said so"):
        enqueue(Beaver(server.url, token="t"), awaited)
    assert len(server.requests) == 1, "nobody waits for ten minutes"
    full = problem(503, "unavailable", "Retry-After: 1", error="DiskFull")
    with stranger(says(full)) as server, pytest.raises(DiskFull):
        enqueue(Beaver(server.url, token="t", timeout="1500ms"), awaited)
    assert len(server.requests) == 2


@BOTH
@pytest.mark.parametrize("when", ["at once", "in the head", "in the body"])
def test_a_lost_answer_is_asked_for_again_where_that_is_safe(awaited: bool, when: str) -> None:
    """With the same id; what is not safe is sent once, and the outcome is said to be unknown."""
    cut = {"at once": 0, "in the head": 20, "in the body": len(TAKEN) - 4}[when]
    count = 0

    def talk(connection: socket.socket, request: bytes) -> bool:
        nonlocal count
        count += 1
        connection.sendall(TAKEN if count == 3 else TAKEN[:cut])
        return count == 3

    with stranger(talk) as server:
        assert enqueue(Beaver(server.url, token="t"), awaited) == 7
        assert len({request.partition(b"\r\n\r\n")[2] for request in server.requests}) == 1
    count = 0
    with stranger(talk) as server:
        with pytest.raises(ServerGone, match="unknown"):
            retry(Beaver(server.url, token="t"), awaited)
        assert len(server.requests) == 1


def test_what_is_not_safe_to_repeat_goes_over_a_new_connection() -> None:
    changed = answer(200, b'{"state":"pending","seq":9}')
    with stranger(says(TAKEN, changed)) as server:
        app = Beaver(server.url, token="t")
        enqueue(app, awaited=False)
        retry(app, awaited=False)
        assert server.connections == 2


@BOTH
def test_every_call_ends_however_slowly_the_answer_comes(awaited: bool) -> None:
    """Silence, and a byte at a time."""

    def drip(connection: socket.socket, request: bytes) -> bool:
        for byte in TAKEN:
            connection.sendall(bytes([byte]))
            time.sleep(0.2)
        return True

    def hush(connection: socket.socket, request: bytes) -> bool:
        time.sleep(60)
        return False

    for talk in (drip, hush):
        with stranger(talk) as server:
            started = time.monotonic()
            with pytest.raises(ServerGone, match="safe"):
                enqueue(Beaver(server.url, token="t", timeout="1s"), awaited)
            assert time.monotonic() - started < 30


@BOTH
@pytest.mark.parametrize(
    "said",
    [
        answer(200, b"<html>Welcome</html>", kind="text/html"),
        answer(200, b'{"id": 7}'),
        answer(200, b"[" * 10_000),
        answer(200, b'"\xff"'),
        answer(301, b"", "Location: http://elsewhere/v1/jobs"),
        answer(404, b"<html>\x1b[31mno</html>", kind="text/html"),
        answer(403, b"{", kind="application/problem+json"),
    ],
)
def test_what_is_no_beaver_is_told_and_not_followed(said: bytes, awaited: bool) -> None:
    with stranger(says(said)) as server:
        with pytest.raises(StoreUnavailable, match="no Beaver server") as error:
            show(Beaver(server.url, token="t"), awaited)
        assert "\x1b" not in str(error.value)
        assert len(server.requests) == 1


def test_what_is_no_http_is_told() -> None:
    for said in (
        b"220 mail.example.org ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"\0" * 70_000,
    ):
        with stranger(says(said)) as server, pytest.raises(StoreUnavailable):
            show(Beaver(server.url, token="t", timeout="500ms"), awaited=False)


@BOTH
def test_a_path_and_a_token_are_sent_as_they_are_meant(awaited: bool) -> None:
    job = "../a b/ü?#%2F"
    with stranger(says(answer(404, b"", kind="text/plain"))) as server:
        app = Beaver(f"{server.url}/queue/", token="secret")
        with pytest.raises(StoreUnavailable):
            asyncio.run(told(app.aclient.show(job))) if awaited else app.client.show(job)
        head = server.requests[0].decode()
    assert head.startswith("GET /queue/v1/jobs/..%2Fa%20b%2F%C3%BC%3F%23%252F HTTP/1.1\r\n")
    assert head.count("Authorization: Bearer secret\r\n") == 1
    assert head.lower().count(f"host: {server.url.removeprefix('http://')}\r\n") == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://", "no URL"),
        ("http://a b:1", "no URL"),
        ("http://a\r\nX: y:1", "no URL"),
        ("http://a:99999", "no URL"),
        ("http://a:0", "no port"),
        ("http://token@host", "no token stands in it"),
        ("http://host?token=x", "no query"),
        ("http://host/#x", "no fragment"),
    ],
)
def test_a_url_that_is_none_is_refused_before_anything_is_sent(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as error:
        Beaver(url)
    assert "token@" not in str(error.value)


def test_a_token_that_would_break_a_header_is_refused_and_not_repeated() -> None:
    for token in ("", "a b", "a\r\nX: y", "ü", "x" * 5_000):
        with pytest.raises(InvalidInput, match="token") as error:
            Beaver("http://127.0.0.1:1", token=token)
        assert not token.strip() or token not in str(error.value)
    for more in ({"token": "t"}, {"ca_file": "x"}, {"timeout": 1}):
        with pytest.raises(InvalidInput, match="http://host"):
            Beaver("data", **more)


@BOTH
def test_nobody_there_is_told(awaited: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NoServer, match=f"127.0.0.1:{port}"):
        enqueue(Beaver(f"http://127.0.0.1:{port}", token="t", timeout="300ms"), awaited)


# -- TLS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Authority]]:
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory)
    pair = authority.issue("server")
    with serving(directory / "data", "--http", "127.0.0.1:0", *pair.flags) as running:
        yield running, authority


@BOTH
def test_tls_is_spoken_with_an_authority_that_is_trusted(
    secure: tuple[Server, Authority], awaited: bool
) -> None:
    server, authority = secure
    url, token = url_of(server.data).replace("http://", "https://"), token_of(server.data)
    app = Beaver(url, token=token, ca_file=authority.cert)
    if awaited:

        async def run() -> Any:
            return await (await app.aenqueue("echo", 5)).aresult(timeout=20)

        assert asyncio.run(run()) == 5
    else:
        assert app.enqueue("echo", 5).result(timeout=20) == 5
    app.close()


@BOTH
def test_whoever_is_not_trusted_gets_nothing(
    secure: tuple[Server, Authority], awaited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's authority, and a name that the certificate does not have."""
    server, authority = secure
    url, token = url_of(server.data).replace("http://", "https://"), token_of(server.data)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="not trusted") as error:
        enqueue(Beaver(url, token=token), awaited)
    assert "BEAVER_CA_FILE" in str(error.value)
    other = url.replace("127.0.0.1", "127.0.0.2")
    monkeypatch.setenv("BEAVER_CA_FILE", str(authority.cert))
    with pytest.raises(StoreUnavailable):
        enqueue(Beaver(other, token=token, timeout="1s"), awaited)
    assert time.monotonic() - started < 30
    plain = url.replace("https://", "http://")
    with pytest.raises(StoreUnavailable):
        enqueue(Beaver(plain, token=token, timeout="500ms"), awaited)
    with pytest.raises(InvalidInput, match="no certificates"):
        Beaver(url, token=token, ca_file=server.data / "token")
    with pytest.raises(InvalidInput, match="no certificates"):
        Beaver(url, token=token, ca_file="nowhere.pem")


def test_https_to_a_plain_server_says_so(server: Server) -> None:
    url = url_of(server.data).replace("http://", "https://")
    with pytest.raises(StoreUnavailable, match="TLS") as error:
        enqueue(Beaver(url, token="t", timeout="500ms"), awaited=False)
    assert "http://" in str(error.value)


# -- crowds and forks ----------------------------------------------------------------------------


def test_more_threads_than_connections_all_get_their_answers(server: Server) -> None:
    app = Beaver(url_of(server.data), token=token_of(server.data), timeout=60)
    crowd = CONNECTIONS_MAX + 20
    with ThreadPoolExecutor(crowd) as threads:
        ends = list(
            threads.map(lambda n: app.enqueue("add", {"a": n, "b": 1}).result(60), range(crowd))
        )
    assert ends == [n + 1 for n in range(crowd)]
    app.close()


def test_waits_beyond_the_long_polls_of_a_token_are_answered(server: Server) -> None:
    """Waits of threads and of a loop, more than a server holds for one token."""
    app = Beaver(url_of(server.data), token=token_of(server.data), timeout=60)
    app.client.set_queue("late", paused=True)
    handles = [app.enqueue("add", {"a": n, "b": 0}, queue="late") for n in range(100)]

    async def wait_all() -> list[int]:
        waits = [asyncio.ensure_future(one.aresult(timeout=60)) for one in handles]
        await asyncio.sleep(1)
        await app.aclient.set_queue("late", paused=False)  # Other calls come through meanwhile.
        return list(await asyncio.gather(*waits))

    assert asyncio.run(wait_all()) == list(range(100))
    app.close()


def test_a_forked_child_asks_by_connections_of_its_own(server: Server) -> None:
    """Also where a thread was in the middle of a call, and a loop had connections, at the fork."""
    app = Beaver(url_of(server.data), token=token_of(server.data))
    assert app.enqueue("add", {"a": 1, "b": 1}).result(timeout=20) == 2

    async def fork_in_between() -> int:
        await app.astatus()
        client: Any = app.connection
        client._client._lock.acquire()
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if app.enqueue("add", {"a": 1, "b": 2}).result(timeout=20) == 3 else 1)
            finally:
                os._exit(2)
        client._client._lock.release()
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        await app.astatus()
        await app.aclose()
        return os.waitstatus_to_exitcode(status)

    assert asyncio.run(fork_in_between()) == 0
    assert app.enqueue("add", {"a": 2, "b": 2}).result(timeout=20) == 4
    app.close()


def test_the_token_of_this_machines_server_is_found_and_given_to_nobody_else(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BEAVER_DATA", str(server.data))
    monkeypatch.setenv("BEAVER_URL", url_of(server.data))
    app = Beaver()
    assert app.store == url_of(server.data)
    assert app.status().running
    app.close()
    with stranger(says(TAKEN)) as other:
        enqueue(Beaver(other.url), awaited=False)
        assert b"Authorization" not in other.requests[0]
    monkeypatch.setenv("BEAVER_DATA", str(tmp_path))
    with pytest.raises(AccessDenied, match="token is needed"):
        Beaver().status()


def test_nothing_of_http_is_loaded_before_a_url_is_named() -> None:
    program = """
import sys
from beaver import Beaver
app = Beaver("data")
app.job(lambda: None, name="x")
loaded = {"ssl", "http.client", "aiohttp", "email", "beaver.client.http"} & {*sys.modules}
assert not loaded, loaded
Beaver("http://127.0.0.1:1")
assert "aiohttp" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
