"""A client of the HTTP pages without a socket, in time that only the test lets pass.

The pages run as they are, on the loop of the simulator; what stands in for the kernel is the
server's end of a connection.  `test_visitor.py` shows that the same bytes get the same answers
through a real socket.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

from aiohttp import web_protocol
from aiohttp.http_parser import HttpRequestParserPy
from prometheus_client import CollectorRegistry, Gauge

from beaver.server.http.doors import KEEPALIVE_S, Door
from beaver.server.http.pages import Pages
from beaver_chaos.sim.loop import SimLoop
from tests.worlds.http import no_store

STATUSES = {100, 200, 400, 401, 403, 404, 405, 408, 413, 414, 417, 431, 501, 503, 505}
"""What a request may get."""

LINGERING_S = 10.0
"""For so long aiohttp throws away what comes of a body that nobody wants."""
IDLE_S = KEEPALIVE_S + LINGERING_S + 2
"""After so long without a byte there is no connection any more; aiohttp rounds up to seconds."""
STEPS_MAX = 20_000
"""Far more steps of the loop than 8 KiB of requests take."""

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
REGISTRY = CollectorRegistry()
Gauge("jobs", "Something for the page of metrics to show.", registry=REGISTRY)
_BAD_REQUEST = "Error handling request"
_HEAD = re.compile(rb"HTTP/\d\.\d (\d{3}) [ -~]+\r\n((?:[A-Za-z-]+: [\x20-\xff]*\r\n)*)\r\n")
"""aiohttp answers in the version that it was asked in, whatever that is."""
_LENGTH = re.compile(rb"^Content-Length: (\d+)\r$", re.MULTILINE)


class Wire(asyncio.Transport):
    """The server's end of a connection, over a client that reads at once or only when told."""

    def __init__(self, handler: asyncio.Protocol, *, reads: bool) -> None:
        super().__init__()
        self.sent = bytearray()
        self.open = True
        self._handler, self._reads = handler, reads
        self._loop = asyncio.get_running_loop()
        self._unread, self._held = False, bytearray()
        self._stopped = False
        handler.connection_made(self)

    # -- what the client does ----------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """The client has sent bytes; they wait while the server does not read."""
        self._held += data
        self._deliver()

    def read(self) -> None:
        """A client that does not read by itself takes what is there."""
        if self._unread and self.open:
            self._unread = False
            self._handler.resume_writing()

    def leave(self) -> None:
        """The client is gone, whatever it has not read."""
        self._end(ConnectionResetError())

    def _end(self, error: ConnectionResetError | None) -> None:
        """As every transport does it, the loop tells the server, behind what it has to do."""
        if self.open:
            self.open = False
            self._loop.call_soon(self._handler.connection_lost, error)

    def _deliver(self) -> None:
        if self._held and self.open and not self._stopped:
            data, self._held = bytes(self._held), bytearray()
            self._handler.data_received(data)

    # -- asyncio.Transport -------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if not self.open:
            return
        self.sent += data
        if not self._reads and not self._unread:
            self._unread = True
            self._handler.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self._end(None)

    abort = close

    def is_closing(self) -> bool:
        return not self.open

    def pause_reading(self) -> None:
        self._stopped = True

    def resume_reading(self) -> None:
        self._stopped = False
        self._loop.call_soon(self._deliver)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default


class Answer(NamedTuple):
    """One answer of a stream."""

    status: int
    head: bytes
    body: bytes


class Visit(NamedTuple):
    """What came of a connection."""

    answers: list[Answer]
    sent: bytes
    hung_up: bool
    """The server ended it as soon as it had answered."""
    late: list[Answer]
    """What it said before it ended a connection on which nothing more happened."""


