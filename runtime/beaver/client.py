"""The blocking client: calls over the local socket, from any number of threads.

Threads share one connection.  Each sends its frame and waits for its own answer; one of
those that wait reads for all, and when it has its answer another one takes over, so there
is no thread in the background and a long `wait` holds up nobody.

A client belongs to the process that made it.  What may not live here: asyncio, which the
command line must not import (`async_client` is the same over asyncio).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from beaver import calls, endpoint, protocol
from beaver.calls import Call, Operations, Synchronous
from beaver.endpoint import Greeting, ServerInfo
from beaver.errors import BeaverError, InvalidInput, ServerGone, StoreUnavailable
from beaver.messages import Request
from beaver.views import Enqueued
from beaver_model.bounds import BATCH_JOBS_MAX

T = TypeVar("T")

PIPELINE_MAX: Final = 64
"""Calls of one `call_each` that are under way at once."""

BATCHES_MAX: Final = 16
"""Batches of one `enqueue_each` that are under way at once: the server commits several together."""

BATCHES_MIN: Final = 2
"""So many batches are under way at once, however large they are."""

_CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
_RECEIVE_BYTES: Final = 1 << 18
_OTHER_READS_S: Final = 0.01
"""For so long a thread that has to send leaves the reading to another one, and looks again."""
_SPIN_S: Final = 0.0003
"""For so long an answer is looked for before the thread sleeps: a few syncs of a fast disk."""


class NoServer(StoreUnavailable):
    """What was asked for needs a running server, and none holds the directory."""


def frame_of(number: int, call: Call[Any]) -> bytes:
    """Returns the frame of a call.

    Raises:
        InvalidInput: It is longer than a server reads.
    """
    frame = protocol.encode_frame([number, call.op, call.body])
    if len(frame) > protocol.FRAME_BYTES_MAX:
        raise InvalidInput(
            f"a request of {len(frame)} bytes; at most {protocol.FRAME_BYTES_MAX} are sent at once"
        )
    return frame


def gone(op: str) -> ServerGone:
    """Returns the error of a call whose answer will not come."""
    if op in ("enqueue", "requeue", "discard", "cancel", "set_queue"):
        return ServerGone(
            f"the server went away before it answered {op!r}; the outcome is unknown\n"
            + (
                "Sending the same again is safe."
                if op == "enqueue"
                else "`beaver show` or `beaver status` tells what became of it."
            )
        )
    if op == "wait":
        return ServerGone(
            "the server went away while its answer was awaited\n"
            "What was enqueued stays so, and runs once a server does; waiting again is safe."
        )
    return ServerGone(f"the server went away before it answered {op!r}")


class _Slot:
    """The place where one answer is awaited."""

    __slots__ = ("done", "op", "value")

    def __init__(self, op: str) -> None:
        self.op = op
        self.done = False
        self.value: Any = None
        """`(status, body)`, or `None` where the connection was lost."""


class Client(Operations, Synchronous):
    """A connection to a server.  Get one from `connect`."""

    def __init__(
        self, connection: socket.socket, greeting: Greeting, info: ServerInfo | None = None
    ) -> None:
        self.greeting = greeting
        """What the server said of itself."""
        self.info = info
        """What `server.json` said, where the server was found by its directory."""
        self.process = os.getpid()
        """The process that may use this client: a forked child must connect anew."""
        self._connection = connection
        self._reader = protocol.FrameReader()
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._slots: dict[int, _Slot] = {}
        self._reads = False
        """Some thread is reading for all."""
        self._lost = False

    @property
    def closed(self) -> bool:
        """The connection is gone or closed; connect anew."""
        return self._lost

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the error that answers it, or `ServerGone`."""
        return _answer(call, self._receive(self._send(call)))

    def call_each(self, calls: Iterable[Call[T]], under_way: int = PIPELINE_MAX) -> Iterator[T]:
        """Carries out calls, of which several are under way at once; yields in their order.

        Those are `under_way` at most, and no more jobs, in more than `BATCHES_MIN` batches, than
        a commit may have.

        It raises the first error that answers one; calls that were sent by then are carried out
        all the same.  What `calls` itself raises comes behind the answers to what was sent.
        """
        sent: deque[tuple[Call[T], _Slot]] = deque()
        jobs = 0
        failure: Exception | None = None
        source = iter(calls)
        while failure is None:
            try:
                call = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below
                failure = error
                break
            jobs += call.jobs
            while len(sent) >= under_way or (len(sent) >= BATCHES_MIN and jobs > BATCH_JOBS_MAX):
                first, slot = sent.popleft()
                jobs -= first.jobs
                yield _answer(first, self._receive(slot))
            sent.append((call, self._send(call)))
        for first, slot in sent:
            yield _answer(first, self._receive(slot))
        if failure is not None:
            raise failure

    def enqueue_each(self, batches: Iterable[Sequence[Request]]) -> Iterator[list[Enqueued]]:
        """See `Synchronous`: several batches are under way at once."""
        return self.call_each(map(calls.enqueue, batches), BATCHES_MAX)

    def close(self) -> None:
        """Ends the connection; calls under way get `ServerGone`."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._lose()
        self._connection.close()

    def detach(self) -> socket.socket:
        """Gives up the connection, on which nothing may be under way, and returns it."""
        assert not self._slots, "no call is under way"
        self._lost = True
        return socket.socket(fileno=self._connection.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- one connection, many threads ---------------------------------------------------

    def _send(self, call: Call[Any]) -> _Slot:
        number = next(self._numbers)
        frame = frame_of(number, call)
        slot = _Slot(call.op)
        with self._changed:
            if self._lost:
                raise ServerGone("the connection to the server is closed; nothing was sent")
            self._slots[number] = slot
        try:
            with self._sending:
                self._put(frame)
        except (OSError, ValueError):  # Of a closed socket: its descriptor is -1.
            with self._changed:
                self._lose()
        except BaseException:
            # A frame may be half sent: nothing can follow it.
            with self._changed:
                self._lose()
            raise
        return slot

    def _put(self, frame: bytes) -> None:
        """Sends a frame, and reads answers where it has to wait for room.

        The server takes no more requests while its answers are not read: whoever only sends,
        and all others behind him, would wait for ever.
        """
        rest = memoryview(frame)
        while True:
            try:
                rest = rest[self._connection.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                self._await_room()
            if not rest:
                return

    def _await_room(self) -> None:
        """Waits until there is room, or an answer was read."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN | select.POLLOUT)
        [(_, events)] = poll.poll()
        if events & select.POLLOUT:
            return
        with self._changed:
            if self._reads:
                self._changed.wait(_OTHER_READS_S)
            else:
                self._read_for_all(_receive_now)

    def _receive(self, slot: _Slot) -> _Slot:
        with self._changed:
            while not slot.done:
                if self._reads:
                    self._changed.wait()
                else:
                    self._read_for_all(_receive_soon)
        return slot

    def _read_for_all(self, receive: Callable[[socket.socket], bytes | None]) -> None:
        """Reads once and hands out what came.  Called with the condition held."""
        self._reads = True
        self._changed.release()
        received: bytes | None = b""
        try:
            with contextlib.suppress(OSError):
                received = receive(self._connection)
        finally:
            self._changed.acquire()
            self._reads = False
            self._changed.notify_all()
        if received is None:
            return
        try:
            if not received:
                self._lose()
            for body in self._reader.feed(received):
                number, status, answer = protocol.decode_answer(body)
                slot = self._slots.pop(number, None)
                if slot is not None:
                    slot.value, slot.done = (status, answer), True
        except (BeaverError, TypeError, ValueError):
            self._lose()  # What came is no answer: nothing after it can be trusted.

    def _lose(self) -> None:
        self._lost = True
        for slot in self._slots.values():
            slot.done = True
        self._slots.clear()
        self._changed.notify_all()


