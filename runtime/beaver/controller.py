"""The controller: time, free slots and outcomes become commands.

It keeps what is soft: which worker has which attempts, since when, and why a worker was
killed.  Nothing here is logged; after a crash all of it is rebuilt from the state, the
slots and BOOT.  It decides nothing that safety rests on: the model refuses what is wrong.

One attempt, from the controller's side:

1. `select` picks a job for a free place, just before a commit; DISPATCH joins that commit.
2. Once DISPATCH is durable the attempt goes to the worker.  Where its queue has opted out of
   that, it goes at once, unless something else of the worker waits for a sync.
3. The worker's outcome becomes a command with the attempt's token, and its place is free.
4. Or the limit passes, or a cancel is logged: the worker is killed and reaped (softly told
   first where the executor can), and only then the log says so.
5. Or the worker dies: what it had started is charged, what it had not is given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from beaver.engine import Engine
from beaver.errors import BeaverError, Conflict, StorageFailed, StoreUnavailable
from beaver.messages import Attempt, Outcome, OutcomeKind, Request
from beaver.outcome_checks import fault_of, running_ms
from beaver.outcomes import attempt_of, command_of
from beaver.places import Arrival, Concurrency, Crew, Held, KillCause, TaskTime, Worker
from beaver.ports import Clock, Entropy, Pool
from beaver.texts import cut
from beaver_model import Offer, Row, State, select, select_run
from beaver_model.bounds import ADVANCE_MAX
from beaver_model.commands import (
    AnyCommand,
    Complete,
    CompleteBatch,
    ConfirmCancel,
    Dispatch,
    DispatchBatch,
    Done,
    Expire,
    Fail,
    Job,
    Release,
)
from beaver_model.events import AnyEvent, CancelRequested, Cause, QueueSet
from beaver_model.rows import Origin
from beaver_model.states import JobState

Batches = dict[int, list[Attempt]]
"""Attempts that wait for the sync of their DISPATCH, by worker."""

log = logging.getLogger("beaver")

_IN_FLIGHT: Final = JobState.IN_FLIGHT
_OK: Final = OutcomeKind.OK

TICK_S: Final = 0.05
"""How often limits are looked at while something runs."""

ADAPTED_MAX: Final = 256
"""Attempts that one worker holds, at most, where their number adapts to their running time."""

PREFETCH_SPAN_MS: Final = 5.0
"""A worker holds attempts for about so long, by the measured time of their task."""

PREFETCH_LEARN: Final = 5
"""So many attempts of a task are measured before it is prefetched at all."""

STEAL_AFTER_NS: Final = 2_000_000
"""An attempt that has run so long gives back what waits behind it, if a worker is idle."""

IDLE_NS: Final = 30_000_000_000
"""A worker that takes nothing of what it was sent for so long is replaced."""

RESTART_DELAY_MAX_S: Final = 5.0
"""Longest wait before a worker that dies without work is replaced again."""

START_LIMIT_MS: Final = 120_000
"""By default a worker that is not ready after so long is replaced."""

TASKS_TIMED_MAX: Final = 10_000
"""Tasks whose running times are known at once."""

LEAVE_S: Final = 10.0
"""A worker that has nothing left to do, and was told to end, is killed after so long."""

CREWS_MAX: Final = 4
"""Crews side by side: a new one, and former ones whose jobs still run."""

DONE_BYTES: Final = 64 << 10
"""Successes with results of so many bytes are not made one command with more of them."""

REFUSED_MAX: Final = 100
"""A worker that answers so often for what it does not hold is killed."""

IDLE: Final = Offer(idle=True)
PREFETCH: Final = Offer(idle=False)

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
        to_job: Callable[[Request, int, int], Job],
        on_pool_failure: Callable[[str], None],
        prefetch: int = 0,
        room_bytes: int = ROOM_BYTES,
        start_limit_ms: int = START_LIMIT_MS,
        on_quiet: Callable[[], None] | None = None,
        on_crew_gone: Callable[[Crew], None] = lambda _: None,
        on_ended: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        """Connects an engine with a pool; nothing is dispatched yet.

        Args:
            engine: Owner of the state; its `before_commit` and observers are used.
            pool: The worker processes.
            clock: For limits.
            entropy: For jitter.
            store: Id of the store, part of every idempotency key.
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
        self._clock = clock
        self._entropy = entropy
        self._store = store
        self._on_pool_failure = on_pool_failure
        self._grace_ns = grace_ms * 1_000_000
        self._to_job = to_job
        self._prefetch = prefetch
        self._room_bytes = room_bytes
        self._start_limit_s = start_limit_ms / 1000
        self.starts_overdue = 0
        """Workers that were killed because they did not get ready in time."""
        self._on_quiet, self._on_crew_gone = on_quiet, on_crew_gone
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self.crew = Crew(pool, mode, concurrency)
        """Those that are given jobs."""
        self.workers = {n: Worker(n, self.crew) for n in range(1, workers + 1)}
        self.halted = ""
        """Why nothing is dispatched any more, until a restart; empty while all is well."""
        self._draining = False
        self._drained: asyncio.Future[None] | None = None
        self._ticking = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._times: dict[str, TaskTime] = {}
        """By task."""
        self._unwritten: list[AnyCommand] = []
        """Outcomes that wait for room in the log."""
        queues = engine.state.queues
        self._eager = {name for name, queue in queues.items() if not queue.row.durable_dispatch}
        """Queues whose jobs may start before their DISPATCH is durable, as the log says it."""
        engine.before_commit = self._pump
        engine.observers.append(self._observe)

    def start(self) -> None:
        """Starts all workers."""
        for number in self.workers:
            self._add(number)

    def halt(self, why: str) -> None:
        """Dispatches nothing any more: the state cannot be trusted to choose from."""
        self.halted = why

    def _add(self, number: int) -> None:
        """Starts a worker, and sees to it that it gets ready."""
        place = self.workers[number]
        place.crew.pool.add(number)
        place.running = True
        place.start_limit = self._loop.call_later(self._start_limit_s, self._overdue_start, place)

    def _overdue_start(self, place: Worker) -> None:
        """Ends a start that hangs, in an import say.  It holds no attempt: none is charged."""
        place.start_limit = None
        if self._draining or place.killed is not None:
            return
        self.starts_overdue += 1
        log.error(
            "worker %d is not ready %g s after its start (start_timeout), and is killed; "
            "does the import of the application hang?",
            place.number,
            self._start_limit_s,
        )
        self._kill(place, KillCause.START, set())

    def _started(self, place: Worker) -> None:
        """The start of a worker is over, well or not."""
        if place.start_limit is not None:
            place.start_limit.cancel()
            place.start_limit = None

    # -- free places -----------------------------------------------------------------------

    def _pump(self, now_ms: int) -> None:
        """Gives ready jobs to free places.  Runs just before every commit."""
        state = self._engine.state
        while state.advance(now_ms) == ADVANCE_MAX:
            pass
        self._arm_timer(state)
        if self._draining or self.halted:
            return
        if not state.turns and not state.in_flight:
            return  # Nothing to hand out, nothing to take back.
        workers = [w for w in self.workers.values() if w.serving and w.ready and not w.killed]
        if not state.turns and not self._rebalance(workers):
            return
        if self._unwritten or not self._engine.has_room(self._room_bytes):
            # What waits for room goes first.  Else a later attempt could start before the log
            # gives back an earlier one, and after a crash the slot would say that both began.
            return
        self._fill(state, workers, now_ms)
        if self._rebalance(workers):
            self._fill(state, workers, now_ms)

    def _fill(self, state: State, workers: list[Worker], now_ms: int) -> None:
        """Fills idle workers first, then prefetches."""
        batches: Batches = {}
        self._engine.submit_each(self._dispatches(state, workers, batches, now_ms), _ignore)
        for number, batch in batches.items():
            self._engine.read(_nothing, partial(self._send, self.workers[number], batch))

    def _dispatches(
        self, state: State, workers: list[Worker], batches: Batches, now_ms: int
    ) -> Iterator[Dispatch | DispatchBatch]:
        """Yields a DISPATCH for each free place; each is applied before the next is chosen."""
        places = [w for w in workers for _ in range(self._free_now(w))]
        places.sort(key=lambda w: len(w.held))
        for worker in places:
            row = select(state, IDLE, now_ms)
            if row is None:
                return
            yield Dispatch(row.id, worker.number)
            if not self._hold(state.jobs[row.id], worker, batches):
                return
        if self.crew.mode is Concurrency.ONE:
            yield from self._prefetches(state, workers, batches, now_ms)

    def _free_now(self, worker: Worker) -> int:
        """Attempts that would start at once on a worker."""
        if self.crew.mode is Concurrency.MANY:
            return max(0, self.crew.concurrency - len(worker.held))
        return 0 if worker.held else 1

    def _prefetches(
        self, state: State, workers: list[Worker], batches: Batches, now_ms: int
    ) -> Iterator[DispatchBatch]:
        """Yields a DISPATCH for each job that may wait at a worker which runs another one."""
        now_ns = self._clock.monotonic_ns()
        task, depth = "", 0
        for worker in workers:
            if state.suspects_in_flight and any(state.in_flight[t].suspect for t in worker.held):
                continue  # Nothing waits behind a job that may take the machine down.
            if worker.held and self._runs_long(worker, now_ns):
                continue
            while (room := (self._prefetch or ADAPTED_MAX) - len(worker.held)) > 0:
                rows = select_run(state, PREFETCH, now_ms, min(room, ADAPTED_MAX))
                if not rows:
                    return
                if rows[0].spec.task != task:
                    task = rows[0].spec.task
                    depth = self._depth(task)
                if len(worker.held) >= depth:
                    break
                del rows[depth - len(worker.held) :]
                yield DispatchBatch([row.id for row in rows], worker.number, True)
                if not self._hold_all([state.jobs[row.id] for row in rows], worker, batches):
                    return

    def _depth(self, task: str) -> int:
        """Returns how many attempts of a task a worker may hold."""
        if self._prefetch:
            return self._prefetch
        time = self._times.get(task)
        if time is None or time.seen < PREFETCH_LEARN:
            return 1
        return max(1, min(ADAPTED_MAX, int(PREFETCH_SPAN_MS / max(time.mean_ms, 0.01))))

    def _hold(self, row: Row, worker: Worker, batches: Batches) -> bool:
        """Notes a job that was dispatched.  False where there was no room in the log for it."""
        if row.state != _IN_FLIGHT:
            return False
        attempt = attempt_of(row, self._store)
        goes_early = self._eager and self._may_go_early(row, worker)
        worker.held[row.token] = Held(attempt)
        if goes_early:
            self._send(worker, [attempt], None)
            return True
        batches.setdefault(worker.number, []).append(attempt)
        return True

    def _hold_all(self, rows: list[Row], worker: Worker, batches: Batches) -> bool:
        """Notes jobs that were dispatched.  False where there was no room in the log for them."""
        if self._eager or rows[0].state != _IN_FLIGHT:
            return all(self._hold(row, worker, batches) for row in rows)
        store, held = self._store, worker.held
        attempts = [attempt_of(row, store) for row in rows]
        for attempt in attempts:
            held[attempt.token] = Held(attempt)
        batches.setdefault(worker.number, []).extend(attempts)
        return True

    def _may_go_early(self, row: Row, worker: Worker) -> bool:
        """True where an attempt need not wait until its DISPATCH is durable.

        Its queue says so, and it overtakes nothing: attempts start in the order of their
        tokens at a worker, and the slot says that all up to the last one have started.  A job
        that may take the machine down is counted first in any case.
        """
        if row.spec.queue not in self._eager or row.suspect:
            return False
        last = next(reversed(worker.held.values()), None)
        return (last is None or last.sent) and worker.returned_seq <= self._engine.durable_seq

    def _send(self, worker: Worker, batch: list[Attempt], _: None) -> None:
        """Sends attempts, less those that are no longer held."""
        if worker.killed is not None:
            return  # What a killed worker holds is given back once it is reaped.
        attempts = []
        for attempt in batch:
            held = worker.held.get(attempt.token)
            if held is not None:
                held.sent = True
                attempts.append(attempt)
        if not attempts:
            return
        log.debug("dispatch %d attempts to worker %d", len(attempts), worker.number)
        try:
            worker.crew.pool.dispatch(worker.number, attempts)
        except OSError as error:
            # No descriptors, say.  Whatever of it went out: the worker goes, all comes back.
            log.warning("worker %d cannot be sent to: %s", worker.number, error)
            self._kill(worker, KillCause.IDLE, set())
            return
        self._arm_tick()

    def _rebalance(self, workers: list[Worker]) -> bool:
        """Takes back what waits behind a long attempt, while a worker is idle.

        True where something was taken back, and is ready again.
        """
        if self.crew.mode is Concurrency.MANY or all(w.held for w in workers):
            return False
        now_ns = self._clock.monotonic_ns()
        for worker in workers:
            long = len(worker.held) > 1 and self._runs_long(worker, now_ns)
            if long and self._let_go(worker, Cause.NEVER_STARTED):
                return True
        return False

    def _runs_long(self, worker: Worker, now_ns: int) -> bool:
        """True where a worker's attempt has turned out too long for others to wait behind it."""
        token, since_ns = worker.crew.pool.started(worker.number)
        return token in worker.held and now_ns - since_ns >= STEAL_AFTER_NS

    def _let_go(self, worker: Worker, cause: str) -> bool:
        """Takes back what a worker has not started; false where that is nothing."""
        taken = worker.crew.pool.recall(worker.number)
        for token in taken:
            self._give_back(worker, token, cause)
        return bool(taken)

    def _give_back(self, worker: Worker, token: int, cause: str) -> None:
        held = worker.held.pop(token, None)
        if held is not None:
            self._take_back(worker, Release(held.attempt.job, token, cause))

    def _take_back(self, worker: Worker, command: AnyCommand) -> None:
        """Submits what becomes of an attempt that has not started and now never will."""
        self._submit(command)
        worker.returned_seq = self._engine.state.last_seq

    # -- outcomes ----------------------------------------------------------------------------

    def worker_ready(self, worker: int, pid: int) -> None:
        """See `ports.PoolEvents`."""
        place = self.workers[worker]
        self._started(place)
        place.pid, place.ready, place.useful = pid, True, False
        if place.crew.arrival is not None:
            place.crew.arrival.one_is_ready()
        self._engine.touch()

    def outcomes(self, worker: int, outcomes: Sequence[Outcome]) -> None:
        """See `ports.PoolEvents`."""
        place = self.workers[worker]
        place.useful, place.deaths = True, 0
        self._submit(*self._commands(place, outcomes))
        self._engine.touch()
        self._check_drained()

    def _commands(self, place: Worker, outcomes: Sequence[Outcome]) -> Iterator[AnyCommand]:
        """Yields the commands of outcomes, in order; the worker no longer holds the attempts.

        Successes that come one after another make one command.
        """
        random = self._entropy.random
        done: list[Done] = []
        size = 0
        for outcome in outcomes:
            held = place.held.get(outcome.token)
            if held is None or not held.sent or held.attempt.job != outcome.job:
                self._refuse(place, outcome)
                continue
            del place.held[outcome.token]
            elapsed_ms = running_ms(outcome)
            if elapsed_ms is not None:
                self._time_of(held.attempt.task).learn(elapsed_ms)
            plain = outcome.kind == _OK and not outcome.children and not fault_of(outcome)
            if done and not (plain and size < DONE_BYTES):
                yield CompleteBatch(done)
                done, size = [], 0
            if plain:
                done.append(Done(outcome.job, outcome.token, outcome.result))
                size += len(outcome.result)
            else:
                self._on_ended(held.attempt)
                yield command_of(outcome, self._to_child, random)
        if done:
            yield CompleteBatch(done)

    def _refuse(self, place: Worker, outcome: Outcome) -> None:
        """Drops the outcome of an attempt that the worker does not hold.

        It is late, said twice, or made up by user code.  A worker that goes on so is killed,
        and what it runs is charged.
        """
        place.refused += 1
        if place.refused in (1, REFUSED_MAX):
            log.warning(
                "worker %d answers for job %s with token %d, which it does not run: refused",
                place.number,
                outcome.job,
                outcome.token,
            )
        if place.refused >= REFUSED_MAX and place.killed is None:
            self._kill(place, KillCause.REFUSED, set())

    def _to_child(self, request: Request) -> Job:
        return self._to_job(request, self._engine.now_ms(), Origin.JOB)

    def _time_of(self, task: str) -> TaskTime:
        time = self._times.get(task)
        if time is None:
            if len(self._times) >= TASKS_TIMED_MAX:
                self._times.clear()
            time = self._times[task] = TaskTime()
        return time

    def _submit(self, *commands: AnyCommand) -> None:
        """Submits outcomes; one that finds no room in the log waits for it."""
        self._engine.submit_each(commands, self._keep)

    def _keep(self, command: AnyCommand, error: BeaverError) -> None:
        if not isinstance(error, StorageFailed):
            return
        if isinstance(command, CompleteBatch):
            # One by one they need no more room at once than the largest of them.
            self._unwritten += [Complete(d.job, d.token, d.result) for d in command.done]
        else:
            self._unwritten.append(command)

    def retry_unwritten(self) -> None:
        """Tries again what found no room in the log: outcomes first, then dispatches."""
        waiting, self._unwritten = self._unwritten, []
        self._submit(*waiting)
        for place in self.workers.values():  # Among these is what was given back.
            place.returned_seq = self._engine.state.last_seq
        self._engine.touch()

    def worker_exited(self, worker: int, started: int, detail: str) -> None:
        """See `ports.PoolEvents`."""
        place = self.workers[worker]
        for token, held in list(place.held.items()):
            fate = self._fate(place, token, held, started, detail)
            if token > started:
                self._take_back(place, fate)
            else:
                self._on_ended(held.attempt)
                self._submit(fate)
        place.held.clear()
        place.idle_ns = 0
        self._started(place)
        killed_at_work = place.killed not in (None, KillCause.START)
        replace_at_once = killed_at_work or place.useful
        place.ready = place.useful = place.running = False
        place.killed = None
        place.refused = 0
        place.offenders.clear()
        self._engine.touch()
        self._check_drained()
        if place.leaving or place.crew.arrival is not None:
            self._strike(place, f"worker {worker} {detail} before it was ready")
            return
        if self._draining:
            return
        if replace_at_once:
            self._add(worker)
            return
        place.deaths += 1
        delay_s = min(RESTART_DELAY_MAX_S, 0.05 * 2 ** min(place.deaths, 10))
        log.warning("worker %d %s before it ended a job; replaced soon", worker, detail)
        self._loop.call_later(delay_s, self._replace, place)

    def _replace(self, place: Worker) -> None:
        if not self._draining and not place.leaving and not place.running:
            self._add(place.number)

    def _fate(self, place: Worker, token: int, held: Held, started: int, detail: str) -> AnyCommand:
        """Returns what becomes of an attempt whose worker is gone."""
        job, jitter = held.attempt.job, self._entropy.random()
        if token > started:
            return Release(job, token, Cause.NEVER_STARTED)
        if place.killed is KillCause.REFUSED:
            detail = f"was killed: it answered {place.refused} times for what it does not hold"
        if place.killed in (None, KillCause.REFUSED):
            return Fail(job, token, cut(f"its worker {detail}"), jitter, Cause.WORKER_LOST)
        if place.killed is KillCause.DRAIN:
            return Release(job, token, Cause.DRAIN)
        if token not in place.offenders:
            return Release(job, token, Cause.NEIGHBOUR)
        if place.killed is KillCause.CANCEL:
            return ConfirmCancel(job, token)
        limit_s = held.attempt.timeout_ms / 1000
        return Expire(job, token, Cause.TIME_LIMIT, jitter, f"ran longer than {limit_s:g} s")

    def pool_failed(self, message: str) -> None:
        """See `ports.PoolEvents`."""
        self._on_pool_failure(message)

    # -- limits and cancels --------------------------------------------------------------------

    def _observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """After a commit: acts on cancels, and says when nothing is left to do."""
        for event in events:
            if type(event) is CancelRequested:
                self._cancel(event.job)
            elif type(event) is QueueSet:
                change = self._eager.discard if event.durable_dispatch else self._eager.add
                change(event.queue)
        if self._on_quiet is not None and not self._engine.state.in_flight:
            self._on_quiet()

    def _cancel(self, job: str) -> None:
        row = self._engine.state.jobs.get(job)
        if row is None or row.state != _IN_FLIGHT:
            return
        place = self.workers.get(row.worker)
        held = place.held.get(row.token) if place is not None else None
        if place is None or held is None or place.killed is not None:
            return
        if not held.sent:
            # Its DISPATCH is not durable yet, and it will not be sent.
            del place.held[row.token]
            self._take_back(place, ConfirmCancel(job, row.token))
            return
        if place.crew.mode is Concurrency.MANY:
            held.cancel_ns = self._clock.monotonic_ns()
            place.crew.pool.cancel(place.number, row.token)
            self._arm_tick()
            return
        taken = place.crew.pool.recall(place.number)
        if row.token in taken:
            # It never started: the others go back to the worker as they were.
            del place.held[row.token]
            self._take_back(place, ConfirmCancel(job, row.token))
            rest = [place.held[t].attempt for t in taken if t in place.held]
            if rest:
                place.crew.pool.dispatch(place.number, rest)
            return
        for token in taken:
            self._give_back(place, token, Cause.NEVER_STARTED)
        self._kill(place, KillCause.CANCEL, {row.token})

    def _kill(self, place: Worker, cause: KillCause, offenders: set[int]) -> None:
        """Kills a worker; what becomes of its attempts is said once it is reaped."""
        place.killed = cause
        place.offenders = offenders
        place.crew.pool.kill(place.number)

    def _arm_tick(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        """Looks at every running attempt's limit.  Goes on while something runs."""
        self._ticking = False
        now_ns = self._clock.monotonic_ns()
        busy = False
        for place in self.workers.values():
            if not place.held or place.killed is not None:
                continue
            busy = True
            overdue = self._overdue(place, now_ns)
            if self._takes_nothing(place, now_ns):
                log.warning("worker %d does not take its jobs and is replaced", place.number)
                self._kill(place, KillCause.IDLE, set())
            elif overdue:
                cancelled = all(place.held[token].cancel_ns for token in overdue)
                self._kill(place, KillCause.CANCEL if cancelled else KillCause.TIME_LIMIT, overdue)
        if busy:
            self._arm_tick()
            if any(not w.held for w in self.workers.values()):
                # What waits behind a long attempt may go to an idle worker.
                self._engine.touch()

    def _overdue(self, place: Worker, now_ns: int) -> set[int]:
        """Returns the attempts for which a worker has to be killed now."""
        if place.crew.mode is Concurrency.ONE:
            token, since_ns = place.crew.pool.started(place.number)
            held = place.held.get(token)
            if held is None:
                return set()
            # What the slot says of the time counts once: user code could move it on for ever.
            held.seen_ns = held.seen_ns or min(since_ns, now_ns)
            if now_ns - held.seen_ns <= held.timeout_ns:
                return set()
            return {started for started in place.held if started <= token}
        started, _ = place.crew.pool.started(place.number)
        overdue = set()
        for token, held in place.held.items():
            # The limit is that of user code: the way to it does not count.
            if token <= started and not held.seen_ns:
                held.seen_ns = now_ns
            if (held.seen_ns and now_ns - held.seen_ns > held.timeout_ns + self._grace_ns) or (
                held.cancel_ns and now_ns - held.cancel_ns > self._grace_ns
            ):
                overdue.add(token)
        return overdue

    def _takes_nothing(self, place: Worker, now_ns: int) -> bool:
        """True where a worker has long had attempts, and none of them has started.

        It is stopped, or hangs outside of user code, where no limit of a job would ever end
        it: what it holds goes to another one (P5).
        """
        started, _ = place.crew.pool.started(place.number)
        if started >= min(place.held):
            place.idle_ns = 0
            return False
        place.idle_ns = place.idle_ns or now_ns
        return now_ns - place.idle_ns > IDLE_NS

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

    # -- a new crew ----------------------------------------------------------------------------

    async def recruit(self, crew: Crew, count: int) -> None:
        """Starts the workers of a new crew beside those that are there, and waits for them.

        They are given nothing before `hand_over`.

        Raises:
            CrewFailed: One of them does not come up.  The others are to be killed, with their
                pool; the former ones serve as before.
            Conflict: Too many former crews still run jobs.
        """
        if self._draining:
            raise StoreUnavailable("the server is shutting down; nothing was reloaded")
        former = {place.crew for place in self.workers.values()}
        if len(former) >= CREWS_MAX:
            left = [place for place in self.workers.values() if place.leaving]
            raise Conflict(
                f"{len(left)} workers of {len(former) - 1} former reloads still run jobs "
                f"(workers {', '.join(str(place.number) for place in left[:10])})\n"
                "Try again when some have ended; `beaver status` shows them, `beaver cancel` "
                "stops a job."
            )
        crew.arrival = Arrival(self._loop, count)
        number = 0
        for _ in range(count):
            number += 1
            while number in self.workers:
                number += 1
            self.workers[number] = Worker(number, crew, serving=False)
        for place in [place for place in self.workers.values() if place.crew is crew]:
            self._add(place.number)
        await crew.arrival.done

    def hand_over(self, crew: Crew) -> None:
        """Gives all jobs to come to a crew that has arrived; the former one leaves.

        1. What is on its way to the disk goes to its worker first, as at a drain.
        2. What has not started is taken back, and given back without a charge.
        3. Each former worker ends once it has ended what it runs, within that job's own limit.
        """
        self._engine.flush()
        former, self.crew = self.crew, crew
        crew.arrival = None
        for place in list(self.workers.values()):
            if place.crew is crew:
                place.serving = True
            elif place.crew is former:
                self._dismiss(place)
        self._engine.touch()

    def dismiss(self, crew: Crew) -> None:
        """A new crew goes again, before it has taken over."""
        if crew.arrival is not None:
            crew.arrival.done.cancel()
        for place in [place for place in self.workers.values() if place.crew is crew]:
            self._dismiss(place)

    def _dismiss(self, place: Worker) -> None:
        place.serving, place.leaving = False, True
        if not place.running:
            self._strike(place, "")
            return
        if place.killed is None:
            self._let_go(place, Cause.DRAIN)
            place.crew.pool.retire(place.number)
        self._loop.call_later(LEAVE_S, self._overdue_leave, place)

    def _overdue_leave(self, place: Worker) -> None:
        """Kills a worker that has nothing left to do and does not end."""
        if self.workers.get(place.number) is not place or place.killed is not None:
            return
        if place.held:
            self._loop.call_later(LEAVE_S, self._overdue_leave, place)
        else:
            log.warning("worker %d does not end by itself and is killed", place.number)
            self._kill(place, KillCause.LEAVE, set())

    def _strike(self, place: Worker, why: str) -> None:
        """Takes a worker that is gone, and that nobody replaces, off the list."""
        del self.workers[place.number]
        crew = place.crew
        if crew.arrival is not None:
            crew.arrival.fails(why)
        elif crew is not self.crew and all(w.crew is not crew for w in self.workers.values()):
            self._on_crew_gone(crew)

    def adjust(self, *, prefetch: int, grace_ms: int, start_limit_ms: int) -> None:
        """Takes other settings, from now on."""
        self._prefetch = prefetch
        self._grace_ns = grace_ms * 1_000_000
        self._start_limit_s = start_limit_ms / 1000

    # -- the end ----------------------------------------------------------------------------------

    async def drain(self, grace_ms: int) -> None:
        """Stops dispatching, lets running attempts end, and gives the rest back.

        When it returns no worker holds an attempt.  What ran longer than the grace was
        killed and given back without spending an attempt.
        """
        self._draining = True
        self._drained = self._loop.create_future()
        for place in self.workers.values():
            if place.crew.arrival is not None:
                place.crew.arrival.fails("the server is shutting down")
        # What is on its way to the disk goes to its worker first, and is taken back with the
        # rest.  Else it could start before the log gives back what was taken back ahead of
        # it, and after a crash the slot would say that both had begun.
        self._engine.flush()
        for place in self.workers.values():
            if place.held and place.killed is None:
                self._let_go(place, Cause.DRAIN)
        self._check_drained()
        deadline = self._loop.call_later(grace_ms / 1000, self._end_grace)
        await self._drained
        deadline.cancel()
        self._engine.flush()

    def _end_grace(self) -> None:
        for place in self.workers.values():
            if place.held and place.killed is None:
                self._kill(place, KillCause.DRAIN, set())

    def _check_drained(self) -> None:
        if self._drained is None or self._drained.done():
            return
        if not any(place.held for place in self.workers.values()):
            self._drained.set_result(None)


def _ignore(command: AnyCommand, error: BeaverError) -> None:
    """A dispatch that finds no room: the state says that its job is still pending."""


def _nothing(state: State) -> None:
    """Asks nothing: the answer comes when all that was applied is durable."""
