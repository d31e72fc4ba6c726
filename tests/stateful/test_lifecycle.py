"""The lifecycle over three implementations that must agree.

- The *model* in memory: `decide`, and `apply` for one event after the other.
- The *log*: the events as frames of a real `Wal` on a simulated disk, read back from its
  bytes by a follower that knows nothing else.
- The *engine*: the real one, which applies runs at once, with its own log on a simulated
  disk, a clock and a loop.

All get the same commands, in the same batches at the same times.  After every step answers,
events, stamps and fingerprints are equal; invariants hold; the indexes are those that a scan
gives, and so is what the policy picks; a second book, kept from acknowledged events alone,
says the same of every job; replay from nothing and from every older snapshot, once and
twice, gives the same fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beaver.engine.engine import Engine
from beaver.engine.event_sizes import events_bytes_max, events_max
from beaver.engine.replies import Applied, Reply
from beaver.errors import QueueFull
from beaver.journal.codec import encode_commit
from beaver.store.recovery import read_store
from beaver_chaos.checker.book import Book
from beaver_chaos.sim.disk import Fault, SimDisk, Stopped
from beaver_model import (
    JobState,
    Offer,
    Rejection,
    Spec,
    State,
    apply,
    decide,
    fingerprint,
    freeze,
    replay,
    select,
    select_run,
    thaw,
)
from beaver_model.bounds import DIGEST_BYTES
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Complete,
    CompleteBatch,
    ConfirmCancel,
    Dispatch,
    DispatchBatch,
    Done,
    Enqueue,
    Expire,
    Fail,
    NewJob,
    Release,
    SetQueue,
)
from beaver_model.events import AnyEvent, QueueForgotten
from beaver_model.freezing import Frozen
from beaver_model.rows import ROW_BYTES, encode_spec, spec_of
from tests.stateful.played import stepped_loop
from tests.stateful.running import SEEN, Runs
from tests.stateful.scan import advance, check_state, queue_bytes
from tests.stateful.stores import (
    Commit,
    MovedClock,
    append,
    commits_after,
    durable_seq,
    open_sim,
)
from tests.stateful.strategies import (
    CHANCE,
    COMMANDS,
    COMPLETE_BATCHES,
    DISPATCH_BATCHES,
    DISPATCHES,
    ENDS,
    ENQUEUES,
    FIRST_BATCH,
    NOW_MS,
    OPERATIONS,
    OUTCOMES,
    WRONG,
    Tokens,
)

pytestmark = pytest.mark.invariants

Answer = list[AnyEvent] | Rejection | QueueFull
TIMES = 1.0
QUEUES_MAX = 2
"""Queues beside the default that there is room for: one less than are asked for."""


class Model:
    """The model in memory."""

    def __init__(self) -> None:
        self.state = State()
        self.state.queues_max = QUEUES_MAX

    def ask(self, commands: Sequence[AnyCommand], now_ms: int) -> list[Answer]:
        return [self._ask(command, now_ms) for command in commands]

    def _ask(self, command: AnyCommand, now_ms: int) -> Answer:
        if isinstance(command, Enqueue) and self._is_full(command):
            return QueueFull("a queue is full")
        decision = decide(self.state, command, now_ms)
        SEEN.asked(command, decision)
        if not isinstance(decision, Rejection):
            size = len(encode_commit(now_ms, decision)) - len(encode_commit(now_ms, []))
            assert size <= events_bytes_max(command, self.state), "more than was asked for"
            children = command.children if isinstance(command, Complete) else ()
            most = events_max(command) + len(children)
            announced = [event for event in decision if not isinstance(event, QueueForgotten)]
            assert isinstance(command, Boot) or len(announced) <= most, "more events than announced"
            for event in decision:
                apply(self.state, event, now_ms)
        return decision

    def _is_full(self, command: Enqueue) -> bool:
        """What admission promises, by a scan."""
        sizes: dict[str, int] = {}
        for job in command.jobs:
            queue = spec_of(job.spec).queue
            sizes[queue] = sizes.get(queue, 0) + ROW_BYTES + len(job.payload) + len(job.id)
        for queue, size in sizes.items():
            index = self.state.queues.get(queue)
            bound = index.row.bytes_max if index is not None else 0
            if bound and queue_bytes(self.state, queue) + size > bound:
                return True
        return False


class Log:
    """Frames on a simulated disk, and a follower that reads their bytes."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self.disk = SimDisk("data")
        self._wal = open_sim(self.disk, clock, create=True).journal
        self.follower = State()
        self.commits: list[Commit] = []

    def write(self, now_ms: int, events: list[AnyEvent]) -> None:
        append(self._wal, now_ms, events)
        for commit in commits_after(self.disk, self.follower.last_seq):
            replay(self.follower, *commit)
            self.commits.append(commit)

    def restart(self) -> None:
        """Its process ends, and the next one recovers from the bytes."""
        self.disk.kill()
        opened = open_sim(self.disk, self._clock, create=False)
        assert fingerprint(opened.state) == fingerprint(self.follower)
        self._wal, self.follower = opened.journal, opened.state


