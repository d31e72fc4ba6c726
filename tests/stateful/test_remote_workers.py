"""Remote workers over time: the real leases, pulls and reports, over a moved clock.

Engine, controller, log and recovery are real.  The machine plays workers that pull, name what they
run, report once, twice and late, lose answers, fall silent, die, and register again; operators; and
the server's end by a kill or a power cut.  After every step, once the loop has nothing left to do:

- an attempt in flight is held by exactly one registration, or is nobody's since a restart (P5);
- no worker holds more than its capacity;
- an outcome changes something only where its token is in flight, and the same one is answered as
  before (P3);
- nobody is silent for longer than a lease and holds something;
- a start of the server ends nothing that a remote worker runs;
- the log follows the specification, event by event.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beaver.dispatch.controller import Controller
from beaver.dispatch.remote_workers import Pull
from beaver.dispatch.reports import Answer, Report
from beaver.dispatch.slots_view import Concurrency
from beaver.engine.engine import Engine
from beaver.errors import BeaverError, NotFound
from beaver.structs.messages import Attempt, Outcome, OutcomeKind
from beaver_chaos.sim.disk import SimDisk
from beaver_model import violations
from beaver_model.commands import AnyCommand, Boot, Cancel, Enqueue, NewJob
from beaver_model.events import AnyEvent
from beaver_model.rows import Spec, encode_spec
from beaver_spec.traces.following import steps_of
from beaver_spec.traces.rules import Validator
from tests.stateful.played import PlayedPool, SameJitter, stepped_loop
from tests.stateful.running import SEEN, Runs
from tests.stateful.stores import STORE, MovedClock, open_sim
from tests.stateful.strategies import CHANCE, ENQUEUES, FIRST_BATCH, NOW_MS, OPERATIONS

pytestmark = pytest.mark.invariants

TIMES = 2.0
LEASE_MS = 2_000
"""Shorter than the limit of the jobs, so that both are met."""
WORKERS = 2
SPANS = st.sampled_from([1, 100, 1_000, LEASE_MS // 3, LEASE_MS - 1, LEASE_MS, 2 * LEASE_MS])
KINDS = st.sampled_from([OutcomeKind.OK, OutcomeKind.OK, *OutcomeKind])
WHO = st.integers(0, WORKERS - 1)
TASKS = frozenset({"send", "fetch"})


class Program:
    """A worker as it sees itself."""

    def __init__(self) -> None:
        self.number = 0
        self.capacity = 0
        self.running: dict[int, str] = {}
        """Token and job of what it has got and not ended."""


class Remotes(RuleBasedStateMachine):
    """One store, its servers one after the other, and three remote workers."""

    @initialize(jobs=FIRST_BATCH)
    def begin(self, jobs: list[NewJob]) -> None:
        self.clock, self.disk = MovedClock(NOW_MS), SimDisk("data")
        self.programs = [Program() for _ in range(WORKERS)]
        self.got: dict[int, str] = {}
        """Every token that anybody ever got, and its job."""
        self.answers: dict[int, tuple[OutcomeKind, Answer]] = {}
        self.validator = Validator()
        self.fresh = 0
        """Jobs that came in so that there is something to pull."""
        self.start(create=True)
        self.ask(Enqueue(jobs))

    def start(self, *, create: bool, power: bool = False) -> None:
        opened = open_sim(self.disk, self.clock, create=create)
        self.loop = stepped_loop()
        self.failures: list[object] = []
        with self.loop.running():
            self.engine = Engine(
                opened.state, opened.journal, self.clock, on_failure=self.failures.append
            )
            self.engine.observers.append(self.note)
            self.ask(Boot(power_cut=power))
            self.controller = Controller(
                self.engine, PlayedPool(self.clock), self.clock, SameJitter(), store=STORE.hex(),
                workers=0, concurrency=1, mode=Concurrency.ONE, grace_ms=1_000,
                to_job=_no_child, on_pool_failure=self.failures.append, room_bytes=1 << 12,
            )  # fmt: skip
            self.controller.know(frozenset())
            self.controller.leases.adjust(LEASE_MS, LEASE_MS // 3)
        self.leases, self.reports = self.controller.leases, self.controller.reports
        self.loop.settle()

    def note(self, first_seq: int, time_ms: int, events: Sequence[AnyEvent]) -> None:
        SEEN.logged(events)
        for step in steps_of(first_seq, time_ms, events):
            reason = self.validator.step(step)
            assert reason is None, f"seq {step.seq}: {step.name}: {reason}"

    def ask(self, command: AnyCommand) -> None:
        self.engine.submit(command, lambda _: None)
        self.loop.settle()

    # -- what is asked -----------------------------------------------------------------------------

    @rule(command=ENQUEUES)
    def enqueue(self, command: Enqueue) -> None:
        self.ask(command)

    @rule(command=OPERATIONS)
    def operate(self, command: AnyCommand) -> None:
        self.ask(command)

    @precondition(lambda self: self.engine.state.in_flight)
    @rule(pick=st.integers(0, 3))
    def cancel_what_runs(self, pick: int) -> None:
        rows = list(self.engine.state.in_flight.values())
        self.ask(Cancel(rows[pick % len(rows)].id))

    @rule(ms=SPANS)
    def time_passes(self, ms: int) -> None:
        self.loop.pass_ms(ms, self.clock)

    # -- what workers do ---------------------------------------------------------------------------

    @rule(who=WHO, capacity=st.integers(1, 3))
    def register(self, who: int, capacity: int) -> None:
        """Anew, or once more: what it runs, it runs on."""
        program = self.programs[who]
        with self.loop.running():
            worker = self.leases.register(f"w{who}", TASKS, None, capacity, "o")
        assert worker.number != program.number, "no number comes twice"
        program.number, program.capacity = worker.number, capacity
        self.loop.settle()

    @rule(who=WHO, count=st.integers(1, 4), fate=st.sampled_from(["got", "got", "lost", "dropped"]))
    def pull(self, who: int, count: int, fate: str) -> None:
        """The answer arrives, is lost, or is not waited for any more."""
        program = self.programs[who]
        if not program.number:
            self.register(who, 2)
        self.fresh += 1
        if self.fresh % 4:
            self.ask(Enqueue([_fresh(self.fresh)]))
        given: list[Attempt] = []
        with self.loop.running():
            try:
                pull: Pull = self.leases.pull(program.number, count, given.extend, waits=False)
            except NotFound:
                program.number = 0
                return
            if fate == "dropped":
                self.leases.drop(pull)
        self.loop.settle()
        assert fate != "dropped" or not given, "nobody was there to get it"
        for attempt in given:
            assert attempt.token not in self.got, "a token is given out twice"
            row = self.engine.state.jobs[attempt.job]
            assert row.token == attempt.token
            self.got[attempt.token] = attempt.job
            if fate == "got":
                program.running[attempt.token] = attempt.job
        SEEN.witness(f"a pull is {fate}")

    @rule(who=WHO, times=st.integers(2, 4), how=st.sampled_from(["all", "nothing"]))
    def beat_on(self, who: int, times: int, how: str) -> None:
        """Heartbeats over more than a lease, which name what runs, or never do."""
        for _ in range(times):
            self.beat(who, how)
            self.time_passes(LEASE_MS - 1)

    @rule(who=WHO, how=st.sampled_from(["all", "all", "nothing", "unsaid"]))
    def beat(self, who: int, how: str) -> None:
        program = self.programs[who]
        running = {"all": [*program.running], "nothing": [], "unsaid": None}[how]
        with self.loop.running():
            try:
                heard = self.leases.heartbeat(program.number, running)
            except NotFound:
                SEEN.witness("a heartbeat of nobody")
                self.register(who, 2)
                heard = self.leases.heartbeat(program.number, running)
        self.loop.settle()
        for token in heard.lost:
            row = self.engine.state.in_flight.get(token)
            worker = self.leases.workers[program.number]
            assert row is None or token not in worker.held, "what it holds is lost to it"
            program.running.pop(token, None)
        for token in heard.cancel:
            SEEN.witness("a worker is told to stop")
            row = self.engine.state.in_flight.get(token)
            assert row is None or row.cancel_requested

    @precondition(lambda self: self.got)
    @rule(pick=st.integers(0, 1) | st.integers(0, 30), kind=KINDS)
    def report(self, pick: int, kind: OutcomeKind) -> None:
        """Anybody reports anything that was ever given out: in time, late, twice, otherwise."""
        token = [*self.got][-1 - pick % len(self.got)]
        in_flight = token in self.engine.state.in_flight
        before_seq = self.engine.state.last_seq
        told: list[Answer | BeaverError] = []
        report = Report(Outcome(token, "", kind), mark=kind.name.encode())
        with self.loop.running():
            taken = self.reports.take(report, told.append)
        self.loop.settle()
        assert taken == in_flight, "an outcome counts exactly in flight"
        if taken:
            [answer] = told
            assert isinstance(answer, Answer), answer
            assert token not in self.answers, "an attempt ends twice"
            self.answers[token] = kind, answer
            SEEN.witness("an outcome is taken")
        else:
            assert self.engine.state.last_seq == before_seq
            known = self.reports.answered(token)
            if known is not None:
                assert known == self.answers[token][1], "another answer than the first"
            SEEN.witness("an outcome is late")
        for program in self.programs:
            program.running.pop(token, None)

    @rule(who=WHO)
    def die(self, who: int) -> None:
        """It forgets all that it ran, and nobody is told."""
        self.programs[who] = Program()

    @rule(who=WHO, how=st.sampled_from(["drain", "leave"]))
    def go(self, who: int, how: str) -> None:
        program = self.programs[who]
        with self.loop.running():
            try:
                (self.leases.drain if how == "drain" else self.leases.remove)(program.number)
            except NotFound:
                return
        self.loop.settle()

    # -- the server ends ---------------------------------------------------------------------------

    @rule(chance=CHANCE, power=st.booleans())
    def crash(self, chance: Random, power: bool) -> None:
        """Whatever is in flight at a remote worker is so behind the next BOOT."""
        before = {token: row.id for token, row in self.engine.state.in_flight.items()}
        if power:
            self.disk.crash(chance.randrange)
        else:
            self.disk.kill()
        self.loop.discard()
        self.start(create=False, power=power)
        after = {token: row.id for token, row in self.engine.state.in_flight.items()}
        assert after == before, "a start has ended what remote workers run"
        if before:
            SEEN.witness("remote attempts outlive a crash")

    # -- what holds --------------------------------------------------------------------------------

    @invariant()
    def each_attempt_is_held_once_and_none_for_ever(self) -> None:
        if not hasattr(self, "leases"):
            return
        assert not self.failures, self.failures
        state, now_ns = self.engine.state, self.clock.monotonic
        assert violations(state) == []
        holders = [self.leases._former, *self.leases.workers.values()]
        held = [token for worker in holders for token in worker.held]
        assert sorted(held) == sorted(state.in_flight), "an attempt is held by nobody, or twice"
        for worker in holders[1:]:
            assert len(worker.held) <= worker.capacity, "a worker holds more than it may"
        for worker in holders:
            silent_ms = (now_ns - worker.heard_ns) // 1_000_000
            assert not worker.held or silent_ms <= LEASE_MS + 1, "silence has no end"


def _fresh(number: int) -> NewJob:
    spec = Spec("send", f"q{number % 5}", timeout_ms=5_000, max_attempts=3, backoff_base_ms=100)
    return NewJob(f"fresh-{number}", encode_spec(spec), b"null", b"d" * 12)


def _no_child(*_: object) -> NewJob:
    raise AssertionError("nobody enqueues children here")


def test_remote_workers_lose_and_double_nothing_whatever_fails(runs: Runs) -> None:
    runs(Remotes, TIMES)
