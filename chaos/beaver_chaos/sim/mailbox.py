"""The way to a simulated worker: the real permits, inbox and slots, over real pipes and a file.

One thread plays server and workers, so neither may wait for the other inside a call: where the
real inbox would wait, `SimInbox` says so, and the worker tries again later.  Nothing depends on
real time, and what fits into a pipe is the same everywhere, so one seed stays one run.

What is still replaced: the stream of outcomes and soft cancels, and processes themselves.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from beaver.structs.messages import Attempt
from beaver.workers.inbox import Inbox
from beaver.workers.permits import Permits
from beaver.workers.slots import PreviousSlots, Slots, SlotWriter, read_previous
from beaver_chaos.sim.loop import Process, SimHandle, SimLoop

_BOOT: Final = slice(32, 64)
"""Where the slots name the machine's boot."""


class PipeClosed(Exception):
    """The worker would end itself here: nobody holds the other end of its pipe."""


class SimInbox(Inbox):
    """The real inbox of a worker that cannot wait."""

    def _receive(self) -> list[Attempt]:
        if not _readable(self._jobs.fileno()):
            raise BlockingIOError
        return super()._receive()

    def _server_is_gone(self) -> NoReturn:
        raise PipeClosed

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


class _Loop:
    """What permits ask of the server's loop: timers.  They look again wherever they wait."""

    def __init__(self, loop: SimLoop, process: Process) -> None:
        self._loop, self._process = loop, process

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> SimHandle:
        return self._loop.call_in(self._process, int(delay_s * 1e9), callback)

    def add_writer(self, *_: object) -> None: ...

    def remove_writer(self, *_: object) -> None: ...


class SimMailbox:
    """The server's side of one worker, as `workers.mailbox.Mailbox` has it."""

    def __init__(self, loop: SimLoop, server: Process, worker: int) -> None:
        self.worker = worker
        self.slot_lost: tuple[int, int] | None = None
        self.useful = False
        broken: Callable[[str], None] = _never_broken
        self._permits = Permits(cast("asyncio.AbstractEventLoop", _Loop(loop, server)), broken)

    @property
    def highest(self) -> int:
        """Highest token that the worker may have started."""
        return self._permits.highest

    def dispatch(self, attempts: Sequence[Attempt]) -> None:
        """Sends attempts, in order."""
        self._permits.give(attempts)

    def recall(self) -> list[int]:
        """Takes back the attempts that the worker has not taken: their tokens, in order."""
        return self._permits.take_back()

    def end(self) -> None:
        """Lets the worker end once it has run what it was sent."""
        self._permits.end()

    def hand_over(self) -> WorkerEnds:
        """Returns the worker's ends."""
        return WorkerEnds(*self._permits.hand_over())

    def close(self) -> None:
        """The server's ends are gone, with it or because the worker was reaped."""
        self._permits.close()


def _never_broken(why: str) -> None:
    raise AssertionError(f"no simulated worker breaks its channel, and one did: {why}")


class WorkerEnds:
    """A worker's ends of socket and pipe, and its slot, while its process lives."""

    def __init__(self, jobs: int, permits: int) -> None:
        self._jobs, self._permits = socket.socket(fileno=jobs), permits
        self._closed = False

    def open(self, slots: Slots, number: int, now_ns: Callable[[], int]) -> SimInbox:
        """Returns the worker's inbox."""
        writer = SlotWriter(slots.fd, number)
        return SimInbox(self._jobs, self._permits, writer, 0, 0, now_ns=now_ns)

    def close(self) -> None:
        """The worker's process is gone."""
        if not self._closed:
            self._closed = True
            self._jobs.close()
            os.close(self._permits)


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
