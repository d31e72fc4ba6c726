"""The helper process: takes requests from the server and forks a child for each.

Frames as in `transport.framing`, over the socket that is its standard input.  A request is
`[number, op, args]`, an answer `[number, 0, result]` or `[number, 1, [class, message]]`.
The process itself does nothing but pass them on, so it stays small and single-threaded,
and forking from it is cheap and safe.

Questions about jobs come often and are small, so one child stays for them as long as they come.

It ends with the server: the kernel tells it on Linux, and the end of the socket everywhere.
Then its whole group goes at once; whatever it was doing is either finished or, under a
temporary name, never was.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from beaver.errors import BeaverError, HelperFailed
from beaver.helper import work
from beaver.history import stories
from beaver.history.endings import find_endings
from beaver.history.walking import Walker
from beaver.journal.wal.layout import Layout
from beaver.structs.questions import Known, Search, Wanted
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver.system.kinship import die_with_parent
from beaver.transport.framing import (
    FRAME_BYTES_MAX,
    FrameReader,
    decode_message,
    encode_error,
    encode_frame,
)
from beaver_model.contents import Glance

_READ_BYTES: Final = 1 << 16
TELLER_IDLE_S: Final = 2.0
"""How long the child that answers questions about jobs stays idle before it ends."""
_ATTEMPTS: Final = 5
TOLD_BYTES_MAX: Final = 4 << 20
"""Bound on the stories of several jobs in one answer; a single larger story still fits."""
STORY_BYTES_MAX: Final = FRAME_BYTES_MAX // 2
_NICE: Final = {"prepare": 10, "snapshot": 10, "project": 10, "find": 5, "tell": 5}
"""Children yield where server and workers want the cores as well: at 10 a tenth of them is left."""
_STAYING: Final = frozenset({"tell", "endings", "walk", "enqueued"})
"""Questions that come often: the child that answers them stays."""
_DOING: Final = {
    "prepare": "preparing a segment for the log",
    "snapshot": "taking a snapshot",
    "project": "bringing up the history",
    "find": "listing finished jobs",
    "tell": "reading the events of jobs",
    "endings": "reading how attempts ended",
    "walk": "reading the log",
    "enqueued": "listing jobs",
}
"""The name of a request in errors."""


def main() -> None:
    """Serves the store named by the arguments until standard input ends."""
    data, parent_pid = sys.argv[1], int(sys.argv[2])
    die_with_parent(parent_pid, signal.SIGKILL)
    # These are for the server; this process ends when the server does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=0)
    try:
        _Dispatcher(connection, Layout(data)).run()
    except ConnectionError:
        pass  # The server hung up on an answer that nobody waits for: an end like any other.
    except OSError as error:
        print(f"beaver helper: {error}", file=sys.stderr)  # noqa: T201 - no logging here
    finally:
        os.killpg(os.getpgrp(), signal.SIGKILL)


def frame_of(body: bytes) -> bytes:
    """Returns the frame around a body that was read."""
    return struct.pack("<I", len(body)) + body


class _Child(NamedTuple):
    """A request that a child is working on."""

    pid: int
    number: int
    op: str
    answer: bytearray


class _Teller:
    """The child that answers questions about jobs."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid, self.connection = pid, connection
        self.reader = FrameReader()
        self.asked: set[int] = set()
        self.until_s = 0.0


