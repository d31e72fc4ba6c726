"""The helper process: takes requests from the server and forks a child for each.

Frames as in `protocol`, over the socket that is its standard input.  A request is
`[number, op, args]`, an answer `[number, 0, result]` or `[number, 1, [class, message]]`.
The process itself does nothing but pass them on, so it stays small and single-threaded,
and forking from it is cheap and safe.

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
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from beaver import stories
from beaver.clock import SystemClock
from beaver.disk import SystemDisk
from beaver.errors import BeaverError, HelperFailed
from beaver.helper import work
from beaver.layout import Layout
from beaver.protocol import FRAME_BYTES_MAX, FrameReader, decode_message, encode_error, encode_frame
from beaver.questions import Known, Search
from beaver.workers.kinship import die_with_parent

_READ_BYTES: Final = 1 << 16
TOLD_BYTES_MAX: Final = 4 << 20
"""Stories of several jobs in one answer; what one is larger by comes all the same."""
STORY_BYTES_MAX: Final = FRAME_BYTES_MAX // 2
_NICE: Final = {"prepare": 10, "snapshot": 10, "project": 10, "find": 5}
"""Children yield where server and workers want the cores as well: at 10 a tenth of them is left."""


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


class _Child(NamedTuple):
    """A request that a child is working on."""

    pid: int
    number: int
    op: str
    answer: bytearray


class _Dispatcher:
    """Passes requests to children and their answers back."""

    def __init__(self, connection: socket.socket, layout: Layout) -> None:
        self._connection, self._layout = connection, layout
        self._reader = FrameReader()
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Returns when the server is gone."""
        self._selector.register(self._connection, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    data = self._connection.recv(_READ_BYTES)
                    if not data:
                        return
                    for body in self._reader.feed(data):
                        number, op, args = decode_message(body)
                        self._start(number, op, args)
                else:
                    self._read_answer(key.fd, key.data)

    def _start(self, number: int, op: str, args: list[Any]) -> None:
        read_end, write_end = os.pipe()
        own_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            # Only the child runs this, and it never returns.
            try:
                self._connection.close()
                os.close(read_end)
                die_with_parent(own_pid, signal.SIGKILL)
                _work(self._layout, number, op, args, write_end)
            finally:
                os._exit(1)
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
            error = HelperFailed(f"{child.op}: the child {_how_it_ended(status)}")
            self._connection.sendall(encode_error(child.number, error))
            return
        self._connection.sendall(encode_frame(decode_message(frames[0])))


def _how_it_ended(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"exited with {code}"


def _work(layout: Layout, number: int, op: str, args: list[Any], answer_to: int) -> None:
    """Does one request in the child and writes the answer."""
    with contextlib.suppress(OSError):
        os.nice(_NICE.get(op, 0))
    # Short-lived and without cycles: collecting would only cost time and copied pages.
    gc.disable()
    try:
        frame = encode_frame([number, 0, _OPS[op](layout, args)])
    except BeaverError as error:
        frame = encode_error(number, error)
    except Exception as error:  # noqa: BLE001 - whatever it is, the server is to hear of it
        detail = HelperFailed(f"{op}: {type(error).__name__}: {error}")
        frame = encode_error(number, detail)
    view = memoryview(frame)
    while view:
        view = view[os.write(answer_to, view) :]
    os._exit(0)


def _prepare(layout: Layout, args: list[Any]) -> None:
    path, size = args
    work.prepare_segment(SystemDisk(), path, size)


def _snapshot(layout: Layout, args: list[Any]) -> tuple[Any, ...]:
    last_seq, keep_bytes, keep_ms = args
    taken = work.snapshot_and_prune(
        SystemDisk(), layout, last_seq, keep_bytes, keep_ms, SystemClock()
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
    "find": _find,
}
