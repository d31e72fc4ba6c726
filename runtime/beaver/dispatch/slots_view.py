"""The view of the slots: what each worker holds, since when, and why it was killed.

Plain data without I/O, shared by all of this folder.  Nothing here is logged; after a crash
all of it is found anew.
"""

from __future__ import annotations

import asyncio
from enum import Enum

import msgspec

from beaver.errors import CrewFailed
from beaver.ports import Pool
from beaver.structs.messages import Attempt


class KillCause(Enum):
    """Why the server killed a worker."""

    TIME_LIMIT = "time_limit"
    CANCEL = "cancel"
    DRAIN = "drain"
    IDLE = "idle"
    """It does not start the attempts that it was sent."""
    LEAVE = "leave"
    """It has nothing left to do, and does not end."""
    START = "start"
    """It did not get ready in time."""
    REFUSED = "refused"
    """It went on answering for attempts that it does not hold."""


class Held(msgspec.Struct, gc=False):
    """One attempt that a worker holds."""

    attempt: Attempt
    sent: bool = False
    """It went to the worker: its DISPATCH is durable, or need not be."""
    seen_ns: int = 0
    """When it was first seen to have started (thread and async executors), 0 before."""
    cancel_ns: int = 0
    """When its cancel was told softly, 0 before."""

    @property
    def timeout_ns(self) -> int:
        """Limit of the attempt."""
        return self.attempt.timeout_ms * 1_000_000


class Concurrency(Enum):
    """How a worker runs what it holds."""

    ONE = "process"
    """One attempt at a time; others wait in its prefetch."""
    MANY = "many"
    """All at once (thread and async executors); nothing is prefetched."""


class Crew:
    """The workers of one start of the application, and how they run what they hold.

    A reload brings a second one: the new workers take over once all are ready, and the former
    ones leave when they have ended what they run.
    """

    def __init__(self, pool: Pool, mode: Concurrency, concurrency: int) -> None:
        self.pool = pool
        self.mode = mode
        self.concurrency = concurrency
        """Attempts that a worker runs at once."""
        self.arrival: Arrival | None = None
        """Runs until all have come; then it takes over."""


class Arrival:
    """The wait for the workers of a new crew."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._missing = count

    def one_is_ready(self) -> None:
        """One of them takes jobs."""
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(None)

    def fails(self, why: str) -> None:
        """One of them will not come."""
        if not self.done.done():
            self.done.set_exception(CrewFailed(why))


class WorkerState:
    """The worker of one slot, with the attempts that it holds in the order of their tokens."""

    def __init__(self, number: int, crew: Crew, *, serving: bool = True) -> None:
        self.number = number
        self.crew = crew
        self.serving = serving
        """It may be given jobs: its crew has taken over, and no other one since."""
        self.leaving = False
        """It is given nothing any more, and nobody replaces it."""
        self.running = False
        """There is a process, from its start until it is reaped."""
        self.pid = 0
        self.ready = False
        self.held: dict[int, Held] = {}
        self.killed: KillCause | None = None
        self.offenders: set[int] = set()
        self.useful = False
        """It has ended an attempt since it was started."""
        self.deaths = 0
        """Deaths in a row without an attempt."""
        self.refused = 0
        """Outcomes of it that were refused, since it was started."""
        self.idle_ns = 0
        """Since when it has taken nothing of what it holds; 0 while it runs something."""
        self.start_limit: asyncio.TimerHandle | None = None
        """Runs while it is being started."""
        self.returned_seq = 0
        """Seq up to which the log says what was given back and had not started.  Until that is
        durable nothing may start before its sync: after a crash the slot would say that what
        was given back had started, too."""


class SlotsView:
    """All workers, whom jobs are given to, and whether the server drains."""

    def __init__(self, crew: Crew, count: int) -> None:
        self.crew = crew
        """The crew that is given jobs."""
        self.workers = {number: WorkerState(number, crew) for number in range(1, count + 1)}
        """By number, from 1: those of the crew that serves, and of crews that come or leave."""
        self.draining = False
        """Nothing is dispatched any more, and no worker is replaced."""
        self._drained: asyncio.Future[None] | None = None

    def drain(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Begins a drain; what it returns is done once `check_drained` finds nothing held."""
        self.draining = True
        self._drained = loop.create_future()
        return self._drained

    def check_drained(self) -> None:
        """Ends the wait of a drain once no worker holds an attempt."""
        if self._drained is None or self._drained.done():
            return
        if not any(worker.held for worker in self.workers.values()):
            self._drained.set_result(None)