class _Dispatcher:
    """Passes requests to children and their answers back."""

    def __init__(self, connection: socket.socket, layout: Layout) -> None:
        self._connection, self._layout = connection, layout
        self._reader = FrameReader()
        self._selector = selectors.DefaultSelector()
        self._teller: _Teller | None = None

    def run(self) -> None:
        """Returns when the server is gone."""
        self._selector.register(self._connection, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(TELLER_IDLE_S if self._teller else None):
                if key.data is None:
                    data = self._connection.recv(_READ_BYTES)
                    if not data:
                        return
                    for body in self._reader.feed(data):
                        number, op, args = decode_message(body)
                        if op in _STAYING:
                            self._ask_teller(number, body)
                        else:
                            self._start(number, op, args)
                elif isinstance(key.data, _Teller):
                    self._hear_teller(key.data)
                else:
                    self._read_answer(key.fd, key.data)
            teller = self._teller
            if teller and not teller.asked and time.monotonic() > teller.until_s:
                self._dismiss(teller)

    def _ask_teller(self, number: int, body: bytes) -> None:
        """Passes a question on to the child that stays for them, which is started if need be."""
        teller = self._teller
        if teller is None:
            ours, theirs = socket.socketpair()
            pid = self._fork(ours.fileno(), lambda: _tell_on(self._layout, theirs))
            theirs.close()
            teller = self._teller = _Teller(pid, ours)
            self._selector.register(ours, selectors.EVENT_READ, teller)
        teller.asked.add(number)
        teller.until_s = time.monotonic() + TELLER_IDLE_S
        with contextlib.suppress(OSError):  # It is dead, as is heard next.
            teller.connection.sendall(frame_of(body))

    def _hear_teller(self, teller: _Teller) -> None:
        try:
            data = teller.connection.recv(_READ_BYTES)
        except OSError:
            data = b""
        for body in teller.reader.feed(data) if data else ():
            teller.asked.discard(decode_message(body)[0])
            self._connection.sendall(frame_of(body))
        if not data:
            how = self._dismiss(teller)
            for number in teller.asked:
                error = _failed("tell", self._layout, f"the child {how}")
                self._connection.sendall(encode_error(number, error))

    def _dismiss(self, teller: _Teller) -> str:
        """Lets the child go; returns how it ended."""
        self._teller = None
        self._selector.unregister(teller.connection)
        teller.connection.close()
        _, status = os.waitpid(teller.pid, 0)
        return _how_it_ended(status)

    def _fork(self, other_end: int, work: Callable[[], None]) -> int:
        """Forks a child that does something and never returns; returns its pid."""
        own_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._connection.close()
                os.close(other_end)
                if self._teller is not None:
                    self._teller.connection.close()
                die_with_parent(own_pid, signal.SIGKILL)
                work()
            finally:
                os._exit(1)
        return pid

    def _start(self, number: int, op: str, args: list[Any]) -> None:
        read_end, write_end = os.pipe()
        pid = self._fork(read_end, lambda: _work(self._layout, number, op, args, write_end))
        os.close(write_end)
        child = _Child(pid, number, op, bytearray())
        self._selector.register(read_end, selectors.EVENT_READ, child)

    def _read_answer(self, descriptor: int, child: _Child) -> None:
        data = os.read(descriptor, _READ_BYTES)
        if data:
            child.answer.extend(data)
            return
        self._selector.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(child.pid, 0)
        frames = list(FrameReader().feed(bytes(child.answer)))
        if not frames:
            error = _failed(child.op, self._layout, f"the child {_how_it_ended(status)}")
            self._connection.sendall(encode_error(child.number, error))
            return
        self._connection.sendall(encode_frame(decode_message(frames[0])))


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"exited with {code}"


def _tell_on(layout: Layout, connection: socket.socket) -> None:
    """Answers questions about jobs in the child, until nobody asks any more."""
    with contextlib.suppress(OSError):
        os.nice(_NICE["tell"])
    reader = FrameReader()
    while data := connection.recv(_READ_BYTES):
        for body in reader.feed(data):
            number, op, args = decode_message(body)
            connection.sendall(_answer(layout, number, op, args))
    os._exit(0)


def _work(layout: Layout, number: int, op: str, args: list[Any], answer_to: int) -> None:
    """Does one request in the child and writes the answer."""
    with contextlib.suppress(OSError):
        os.nice(_NICE[op])
    # Short-lived and without cycles: collecting would only cost time and copied pages.
    gc.disable()
    frame = _answer(layout, number, op, args)
    view = memoryview(frame)
    while view:
        view = view[os.write(answer_to, view) :]
    os._exit(0)


def _answer(layout: Layout, number: int, op: str, args: list[Any]) -> bytes:
    """Does a request; returns the frame that answers it."""
    try:
        return encode_frame([number, 0, _OPS[op](layout, args)])
    except BeaverError as error:
        return encode_error(number, error)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        what = f"{error.strerror or error}{where}"
        return encode_error(number, _failed(op, layout, what))
    except Exception as error:  # noqa: BLE001 - the server has to learn of any error
        return encode_error(number, _failed(op, layout, f"{type(error).__name__}: {error}"))


def _failed(op: str, layout: Layout, how: str) -> HelperFailed:
    """Returns the error of a request that was not carried out: what, where, why."""
    return HelperFailed(f"{_DOING[op]} of {layout.path} failed: {how}")


def _prepare(layout: Layout, args: list[Any]) -> None:
    path, size = args
    work.prepare_segment(SystemDisk(), path, size)


def _snapshot(layout: Layout, args: list[Any]) -> tuple[Any, ...]:
    last_seq, keep_bytes, keep_ms, seen = args
    live = msgspec.convert(seen, Glance | None)
    taken = work.snapshot_and_prune(
        SystemDisk(), layout, last_seq, keep_bytes, keep_ms, SystemClock(), live
    )
    return msgspec.structs.astuple(taken)


def _project(layout: Layout, args: list[Any]) -> int:
    (last_seq,) = args
    return work.project(SystemDisk(), layout, last_seq)


def _tell(layout: Layout, args: list[Any]) -> bytes:
    known, until_seq = msgspec.convert(args, tuple[list[Known], int])
    told = stories.tell(SystemDisk(), layout, known, until_seq)
    by_job: dict[str, msgspec.Raw] = {}
    size = 0
    for job, events in told.by_job.items():
        story = msgspec.json.encode(events)
        size += len(story)
        if by_job and size > TOLD_BYTES_MAX:
            break  # They are asked for again.
        if len(story) > STORY_BYTES_MAX:
            raise HelperFailed(
                f"the events of job {job} take {len(story)} bytes; at most {STORY_BYTES_MAX} are "
                "told at once: `beaver replay` shows them"
            )
        by_job[job] = msgspec.Raw(story)
    return msgspec.json.encode([by_job, told.as_of_seq, told.first_seq, told.damaged])


def _endings(layout: Layout, args: list[Any]) -> bytes:
    tokens, until_seq = args
    endings = find_endings(SystemDisk(), layout, tokens, until_seq)
    size = 0
    for place, ending in enumerate(endings.found):
        size += len(bytes(ending.end.result)) if ending.end is not None else 0
        if place and size > TOLD_BYTES_MAX:
            endings.next_token = ending.token
            del endings.found[place:]
            break
    return msgspec.json.encode(endings)


_walkers: Final[dict[str, Walker]] = {}
"""Walkers of the long-lived child, by the path of the store."""


def _walk(layout: Layout, args: list[Any]) -> bytes:
    return _walked(layout, lambda walker: walker.events(*args))


def _enqueued(layout: Layout, args: list[Any]) -> bytes:
    wanted = msgspec.convert(args[0], Wanted)
    return _walked(layout, lambda walker: walker.enqueued(wanted, *args[1:]))


def _walked(layout: Layout, ask: Callable[[Walker], Any]) -> bytes:
    walker = _walkers.setdefault(layout.path, Walker(SystemDisk(), layout))
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.encode(ask(walker))
    raise HelperFailed(f"the files of {layout.path} changed while they were read; try again")


def _find(layout: Layout, args: list[Any]) -> bytes:
    search, until_seq = msgspec.convert(args, tuple[Search, int])
    views, listed = stories.find_finished(SystemDisk(), layout, search, until_seq)
    listed.views = msgspec.Raw(msgspec.json.encode(views))
    return msgspec.json.encode(listed)


_OPS: Final[dict[str, Callable[[Layout, list[Any]], Any]]] = {
    "prepare": _prepare,
    "snapshot": _snapshot,
    "project": _project,
    "tell": _tell,
    "endings": _endings,
    "walk": _walk,
    "enqueued": _enqueued,
    "find": _find,
}
