"""HTTP: any request gets an answer of the kind that its path allows, and the server lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from beaver.server.http.listener import HttpServer
from tests.fuzz.limits import TooMuchMemory, limits, within_limits
from tests.fuzz.visitor import STATUSES
from tests.worlds.http import no_store

HALF_A_REQUEST_S = 0.05
"""How long an answer to garbage may take before we go: the server may wait for the rest."""

PATHS = ["/metrics", "/healthz", "/readyz", "/", "/v1/jobs", "*", "http://x/healthz"]

WORDS = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=20)
TARGETS = st.builds(
    lambda path, tail, query: path + tail + query,
    st.sampled_from(PATHS),
    st.sampled_from(["", "/", "/..", "%00", "%ff", "/" * 50, "x" * 9_000]) | WORDS,
    st.sampled_from(["", "?", "?a=b&a", "?%", "#x"]) | WORDS.map("?{}".format),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "X"])
HEADERS = st.sampled_from(
    [
        "Host: x", "Content-Length: 0", "Content-Length: -1", "Content-Length: 99999999999999",
        "Content-Length: x", "Transfer-Encoding: chunked", "Expect: 100-continue", "Expect: y",
        "Connection: upgrade\r\nUpgrade: websocket", "Accept-Encoding: gzip", "Range: bytes=5-1",
        "X: " + "y" * 9_000, "no colon", ": empty", "Cookie: " + "a=b;" * 50, "Content-Type: \xff",
    ]
)  # fmt: skip
BODIES = st.sampled_from([b"", b"0\r\n\r\n", b"zz\r\n", b"{", b"\0" * 100]) | st.binary(max_size=99)


class Site:
    """A server on a free port of loopback, on a loop of its own for many requests."""

    def __init__(self, make_registry: Callable[[], CollectorRegistry] = CollectorRegistry) -> None:
        self.runner = asyncio.Runner()
        self.server = HttpServer(make_registry, lambda: None, no_store())
        address = self.runner.run(self.server.start("127.0.0.1", 0, explicit=True))
        self.port = int(address.rpartition(":")[2])

    def send(self, raw: bytes, seconds: float = 10.0) -> bytes:
        """Sends bytes and returns the first that is answered; none where more is waited for."""

        async def main() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(raw)
                async with asyncio.timeout(seconds):
                    return await reader.read(1 << 16)
            except (TimeoutError, ConnectionResetError, BrokenPipeError):
                return b""  # It waits for more, or hung up on us.
            finally:
                writer.close()

        return self.runner.run(main())

    def talk(self, raw: bytes, expected: int, moment_s: float) -> tuple[bytes, bool]:
        """Sends bytes, reads as many as are expected, and for a moment whether more comes.

        Returns:
            What was answered, and whether the server hung up.
        """

        async def main() -> tuple[bytes, bool]:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            found = bytearray()
            try:
                writer.write(raw)
                async with asyncio.timeout(10):
                    while len(found) < expected:
                        piece = await reader.read(1 << 16)
                        if not piece:
                            return bytes(found), True
                        found += piece
                async with asyncio.timeout(moment_s):
                    found += await reader.read()
            except TimeoutError:
                return bytes(found), False
            except ConnectionResetError:
                return bytes(found), True
            finally:
                writer.close()
            return bytes(found), True

        return self.runner.run(main())

    def close(self) -> None:
        self.runner.run(self.server.close())
        self.runner.close()

    def pour(self, head: bytes, piece: bytes, count: int) -> bytes:
        """Sends a head and then `count` pieces; returns what was answered first, if anything."""

        async def main() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            answer = asyncio.ensure_future(reader.read(1 << 16))
            try:
                writer.write(head)
                with suppress(ConnectionError):
                    for _ in range(count):
                        writer.write(piece)
                        await writer.drain()
                async with asyncio.timeout(10):
                    return await answer
            except (TimeoutError, ConnectionError):
                return b""
            finally:
                answer.cancel()
                writer.close()

        return self.runner.run(main())


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    try:
        yield site
    finally:
        site.close()


def check(
    site: Site, caplog: pytest.LogCaptureFixture, raw: bytes, seconds: float = HALF_A_REQUEST_S
) -> list[int]:
    """Sends bytes; returns the statuses, and sees to it that nothing broke.

    Args:
        site: Who is asked.
        caplog: What it logs.
        raw: The bytes.
        seconds: How long an answer is waited for; where there has to be one, longer than a busy
            machine takes.
    """
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        answer = site.send(raw, seconds)
    broken = [r for r in caplog.records if r.exc_info and "Error handling request" not in r.message]
    assert not broken, caplog.text
    statuses = [int(line[9:12]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]
    assert STATUSES.issuperset(statuses), answer[:500]
    assert b" 200 " in site.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return statuses


fuzzing = settings(
    suppress_health_check=list(HealthCheck),
    deadline=None,
)


@pytest.mark.invariants
@fuzzing
@given(target=TARGETS, method=METHODS, headers=st.lists(HEADERS, max_size=4), body=BODIES)
def test_any_request_is_answered_and_the_server_lives(
    site: Site,
    caplog: pytest.LogCaptureFixture,
    target: str,
    method: str,
    headers: list[str],
    body: bytes,
) -> None:
    head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: here", *headers, "", ""])
    statuses = check(site, caplog, head.encode("latin-1") + body)
    event(f"answered {statuses[:1]}")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/metrics?" + "x" * 500, "/%2e%2e/etc/passwd", "//healthz"])
def test_odd_paths_are_answered_at_once(site: Site, method: str, path: str) -> None:
    answer = site.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert int(answer[9:12]) in STATUSES


@pytest.mark.parametrize(
    ("request_line", "rest", "status"),
    [
        ("GET http://xn--a/healthz", b"\r\n", 200),
        ("GET http://xn--a/nothing", b"\r\n", 401),
        ("GET /healthz", b"Expect: \xa4\r\n\r\n", 400),
        ("GET /nothing", b"Expect: 100-c\xa4\r\n\r\n", 400),
        ("POST /healthz", b"Content-Encoding: deflate\r\nContent-Length: 3\r\n\r\nabc", 405),
    ],
)
def test_what_aiohttp_alone_does_not_stand_is_answered(
    site: Site, caplog: pytest.LogCaptureFixture, request_line: str, rest: bytes, status: int
) -> None:
    """A host that is no name, an `Expect` that is no text, and a body that was never packed."""
    head = f"{request_line} HTTP/1.1\r\nHost: localhost\r\n"
    assert check(site, caplog, head.encode() + rest, seconds=60) == [status]


@pytest.mark.invariants
@fuzzing
@given(raw=st.binary(max_size=300))
def test_any_bytes_at_all_disturb_nobody(
    site: Site, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    check(site, caplog, raw)


REQUEST_BYTES_MAX = 3 << 20
"""Memory that any request may take, whatever comes behind its head: the buffers of the client,
which is in this process and may run ahead of the server, included (2.05 MiB were seen)."""
PIECE = bytes(64 << 10)
LARGE = {
    "a body that is announced": (b"Content-Length: 67108864\r\n\r\n", PIECE, 1_024),
    "a body in chunks": (
        b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + PIECE + b"\r\n", 1_024,
    ),
    "a chunk without an end": (b"Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n", PIECE, 1_024),
    "a header without an end": (b"X: ", b"y" * len(PIECE), 1_024),
    "headers without an end": (b"", b"X: y\r\n" * 1_000, 1_024),
}  # fmt: skip


@pytest.mark.parametrize("what", LARGE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_of_64_mib_takes_no_memory_for_it(site: Site, method: str, what: str) -> None:
    head, piece, count = LARGE[what]
    site.send(b"GET /healthz HTTP/1.1\r\n\r\n")

    def pour(_: bytes) -> bytes:
        begin = f"{method} /metrics HTTP/1.1\r\nHost: localhost\r\n".encode()
        return site.pour(begin + head, piece, count)

    answer = within_limits(pour, b"", constant=REQUEST_BYTES_MAX, factor=0)
    assert not answer or int(answer[9:12]) in STATUSES
    assert b" 200 " in site.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_a_server_that_keeps_what_it_is_sent_is_seen(site: Site) -> None:
    kept = bytearray()
    with pytest.raises(TooMuchMemory), limits(0, constant=REQUEST_BYTES_MAX, factor=0):
        for _ in range(100):
            kept += PIECE


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_the_pages_that_there_are_answer(site: Site, path: str) -> None:
    assert site.send(f"GET {path} HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.0 200")
    assert site.send(f"POST {path} HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.0 405")
    assert site.send(f"GET {path}/x HTTP/1.0\r\n\r\n".encode()).startswith(b"HTTP/1.0 401")
