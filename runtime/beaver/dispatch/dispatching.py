"""Dispatching: gives ready jobs to free slots, and sends attempts once they may start.

Just before every commit `pump` asks the policy for jobs: idle workers first, then remote ones that
wait for work, then what may wait at a worker that runs another one.  What waits behind a long
attempt is taken back as soon as somebody is idle.

What may not live here: which job is next (`beaver_model.policy`), and what becomes of an
attempt once it was sent (`supervision`, `time_limits`, `outcome_handler`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator
from functools import partial
from typing import Final

from beaver.dispatch.leases import Leases
from beaver.dispatch.outcomes import attempt_of
from beaver.dispatch.slots_view import Concurrency, Held, KillCause, SlotsView, WorkerState
from beaver.dispatch.submitting import Submitter
from beaver.dispatch.supervision import Supervisor
from beaver.dispatch.task_times import ADAPTED_MAX, TaskTimes
from beaver.dispatch.time_limits import TimeLimits
from beaver.engine.engine import Engine
from beaver.errors import BeaverError
from beaver.ports import Clock
from beaver.structs.messages import Attempt
from beaver.text.foreign import counted
from beaver_model import Offer, Row, State, select, select_run
from beaver_model.bounds import ADVANCE_MAX
from beaver_model.commands import AnyCommand, Dispatch, DispatchBatch
from beaver_model.events import Cause, QueueSet
from beaver_model.states import JobState

Batches = dict[int, list[Attempt]]
"""Attempts that wait for the sync of their DISPATCH, by worker."""

log = logging.getLogger("beaver")

_IN_FLIGHT: Final = JobState.IN_FLIGHT

SCARCE_BYTES: Final = 16 << 10
"""With at least this much room in the log jobs still run, one by one: a DISPATCH and a small
outcome fit."""

STEAL_AFTER_NS: Final = 2_000_000
"""Once an attempt has run this long, attempts that wait behind it are given back if a worker is
idle."""


class Dispatching:
    """Fills the slots of the crew that serves."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        slots: SlotsView,
        submitter: Submitter,
        supervisor: Supervisor,
        limits: TimeLimits,
        times: TaskTimes,
        leases: Leases,
        *,
        store: str,
        prefetch: int,
        room_bytes: int,
    ) -> None:
        """Wires the parts; see `Controller` for the settings.  Nothing is dispatched yet."""
        self._engine, self._clock = engine, clock
        self._slots, self._submitter = slots, submitter
        self._supervisor, self._limits = supervisor, limits
        self._times, self._pulls = times, leases.pulls
        self._idle, self._busy = Offer(idle=True), Offer(idle=False)
        """What a slot of this machine takes: at once, and behind a running attempt."""
        self._store = store
        self.prefetch = prefetch
        """Attempts that a worker holds; 0 adapts to the tasks' running times."""
        self._room_bytes = room_bytes
        self.halted = ""
        """Why nothing is dispatched any more, until a restart; empty while all is well."""
        self._starved = self._told = False
        """Ready jobs wait for room in the log alone, and that was logged."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        queues = engine.state.queues
        self._eager = {name for name, queue in queues.items() if not queue.row.durable_dispatch}
        """Queues whose jobs may start before their DISPATCH is durable, as the log says it."""

    def follow(self, event: QueueSet) -> None:
        """Takes in what the log says of a queue."""
        change = self._eager.discard if event.durable_dispatch else self._eager.add
        change(event.queue)

    def know(self, local: frozenset[str], remote: frozenset[str]) -> None:
        """Takes in which tasks workers of this machine, and remote ones, can run."""
        self._engine.state.set_known_tasks(local | remote)
        # Where remote workers know no task more, no slot here has to look at tasks.
        tasks = None if remote <= local else local
        self._idle, self._busy = Offer(tasks, idle=True), Offer(tasks, idle=False)

    def pump(self, now_ms: int) -> None:
        """Gives ready jobs to free slots.  Runs just before every commit."""
        self._pump(now_ms)
        self._pulls.answer()

    def _pump(self, now_ms: int) -> None:
        state, self._starved = self._engine.state, False
        while state.advance(now_ms) == ADVANCE_MAX:
            pass
        self._arm_timer(state)
        if self._slots.draining or self.halted:
            return
        if not state.stride_order and not state.in_flight:
            return  # Nothing to hand out, nothing to take back.
        slots = self._slots.workers.values()
        workers = [w for w in slots if w.serving and w.ready and not w.killed]
        if not state.stride_order and not self._rebalance(workers):
            return
        if self._submitter.unwritten:
            # Commands that wait for room go first.  Otherwise a later attempt could start before
            # the log gives back an earlier one; after a crash the slot would show both as begun.
            return
        if not self._engine.has_room(self._room_bytes):
            if not state.in_flight:
                self._starved = not self._engine.has_room(SCARCE_BYTES)
                if not self._starved:
                    self._fill_one(state, workers, now_ms)
            return
        self._fill(state, workers, now_ms)
        if self._rebalance(workers):
            self._fill(state, workers, now_ms)

    def tell_if_starved(self) -> None:
        """Says once that ready jobs wait for room in the log, and for nothing else."""
        if self._starved and not self._told:
            log.warning(
                "the disk is full, and the log has no room to run another job: what is ready "
                "waits. Free some of the disk of the data directory; work goes on by itself"
            )
        self._told = self._starved

    def _fill_one(self, state: State, workers: list[WorkerState], now_ms: int) -> None:
        """Gives one worker one job: on a full disk the log has no room for several outcomes."""
        idle = next((worker for worker in workers if self._free_now(worker)), None)
        row = None if idle is None else select(state, self._idle, now_ms)
        if idle is None or row is None:
            return
        batches: Batches = {}
        self._engine.submit_each([Dispatch(row.id, idle.number)], _ignore)
        self._hold(state.jobs[row.id], idle, batches)
        for batch in batches.values():
            self._engine.once_durable(partial(self._send, idle, batch))

    def _fill(self, state: State, workers: list[WorkerState], now_ms: int) -> None:
        """Fills idle workers first, then prefetches."""
        batches: Batches = {}
        self._engine.submit_each(self._dispatches(state, workers, batches, now_ms), _ignore)
        for number, batch in batches.items():
            send = partial(self._send, self._slots.workers[number], batch)
            self._engine.once_durable(send)

    def _dispatches(
        self, state: State, workers: list[WorkerState], batches: Batches, now_ms: int
    ) -> Iterator[Dispatch | DispatchBatch]:
        """Yields a DISPATCH for each free slot; each is applied before the next is chosen."""
        if not (yield from self._to_idle(state, workers, batches, now_ms)):
            return
        if not (yield from self._pulls.dispatches(state, now_ms)):
            return
        if self._slots.crew.mode is Concurrency.ONE:
            yield from self._prefetches(state, workers, batches, now_ms)

    def _to_idle(
        self, state: State, workers: list[WorkerState], batches: Batches, now_ms: int
    ) -> Generator[Dispatch, None, bool]:
        """Yields a DISPATCH for each slot of this machine in which a job would start at once.

        False where the log has no room for more.
        """
        free = [w for w in workers for _ in range(self._free_now(w))]
        free.sort(key=lambda w: len(w.held))
        for worker in free:
            row = select(state, self._idle, now_ms)
            if row is None:
                return True
            yield Dispatch(row.id, worker.number)
            if not self._hold(state.jobs[row.id], worker, batches):
                return False
        return True

    def _free_now(self, worker: WorkerState) -> int:
        """Attempts that would start at once on a worker."""
        if self._slots.crew.mode is Concurrency.MANY:
            return max(0, self._slots.crew.concurrency - len(worker.held))
        return 0 if worker.held else 1

    def _prefetches(
        self, state: State, workers: list[WorkerState], batches: Batches, now_ms: int
    ) -> Iterator[DispatchBatch]:
        """Yields a DISPATCH for each job that may wait at a worker which runs another one."""
        now_ns = self._clock.monotonic_ns()
        task, depth = "", 0
        for worker in workers:
            if state.suspects_in_flight and any(state.in_flight[t].suspect for t in worker.held):
                continue  # Nothing waits behind a job that may take the machine down.
            if worker.held and self._runs_long(worker, now_ns):
                continue
            while (room := (self.prefetch or ADAPTED_MAX) - len(worker.held)) > 0:
                rows = select_run(state, self._busy, now_ms, min(room, ADAPTED_MAX))
                if not rows:
                    return
                if rows[0].spec.task != task:
                    task = rows[0].spec.task
                    depth = self.prefetch or self._times.depth(task)
                if len(worker.held) >= depth:
                    break
                del rows[depth - len(worker.held) :]
                yield DispatchBatch([row.id for row in rows], worker.number, True)
                if not self._hold_all([state.jobs[row.id] for row in rows], worker, batches):
                    return

    def _hold(self, row: Row, worker: WorkerState, batches: Batches) -> bool:
        """Notes a job that was dispatched.  False where there was no room in the log for it."""
        if row.state != _IN_FLIGHT:
            return False
        attempt = attempt_of(row, self._store)
        goes_early = self._eager and self._may_go_early(row, worker)
        worker.held[row.token] = Held(attempt)
        if goes_early:
            self._send(worker, [attempt])
            return True
        batches.setdefault(worker.number, []).append(attempt)
        return True

    def _hold_all(self, rows: list[Row], worker: WorkerState, batches: Batches) -> bool:
        """Notes jobs that were dispatched.  False where there was no room in the log for them."""
        if self._eager or rows[0].state != _IN_FLIGHT:
            return all(self._hold(row, worker, batches) for row in rows)
        store, held = self._store, worker.held
        attempts = [attempt_of(row, store) for row in rows]
        for attempt in attempts:
            held[attempt.token] = Held(attempt)
        batches.setdefault(worker.number, []).extend(attempts)
        return True

    def _may_go_early(self, row: Row, worker: WorkerState) -> bool:
        """True where an attempt need not wait until its DISPATCH is durable.

        Its queue says so, and it overtakes nothing: attempts start in the order of their
        tokens at a worker, and the slot says that all up to the last one have started.  A job
        that may take the machine down is counted first in any case.
        """
        if row.spec.queue not in self._eager or row.suspect:
            return False
        last = next(reversed(worker.held.values()), None)
        return (last is None or last.sent) and worker.returned_seq <= self._engine.durable_seq

    def _send(self, worker: WorkerState, batch: list[Attempt]) -> None:
        """Sends attempts, less those that are no longer held."""
        if worker.killed is not None:
            return  # The attempts of a killed worker are given back once it is reaped.
        attempts = []
        for attempt in batch:
            held = worker.held.get(attempt.token)
            if held is not None:
                held.sent = True
                attempts.append(attempt)
        if not attempts:
            return
        log.debug("worker %d gets %s", worker.number, counted(len(attempts), "attempt"))
        try:
            worker.crew.pool.dispatch(worker.number, attempts)
        except OSError as error:
            # No descriptors, say.  Whatever of it went out: the worker goes, all comes back.
            log.warning("worker %d cannot be sent to: %s", worker.number, error)
            self._supervisor.kill(worker, KillCause.IDLE, set())
            return
        self._limits.arm()

    def _rebalance(self, workers: list[WorkerState]) -> bool:
        """Takes back what waits behind a long attempt, while a worker is idle or pulls.

        True where something was taken back, and is ready again.
        """
        if self._slots.crew.mode is Concurrency.MANY:
            return False
        if all(w.held for w in workers) and not self._pulls.waiting:
            return False
        now_ns = self._clock.monotonic_ns()
        for worker in workers:
            long = len(worker.held) > 1 and self._runs_long(worker, now_ns)
            if long and self._submitter.recall(worker, Cause.NEVER_STARTED):
                return True
        return False

    def _runs_long(self, worker: WorkerState, now_ns: int) -> bool:
        """True where a worker's attempt has turned out too long for others to wait behind it."""
        token, since_ns = worker.crew.pool.started(worker.number)
        return token in worker.held and now_ns - since_ns >= STEAL_AFTER_NS

    def _arm_timer(self, state: State) -> None:
        """Wakes the engine when the next scheduled job becomes ready."""
        next_ms = state.next_ready_ms()
        if next_ms is None or (self._timer is not None and next_ms == self._timer_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = next_ms
        delay_s = max(0.0, (next_ms - self._engine.now_ms()) / 1000)
        # Long waits are cut, so that a step of the clock is noticed.
        self._timer = self._loop.call_later(min(delay_s, 60.0), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._engine.touch()


def _ignore(command: AnyCommand, error: BeaverError) -> None:
    """A dispatch that finds no room: the state says that its job is still pending."""
