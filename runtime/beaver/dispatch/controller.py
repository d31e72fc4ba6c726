"""The controller: puts the parts of dispatch together, and is their only door.

The pool tells it what happens to workers, the engine calls it before and after each commit,
and the server starts, reloads and drains through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from beaver.dispatch.crews import Crews
from beaver.dispatch.dispatching import Dispatching
from beaver.dispatch.leases import Leases
from beaver.dispatch.outcome_handler import OutcomeHandler
from beaver.dispatch.reports import Reports
from beaver.dispatch.slots_view import Concurrency, Crew, KillCause, SlotsView
from beaver.dispatch.submitting import Submitter
from beaver.dispatch.supervision import START_LIMIT_MS, Supervisor
from beaver.dispatch.task_times import TaskTimes
from beaver.dispatch.time_limits import TimeLimits
from beaver.engine.engine import Engine
from beaver.ports import Clock, Entropy, Pool
from beaver.structs.messages import Attempt, Outcome, Request
from beaver_model.commands import NewJob
from beaver_model.events import AnyEvent, CancelRequested, Cause, QueueSet

ROOM_BYTES: Final = 1 << 20
"""By default nothing is dispatched while the log has less room: outcomes come first."""


class Controller:
    """Drives a pool from an engine.  Every method belongs to the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        pool: Pool,
        clock: Clock,
        entropy: Entropy,
        *,
        store: str,
        workers: int,
        concurrency: int,
        mode: Concurrency,
        grace_ms: int,
        to_job: Callable[[Request, int, int], NewJob],
        on_pool_failure: Callable[[str], None],
        prefetch: int = 0,
        room_bytes: int = ROOM_BYTES,
        start_limit_ms: int = START_LIMIT_MS,
        on_quiet: Callable[[], None] | None = None,
        on_crew_gone: Callable[[Crew], None] = lambda _: None,
        on_ended: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        """Connects an engine to a pool; nothing is dispatched yet.

        Args:
            engine: Owner of the state; its `before_commit` and observers are used.
            pool: The worker processes.
            clock: For limits.
            entropy: For jitter.
            store: Id of the store's lineage, part of every idempotency key.
            workers: How many there are.
            concurrency: Attempts that a worker runs at once.
            mode: How a worker runs what it holds.
            grace_ms: Between a soft stop and the kill.
            to_job: Resolves a child's request at a time, with its origin.
            on_pool_failure: Called where workers cannot be started any more.
            prefetch: Attempts that a worker holds; 0 adapts to the tasks' running times.
            room_bytes: Nothing is dispatched while the log has less room than this.
            start_limit_ms: A worker that is not ready after so long is replaced.
            on_quiet: Called after a commit that leaves nothing that can run by itself.
            on_crew_gone: Called when the last worker of a former crew has ended.
            on_ended: Called for an attempt that has ended otherwise than by a plain success,
                before the log says so.
        """
        self._engine = engine
        self._on_pool_failure = on_pool_failure
        self._on_quiet = on_quiet
        self._loop = asyncio.get_running_loop()
        self._slots = slots = SlotsView(Crew(pool, mode, concurrency), workers)
        self.workers = slots.workers
        """All workers of this machine by number, to be looked at."""
        self._local_tasks: frozenset[str] | None = None
        self._remote_tasks = frozenset[str]()
        self._submitter = submitter = Submitter(engine)
        self._supervisor = supervisor = Supervisor(
            engine,
            entropy,
            slots,
            submitter,
            start_limit_ms=start_limit_ms,
            on_crew_gone=on_crew_gone,
            on_ended=on_ended,
        )
        self.leases = leases = Leases(
            engine,
            clock,
            entropy,
            submitter,
            store=store,
            on_tasks=self._know_remote,
            on_ended=on_ended,
        )
        self.reports = Reports(engine, leases, entropy, to_job=to_job, on_ended=on_ended)
        self._limits = limits = TimeLimits(
            engine, clock, slots, submitter, supervisor, leases.pulls, grace_ms=grace_ms
        )
        times = TaskTimes()
        self._outcomes = OutcomeHandler(
            engine, entropy, submitter, supervisor, times, to_job=to_job, on_ended=on_ended
        )
        self._dispatching = Dispatching(
            engine,
            clock,
            slots,
            submitter,
            supervisor,
            limits,
            times,
            leases,
            store=store,
            prefetch=prefetch,
            room_bytes=room_bytes,
        )
        self._crews = Crews(engine, slots, submitter, supervisor)
        engine.before_commit = self._dispatching.pump
        engine.observers.append(self._observe)

    # -- what can be seen of it ----------------------------------------------------------------

    @property
    def crew(self) -> Crew:
        """Those that are given jobs."""
        return self._slots.crew

    @property
    def draining(self) -> bool:
        """True from the start of a drain."""
        return self._slots.draining

    @property
    def halted(self) -> str:
        """Why nothing is dispatched any more, until a restart; empty while all is well."""
        return self._dispatching.halted

    @property
    def starts_overdue(self) -> int:
        """Workers that were killed because they did not get ready in time."""
        return self._supervisor.starts_overdue

    @property
    def unwritten(self) -> int:
        """Commands that wait for room in the log."""
        return len(self._submitter.unwritten)

    # -- what the server asks for --------------------------------------------------------------

    def know(self, tasks: frozenset[str]) -> None:
        """Takes in which tasks the workers of this machine can run."""
        self._local_tasks = tasks
        self._dispatching.know(tasks, self._remote_tasks)

    def _know_remote(self, tasks: frozenset[str]) -> None:
        self._remote_tasks = tasks
        if self._local_tasks is not None:
            self._dispatching.know(self._local_tasks, tasks)

    def start(self) -> None:
        """Starts all workers."""
        for worker in self.workers.values():
            self._supervisor.add(worker)

    def halt(self, why: str) -> None:
        """Stops all dispatching: the state can no longer be trusted."""
        self._dispatching.halted = why

    def retry_unwritten(self) -> None:
        """Tries again what found no room in the log: outcomes first, then dispatches."""
        self._submitter.retry(self.workers.values())
        self._dispatching.tell_if_starved()

    def adjust(self, *, prefetch: int, grace_ms: int, start_limit_ms: int) -> None:
        """Takes other settings, from now on."""
        self._dispatching.prefetch = prefetch
        self._limits.grace_ns = grace_ms * 1_000_000
        self._supervisor.start_limit_s = start_limit_ms / 1000

    async def recruit(self, crew: Crew, count: int) -> None:
        """See `Crews.recruit`."""
        await self._crews.recruit(crew, count)

    def hand_over(self, crew: Crew) -> None:
        """See `Crews.hand_over`."""
        self._crews.hand_over(crew)

    def dismiss(self, crew: Crew) -> None:
        """See `Crews.dismiss`."""
        self._crews.dismiss(crew)

    async def drain(self, grace_ms: int) -> None:
        """Stops dispatching, lets running attempts end, and gives the rest back.

        When it returns no worker holds an attempt.  Attempts that ran longer than the grace were
        killed and given back without spending an attempt.
        """
        drained = self._slots.drain(self._loop)
        for worker in self.workers.values():
            if worker.crew.arrival is not None:
                worker.crew.arrival.fails("the server is shutting down")
        # Dispatches being written go to their workers first, and are taken back with the
        # rest.  Otherwise one could start before the log gives back what was taken back ahead of
        # it, and after a crash the slot would say that both had begun.
        self._engine.flush()
        for worker in self.workers.values():
            if worker.held and worker.killed is None:
                self._submitter.recall(worker, Cause.DRAIN)
        self._slots.check_drained()
        deadline = self._loop.call_later(grace_ms / 1000, self._end_grace)
        await drained
        deadline.cancel()
        if self._submitter.unwritten:
            self._submitter.retry(self.workers.values())
        self._engine.flush()
        self._submitter.tell_of_lost()
        self.leases.tell_of_left()

    def _end_grace(self) -> None:
        for worker in self.workers.values():
            if worker.held and worker.killed is None:
                self._supervisor.kill(worker, KillCause.DRAIN, set())

    # -- what the pool tells: see `ports.PoolEvents` -------------------------------------------

    def worker_ready(self, worker: int, pid: int) -> None:
        """See `ports.PoolEvents`."""
        self._supervisor.ready(self.workers[worker], pid)

    def outcomes(self, worker: int, outcomes: Sequence[Outcome]) -> None:
        """See `ports.PoolEvents`."""
        self._outcomes.take(self.workers[worker], outcomes)
        self._slots.check_drained()

    def worker_exited(self, worker: int, started: int, detail: str) -> None:
        """See `ports.PoolEvents`."""
        self._supervisor.exited(self.workers[worker], started, detail)

    def pool_failed(self, message: str) -> None:
        """See `ports.PoolEvents`."""
        self._on_pool_failure(message)

    # -- what the log says ---------------------------------------------------------------------

    def _observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """After a commit: acts on cancels, and says when nothing is left to do."""
        for event in events:
            if type(event) is CancelRequested:
                self._limits.cancel(event.job)
            elif type(event) is QueueSet:
                self._dispatching.follow(event)
        if self._on_quiet is not None and not self._engine.state.in_flight:
            self._on_quiet()