def visit(
    *pieces: bytes,
    ready: bool = True,
    reads: bool = True,
    stays: bool = True,
    in_python: bool = False,
) -> Visit:
    """Sends bytes to fresh pages over one connection, and sees to it that all is well there.

    Args:
        pieces: What is sent, each once the server is at rest.
        ready: The server takes work.
        reads: The client reads what it is sent at once; otherwise only before its next piece.
        stays: The client waits for its answers; otherwise it is gone with its last byte.
        in_python: The requests are parsed by aiohttp's parser in Python.  It shows its branches
            to atheris, which the one in C does not; nobody runs it where there are wheels.  So
            the server has to live, and faults of the parser's own (a page of 500) are let be.
    """
    loop = SimLoop(_in_order, steps_max=STEPS_MAX)  # type: ignore[abstract]
    with _errors_logged() as logged, _nothing_left(loop):
        found = loop.run(_visit(pieces, ready, reads, stays, in_python))
    assert found is not None
    if not in_python:
        assert STATUSES.issuperset(answer.status for answer in found.answers), found.sent[:500]
        assert not logged, [(record.getMessage(), record.exc_info) for record in logged]
    return found


def _in_order(count: int) -> int:
    return 0


@contextmanager
def _nothing_left(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Ends what a visit that failed leaves: aiohttp makes tasks of which the loop does not know."""
    try:
        yield
    finally:
        for task in asyncio.all_tasks(loop):
            silent: Any = task
            silent._log_destroy_pending = False
            silent.get_coro().close()


async def _visit(
    pieces: Sequence[bytes], ready: bool, reads: bool, stays: bool, in_python: bool
) -> Visit:
    pages = Pages(REGISTRY, lambda: None if ready else "it is starting", no_store(), "127.0.0.1")
    await pages.open([])
    server = pages._runner.server
    assert server is not None
    doors = pages._doors
    assert doors is not None
    with _parser(in_python):
        door = doors()
    assert isinstance(door, Door)
    wire = Wire(door, reads=reads)
    task = door._handler._task_handler  # type: ignore[attr-defined]
    assert task is not None
    for piece in pieces[:-1]:
        wire.receive(piece)
        await _rest()
        wire.read()
    wire.receive(pieces[-1])
    if not stays:
        wire.leave()
    await _rest()
    hung_up = stays and not wire.open

    neighbour = Wire(doors(), reads=True)
    neighbour.receive(HEALTHZ)
    await _rest()
    (answer,) = answers(bytes(neighbour.sent))
    assert (answer.status, answer.body) == (200, b"ok\n"), "the server lives"
    neighbour.leave()

    while wire._unread and wire.open:
        wire.read()
        await _rest()
    sent = bytes(wire.sent)
    await asyncio.sleep(IDLE_S)
    assert not wire.open, "a connection on which nothing happens is not kept"
    assert server.connections == [], "nothing is left of a connection"
    assert task.done()
    assert task.cancelled() or task.exception() is None, task
    await pages.close()
    late = list(answers(bytes(wire.sent[len(sent) :])))
    assert {answer.status for answer in late} <= {408}
    return Visit(list(answers(sent, cut=not stays)), sent, hung_up, late)


async def _rest() -> None:
    """Lets all run that needs no time."""
    await asyncio.sleep(0.001)


@contextmanager
def _parser(in_python: bool) -> Iterator[None]:
    if not in_python:
        yield
        return
    with mock.patch.object(web_protocol, "HttpRequestParser", HttpRequestParserPy):
        yield


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if _BAD_REQUEST not in record.getMessage():
            self.records.append(record)


@contextmanager
def _errors_logged() -> Iterator[list[logging.LogRecord]]:
    """Keeps what aiohttp logs, beyond requests that could not be understood."""
    kept, log = _Kept(), logging.getLogger("beaver.http.server")
    passed_on, log.propagate = log.propagate, False
    log.addHandler(kept)
    try:
        yield kept.records
    finally:
        log.removeHandler(kept)
        log.propagate = passed_on


def answers(stream: bytes, *, cut: bool = False) -> Iterator[Answer]:
    """Reads what a server has sent, which is whole answers and nothing else.

    Args:
        stream: The bytes.
        cut: The last answer may end early.
    """
    at = 0
    while at < len(stream):
        found = _HEAD.match(stream, at)
        if found is None:
            assert cut, f"no answer: {stream[at : at + 200]!r}"
            return
        length = _LENGTH.search(found[2])
        body = found.end()
        at = body + (int(length[1]) if length is not None else 0)
        if not (at == len(stream) or _HEAD.match(stream, at) or (cut and at > len(stream))):
            at = body  # Asked for a head: its length is that of a body which does not come.
        yield Answer(int(found[1]), found[0], stream[body:at])
