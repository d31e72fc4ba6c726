"""Group commit: many commands in a frame, and nothing told before that frame is on disk.

The real engine over the real log, on either way to the disk: on the loop, or by a writer
process that the machine plays.  A rule lets the loop take one callback, or the writer write
its frame, or be killed inside it, so commands, reads, commits, marks and rotations meet in
every order, and a crash comes between any two of them.  It is checked that

- every answer (an acceptance, a refusal, a no-op, a read) is given once, and only when a
  power cut at that moment would leave all that it rests on;
- a batch survives whole or not at all, and what survives has the fingerprint it had;
- at most one batch beyond the acknowledged ones survives;
- once everything is at rest, everyone has an answer; after a failed write nobody gets one.
"""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beaver.engine.engine import Engine
from beaver.errors import StorageFailed
from beaver.helper.work import prepare_segment
from beaver.journal.wal.commit_path import CommitPath
from beaver_chaos.checker.book import Book
from beaver_chaos.sim.disk import Fault, SimDisk, Stopped
from beaver_model import Offer, State, fingerprint, select, violations
from beaver_model.commands import AnyCommand, Boot, Dispatch, Enqueue, NewJob
from beaver_model.rows import Spec, encode_spec
from tests.stateful.played import PlayedWriter, stepped_loop
from tests.stateful.running import SEEN, Runs
from tests.stateful.scan import advance
from tests.stateful.stores import (
    DATA,
    EXTEND_BYTES,
    MovedClock,
    commits_after,
    durable_seq,
    open_sim,
)
from tests.stateful.strategies import (
    CHANCE,
    COMMANDS,
    ENDS,
    FIRST_BATCH,
    NOW_MS,
    Tokens,
    batches,
)

pytestmark = pytest.mark.invariants

TIMES = 2.0
CUTS = st.sampled_from([None, 0, 1, 36, 100, 700])
"""Bytes of a frame that reach the page cache; `None` for all of it, on disk."""
CROWD_SPEC = encode_spec(Spec("crowd"))
CROWDS = (2, 3, 4, 5, 8, 9, 20, 50, 100, 101, 300, 500)
"""Requests in one turn, on both sides of whatever is done otherwise for many."""


