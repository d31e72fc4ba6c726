"""Supervision of the workers: start, kill, end, and what becomes of what they held.

A worker that dies at work is replaced at once.  One that dies before it has finished a job is
replaced after a growing delay, so that an application that cannot start does not fill the log.

What may not live here: when a running attempt has to be stopped (`time_limits`), which crew
serves (`crews`), and how a process is started or killed (`workers.pool`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from beaver.dispatch.slots_view import Crew, Held, KillCause, SlotsView, WorkerState
from beaver.ports import Entropy
from beaver.structs.messages import Attempt
from beaver.text.foreign import counted, cut
from beaver_model.commands import AnyCommand, ConfirmCancel, Expire, Fail, Release
from beaver_model.events import Cause

log = logging.getLogger("beaver")

RESTART_DELAY_MAX_S: Final = 5.0
"""Longest wait before a worker that dies without work is replaced again."""

START_LIMIT_MS: Final = 120_000
"""By default a worker that is not ready after so long is replaced."""


class Waker(Protocol):
    """Who gives out work: an engine, or what asks a server for it."""

    def touch(self) -> None:
        """Something has changed that may let work begin."""
        ...


class Taker(Protocol):
    """Who is told what becomes of attempts."""

    def submit(self, *commands: AnyCommand) -> None:
        """Takes what is to be said of attempts that have ended."""
        ...

    def take_back(self, worker: WorkerState, command: AnyCommand) -> None:
        """The same for an attempt that has not started and now never will."""
        ...


class Supervisor:
    """Starts workers, kills them, and says what becomes of their attempts when they end."""

    def __init__(
        self,
        engine: Waker,
        entropy: Entropy,
        slots: SlotsView,
        submitter: Taker,
        *,
        start_limit_ms: int,
        on_crew_gone: Callable[[Crew], None],
        on_ended: Callable[[Attempt], None],
    ) -> None:
        """Wires the parts; see `Controller` for the callables.  Nothing is started yet."""
        self._engine, self._entropy = engine, entropy
        self._slots, self._submitter = slots, submitter
        self.start_limit_s = start_limit_ms / 1000
        self._on_crew_gone, self._on_ended = on_crew_gone, on_ended
        self._loop = asyncio.get_running_loop()
        self.starts_overdue = 0
        """Workers that were killed because they did not get ready in time."""

    # -- start ---------------------------------------------------------------------------------

    def add(self, worker: WorkerState) -> None:
        """Starts a worker, and sees to it that it gets ready."""
        worker.crew.pool.add(worker.number)
        worker.running = True
        worker.start_limit = self._loop.call_later(self.start_limit_s, self._overdue_start, worker)

    def _overdue_start(self, worker: WorkerState) -> None:
        """Ends a start that hangs, in an import say.  It holds no attempt: none is charged."""
        worker.start_limit = None
        if self._slots.draining or worker.killed is not None:
            return
        self.starts_overdue += 1
        log.error(
            "worker %d is not ready %g s after its start (start_timeout), and is killed; "
            "does the import of the application hang?",
            worker.number,
            self.start_limit_s,
        )
        self.kill(worker, KillCause.START, set())

    def _started(self, worker: WorkerState) -> None:
        """The start of a worker is over, well or not."""
        if worker.start_limit is not None:
            worker.start_limit.cancel()
            worker.start_limit = None

    def ready(self, worker: WorkerState, pid: int) -> None:
        """A worker has come up and takes jobs."""
        self._started(worker)
        worker.pid, worker.ready, worker.useful = pid, True, False
        if worker.crew.arrival is not None:
            worker.crew.arrival.one_is_ready()
        self._engine.touch()

    # -- kill and end --------------------------------------------------------------------------

    def kill(self, worker: WorkerState, cause: KillCause, offenders: set[int]) -> None:
        """Kills a worker; what becomes of its attempts is said once it is reaped."""
        worker.killed = cause
        worker.offenders = offenders
        worker.crew.pool.kill(worker.number)

    def exited(self, worker: WorkerState, started: int, detail: str) -> None:
        """A worker was reaped: its attempts are charged or given back, and it is replaced."""
        for token, held in list(worker.held.items()):
            fate = self._fate(worker, token, held, started, detail)
            if token > started:
                self._submitter.take_back(worker, fate)
            else:
                self._on_ended(held.attempt)
                self._submitter.submit(fate)
        worker.held.clear()
        worker.idle_ns = 0
        self._started(worker)
        killed_at_work = worker.killed not in (None, KillCause.START)
        replace_at_once = killed_at_work or worker.useful
        worker.ready = worker.useful = worker.running = False
        worker.killed = None
        worker.refused = 0
        worker.offenders.clear()
        self._engine.touch()
        self._slots.check_drained()
        if worker.leaving or worker.crew.arrival is not None:
            self.remove(worker, f"worker {worker.number} {detail} before it was ready")
        elif not self._slots.draining:
            self._restart(worker, detail, at_once=replace_at_once)

    def _restart(self, worker: WorkerState, detail: str, *, at_once: bool) -> None:
        if at_once:
            self.add(worker)
            return
        worker.deaths += 1
        delay_s = min(RESTART_DELAY_MAX_S, 0.05 * 2 ** min(worker.deaths, 10))
        log.warning("worker %d %s before it ended a job; replaced soon", worker.number, detail)
        self._loop.call_later(delay_s, self._replace, worker)

    def _replace(self, worker: WorkerState) -> None:
        if not self._slots.draining and not worker.leaving and not worker.running:
            self.add(worker)

    def _fate(
        self, worker: WorkerState, token: int, held: Held, started: int, detail: str
    ) -> AnyCommand:
        """Returns what becomes of an attempt whose worker is gone."""
        job, jitter = held.attempt.job, self._entropy.random()
        if token > started:
            return Release(job, token, Cause.NEVER_STARTED)
        if worker.killed is KillCause.REFUSED:
            times = counted(worker.refused, "time")
            detail = f"was killed: it answered {times} for what it does not hold"
        if worker.killed in (None, KillCause.REFUSED):
            return Fail(job, token, cut(f"its worker {detail}"), jitter, Cause.WORKER_LOST)
        if worker.killed is KillCause.DRAIN:
            return Release(job, token, Cause.DRAIN)
        if token not in worker.offenders:
            return Release(job, token, Cause.NEIGHBOUR)
        if worker.killed is KillCause.CANCEL:
            return ConfirmCancel(job, token)
        limit_s = held.attempt.timeout_ms / 1000
        return Expire(job, token, Cause.TIME_LIMIT, jitter, f"ran longer than {limit_s:g} s")

    def remove(self, worker: WorkerState, why: str) -> None:
        """Removes a worker that has ended and will not be replaced."""
        workers, crew = self._slots.workers, worker.crew
        del workers[worker.number]
        if crew.arrival is not None:
            crew.arrival.fails(why)
        elif crew is not self._slots.crew and all(w.crew is not crew for w in workers.values()):
            self._on_crew_gone(crew)
