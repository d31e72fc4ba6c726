"""HTTP connections are bounded: how many there are, and how long each may take."""

from __future__ import annotations

import asyncio
import logging

import pytest
from prometheus_client import CollectorRegistry, Gauge

from beaver.server.http import doors
from beaver.server.http.listener import HttpServer
from beaver.server.http.pages import MetricsPage
from tests.worlds.http import no_store
from tests.worlds.runtime import on_loop

LATE_S = 0.15
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Site:
    """A server on a free port, and connections to it."""

    def __init__(self, connections_max: int = 1_000) -> None:
        self.server = HttpServer(CollectorRegistry, lambda: None, no_store(), connections_max)
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Site:
        address = await self.server.start("127.0.0.1", 0, explicit=False)
        self.port = int(address.rpartition(":")[2])
        return self

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        writer.write(sent)
        return reader, writer

    async def __aexit__(self, *_: object) -> None:
        for writer in self.writers:
            writer.close()
        await self.server.close()


async def status(reader: asyncio.StreamReader) -> int:
    """Reads one answer without a body of its own length; returns its status."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    (length,) = [line[16:] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
    await reader.readexactly(int(length))
    return int(head[9:12])


def patience(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    for name in ("HEAD_S", "BODY_S", "UNREAD_S", "KEEPALIVE_S"):
        monkeypatch.setattr(doors, name, seconds.get(name, 60.0))


@on_loop
async def test_at_the_limit_clients_are_served_and_one_more_gets_503() -> None:
    async with Site(connections_max=3) as site:
        kept = [await site.connect() for _ in range(3)]
        for reader, writer in kept:
            writer.write(WHOLE)
            assert await status(reader) == 200
        reader, _ = await site.connect(WHOLE)
        assert await status(reader) == 503
        assert await reader.read() == b"", "and the server hangs up"
        kept[0][1].close()
        async with asyncio.timeout(10):
            while True:
                reader, _ = await site.connect(WHOLE)
                if await status(reader) == 200:
                    break


@on_loop
async def test_those_that_are_refused_and_stay_silent_are_bounded_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doors, "_REFUSED_S", 60.0)
    async with Site(connections_max=1) as site:
        reader, writer = await site.connect(WHOLE)
        assert await status(reader) == 200
        silent = [(await site.connect())[0] for _ in range(3)]
        done = [asyncio.create_task(reader.read()) for reader in silent]
        finished, waiting = await asyncio.wait(done, timeout=1.0)
        assert len(finished) == 2, "one of them is waited for, the others are hung up on"
        for task in waiting:
            task.cancel()
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"])
@on_loop
async def test_a_head_that_does_not_come_in_time_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    patience(monkeypatch, HEAD_S=LATE_S)
    async with Site() as site:
        reader, _ = await site.connect(sent)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408 ")


@on_loop
async def test_a_head_in_single_bytes_has_no_more_time_than_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience(monkeypatch, HEAD_S=LATE_S)
    async with Site() as site:
        reader, writer = await site.connect(WHOLE)
        assert await status(reader) == 200, "the head of a second request has the same bound"

        async def drip() -> None:
            for byte in b"GET /" + b"x" * 10_000:
                writer.write(bytes([byte]))
                await asyncio.sleep(LATE_S / 10)

        dripping = asyncio.create_task(drip())
        said = await asyncio.wait_for(reader.read(), 10)
        dripping.cancel()
        assert said.startswith(b"HTTP/1.1 408 ")


@on_loop
async def test_a_body_that_does_not_come_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer comes at once, since nothing reads a body here."""
    patience(monkeypatch, BODY_S=LATE_S, KEEPALIVE_S=LATE_S)
    async with Site() as site:
        head = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        reader, _ = await site.connect(head)
        assert await status(reader) == 405
        assert await asyncio.wait_for(reader.read(), 10) == b""


@on_loop
async def test_who_asks_nothing_more_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    patience(monkeypatch, KEEPALIVE_S=LATE_S)
    async with Site() as site:
        reader, _ = await site.connect(WHOLE + WHOLE)
        assert [await status(reader), await status(reader)] == [200, 200]
        assert await asyncio.wait_for(reader.read(), 10) == b""


@on_loop
async def test_a_malformed_request_is_one_line_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """It is no trouble of the server's: no warning, no traceback, nothing that breaks a line."""
    with caplog.at_level(logging.DEBUG):
        async with Site() as site:
            for sent in (b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nno\x1b[31m colon\r\n\r\n"):
                reader, _ = await site.connect(sent)
                assert await status(reader) == 400
    told = [r for r in caplog.records if r.name.startswith(("beaver", "aiohttp"))]
    assert [record.levelno for record in told] == [logging.DEBUG] * 2, caplog.text
    for record in told:
        text = logging.Formatter().format(record)
        assert text.startswith("malformed HTTP request")
        assert len(text) < 400
        assert text.isprintable()


@on_loop
async def test_scrapes_at_once_share_one_page() -> None:
    registry = CollectorRegistry()
    made = 0

    def value() -> float:
        nonlocal made
        made += 1
        return made

    Gauge("pages_made", "Counts", registry=registry).set_function(value)
    page = MetricsPage(registry, None)
    bodies = await asyncio.gather(*(page.get() for _ in range(100)))
    assert made == 1
    assert len(set(bodies)) == 1


@on_loop
async def test_a_page_that_cannot_be_made_is_made_again() -> None:
    fails = True

    async def prepare() -> None:
        if fails:
            raise MemoryError

    page = MetricsPage(CollectorRegistry(), prepare)
    with pytest.raises(MemoryError):
        await page.get()
    fails = False
    assert await page.get() == b""
