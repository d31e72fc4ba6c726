"""What a server prints: through a bounded queue, so that nobody who reads it can hold it up.

A log reader may stall: a pager, a full disk behind a pipe, a terminal with Ctrl-S.  A write to
it then waits for ever.  So the server never writes itself: `queued` replaces `sys.stdout` and
`sys.stderr`, whose lines go to a thread a descriptor. Lines that find no room are dropped, and
their number is printed once there is room again.  At the end the last lines get a bounded time.

What may not live here: what the lines say (`task.output`), the output of jobs, which their workers
write by themselves.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TextIO, cast

from beaver.text.foreign import counted

QUEUE_BYTES_MAX: Final = 1 << 20
"""Bytes that wait for a reader, by descriptor; beyond, lines are dropped."""
LAST_WORDS_S: Final = 2.0
"""How long the end of a server waits for whoever reads its last lines."""

Notice = Callable[[int], str]
"""Makes the line that says how many lines were dropped."""


def plain_notice(count: int) -> str:
    """Says in plain text how many lines were dropped."""
    return f"beaver: {counted(count, 'line')} dropped here: nobody read them in time\n"


class Printer:
    """Writes to a descriptor from a thread of its own.  Every method may be called anywhere."""

    def __init__(self, fd: int, notice: Notice = plain_notice) -> None:
        self._fd = fd
        self.notice = notice
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._busy = False
        self._thread: threading.Thread | None = None

    def put(self, data: bytes) -> None:
        """Queues whole lines for printing; drops them where too much waits."""
        with self._changed:
            if self._dropped or self._bytes + len(data) > QUEUE_BYTES_MAX:
                self._dropped += data.count(b"\n") or 1
            else:
                self._waiting.append(data)
                self._bytes += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="beaver-log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Waits for at most that time until all is written; true if it is."""
        deadline_s = time.monotonic() + seconds
        with self._changed:
            while self._waiting or self._dropped or self._busy:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._dropped):
                    self._changed.wait()
                counted = 0
                if self._waiting:
                    data = b"".join(self._waiting)
                    self._waiting.clear()
                    counted = len(data)
                else:
                    # Whatever waited is written, so that the gap is where it is said to be.
                    data = self.notice(self._dropped).encode()
                    self._dropped = 0
                self._busy = True
            _write_all(self._fd, data)
            with self._changed:
                self._bytes -= counted
                self._busy = False
                self._changed.notify_all()


def _write_all(fd: int, data: bytes) -> None:
    """Writes all of it, however long that takes; drops it once the reader is gone."""
    import select

    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:
            return


class QueuedStream(io.TextIOBase):
    """A text stream that hands its lines to a printer and never waits."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, printer: Printer, fd: int, name: str) -> None:
        super().__init__()
        self.printer = printer
        self.name = name
        self._fd = fd
        self._lock = threading.Lock()
        self._begun = ""

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        with self._lock:
            lines, _, self._begun = (self._begun + text).rpartition("\n")
            if lines or text.endswith("\n"):
                self._put(f"{lines}\n")
        return len(text)

    def flush(self) -> None:
        """Hands over a begun line; nobody waits for it to be written."""
        with self._lock:
            if self._begun:
                self._put(self._begun)
                self._begun = ""

    def _put(self, text: str) -> None:
        self.printer.put(text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def queued(notice: Notice = plain_notice) -> Iterator[None]:
    """Puts the standard streams behind queues as long as the block runs."""
    former = sys.stdout, sys.stderr
    names = ((1, "<stdout>"), (2, "<stderr>"))
    streams = [QueuedStream(Printer(fd, notice), fd, name) for fd, name in names]
    with contextlib.suppress(OSError, ValueError):
        former[0].flush()
    sys.stdout, sys.stderr = cast("TextIO", streams[0]), cast("TextIO", streams[1])
    try:
        yield
    finally:
        last_words("")
        sys.stdout, sys.stderr = former


def last_words(text: str, seconds: float = LAST_WORDS_S) -> None:
    """Says something on stderr before the process ends, and waits for it a bounded time."""
    if text:
        sys.stderr.write(text)
    deadline_s = time.monotonic() + seconds
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        if isinstance(stream, QueuedStream):
            stream.printer.drain(max(0.0, deadline_s - time.monotonic()))
