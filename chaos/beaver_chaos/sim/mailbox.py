"""A simulated worker's ends: the real inbox, outcome sender and slot, over real descriptors.

One thread plays server, zygote and workers, so none may wait for another inside a call: where
the real inbox would wait, `SimInbox` says so, and the worker tries again later.  Nothing depends
on real time, and what fits into a pipe is the same everywhere, so one seed stays one run.

What is still replaced: the worker's process itself (`sim.pool`).
"""

from __future__ import annotations

import os
import select
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from beaver.structs.messages import Attempt
from beaver.workers import wire
from beaver.workers.inbox import Inbox, OutcomeSender
from beaver.workers.slots import PreviousSlots, SlotWriter, read_previous

_BOOT: Final = slice(32, 64)
"""Where the slots name the machine's boot."""


class ServerGone(Exception):
    """The worker would end itself here: nobody holds the other end of its pipe."""


class SimInbox(Inbox):
    """The real inbox of a worker that cannot wait."""

    def _receive(self) -> list[Attempt]:
        if not _readable(self._jobs.fileno()):
            raise BlockingIOError
        return super()._receive()

    def _server_is_gone(self) -> NoReturn:
        raise ServerGone

    # The steps of `take`, one by one, so that others can act in between.

    def read_permit(self) -> int:
        """Takes the next permit; see `Inbox.take` for what it raises."""
        return self._permit(wait=False)

    def find_body(self, token: int) -> Attempt:
        """Finds the attempt of a permit; `BlockingIOError` where it is still on its way."""
        return self._body(token)

    def begin(self, token: int) -> None:
        """Writes the slot."""
        self._begin(token)


class SimOutbox(OutcomeSender):
    """The real sender of outcomes, and what is to be stopped softly."""

    def say_pid(self, pid: int) -> None:
        """Says that this worker takes attempts."""
        self._write(wire.frame(pid))

    def _server_is_gone(self) -> NoReturn:
        raise ServerGone


class WorkerEnds:
    """A worker's own copies of its ends, as a fork has them, while its process lives."""

    def __init__(self, ends: wire.Ends) -> None:
        jobs, self._permits, stream, self._slots = (os.dup(fd) for fd in ends)
        self._jobs, self.stream = socket.socket(fileno=jobs), socket.socket(fileno=stream)
        self._closed = False

    def open(self, number: int, now_ns: Callable[[], int]) -> tuple[SimInbox, SimOutbox]:
        """Returns the worker's inbox and outbox."""
        writer = SlotWriter(self._slots, number)
        inbox = SimInbox(self._jobs, self._permits, writer, 0, 0, now_ns=now_ns)
        return inbox, SimOutbox(self.stream)

    def close(self) -> None:
        """The worker's process is gone."""
        if not self._closed:
            self._closed = True
            self._jobs.close()
            self.stream.close()
            os.close(self._permits)
            os.close(self._slots)


class SlotsFile:
    """The slots of the simulated machine: a real file, in a directory of its own."""

    def __init__(self) -> None:
        self._directory: Any = None

    @property
    def path(self) -> str:
        """Where it is."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="beaver-sim-")
        return os.path.join(self._directory.name, "slots")  # noqa: PTH118 - as the code has it

    def read(self) -> PreviousSlots | None:
        """Returns what the servers before have left."""
        return read_previous(self.path)

    def reboot(self, *, survives: bool) -> None:
        """The machine lost its power: the file is gone, or it is of another boot."""
        path = Path(self.path)
        if not survives:
            path.unlink(missing_ok=True)
        elif path.exists():
            data = bytearray(path.read_bytes())
            data[_BOOT] = b"another boot".ljust(32, b"\0")
            path.write_bytes(data)

    def remove(self) -> None:
        """The run is over."""
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
