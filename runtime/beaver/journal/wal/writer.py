"""The writer process: frames are written and synced beside the loop, for slow disks.

A sync of ten milliseconds on the loop would stop everything else for as long.  A thread is
no way out: it starves on the interpreter's lock (measured: 285 acknowledgements a second
against 12,700).  So a process of its own does the write, one frame at a time, and the loop
collects the next batch meanwhile.

The writer holds the store's lock together with the server, on purpose:

1. The server hands a frame over and is killed.
2. The writer is in the middle of the write.
3. A new server waits for the lock, which the writer still holds.
4. The writer finishes, finds its socket closed, and ends: only now recovery begins.

What passes between them stands in `writer_wire`.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import subprocess
import sys
from typing import Final, Protocol, cast

from beaver.journal.wal.writer_wire import ANSWER, FILE, HEADER, WRITE
from beaver.ports import DirectoryLock, File, Written

END_S: Final = 30.0
"""How long a writer may take for its last frame."""


class HasDescriptor(Protocol):
    """A file of the real disk."""

    def fileno(self) -> int: ...


def _hung_up() -> bytes:
    raise BrokenPipeError("the writer process died")


class WriterProcess:
    """The real `ports.LogWriter`."""

    def __init__(self, lock: DirectoryLock) -> None:
        """Starts the process, which holds `lock` until it ends."""
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "beaver.journal.wal.writer_child"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )
        finally:
            theirs.close()
        # The loop may want it so anyway (uvloop makes what it watches non-blocking).
        self._socket.setblocking(False)
        self._file: File | None = None
        self._answer = b""
        self._done: Written | None = None
        self._loop.add_reader(self._socket.fileno(), self._answered)

    @property
    def pid(self) -> int:
        """The process that writes."""
        return self._process.pid

    @property
    def lost(self) -> bool:
        """See `ports.LogWriter`.  Who dies with a frame may have written it: that is told."""
        return self._done is None and self._process.poll() is not None

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        """Hands one frame over; see `ports.LogWriter`."""
        assert self._done is None, "one frame at a time"
        self._done = done
        try:
            if file is not self._file:
                descriptor = cast("HasDescriptor", file).fileno()
                socket.send_fds(self._socket, [HEADER.pack(FILE, 0, 0)], [descriptor])
                self._file = file
            self._send(HEADER.pack(WRITE, offset, len(frame)) + frame)
        except OSError as error:
            self._tell(error, 0.0)

    def _send(self, data: bytes) -> None:
        """Sends all of it, however long: the writer does nothing but receive meanwhile."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                self._await(select.POLLOUT)

    def wait(self) -> None:
        """Blocks until the frame under way is written; see `ports.LogWriter`."""
        while self._done is not None:
            self._await(select.POLLIN)
            self._answered()

    def _await(self, event: int) -> None:
        """Blocks until the socket is ready; `select` ends at descriptor 1,024."""
        poll = select.poll()
        poll.register(self._socket, event)
        poll.poll()

    def close(self) -> None:
        """Ends the process, after the frame under way."""
        self.wait()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._process.wait(END_S)

    def _answered(self) -> None:
        try:
            self._answer += self._socket.recv(ANSWER.size - len(self._answer)) or _hung_up()
        except BlockingIOError:
            return  # `wait` has read it before the loop could.
        except OSError as error:
            self._loop.remove_reader(self._socket.fileno())
            self._tell(error, 0.0)
            return
        if len(self._answer) == ANSWER.size:
            number, took_ns = ANSWER.unpack(self._answer)
            self._answer = b""
            self._tell(OSError(number, os.strerror(number)) if number else None, took_ns / 1e9)

    def _tell(self, error: OSError | None, seconds: float) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error, seconds)
