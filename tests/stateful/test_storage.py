"""The storage under the lifecycle: log, segments, snapshots and recovery on a simulated disk.

The machine plays producers, workers, operators and the helper against the real `decide`
and `apply`, the real `Wal`, the real snapshots and the real recovery.  Any operation of the
disk may be the last one of a process, or fail; then the power goes or only the process
does; the recovery that follows may be cut short as well, and the next one again.  After
each recovery it is checked that

- nothing acknowledged is lost, and beyond it there is at most the one commit in doubt;
- the state has the very fingerprint it had when that seq was committed;
- each job is in exactly one set, and the indexes are those that a scan gives;
- recovering once more changes nothing;
- replaying once, twice, and from each snapshot that was ever taken gives the same
  fingerprint, as far back as the log is kept.

Rot and strangers are tried on copies; `rot` says what must follow from each.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from beaver.errors import BeaverError
from beaver.helper.work import prepare_segment, prune_archive, take_snapshot
from beaver.journal.wal.reader import read_commits, segments
from beaver.snapshot.files import load_snapshot
from beaver.store.recovery import read_store
from beaver_chaos.checker.book import Book
from beaver_chaos.sim.disk import Fault, SimDisk, Stopped
from beaver_model import (
    Offer,
    Rejection,
    State,
    apply,
    decide,
    fingerprint,
    replay,
    select,
    violations,
)
from beaver_model.commands import AnyCommand, Boot, Dispatch, Enqueue, NewJob, SetQueue
from beaver_model.events import AnyEvent
from tests.stateful.rot import (
    STRANGERS,
    Victim,
    rot_at_the_end,
    rot_before_the_end,
    rot_of_a_snapshot,
    stranger,
)
from tests.stateful.running import SEEN, Runs
from tests.stateful.scan import advance, check_state
from tests.stateful.stores import DATA, EXTEND_BYTES, MovedClock, append, nothing, open_sim
from tests.stateful.strategies import (
    CHANCE,
    COMMANDS,
    ENDS,
    NOW_MS,
    Tokens,
    batches,
)

pytestmark = pytest.mark.invariants

TIMES = 3.0
BATCHES = batches(payload_bytes_max=2_500)
BITS = st.integers(0, 7)
ANYWHERE = st.integers(0, 1 << 30)


class Doubt(NamedTuple):
    """The commit that is under way: it may be there after a crash, whole, or not."""

    seq: int
    print: str
    time_ms: int
    events: list[AnyEvent]


class Storage(RuleBasedStateMachine):
    """One store on one disk, over many lives of its server."""

    chance: Callable[[int], int]
    planned = False
    planned_until = 0
    power_goes = False

    # -- lives ---------------------------------------------------------------------------

    @initialize(jobs=BATCHES)
    def begin(self, jobs: list[NewJob]) -> None:
        self.disk = SimDisk("data")
        self.clock = MovedClock(NOW_MS)
        self.prints = {0: fingerprint(State())}
        """The fingerprint at each seq that was committed and acknowledged."""
        self.acked_seq = 0
        self.doubt: Doubt | None = None
        self.book = Book()
        self.tokens = Tokens()
        self.snapshots: dict[int, bytes] = {}
        """Every snapshot that was ever taken, by its seq."""
        self.start()
        self.commit(Enqueue(jobs))

    def start(self) -> None:
        """Recovers, checks what it got, and logs BOOT, as a server does."""
        opened = open_sim(self.disk, self.clock, create=self.acked_seq == 0)
        self.state, self.wal = opened.state, opened.journal
        self.seen_ms = self.state.time_ms
        self.check_recovered()
        started = frozenset(list(self.state.in_flight)[::2])
        self.commit(Boot(started, power_cut=self.state.last_seq % 3 == 0))

    def check_recovered(self) -> None:
        seq, found = self.state.last_seq, fingerprint(self.state)
        doubt, self.doubt = self.doubt, None
        if doubt is not None and seq == doubt.seq:
            # The commit in doubt is there: from now on it is as good as any.
            self.acknowledge(doubt)
            SEEN.witness("a commit in doubt survived")
        assert seq == self.acked_seq, f"acknowledged up to {self.acked_seq}, recovered {seq}"
        assert found == self.prints[seq], f"another state at seq {seq}"
        self.book.check(self.state)

    def now_ms(self) -> int:
        """The time as this process sees it: it never goes back."""
        self.seen_ms = max(self.seen_ms, self.clock.wall)
        return self.seen_ms

    def acknowledge(self, commit: Doubt) -> None:
        self.book.note(self.acked_seq + 1, commit.time_ms, commit.events)
        self.acked_seq, self.prints[commit.seq] = commit.seq, commit.print

    def surviving(self, work: Callable[[], object]) -> None:
        """Does work of a process that a planned fault may end; then the next one starts."""
        try:
            work()
        except (Stopped, BeaverError, OSError):
            if not self.planned:
                raise
            self.end_of_process()
        if self.disk.operations >= self.planned_until:
            self.planned = False

    def end_of_process(self) -> None:
        """The process is gone; what is next may be cut short as well, but not for ever."""
        for times in range(3):
            if self.power_goes:
                self.disk.crash(self.chance)
            else:
                self.disk.kill()
                if self.chance(2):
                    self.disk.evict(self.chance)
            self.planned = False
            if not self.chance(3):
                ahead = self.disk.operations + 1 + self.chance(8)
                self.disk.plan(ahead, Fault(0, done=True, done_bytes=-1))
            try:
                self.start()
            except Stopped:
                self.power_goes = bool(self.chance(2))
                SEEN.witness("crash inside a recovery" if not times else "and inside the next")
                continue
            self.disk.forget_plans()
            return
        self.disk.crash(self.chance)
        self.start()

    @rule(chance=CHANCE, power=st.booleans())
    def crash(self, chance: Random, power: bool) -> None:
        """The process ends between two operations."""
        self.chance, self.power_goes = chance.randrange, power
        self.end_of_process()

    @rule(
        chance=CHANCE,
        ahead=st.integers(1, 12),
        done=st.booleans(),
        done_bytes=st.sampled_from([-1, 0, 1, 36, 100, 700]),
        error=st.sampled_from([0, 0, 5, 28]),
        power=st.booleans(),
    )
    def plan_fault(
        self, chance: Random, ahead: int, done: bool, done_bytes: int, error: int, power: bool
    ) -> None:
        """One of the next operations stops the process, or fails."""
        self.chance, self.power_goes = chance.randrange, power
        self.disk.forget_plans()
        self.disk.plan(self.disk.operations + ahead, Fault(error, done_bytes, done))
        self.planned = True
        self.planned_until = self.disk.operations + ahead

    @rule()
    def restart_cleanly(self) -> None:
        def work() -> None:
            self.wal.close()
            self.disk.kill()
            self.planned = False
            self.start()

        self.surviving(work)

    @rule(chance=CHANCE, first=st.integers(1, 14), second=st.integers(1, 14))
    def recovery_is_idempotent(self, chance: Random, first: int, second: int) -> None:
        """On a copy: cut short twice, at any operation, then done; doing it again is nothing."""
        disk = copy.deepcopy(self.disk)
        for cut in (first, second):
            disk.crash(chance.randrange)
            disk.plan(disk.operations + cut, Fault(0, done=bool(cut % 2), done_bytes=-1))
            with contextlib.suppress(Stopped):
                open_sim(disk, self.clock, create=False)
        disk.crash(chance.randrange)
        opened = open_sim(disk, self.clock, create=False)
        assert fingerprint(opened.state) == self.prints[self.acked_seq]
        disk.kill()
        before = Victim(disk, self.clock).files()
        again = open_sim(disk, self.clock, create=False)
        assert fingerprint(again.state) == self.prints[self.acked_seq]
        assert again.report.torn_tail_bytes == 0, "a tail that was cut is torn no more"
        assert Victim(disk, self.clock).files() == before

    # -- commits -----------------------------------------------------------------------------

    def commit(self, *commands: AnyCommand) -> None:
        """Decides and applies the commands, and commits their events in one frame."""
        events, now_ms = [], self.now_ms()
        for command in commands:
            decision = decide(self.state, command, now_ms)
            SEEN.asked(command, decision)
            if not isinstance(decision, Rejection):
                for event in decision:
                    apply(self.state, event, now_ms)
                events += decision
        if not events:
            return
        doubt = Doubt(self.state.last_seq, fingerprint(self.state), now_ms, events)
        self.doubt = doubt
        append(self.wal, now_ms, events)
        self.acknowledge(doubt)
        self.doubt = None
        self.tokens.note(self.state)
        assert self.wal.last_seq == self.state.last_seq == self.acked_seq

    def do(self, *commands: AnyCommand) -> None:
        self.surviving(lambda: self.commit(*commands))

    @rule(jobs=BATCHES)
    def enqueue(self, jobs: list[NewJob]) -> None:
        self.do(Enqueue(jobs))

    @rule(
        chance=CHANCE,
        jobs=BATCHES,
        done_bytes=st.integers(-1, 4_000),
        error=st.sampled_from([0, 0, 5]),
        power=st.booleans(),
    )
    def enqueue_and_be_cut(
        self, chance: Random, jobs: list[NewJob], done_bytes: int, error: int, power: bool
    ) -> None:
        """The commit itself is where the process ends, at any byte."""
        self.plan_fault(chance, 1, True, done_bytes, error, power)
        self.enqueue(jobs)

    @rule(worker=st.integers(1, 3), idle=st.booleans(), end=st.none() | ENDS)
    def an_attempt(self, worker: int, idle: bool, end: AnyCommand | None) -> None:
        """Of the job that the policy picks; it may end at once."""
        now_ms = self.now_ms()
        advance(self.state, now_ms)
        row = select(self.state, Offer(idle=idle), now_ms)
        if row is not None:
            self.do(Dispatch(row.id, worker, prefetched=not idle))
            if end is not None:
                self.do(self.tokens.aim(end))

    @rule(commands=st.lists(COMMANDS, min_size=1, max_size=4))
    def ask(self, commands: list[AnyCommand]) -> None:
        """Anything, several in one frame."""
        self.do(*map(self.tokens.aim, commands))

    @rule(ms=st.sampled_from([-5_000, 1, 100, 10_000, 200_000]))
    def time_passes(self, ms: int) -> None:
        self.clock.step_ms(ms)

    # -- the log -----------------------------------------------------------------------------

    @rule()
    def mark(self) -> None:
        self.surviving(self.wal.idle)

    @rule(late=st.booleans())
    def rotate(self, late: bool) -> None:
        """A segment is prepared, adopted and begun; or it lies there for a while."""

        def work() -> None:
            prepare_segment(self.disk, DATA.next, EXTEND_BYTES)
            if self.wal.wants_next:
                self.wal.adopt(DATA.next)
            if not late and self.wal.seal():
                SEEN.witness("sealed")

        self.surviving(work)

    @rule(chance=CHANCE, ahead=st.integers(4, 12), done=st.booleans(), power=st.booleans())
    def rotate_and_be_cut(self, chance: Random, ahead: int, done: bool, power: bool) -> None:
        """One of the steps of sealing is where the process ends."""
        self.plan_fault(chance, ahead, done, -1, 0, power)
        self.rotate(False)

    @rule(extra=st.sampled_from([1, 5_000]))
    def extend(self, extra: int) -> None:
        self.surviving(lambda: self.wal.reserve(self.wal.room + extra))

    @rule(prune=st.booleans())
    def snapshot(self, prune: bool) -> None:
        """As the helper does it; what is dispensable is pruned."""

        def work() -> None:
            taken = take_snapshot(self.disk, DATA, self.acked_seq, self.clock)
            assert taken.fingerprint == self.prints[taken.last_seq]
            assert taken.ledger == self.state.ledger
            self.snapshots[taken.last_seq] = self.disk.contents(DATA.snapshot)
            if prune:
                first_seq = segments(self.disk, DATA)[0].first_seq
                left_seq = prune_archive(
                    self.disk,
                    DATA,
                    keep_bytes=0,
                    keep_ms=0,
                    now_ms=self.clock.wall,
                    applied_seq=self.acked_seq,
                )
                SEEN.witness("pruned", left_seq > first_seq)

        self.surviving(work)

    @rule(jobs=BATCHES, where=ANYWHERE, bit=BITS)
    def segments_and_snapshots_come_and_go(self, jobs: list[NewJob], where: int, bit: int) -> None:
        """What the newest snapshot alone makes dispensable must be there when that one rots."""
        for queue in ("first", "second", "third"):
            self.do(SetQueue(queue, paused=bool(bit % 2)), Enqueue(jobs), SetQueue(queue, weight=2))
            self.rotate(False)
            self.snapshot(True)
        rot_of_a_snapshot(self.victim(), False, where, bit)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def state_and_indexes_are_right(self) -> None:
        found = check_state(self.state, self.now_ms())
        assert found == self.prints[self.acked_seq]
        self.book.check(self.state)

    @rule()
    def replaying_is_idempotent_from_anywhere(self) -> None:
        """Once, twice, and from each snapshot, as far back as the log is kept."""
        expected = self.prints[self.acked_seq]
        read, _ = read_store(self.disk, "data", clock=self.clock)
        assert fingerprint(read) == expected
        oldest_seq = segments(self.disk, DATA)[0].first_seq
        bases = [State()] if oldest_seq == 1 else []
        for seq, contents in self.snapshots.items():
            shelf = SimDisk("data")
            shelf.put(DATA.snapshot, contents)
            loaded = load_snapshot(shelf, DATA.snapshot, check_fingerprint=True)
            assert loaded.fingerprint == fingerprint(loaded.state) == self.prints[seq]
            if seq + 1 >= oldest_seq:
                bases.append(loaded.state)
        assert bases, "there is always something to begin with"
        SEEN.witness("replay from an older snapshot", len(bases) > 2)
        for state in bases:
            commits = list(read_commits(self.disk, DATA, state.last_seq))
            for _ in range(2):
                for commit in commits:
                    replay(state, *commit)
            assert fingerprint(state) == expected
            assert violations(state) == []

    # -- rot and strangers, on copies ----------------------------------------------------------

    def victim(self) -> Victim:
        return Victim(self.disk, self.clock)

    @rule(where=ANYWHERE, bit=BITS)
    def rot_at_the_end_is_cut_and_kept(self, where: int, bit: int) -> None:
        rot_at_the_end(self.victim(), where, bit, self.prints)

    @rule(pick=ANYWHERE, where=ANYWHERE, bit=BITS)
    def rot_before_the_end_is_refused(self, pick: int, where: int, bit: int) -> None:
        rot_before_the_end(self.victim(), pick, where, bit)

    @rule(older=st.booleans(), where=ANYWHERE, bit=BITS)
    def rot_of_a_snapshot_changes_nothing(self, older: bool, where: int, bit: int) -> None:
        rot_of_a_snapshot(self.victim(), older, where, bit)

    @rule(kind=st.sampled_from(STRANGERS))
    def a_stranger_is_refused(self, kind: str) -> None:
        stranger(self.victim(), kind)

    def teardown(self) -> None:
        if hasattr(self, "wal"):
            self.chance, self.power_goes = nothing, True
            self.disk.forget_plans()
            self.end_of_process()
            self.replaying_is_idempotent_from_anywhere()


def test_storage_survives_crashes_rot_and_double_crashes(runs: Runs) -> None:
    runs(Storage, TIMES)
