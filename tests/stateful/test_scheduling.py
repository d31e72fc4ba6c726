"""Controller and policy over time: the real ones, over played workers and a moved clock.

Engine, controller, log and recovery are real.  The machine plays workers, which begin and
end user code, die, and are started again; producers and operators; the clock, whose wall
hand jumps forwards and back while the monotonic one goes on; and the server's end, by a
kill, a power cut or a drain.  After every step, once the loop has nothing left to do:

- no free worker stands idle beside a job that it may take (P5), and the policy picks what a
  scan finds;
- an attempt in flight is held by exactly one worker;
- nothing ran before its time, in a paused queue, or more often than its attempts allow; a
  last attempt and a suspect go to an idle worker only;
- delays are those that backoff or the attempt asked for, whatever the wall clock did;
- a worker is killed for a limit that has passed by the monotonic clock, a cancel or its own
  stillness, and for nothing else; and no limit is overlooked;
- what is sent to a worker would survive a power cut, but for queues that do without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beaver.dispatch.controller import Controller
from beaver.dispatch.slots_view import Concurrency
from beaver.dispatch.supervision import START_LIMIT_MS
from beaver.dispatch.time_limits import TICK_S
from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Reply
from beaver.server.booting import boot_command
from beaver.structs.messages import Attempt, Outcome, OutcomeKind, Request
from beaver.workers.slots import PreviousSlots
from beaver_chaos.checker.book import Book
from beaver_chaos.sim.disk import SimDisk
from beaver_model import Rejection, fingerprint, violations
from beaver_model.commands import AnyCommand, Cancel, Enqueue, NewJob, SetQueue
from beaver_model.events import (
    AnyEvent,
    Dispatched,
    Enqueued,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.rows import BackoffKind, Spec, encode_spec, spec_of
from tests.stateful.played import PlayedPool, SameJitter, stepped_loop
from tests.stateful.running import SEEN, Runs
from tests.stateful.scan import OFFERS, check_picks, is_eligible
from tests.stateful.stores import STORE, MovedClock, durable_seq, open_sim
from tests.stateful.strategies import CHANCE, ENQUEUES, FIRST_BATCH, NOW_MS, OPERATIONS

pytestmark = pytest.mark.invariants

TIMES = 2.0
GRACE_MS = 1_000
TIMEOUT_MS = 5_000
"""Of every job that the strategies draw."""
SLACK_NS = round(2.2 * TICK_S * 1e9)
"""A limit is noticed within two ticks."""
START_LIMIT_NS = START_LIMIT_MS * 1_000_000
NOTICED_NS = 60_000_000_000
"""A step of the wall clock is noticed within so long."""
WORKERS = 2
PREFETCH = 3
ALL_TASKS = frozenset({"send", "fetch"})
KINDS = st.sampled_from([OutcomeKind.OK, OutcomeKind.OK, *OutcomeKind])
SAFE = st.sampled_from([True, True, False])
MODES = st.sampled_from([(Concurrency.ONE, 1), (Concurrency.ONE, 1), (Concurrency.MANY, 2)])


class Timetable:
    """What may run when, and how often, kept from events and from what workers did."""

    def __init__(self) -> None:
        self.book = Book()
        self.specs: dict[str, Spec] = {}
        self.eager: set[str] = set()
        """Queues whose jobs may start before their DISPATCH is on disk."""
        self._not_before: dict[str, int] = {}
        self.delays: dict[int, int | None] = {}
        """By token, the delay that its outcome asked for."""
        self._begun: Counter[tuple[str, int, int]] = Counter()
        self._given_back: Counter[tuple[str, int, int]] = Counter()
        self._begun_tokens: set[int] = set()

    def note(self, first_seq: int, time_ms: int, events: Sequence[AnyEvent]) -> None:
        SEEN.logged(events)
        for seq, event in enumerate(events, first_seq):
            try:
                self._check(seq, time_ms, event)
            finally:
                # Else the end of the run would find a gap, and hide what was found here.
                self.book.note(seq, time_ms, [event])

    def _check(self, seq: int, time_ms: int, event: AnyEvent) -> None:
        job = getattr(event, "job", "")
        match event:
            case Enqueued():
                self.specs[job] = spec_of(event.spec)
                self._not_before[job] = event.run_at_ms
            case Dispatched():
                assert time_ms >= self._not_before[job], "a job goes out before its time"
                assert self.specs[job].queue not in self.book.paused, "its queue is paused"
            case Retried() | TimedOut():
                delay_ms = self.delays.get(event.token)
                if delay_ms is None:
                    lost = event.cause == "node_lost"
                    attempt = self.book.pages[job].attempts
                    delay_ms = 0 if lost else _backoff_ms(self.specs[job], attempt)
                self._not_before[job] = time_ms + delay_ms
                assert event.run_at_ms == time_ms + delay_ms, "another delay than was due"
            case Released():
                if event.token in self._begun_tokens:
                    assert event.cause != "never_started", "given back as if it had not begun"
                    self._given_back[self._life(job)] += 1
                if event.cause == "snooze":
                    self._not_before[job] = time_ms + (self.delays.get(event.token) or 0)
            case QueueSet():
                (self.eager.discard if event.durable_dispatch else self.eager.add)(event.queue)
            case Requeued():
                self._not_before[job] = 0

    def begins(self, job: str, token: int) -> None:
        """User code of an attempt is about to run."""
        page = self.book.pages[job]
        assert page.token == token, "user code runs for an attempt that is over"
        assert token not in self._begun_tokens, "user code of one attempt runs twice"
        self._begun_tokens.add(token)
        life = self._life(job)
        self._begun[life] += 1
        charged = self._begun[life] - self._given_back[life]
        assert charged <= page.attempts_max, "user code has run more often than allowed"

    def _life(self, job: str) -> tuple[str, int, int]:
        page = self.book.pages[job]
        return job, page.seq, page.generation


def _backoff_ms(spec: Spec, attempt: int) -> int:
    """The delay after that attempt, as the documents tell it, with the jitter in the middle."""
    factor = {
        BackoffKind.FIXED: 1,
        BackoffKind.LINEAR: attempt,
        BackoffKind.EXPONENTIAL: 1 << (attempt - 1),
    }[BackoffKind(spec.backoff_kind)]
    return min(spec.backoff_base_ms * factor, spec.backoff_max_ms)


class Scheduling(RuleBasedStateMachine):
    """One store, its servers one after the other, and two workers of each."""

    @initialize(mode=MODES, prefetch=st.sampled_from([0, PREFETCH]), safe=SAFE, jobs=FIRST_BATCH)
    def begin(
        self, mode: tuple[Concurrency, int], prefetch: int, safe: bool, jobs: list[NewJob]
    ) -> None:
        self.mode, self.prefetch = mode, prefetch
        self.clock, self.disk = MovedClock(NOW_MS), SimDisk("data")
        self.times = Timetable()
        self.asked_to_stop: set[str] = set()
        self.stepped_ns = -NOTICED_NS
        self.children = 0
        self.start(None, ALL_TASKS)
        self.ask(SetQueue("default", durable_dispatch=safe))
        self.ask(Enqueue(jobs))

    # -- lives of the server ---------------------------------------------------------------------

    def start(self, previous: PreviousSlots | None, tasks: frozenset[str]) -> None:
        """As `assembly` does: recover, BOOT, then controller and workers."""
        opened = open_sim(self.disk, self.clock, create=previous is None)
        state = opened.state
        self.loop = stepped_loop()
        self.pool = PlayedPool(self.clock)
        self.pool.on_dispatch, self.pool.on_kill = self.is_sent, self.is_killed
        self.failures: list[object] = []
        with self.loop.running():
            self.engine = Engine(state, opened.journal, self.clock, on_failure=self.failures.append)
            self.engine.observers.append(self.times.note)
            state.set_known_tasks(tasks)
            self.ask(boot_command(state, previous, STORE))
            mode, concurrency = self.mode
            self.controller = Controller(
                self.engine,
                self.pool,
                self.clock,
                SameJitter(),
                store=STORE.hex(),
                workers=WORKERS,
                concurrency=concurrency,
                mode=mode,
                grace_ms=GRACE_MS,
                to_job=_to_job,
                on_pool_failure=self.failures.append,
                prefetch=self.prefetch,
                room_bytes=1 << 12,
            )
        pump = self.engine.before_commit
        assert pump is not None, "the controller takes part in commits"

        def pumped(now_ms: int) -> None:
            self.pumped_ms = now_ms
            pump(now_ms)

        self.pumped_ms, self.engine.before_commit = state.time_ms, pumped
        self.controller.start()
        self.workers_start()

    @precondition(lambda self: self.engine.state.in_flight)
    @rule(
        how=st.sampled_from(["kill", "power cut", "drain"]),
        chance=CHANCE,
        tasks=st.sampled_from([ALL_TASKS, ALL_TASKS, frozenset({"send"})]),
        grace_ms=st.sampled_from([0, GRACE_MS]),
        begin=st.integers(0, WORKERS),
    )
    def the_server_ends(
        self, how: str, chance: Random, tasks: frozenset[str], grace_ms: int, begin: int
    ) -> None:
        for worker in range(1, begin + 1):
            self.a_worker_begins(worker)
        if how == "drain":
            self.drain(grace_ms)
        else:
            self.crash(chance, how == "power cut", tasks)

    def crash(self, chance: Random, power: bool, tasks: frozenset[str]) -> None:
        """The server is killed, or the machine loses power; the next one starts."""
        before = {
            row.id: (self.times.book.pages[row.id].attempts, self.has_begun(row.worker, token))
            for token, row in self.engine.state.in_flight.items()
        }
        known = fingerprint(self.engine.state)
        if power:
            self.disk.crash(chance.randrange)
        else:
            self.disk.kill()
        self.loop.discard()
        started = {worker: token for worker, (token, _) in self.pool.begun.items()}
        recovered = open_sim(self.disk, self.clock, create=False)
        assert fingerprint(recovered.state) == known, "what was acknowledged is not what is there"
        recovered.journal.abandon()
        self.start(PreviousSlots(not power, STORE, started), tasks)
        for job, (attempts, has_begun) in before.items():
            self.check_charged(job, attempts, has_begun or power)
            SEEN.witness("in flight at a crash" + (", begun" if has_begun else ""))

    def has_begun(self, worker: int, token: int) -> bool:
        return token <= self.pool.begun.get(worker, (0, 0))[0]

    def check_charged(self, job: str, attempts: int, charged: bool) -> None:
        """A crash costs what had begun one attempt, and what had not none."""
        page = self.times.book.pages[job]
        # It may have gone out again at once.
        spent = page.attempts - (page.state == "IN_FLIGHT")
        if page.state != "CANCELLED":
            assert spent == attempts - (not charged), "a crash is charged wrongly"

    def drain(self, grace_ms: int) -> None:
        """A clean end: what runs on is killed after the grace, and nothing is charged."""
        spent = {
            attempt.job: attempt.attempt
            for worker, attempts in self.pool.sent.items()
            for attempt in attempts
            if worker not in self.pool.killed and not self.is_overdue(attempt, after_ms=grace_ms)
        }
        with self.loop.running():
            drained = self.loop.create_task(self.controller.drain(grace_ms))
        self.loop.pass_ms(grace_ms + 1, self.clock)
        for worker in list(self.pool.killed):
            self.is_reaped(worker, "killed by signal 9")
        self.check_failures()
        assert drained.done(), "a drain ends with its grace"
        assert not self.engine.state.in_flight, "a drain leaves nothing in flight"
        for job, attempts in spent.items():
            page = self.times.book.pages[job]
            assert page.state != "PENDING" or page.attempts == attempts - 1, "a drain is charged"
        self.engine.close()
        self.loop.discard()
        self.disk.kill()
        SEEN.witness("drain")
        self.start(PreviousSlots(True, STORE, {}), ALL_TASKS)

    def is_overdue(self, attempt: Attempt, *, after_ms: int = 0) -> bool:
        """True where the limit of an attempt has passed, or will have after so long."""
        begun_ns = self.pool.since.get(attempt.token, self.clock.monotonic)
        return self.clock.monotonic + after_ms * 1_000_000 - begun_ns > TIMEOUT_MS * 1_000_000

    # -- what is asked ---------------------------------------------------------------------------

    def ask(self, command: AnyCommand) -> None:
        def done(reply: Reply) -> None:
            if isinstance(reply, Applied | Rejection):
                SEEN.asked(command, reply if isinstance(reply, Rejection) else ())

        self.engine.submit(command, done)
        self.loop.settle()

    @rule(command=ENQUEUES)
    def enqueue(self, command: Enqueue) -> None:
        self.ask(command)

    @rule(command=OPERATIONS)
    def operate(self, command: AnyCommand) -> None:
        if isinstance(command, Cancel):
            self.asked_to_stop.add(command.job)
        self.ask(command)

    @precondition(lambda self: self.engine.state.in_flight)
    @rule(pick=st.integers(0, 7))
    def cancel_what_runs(self, pick: int) -> None:
        rows = list(self.engine.state.in_flight.values())
        self.operate(Cancel(rows[pick % len(rows)].id))

    # -- what workers do -------------------------------------------------------------------------

    def is_sent(self, worker: int, attempts: Sequence[Attempt]) -> None:
        """The controller sends attempts."""
        durable = durable_seq(self.disk, self.clock)
        held = len(self.pool.sent.get(worker, [])) + len(attempts)
        mode, concurrency = self.mode
        state = self.engine.state
        for attempt in attempts:
            row = state.jobs[attempt.job]
            is_early = attempt.token > durable
            assert not is_early or attempt.queue in self.times.eager, "sent before it is on disk"
            SEEN.witness("sent before its DISPATCH is on disk", is_early)
            assert (row.token, row.attempt) == (attempt.token, attempt.attempt)
            if mode is Concurrency.ONE and held > 1:
                SEEN.witness("prefetched")
                first = attempt is attempts[0] and not self.pool.sent.get(worker)
                is_last = attempt.attempt >= attempt.max_attempts
                assert first or not is_last, "a last attempt waits behind another one"
                assert first or not row.suspect, "a suspect waits behind another one"
        most = concurrency if mode is Concurrency.MANY else self.prefetch or 64
        assert held <= most, f"worker {worker} holds {held} of at most {most}"

    def is_killed(self, worker: int) -> None:
        """The controller kills a worker: there must be a reason."""
        now_ns, attempts = self.clock.monotonic, self.pool.sent.get(worker, [])
        overdue = any(map(self.is_overdue, attempts))
        stopping = any(attempt.job in self.asked_to_stop for attempt in attempts)
        still = bool(attempts) and not any(a.token in self.pool.since for a in attempts)
        reasons = {
            "a drain": self.controller.draining,
            "a limit": overdue,
            "a cancel": stopping,
            "stillness": still,
            "a start that hangs": now_ns - self.pool.added.get(worker, now_ns) >= START_LIMIT_NS,
        }
        reason = next((reason for reason, holds in reasons.items() if holds), "")
        assert reason, f"worker {worker} is killed for nothing"
        SEEN.witness(f"killed for {reason}")

    def workers_start(self) -> None:
        for worker in sorted(self.pool.added):
            if worker in self.pool.killed:
                continue
            del self.pool.added[worker]
            self.controller.worker_ready(worker, 100 + worker)
        self.loop.settle()

    @rule()
    def replacements_start(self) -> None:
        self.workers_start()

    @rule(kinds=st.lists(KINDS, min_size=1, max_size=4))
    def all_workers_work(self, kinds: list[OutcomeKind]) -> None:
        for kind in kinds:
            self.workers_start()
            for worker in self.controller.workers:
                self.an_attempt_ends(worker, kind, None, 0, False)

    @rule(worker=st.integers(1, WORKERS))
    def a_worker_begins(self, worker: int) -> None:
        self.check_failures()
        running = len(self.pool.running(worker))
        if worker in self.pool.killed or not self.pool.waiting(worker) or running >= self.mode[1]:
            return
        attempt = self.pool.begin(worker)
        self.times.begins(attempt.job, attempt.token)

    @rule(
        worker=st.integers(1, WORKERS),
        kind=KINDS,
        delay_ms=st.sampled_from([None, 0, 70, 5_000]),
        children=st.integers(0, 2),
        twice=st.booleans(),
    )
    def an_attempt_ends(
        self, worker: int, kind: OutcomeKind, delay_ms: int | None, children: int, twice: bool
    ) -> None:
        """Also on a worker that is being killed: its last words count."""
        if not self.pool.running(worker):
            self.a_worker_begins(worker)
        for attempt in self.pool.running(worker)[:1]:
            self.pool.end(worker, attempt)
            takes_delay = kind in (OutcomeKind.SNOOZE, OutcomeKind.FAILED)
            outcome = Outcome(
                attempt.token,
                attempt.job,
                kind,
                b"1",
                "boom",
                delay_ms if takes_delay else None,
                tuple(self.child() for _ in range(children if kind == OutcomeKind.OK else 0)),
                elapsed_ms=0.5,
            )
            if takes_delay:
                self.times.delays[attempt.token] = (
                    0 if kind == OutcomeKind.SNOOZE and not delay_ms else delay_ms
                )
            self.controller.outcomes(worker, [outcome])
            self.loop.settle()
            if twice:
                before = self.times.book.last_seq
                self.controller.outcomes(worker, [outcome])
                self.loop.settle()
                assert self.times.book.last_seq == before, "a stale outcome changed something"

    def child(self) -> Request:
        self.children += 1
        return Request(f"child-{self.children}", b"", b"1", b"child-digest")

    @rule(worker=st.integers(1, WORKERS))
    def a_worker_dies(self, worker: int) -> None:
        """By itself, or since it was killed."""
        if self.controller.workers[worker].ready or worker in self.pool.killed:
            self.is_reaped(worker, "killed by signal 9")

    def is_reaped(self, worker: int, detail: str) -> None:
        begun = self.pool.begun.get(worker, (0, 0))[0]
        held = self.pool.reap(worker)
        SEEN.witness("a worker dies with work", bool(held))
        self.controller.worker_exited(worker, begun, detail)
        self.loop.settle()

    # -- time ------------------------------------------------------------------------------------

    @rule(worker=st.integers(1, WORKERS), step_ms=st.sampled_from([0, -100_000, 100_000]))
    def a_limit_passes(self, worker: int, step_ms: int) -> None:
        """By the monotonic clock, whatever the wall clock says."""
        self.a_worker_begins(worker)
        self.wall_clock_steps(step_ms)
        self.time_passes(5_200)

    @rule(ms=st.sampled_from([1, 20, 120, 1_100, 5_200, 31_000, 130_000]))
    def time_passes(self, ms: int) -> None:
        self.loop.pass_ms(ms, self.clock)

    @rule(ms=st.sampled_from([-100_000, -5_000, 5_000, 3_600_000]))
    def wall_clock_steps(self, ms: int) -> None:
        self.clock.step_ms(ms)
        if ms:
            self.stepped_ns = self.clock.monotonic

    # -- what holds ------------------------------------------------------------------------------

    def check_failures(self) -> None:
        """What was found inside the engine's callbacks ended the engine: it is told first."""
        for failure in self.failures:
            raise failure if isinstance(failure, Exception) else AssertionError(failure)

    @invariant()
    def the_book_agrees(self) -> None:
        self.check_failures()
        state = self.engine.state
        assert violations(state) == []
        self.times.book.check(state)
        check_picks(state, max(self.pumped_ms, state.time_ms))
        self.asked_to_stop = {job for job in self.asked_to_stop if job in state.jobs}

    @invariant()
    def every_attempt_is_held_once(self) -> None:
        self.check_failures()
        held = [t for worker in self.controller.workers.values() for t in worker.held]
        assert sorted(held) == sorted(self.engine.state.in_flight)
        for number, worker in self.controller.workers.items():
            sent = [attempt.token for attempt in self.pool.sent.get(number, [])]
            if worker.killed:
                # What was to be sent when it was killed is given back once it is reaped.
                sent += [token for token, held in worker.held.items() if not held.sent]
            assert sorted(worker.held) == sorted(sent), f"held by {number}, and not with it"

    @invariant()
    def no_free_worker_stands_idle(self) -> None:
        """As of now; where the wall clock was set, as of the last look at it."""
        self.check_failures()
        state = self.engine.state
        stepped = self.clock.monotonic - self.stepped_ns <= NOTICED_NS
        now_ms = self.pumped_ms if stepped else self.engine.now_ms()
        for worker in self.controller.workers.values():
            if worker.ready and not worker.killed and not worker.held:
                waiting = [
                    r.id for r in state.jobs.values() if is_eligible(state, r, OFFERS[0], now_ms)
                ]
                assert not waiting, f"worker {worker.number} is idle, and {waiting} wait"

    @invariant()
    def no_limit_is_overlooked(self) -> None:
        self.check_failures()
        now_ns, mode = self.clock.monotonic, self.mode[0]
        grace_ms = GRACE_MS if mode is Concurrency.MANY else 0
        limit_ns = (TIMEOUT_MS + grace_ms) * 1_000_000 + SLACK_NS
        for number in self.controller.workers:
            if number in self.pool.killed:
                continue
            for attempt in self.pool.running(number):
                assert now_ns - self.pool.since[attempt.token] <= limit_ns, "a limit is overlooked"


def _to_job(request: Request, now_ms: int, origin: int) -> NewJob:
    spec = encode_spec(Spec("send", timeout_ms=TIMEOUT_MS, backoff_base_ms=100))
    return NewJob(request.id, spec, request.payload, request.digest)


def test_controller_and_policy_keep_their_promises_over_time(runs: Runs) -> None:
    runs(Scheduling, TIMES)