class Commits(RuleBasedStateMachine):
    """One engine after the other, over one disk."""

    @initialize(way=st.sampled_from(["inline", "writer", "writer"]), jobs=FIRST_BATCH)
    def begin(self, way: str, jobs: list[NewJob]) -> None:
        self.way = way
        self.clock, self.disk = MovedClock(NOW_MS), SimDisk("data")
        self.book, self.tokens = Book(), Tokens()
        self.crowds = 0
        self.decided_up_to = 0, 0
        self.prints = {0: fingerprint(State())}
        """The fingerprint behind every command."""
        self.start()
        self.submit([Enqueue(jobs)])

    def start(self) -> None:
        self.loop = stepped_loop()
        self.writer = PlayedWriter()
        commits = CommitPath(lambda _: self.writer, self.way)
        create = self.book.last_seq == 0
        opened = open_sim(self.disk, self.clock, create=create, commits=commits)
        self.state, self.wal = opened.state, opened.journal
        self.failures: list[BaseException] = []
        self.asked = self.answered = 0
        self.durable = -1, 0
        """Operations of the disk by then, and what a power cut would have left."""
        with self.loop.running():
            self.engine = Engine(
                self.state,
                self.wal,
                self.clock,
                on_failure=self.failures.append,
            )
        self.engine.observers += [self.book.note, lambda *commit: SEEN.logged(commit[2])]
        self.engine.before_commit = self.pump
        self.submit([Boot()])

    # -- what is asked -----------------------------------------------------------------------

    def submit(self, commands: list[AnyCommand]) -> None:
        for command in commands:
            self.asked += not self.failures
            rests_on: list[int] = []
            self.engine.submit(command, partial(self.told, rests_on))
            rests_on.append(self.state.last_seq)
            self.note()
            SEEN.commands[type(command).__name__] += 1

    def note(self) -> None:
        self.prints[self.state.last_seq] = fingerprint(self.state)
        self.tokens.note(self.state)

    def told(self, rests_on: list[int], _: object = None) -> None:
        """Someone outside has an answer."""
        assert not self.failures, "told after the log failed"
        self.answered += 1
        seq = rests_on[0] if rests_on else self.state.last_seq
        if self.durable[0] != self.disk.operations:
            self.durable = self.disk.operations, durable_seq(self.disk, self.clock)
        assert self.durable[1] >= seq, "told before it was durable"

    def pump(self, now_ms: int) -> None:
        """As the controller: what has become possible shares the commit."""
        advance(self.state, now_ms)
        if len(self.state.in_flight) < 2:
            row = select(self.state, Offer(), now_ms)
            if row is not None:
                self.submit([Dispatch(row.id, 1)])

    @rule(commands=st.lists(COMMANDS | ENDS, min_size=1, max_size=4), turns=st.integers(0, 4))
    def ask(self, commands: list[AnyCommand], turns: int) -> None:
        self.the_loop_turns(turns)
        self.submit([self.tokens.aim(command) for command in commands])
        SEEN.witness("asked while a frame is under way", self.writer.frame is not None)

    @rule(jobs=batches(payload_bytes_max=3_000))
    def enqueue(self, jobs: list[NewJob]) -> None:
        self.submit([Enqueue(jobs)])

    @rule(size=st.integers(2, 6), read_after=st.integers(0, 7))
    def a_crowd(self, size: int, read_after: int) -> None:
        """So many ask for a job each in one turn of the loop, and somebody reads in between."""
        self.crowds += 1
        for number in range(size):
            job = NewJob(f"crowd-{self.crowds}-{number}", CROWD_SPEC, b"1", b"d" * 12)
            rests_on: list[int] = []
            self.asked += not self.failures
            decided, told = partial(self.decided, rests_on), partial(self.told, rests_on)
            self.engine.enqueue([job], decided, told)
            if number == read_after:
                self.read()

    def decided(self, rests_on: list[int], jobs: list[NewJob], reply: object) -> None:
        """A request of a crowd is decided, perhaps together with all others."""
        rests_on.append(self.state.last_seq)
        if self.decided_up_to != (self.crowds, self.state.last_seq):
            self.decided_up_to = self.crowds, self.state.last_seq
            self.note()

    @rule()
    def read(self) -> None:
        """An answer computed from what is not durable yet waits as well."""
        self.asked += not self.failures
        seq = self.state.last_seq
        self.engine.read(lambda state: state.last_seq, lambda _: self.told([seq]))

    # -- what happens meanwhile ----------------------------------------------------------------

    @rule(turns=st.integers(1, 3))
    def the_loop_turns(self, turns: int) -> None:
        for _ in range(turns):
            self.loop.turn()

    @rule(ms=st.sampled_from([1, 60, 1_000]))
    def time_passes(self, ms: int) -> None:
        """The loop reads what came in; where it stays quiet, the last frame is closed."""
        self.loop.pass_ms(ms, self.clock)

    @precondition(lambda self: self.writer.frame is not None)
    @rule()
    def the_writer_writes(self) -> None:
        self.writer.finish()

    @precondition(lambda self: self.writer.frame is None and not self.failures)
    @rule()
    def rotate(self) -> None:
        prepare_segment(self.disk, DATA.next, EXTEND_BYTES)
        if self.wal.wants_next:
            self.wal.adopt(DATA.next)
        SEEN.witness("sealed between commits", self.wal.seal())

    @rule()
    def rest(self) -> None:
        """Everything comes to its end: nobody is left without an answer."""
        for _ in range(50):
            self.loop.settle()
            if self.writer.frame is None:
                break
            self.writer.finish()
        if not self.failures:
            assert self.answered == self.asked, "someone waits for ever"
            assert self.engine.durable_seq == self.state.last_seq == self.book.last_seq
            assert fingerprint(self.state) == self.prints[self.book.last_seq]

    # -- ends ------------------------------------------------------------------------------------

    @rule(chance=CHANCE, power=st.booleans(), cut=CUTS, dies=st.booleans())
    def crash(self, chance: Random, power: bool, cut: int | None, dies: bool) -> None:
        """Between any two steps, or inside the next write, at any byte."""
        state, doubtful = self.state, self.book.last_seq
        frame = self.writer.frame
        if frame is not None:
            batch = self.engine.under_way
            assert batch is not None, "the writer has a batch"
            doubtful = batch.next_seq - 1
            SEEN.witness("crash while a frame is under way")
            if dies and not self.failures:
                # The writer first: the engine must end itself, and tell nobody.
                self.writer.fail(after_bytes=cut or 0)
                assert self.failures, "a frame is lost, and the engine goes on"
                self.submit([Boot()])
                self.loop.settle()
            elif cut is None:
                frame[0].pwrite_durable(frame[1], frame[2])
            else:
                frame[0].pwrite(frame[1][:cut], frame[2])
        elif cut is not None:
            self.disk.plan(self.disk.operations + 1, Fault(0, cut, done=True))
            try:
                self.loop.settle()
                if self.writer.frame is not None:
                    self.writer.finish()
            except Stopped:
                SEEN.witness("crash inside a commit of several", self.asked - self.answered > 1)
            doubtful = state.last_seq
        self.end(chance, power, doubtful)

    def end(self, chance: Random, power: bool, doubtful: int) -> None:
        if power:
            self.disk.crash(chance.randrange)
        else:
            self.disk.kill()
            if chance.randrange(2):
                self.disk.evict(chance.randrange)
        self.loop.discard()
        found = open_sim(self.disk, self.clock, create=False).state
        if found.last_seq != self.book.last_seq:
            assert found.last_seq == doubtful, "a part of a batch, or more than one, survived"
            SEEN.witness("a batch in doubt survived")
            self.catch_up()
        assert fingerprint(found) == self.prints[found.last_seq], "another state than it was"
        self.book.check(found)
        self.disk.kill()
        self.start()

    def catch_up(self) -> None:
        """What nobody was told of is there: from now on it is as good as any."""
        for commit in commits_after(self.disk, self.book.last_seq):
            self.book.note(*commit)

    @precondition(lambda self: not self.failures)
    @rule(chance=CHANCE)
    def close(self, chance: Random) -> None:
        """A clean end commits what is open, and tells it."""
        self.engine.close()
        assert self.answered == self.asked, "someone was not told at the end"
        self.end(chance, True, self.book.last_seq)

    @precondition(lambda self: self.writer.frame is None and not self.failures)
    @rule(chance=CHANCE, done_bytes=CUTS, power=st.booleans())
    def a_write_fails(self, chance: Random, done_bytes: int | None, power: bool) -> None:
        """The disk says no: the engine ends itself, and the next one finds one or the other."""
        self.disk.plan(self.disk.operations + 1, Fault(5, -1 if done_bytes is None else done_bytes))
        self.loop.settle()
        if self.writer.frame is not None:
            self.writer.finish()
            self.loop.settle()
        self.disk.forget_plans()
        if self.failures:
            assert isinstance(self.failures[0], StorageFailed)
            SEEN.witness("a failed write ends the engine")
            self.end(chance, power, self.state.last_seq)

    # -- what holds ------------------------------------------------------------------------------

    @invariant()
    def the_engine_holds_what_was_applied(self) -> None:
        assert violations(self.state) == []
        assert self.book.last_seq == self.engine.durable_seq or self.failures
        assert self.answered <= self.asked

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.rest()


def test_nothing_is_told_before_it_is_durable(runs: Runs) -> None:
    runs(Commits, TIMES)


@pytest.mark.parametrize("size", CROWDS)
@pytest.mark.parametrize("way", ["inline", "writer"])
def test_of_a_crowd_nobody_is_told_before_it_is_durable(way: str, size: int) -> None:
    """Whoever reads in between, and wherever the power goes."""
    for read_after in (-1, 0, size - 2, size - 1):
        for turns in range(4):
            machine = Commits()
            machine.begin(way, [NewJob("first", CROWD_SPEC, b"1", b"d" * 12)])
            machine.rest()
            machine.a_crowd(size, read_after)
            before = machine.answered
            machine.the_loop_turns(turns)
            if way == "writer":
                assert machine.answered == before, "the writer has not written"
            if turns == 3:
                machine.crash(Random(size), True, None, False)
            machine.rest()
            assert not machine.failures