class Running:
    """An engine over a log of its own."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self.disk = SimDisk("data")
        self.commits: list[Commit] = []
        self.start()

    def start(self) -> None:
        opened = open_sim(self.disk, self._clock, create=not self.commits)
        opened.state.queues_max = QUEUES_MAX
        self.failures: list[BaseException] = []
        self.loop = stepped_loop()
        with self.loop.running():
            self.engine = Engine(
                opened.state, opened.journal, self._clock, on_failure=self.failures.append
            )
        self.engine.observers.append(lambda *commit: self.commits.append(commit))
        self.replies: list[Reply] = []

    def submit(self, commands: Sequence[AnyCommand]) -> None:
        """Hands a batch over; nothing is committed before the loop runs."""
        self.replies = []
        for command in commands:
            self._submit(command)

    def _submit(self, command: AnyCommand) -> None:
        state = self.engine.state

        def done(reply: Reply) -> None:
            wanted = seq[0] if seq else state.last_seq
            assert durable_seq(self.disk, self._clock) >= wanted, "acknowledged, not durable"
            self.replies.append(reply)

        seq: list[int] = []
        self.engine.submit(command, done)
        seq.append(state.last_seq)


class Lifecycle(RuleBasedStateMachine):
    """One sequence of commands, over many lives of the server."""

    @initialize(jobs=FIRST_BATCH)
    def begin(self, jobs: list[NewJob]) -> None:
        self.clock = MovedClock(NOW_MS)
        self.model, self.log, self.running = Model(), Log(self.clock), Running(self.clock)
        self.book = Book()
        self.stamp_ms, self.stamp_ns = 0, self.clock.monotonic
        self.tokens = Tokens()
        self.snapshots: list[Frozen] = [freeze(State())]
        self.do([Boot(), Enqueue(jobs)])

    # -- one batch ---------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Returns the stamp that a commit gets now: it never goes back."""
        clock = self.clock
        if clock.wall >= self.stamp_ms:
            self.stamp_ms = clock.wall
        else:
            self.stamp_ms += (clock.monotonic - self.stamp_ns) // 1_000_000
        self.stamp_ns = clock.monotonic
        return self.stamp_ms

    def do(self, commands: Sequence[AnyCommand]) -> None:
        """Asks all three, and compares what they say."""
        self.running.submit(commands)
        self.running.loop.settle()
        assert self.running.failures == []
        self.follow(commands, self.now_ms(), self.running.replies)

    def follow(
        self, commands: Sequence[AnyCommand], now_ms: int, replies: Sequence[Reply] | None
    ) -> None:
        """Lets model and log do what the engine did; it has answered, or was cut short."""
        model, seq = self.model, self.model.state.last_seq
        answers = model.ask(commands, now_ms)
        events = [event for answer in answers if isinstance(answer, list) for event in answer]
        if replies is not None:
            # What rests on durable state is told at once: order among replies is no promise.
            assert sorted(map(_shape, replies)) == sorted(map(_shape, answers))
        if events:
            self.log.write(now_ms, events)
            self.book.note(seq + 1, now_ms, events)
        self.tokens.note(model.state)

    # -- what is asked -----------------------------------------------------------------------

    @rule(command=ENQUEUES)
    def enqueue(self, command: Enqueue) -> None:
        self.do([command])

    @rule(command=OUTCOMES)
    def outcome(self, command: AnyCommand) -> None:
        """Of an attempt in flight, or of one that is long over."""
        command = self.tokens.aim(command)
        assert isinstance(command, Complete | Fail | Expire | Release | ConfirmCancel)
        before, is_stale = self.book.last_seq, command.token not in self.model.state.in_flight
        self.do([command])
        if is_stale:
            SEEN.witness("stale outcome")
            assert self.book.last_seq == before, "a stale token changed something"

    @rule(command=OPERATIONS | WRONG)
    def operate(self, command: AnyCommand) -> None:
        self.do([command])

    @rule(command=DISPATCHES)
    def dispatch_any(self, command: Dispatch) -> None:
        self.do([command])

    @rule(command=DISPATCH_BATCHES)
    def dispatch_several(self, command: DispatchBatch) -> None:
        """All of them or none."""
        before = self.book.last_seq
        self.do([command])
        assert self.book.last_seq - before in {0, len(command.jobs)}, "a part was dispatched"

    @rule(worker=st.integers(1, 3), idle=st.booleans(), count=st.integers(2, 6))
    def dispatch_a_run_that_the_policy_picks(self, worker: int, idle: bool, count: int) -> None:
        now_ms = self.now_ms()
        advance(self.model.state, now_ms)
        rows = select_run(self.model.state, Offer(idle=idle), now_ms, count)
        if rows:
            before = self.book.last_seq
            self.do([DispatchBatch([row.id for row in rows], worker, prefetched=not idle)])
            assert self.book.last_seq == before + len(rows), "what the policy picks is not refused"
            SEEN.witness("several dispatched at once", len(rows) > 1)

    @rule(count=st.integers(3, 6), worker=st.integers(1, 3), rest=st.integers(0, 2))
    def new_jobs_of_one_kind_run_together(self, count: int, worker: int, rest: int) -> None:
        """As a busy server has them: enqueued, dispatched and completed in runs."""
        first = self.book.last_seq + 1
        ids = [f"run-{first}-{n}" for n in range(count)]
        spec = encode_spec(Spec("echo", "runs"))
        self.do([Enqueue([NewJob(job, spec, b"null", b"d" * DIGEST_BYTES) for job in ids])])
        if "runs" not in self.model.state.queues:
            return  # There is no room for one more queue.
        first = self.book.last_seq - count + 1
        if self.model.state.queues["runs"].counts[JobState.PENDING] > count:
            return  # Those that an earlier run has left over go first.
        self.do([DispatchBatch(ids, worker)])
        rows = [self.model.state.jobs[job] for job in ids[rest:]]
        assert self.book.last_seq == first + 2 * count - 1
        SEEN.witness("several dispatched at once")
        self.do([CompleteBatch([Done(row.id, row.token, b"1") for row in rows])])
        SEEN.witness("several completed at once", len(rows) > 2)

    @rule(command=COMPLETE_BATCHES)
    def complete_several(self, command: CompleteBatch) -> None:
        """Those that are in flight, whatever else is reported with them."""
        self.do([self.tokens.aim(command)])

    @rule(odd=st.booleans())
    def complete_all_that_is_in_flight(self, odd: bool) -> None:
        """One of them twice, and one with a token of nobody, where `odd`."""
        rows = list(self.model.state.in_flight.values())
        done = [Done(row.id, row.token, b"1") for row in rows]
        wrong = [*done[:1], Done("job-0", 1 << 40, b"1")] if odd else []
        before = self.book.last_seq
        self.do([CompleteBatch([*wrong, *done])])
        assert self.book.last_seq == before + len(rows), "what is in flight is not left out"
        SEEN.witness("several completed at once", len(rows) > 2)

    @rule(worker=st.integers(1, 3), idle=st.booleans())
    def dispatch_what_the_policy_picks(self, worker: int, idle: bool) -> None:
        now_ms = self.now_ms()
        advance(self.model.state, now_ms)
        row = select(self.model.state, Offer(idle=idle), now_ms)
        if row is not None:
            before = self.book.last_seq
            self.do([Dispatch(row.id, worker, prefetched=not idle)])
            assert self.book.last_seq == before + 1, "what the policy picks is not refused"

    @rule(worker=st.integers(1, 3))
    def dispatch_from_a_queue_that_is_paused(self, worker: int) -> None:
        now_ms = self.now_ms()
        advance(self.model.state, now_ms)
        row = select(self.model.state, Offer(), now_ms)
        if row is not None:
            before = self.book.last_seq
            queue = row.spec.queue
            self.do([SetQueue(queue, paused=True)])
            self.do([Dispatch(row.id, worker)])
            assert self.book.last_seq == before + 1, "a paused queue gives no job away"
            self.do([SetQueue(queue, paused=False)])

    @rule(worker=st.integers(1, 3), idle=st.booleans(), end=ENDS)
    def an_attempt_that_ends(self, worker: int, idle: bool, end: AnyCommand) -> None:
        self.dispatch_what_the_policy_picks(worker, idle)
        self.do([self.tokens.aim(end)])

    @rule(commands=st.lists(COMMANDS, min_size=2, max_size=6))
    def several_in_one_commit(self, commands: list[AnyCommand]) -> None:
        commits = len(self.running.commits)
        self.do([self.tokens.aim(command) for command in commands])
        assert len(self.running.commits) <= commits + 1, "one turn is one commit"

    # -- time ----------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 50, 1_000, 10_000, 200_000]))
    def time_passes(self, ms: int) -> None:
        self.running.loop.pass_ms(ms, self.clock)

    @rule(ms=st.sampled_from([-100_000, -5_000, -1, 5_000, 3_600_000]))
    def wall_clock_steps(self, ms: int) -> None:
        self.clock.step_ms(ms)
        SEEN.witness("clock steps back" if ms < 0 else "clock steps forwards")

    # -- crashes -------------------------------------------------------------------------------

    @rule(
        commands=st.lists(COMMANDS, max_size=4),
        chance=CHANCE,
        power=st.booleans(),
        at_bytes=st.sampled_from([None, 0, 1, 36, 100, 500, -1]),
        started=st.integers(0, 7),
    )
    def crash(
        self,
        commands: list[AnyCommand],
        chance: Random,
        power: bool,
        at_bytes: int | None,
        started: int,
    ) -> None:
        """With an open batch: before its write, or inside it at any byte."""
        running, disk = self.running, self.running.disk
        commands = [self.tokens.aim(command) for command in commands]
        before = fingerprint(self.model.state), self.model.state.last_seq
        running.submit(commands)
        now_ms = self.now_ms()
        if at_bytes is not None:
            disk.plan(disk.operations + 1, Fault(0, at_bytes, done=True))
            try:
                running.loop.settle()
            except Stopped:
                assert len(running.replies) < len(commands), "told inside a write"
                SEEN.witness("crash inside a commit")
        if power:
            disk.crash(chance.randrange)
        else:
            disk.kill()
        running.loop.discard()
        running.start()
        found = running.engine.state
        if found.last_seq != before[1]:
            self.follow(commands, now_ms, None)
            assert found.last_seq == self.model.state.last_seq, "a part of a batch survived"
            running.commits = commits_after(disk, 0)
        assert fingerprint(found) == fingerprint(self.model.state)
        self.book.check(found)
        self.log.restart()
        # Soft facts, such as what a clock since set back has made ready, end with the process.
        self.model.state = thaw(*freeze(self.model.state))
        self.model.state.queues_max = QUEUES_MAX
        self.stamp_ms, self.stamp_ns = found.time_ms, self.clock.monotonic
        tokens = [t for n, t in enumerate(found.in_flight) if started >> n % 3 & 1]
        self.do([Boot(frozenset(tokens), power_cut=power)])

    @rule(chance=CHANCE)
    def power_cut_with_much_in_flight(self, chance: Random) -> None:
        """What ran is suspect, and goes out again one at a time."""
        for _ in range(2):
            for job in list(self.model.state.jobs):
                self.do([Dispatch(job, 1)])
            suspects = [row.id for row in self.model.state.in_flight.values() if row.suspect]
            assert len(suspects) <= 1, "two suspects are in flight at once"
            self.crash([], chance, True, None, 0)

    # -- what holds ------------------------------------------------------------------------------

    @rule()
    def keep_a_snapshot(self) -> None:
        self.snapshots.append(freeze(self.model.state))

    @invariant()
    def all_agree(self) -> None:
        model, now_ms = self.model.state, self.now_ms()
        assert self.running.engine.now_ms() == now_ms, "the engine gives another stamp"
        found = check_state(model, now_ms)
        assert fingerprint(self.log.follower) == found, "the log gives another state"
        assert check_state(self.running.engine.state, now_ms) == found, "the engine differs"
        assert self.running.commits == self.log.commits, "the engine wrote other events"
        self.book.check(model)

    @invariant()
    def replay_gives_the_same_from_anywhere(self) -> None:
        """Once, twice, from one after the other of the older snapshots."""
        commits, seq = self.log.commits, self.model.state.last_seq
        self.check_replay(self.snapshots[seq % len(self.snapshots)], commits)

    def check_replay(self, frozen: Frozen, commits: list[Commit]) -> None:
        expected, state = fingerprint(self.model.state), thaw(*frozen)
        for _ in range(2):
            for first_seq, time_ms, events in commits:
                if first_seq + len(events) - 1 > frozen.header.last_seq:
                    replay(state, first_seq, time_ms, events)
            assert fingerprint(state) == expected

    def teardown(self) -> None:
        if not hasattr(self, "snapshots"):
            return
        for frozen in self.snapshots:
            self.check_replay(frozen, self.log.commits)
        for disk in (self.log.disk, self.running.disk):
            read, _ = read_store(disk, "data", clock=self.clock)
            assert fingerprint(read) == fingerprint(self.model.state)


def _shape(answer: Reply | Answer) -> str:
    """Returns an answer as text, the same whoever gave it."""
    if isinstance(answer, Applied):
        return repr(list(answer.events))
    return "full" if isinstance(answer, QueueFull) else repr(answer)


def test_model_log_and_engine_agree(runs: Runs) -> None:
    runs(Lifecycle, TIMES)
