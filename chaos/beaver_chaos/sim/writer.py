"""The writer process of a simulated machine: `ports.LogWriter`.

It writes one frame at a time while the server's loop goes on.  It outlives a killed server
until its frame is written, and holds the lock for as long, as the real one does.
"""

from __future__ import annotations

from collections.abc import Callable

from beaver.ports import File, Written
from beaver_chaos.sim.hardware import Hardware
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.store_disk import ProcessDisk, file_of


class _Frame:
    """A frame that was handed over."""

    __slots__ = ("done", "error", "file", "frame", "offset", "written")

    def __init__(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        self.file, self.frame, self.offset, self.done = file, frame, offset, done
        self.written = False
        self.error: OSError | None = None


class SimWriter:
    """One writer process, of one server."""

    def __init__(
        self,
        world: Hardware,
        server: Process,
        server_disk: ProcessDisk,
        stop_server: Callable[[], None],
    ) -> None:
        self._world, self._server = world, server
        self._server_disk, self._stop_server = server_disk, stop_server
        self.process = Process(f"writer {world.next_pid()}")
        self._disk = ProcessDisk(
            world.disk,
            self.process,
            on_stop=self._stopped,
            on_sync=lambda: None,
            planned_by=server_disk,
        )
        self._frame: _Frame | None = None

    @property
    def busy(self) -> bool:
        """A frame is under way, or the server has not heard of its end."""
        return self._frame is not None

    @property
    def writes(self) -> bool:
        """It is in the middle of a write."""
        return self._frame is not None and not self._frame.written and self.process.alive

    @property
    def lost(self) -> bool:
        """See `ports.LogWriter`."""
        return self._frame is None and not self.process.alive

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        assert self._frame is None, "one frame at a time"
        world = self._world
        under_way = self._frame = _Frame(file, frame, offset, done)
        if self.process.alive:
            world.after(self.process, world.sync_ns(), self._write, under_way)
        else:
            self._break(under_way)

    def wait(self) -> None:
        frame = self._frame
        if frame is None:
            return
        if not frame.written:
            self._world.loop.pass_ns(self._world.sync_ns())
            self._write(frame)
        self._answer(frame)

    def close(self) -> None:
        self.wait()
        self._world.loop.kill(self.process)

    def die(self) -> None:
        """The process is killed; what it was writing is on disk or not."""
        self._world.note("the writer dies")
        if self.writes:
            self._world.reach("the writer dies in the middle of a frame")
        self._world.loop.kill(self.process)
        if self._frame is not None:
            self._break(self._frame)

    def _stopped(self) -> None:
        """A planned fault ends it inside the write, and the server with it."""
        self._world.loop.kill(self.process)
        if self._server.alive:
            self._stop_server()
        else:
            self._server_disk.end()

    def _break(self, frame: _Frame) -> None:
        frame.written = True
        frame.error = BrokenPipeError("the writer process died")
        self._world.after(self._server, self._world.latency_ns(), self._answer, frame)

    def _write(self, frame: _Frame) -> None:
        """The process writes the frame."""
        if frame.written:
            return
        frame.written = True
        try:
            file_of(frame.file, self._disk).pwrite_durable(frame.frame, frame.offset)
        except OSError as error:
            frame.error = error
        if self._server.alive:
            self._world.after(self._server, self._world.latency_ns(), self._answer, frame)
        else:
            self._world.loop.kill(self.process)
            self._server_disk.end()

    def _answer(self, frame: _Frame) -> None:
        """The server hears of it, once."""
        if frame is self._frame:
            self._frame = None
            seconds = 0.0 if frame.error else self._world.last_sync_ns / 1e9
            frame.done(frame.error, seconds)