def _receive_soon(connection: socket.socket) -> bytes:
    """Receives, looking again and again for a moment before it waits.

    An answer needs a sync of the log, a tenth of a millisecond on a fast disk: to fall asleep
    and be woken takes as long again.  On a single core the server needs that core.
    """
    until_s = time.perf_counter() + (_SPIN_S if _CORES > 1 else 0.0)
    while time.perf_counter() < until_s:
        try:
            return connection.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            os.sched_yield()
    return connection.recv(_RECEIVE_BYTES)


def _receive_now(connection: socket.socket) -> bytes | None:
    """Receives what is there; `None` where somebody else has read it."""
    try:
        return connection.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None


def _answer(call: Call[T], slot: _Slot) -> T:
    if slot.value is None:
        raise gone(call.op)
    status, body = slot.value
    if status:
        raise protocol.decode_error(body)
    return call.finish(call.parse(body))


def connect(data: str | os.PathLike[str]) -> Client:
    """Connects to the server that holds a data directory, or to a `unix:` URL.

    Raises:
        NotFound: There is no such directory.
        StoreUnavailable: No server holds it, or it cannot be used.
    """
    client = find(data)
    if client is None:
        raise no_server(os.fspath(data))
    return client


def no_server(data: str) -> NoServer:
    """Returns the error that says that no server runs on `data`."""
    path = socket_of_url(data)
    if path is not None:
        return NoServer(f"no server listens on {path}")
    return NoServer(f"no server runs on {data}\n`beaver run --data {data}` starts one.")


def find(data: str | os.PathLike[str]) -> Client | None:
    """Connects as `connect` does; `None` where no server holds the directory."""
    data = os.fspath(data)
    if (path := socket_of_url(data)) is not None:
        found = endpoint.reach_socket(path)
        return None if found is None else Client(*found)
    endpoint.require_directory(data)
    reached = endpoint.reach(data)
    return None if reached is None else Client(*reached)


def socket_of_url(url: str) -> str | None:
    """Returns the path in a `unix:` URL; `None` for a data directory.

    Raises:
        InvalidInput: It is a URL of another kind.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or "/" in scheme or Path(url).exists():
        return None
    if scheme == "unix":
        return "/" + rest.lstrip("/") if rest.startswith("//") else rest
    if scheme in ("http", "https", "nats", "tcp"):
        raise InvalidInput(
            f"{url}: this release reaches a store by its data directory or a unix: URL; "
            f"{scheme} URLs come with the network service"
        )
    return None
