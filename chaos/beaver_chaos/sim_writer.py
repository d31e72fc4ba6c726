"""The writer process of a simulated machine: `ports.LogWriter`.

It writes one frame at a time while the server's loop goes on.  It outlives a killed server
until its frame is written, and holds the lock for as long, as the real one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from beaver.ports import File, Written
from beaver_chaos.loop import Process
from beaver_chaos.sim_disk import ProcessDisk, file_of

if TYPE_CHECKING:
    from beaver_chaos.sim_server import Life


class _Frame(NamedTuple):
    """The frame under way."""

    file: File
    frame: bytes
    offset: int
    done: Written


class SimWriter:
    """One writer process, of one server."""

    def __init__(self, life: Life) -> None:
        self._life, self._world = life, life.world
        self.process = Process(f"writer {life.world.next_pid()}")
        self._disk = ProcessDisk(
            life.world.disk,
            self.process,
            on_stop=self._stopped,
            on_sync=lambda: None,
            planned_by=life.disk,
        )
        self._frame: _Frame | None = None
        self._is_written = False
        self._error: OSError | None = None
        life.writer = self

    @property
    def busy(self) -> bool:
        """A frame is under way."""
        return self._frame is not None

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        assert self._frame is None, "one frame at a time"
        self._frame = _Frame(file, frame, offset, done)
        self._is_written, self._error = False, None
        if self.process.alive:
            self._world.after(self.process, self._world.sync_ns(), self._write)
        else:
            self._broken()

    def wait(self) -> None:
        if self._frame is not None and not self._is_written:
            self._world.loop.pass_ns(self._world.sync_ns())
            if self.process.alive:
                self._write()
            else:
                self._error = BrokenPipeError("the writer process died")
        self._answer()

    def close(self) -> None:
        self.wait()
        self._world.loop.kill(self.process)

    def die(self) -> None:
        """The process is killed; what it was writing may be on disk or not."""
        self._world.note("the writer dies")
        self._world.loop.kill(self.process)
        self._broken()

    def _stopped(self) -> None:
        """A planned fault ends it inside the write, and the server with it."""
        self._world.loop.kill(self.process)
        self._life.stopped_in_operation()

    def _broken(self) -> None:
        self._is_written = True
        self._error = BrokenPipeError("the writer process died")
        self._world.after(self._life.process, self._world.latency_ns(), self._answer)

    def _write(self) -> None:
        """The process writes the frame."""
        if self._frame is None or self._is_written:
            return
        file, frame, offset, _ = self._frame
        self._is_written = True
        try:
            file_of(file, self._disk).pwrite_durable(frame, offset)
        except OSError as error:
            self._error = error
        if self._life.process.alive:
            self._world.after(self._life.process, self._world.latency_ns(), self._answer)
        else:
            self._world.loop.kill(self.process)
            self._life.disk.end()

    def _answer(self) -> None:
        """The server hears of it."""
        frame, self._frame = self._frame, None
        if frame is not None:
            frame.done(self._error, 0.0 if self._error else self._world.last_sync_ns / 1e9)
