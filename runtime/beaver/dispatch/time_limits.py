"""Ends attempts that run too long or were cancelled, and workers that start nothing.

A worker that runs one attempt at a time is killed; one that runs many is told first, and
killed after the grace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from beaver.dispatch.pulls import Pulls
from beaver.dispatch.slots_view import Concurrency, KillCause, SlotsView, WorkerState
from beaver.dispatch.submitting import Submitter
from beaver.dispatch.supervision import Supervisor, Waker
from beaver.engine.engine import Engine
from beaver.ports import Clock
from beaver_model.commands import ConfirmCancel
from beaver_model.events import Cause
from beaver_model.states import JobState

log = logging.getLogger("beaver")

_IN_FLIGHT: Final = JobState.IN_FLIGHT

TICK_S: Final = 0.05
"""How often limits are looked at while something runs."""

IDLE_NS: Final = 30_000_000_000
"""Time after which a worker that starts none of its attempts is replaced."""


class Limits:
    """Holds running attempts to their limits."""

    def __init__(
        self,
        waker: Waker,
        clock: Clock,
        slots: SlotsView,
        supervisor: Supervisor,
        *,
        grace_ms: int,
        anybody_waits: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wires the parts.

        Args:
            waker: Gives out work.
            clock: Its monotonic time is what limits are measured by.
            slots: The workers, and what they hold.
            supervisor: Kills.
            grace_ms: Between a soft stop and the kill.
            anybody_waits: True where somebody beside them waits for work.
        """
        self._waker, self._clock = waker, clock
        self._slots, self._supervisor = slots, supervisor
        self._anybody_waits = anybody_waits
        self.grace_ns = grace_ms * 1_000_000
        self._loop = asyncio.get_running_loop()
        self._ticking = False

    def arm(self) -> None:
        """Looks at the limits from now on, as long as something runs."""
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        """Looks at every running attempt's limit.  Goes on while something runs."""
        self._ticking = False
        now_ns = self._clock.monotonic_ns()
        busy = False
        workers = self._slots.workers.values()
        for worker in workers:
            if not worker.held or worker.killed is not None:
                continue
            busy = True
            overdue = self._overdue(worker, now_ns)
            if self._takes_nothing(worker, now_ns):
                log.warning("worker %d does not take its jobs and is replaced", worker.number)
                self._supervisor.kill(worker, KillCause.IDLE, set())
            elif overdue:
                cancelled = all(worker.held[token].cancel_ns for token in overdue)
                cause = KillCause.CANCEL if cancelled else KillCause.TIME_LIMIT
                self._supervisor.kill(worker, cause, overdue)
        if busy:
            self.arm()
            if self._anybody_waits() or any(not w.held for w in workers):
                # A job that waits behind a long attempt may go to an idle worker.
                self._waker.touch()

    def _overdue(self, worker: WorkerState, now_ns: int) -> set[int]:
        """Returns the attempts for which a worker has to be killed now."""
        started, since_ns = worker.crew.pool.started(worker.number)
        if worker.crew.mode is Concurrency.ONE:
            held = worker.held.get(started)
            if held is None:
                return set()
            # The slot's time counts once: user code could move it on for ever.
            held.seen_ns = held.seen_ns or min(since_ns, now_ns)
            if now_ns - held.seen_ns <= held.timeout_ns:
                return set()
            return {token for token in worker.held if token <= started}
        overdue = set()
        for token, held in worker.held.items():
            # The limit is that of user code: the way to it does not count.
            if token <= started and not held.seen_ns:
                held.seen_ns = now_ns
            if (held.seen_ns and now_ns - held.seen_ns > held.timeout_ns + self.grace_ns) or (
                held.cancel_ns and now_ns - held.cancel_ns > self.grace_ns
            ):
                overdue.add(token)
        return overdue

    def _takes_nothing(self, worker: WorkerState, now_ns: int) -> bool:
        """True where a worker has long had attempts, and none of them has started.

        It is stopped, or hangs outside of user code, where no limit of a job would ever end
        it: what it holds goes to another one (P5).
        """
        started, _ = worker.crew.pool.started(worker.number)
        if started >= min(worker.held):
            worker.idle_ns = 0
            return False
        worker.idle_ns = worker.idle_ns or now_ns
        return now_ns - worker.idle_ns > IDLE_NS


class TimeLimits(Limits):
    """Holds running attempts to their limits and to logged cancels."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        slots: SlotsView,
        submitter: Submitter,
        supervisor: Supervisor,
        pulls: Pulls,
        *,
        grace_ms: int,
    ) -> None:
        """Wires the parts.

        Args:
            engine: Owner of the state.
            clock: Its monotonic time is what limits are measured by.
            slots: The workers, and what they hold.
            submitter: Takes what has not started.
            supervisor: Kills.
            pulls: What remote workers wait for.
            grace_ms: Between a soft stop and the kill.
        """
        super().__init__(
            engine,
            clock,
            slots,
            supervisor,
            grace_ms=grace_ms,
            anybody_waits=lambda: bool(pulls.waiting),
        )
        self._engine, self._submitter = engine, submitter

    def cancel(self, job: str) -> None:
        """Acts on a cancel that is durable: stops the attempt, or never lets it start."""
        row = self._engine.state.jobs.get(job)
        if row is None or row.state != _IN_FLIGHT:
            return
        worker = self._slots.workers.get(row.worker)
        held = worker.held.get(row.token) if worker is not None else None
        if worker is None or held is None or worker.killed is not None:
            return
        if not held.sent:
            # Its DISPATCH is not durable yet, and it will not be sent.
            del worker.held[row.token]
            self._submitter.take_back(worker, ConfirmCancel(job, row.token))
            return
        if worker.crew.mode is Concurrency.MANY:
            held.cancel_ns = self._clock.monotonic_ns()
            worker.crew.pool.cancel(worker.number, row.token)
            self.arm()
            return
        taken = worker.crew.pool.recall(worker.number)
        if row.token in taken:
            # It never started: the others go back to the worker as they were.
            del worker.held[row.token]
            self._submitter.take_back(worker, ConfirmCancel(job, row.token))
            rest = [worker.held[t].attempt for t in taken if t in worker.held]
            if rest:
                worker.crew.pool.dispatch(worker.number, rest)
            return
        for token in taken:
            self._submitter.give_back(worker, token, Cause.NEVER_STARTED)
        self._supervisor.kill(worker, KillCause.CANCEL, {row.token})
