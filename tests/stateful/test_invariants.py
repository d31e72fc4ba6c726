"""Model, log and recovery driven together on a simulated disk, with crashes at any point.

The machine plays producers, workers, operators and the helper against the real `decide`
and `apply`, the real `Wal`, the real snapshots and the real recovery.  Any operation of the
disk may be the last one of a process, or fail; then the power goes or only the process
does.  After each recovery it is checked that

- nothing acknowledged is lost, and beyond it there is at most the one commit in doubt;
- the state has the very fingerprint it had when that seq was committed;
- each job is in exactly one set, and every other invariant of the model holds;
- replaying once, twice, and from each kept snapshot gives the same fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from beaver.errors import BeaverError, Corruption, NewerFormat
from beaver.helper.work import prepare_segment, prune_archive, take_snapshot
from beaver.journal.codec import encode_commit
from beaver.journal.format import frame_bytes
from beaver.journal.reader import read_commits, segments
from beaver.layout import Layout
from beaver.recovery import open_store, read_store
from beaver.snapshot import SnapshotDamaged, load_snapshot
from beaver_chaos.disk import Fault, SimDisk, Stopped
from beaver_model import (
    JobState,
    Offer,
    Rejection,
    State,
    apply,
    decide,
    fingerprint,
    freeze,
    replay,
    select,
    thaw,
    violations,
)
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    ConfirmCancel,
    Discard,
    Dispatch,
    Enqueue,
    Expire,
    Fail,
    Job,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import Cause, Enqueued
from beaver_model.rows import Spec, encode_spec

DATA = Layout("data")
STORE = b"invariants-store"
SEGMENT_BYTES = 1 << 13
"""Size of the segments that are prepared: a few commits."""
WANTED_BYTES = 1 << 30
"""Size that the log believes they should have, so that it always wants one."""

JOBS = st.sampled_from([f"job-{n}" for n in range(8)])
QUEUES = st.sampled_from(["default", "mail"])
PAYLOADS = st.integers(0, 2_500).map(lambda n: b'"' + b"x" * n + b'"')
SPECS = st.builds(
    lambda queue, priority, attempts: encode_spec(
        Spec("send", queue, priority, max_attempts=attempts, backoff_base_ms=100)
    ),
    QUEUES,
    st.sampled_from([0, 5, 9]),
    st.integers(1, 3),
)
REQUESTS = st.builds(
    lambda name, spec, payload, delay: (name, spec, payload, delay),
    JOBS,
    SPECS,
    PAYLOADS,
    st.sampled_from([0, 0, 50, 100_000]),
)
CHANCE = st.randoms(use_true_random=False)


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_ns(self) -> int:
        return self.now_ms * 1_000_000


class Queue(RuleBasedStateMachine):
    """One store on one disk, over many lives of its server."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimDisk("data")
        self.clock = Clock()
        self.prints = {0: fingerprint(State())}
        """The fingerprint at each seq that was committed and acknowledged."""
        self.acked_seq = 0
        self.doubt: tuple[int, str] | None = None
        """Seq and fingerprint of the commit that is under way."""
        self.enqueued: dict[str, int] = {}
        """The seq of the last acknowledged ENQUEUE of each job."""
        self.tokens: list[tuple[str, int]] = []
        self.may_forget = False
        """Bounds were asked for under which tombstones are evicted soon."""

    # -- lives ---------------------------------------------------------------------------

    @initialize()
    def first_start(self) -> None:
        self.start()

    def start(self) -> None:
        """Recovers, checks what it got, and logs BOOT, as a server does."""
        opened = open_store(
            self.disk,
            "data",
            clock=self.clock,
            create=self.acked_seq == 0,
            store_id=STORE,
            segment_bytes=WANTED_BYTES,
            extend_bytes=SEGMENT_BYTES,
        )
        self.state, self.wal = opened.state, opened.wal
        self.check_recovered()
        in_flight = list(self.state.in_flight)
        started = frozenset(in_flight[::2])
        self.commit(Boot(started, power_cut=bool(self.state.last_seq % 3 == 0)))

    def check_recovered(self) -> None:
        seq, found = self.state.last_seq, fingerprint(self.state)
        if self.doubt is not None and seq == self.doubt[0]:
            # The commit in doubt is there: from now on it is as good as any.
            self.prints[seq] = self.doubt[1]
            self.acked_seq = seq
            self.note_enqueued()
        self.doubt = None
        assert seq == self.acked_seq, f"acknowledged up to {self.acked_seq}, recovered {seq}"
        assert found == self.prints[seq], f"another state at seq {seq}"
        assert violations(self.state) == []

    def note_enqueued(self) -> None:
        for row in self.state.jobs.values():
            self.enqueued[row.id] = row.seq

    def surviving(self, work: Callable[[], None]) -> None:
        """Does work of a process that a planned fault may end; then the next one starts."""
        try:
            work()
        except (Stopped, BeaverError, OSError):
            if not self.planned:
                raise
            self.end_of_process()
        if self.disk.operations >= self.planned_until:
            self.planned = False

    planned = False
    planned_until = 0
    power_goes = False
    chance: Callable[[int], int]

    def end_of_process(self) -> None:
        """The process is gone; what is next may be cut short as well, but not for ever."""
        for _ in range(3):
            if self.power_goes:
                self.disk.crash(self.chance)
            else:
                self.disk.kill()
                if self.chance(2):
                    self.disk.evict(self.chance)
            self.planned = False
            if not self.chance(3):
                self.disk.plan(
                    self.disk.operations + 1 + self.chance(8), Fault(0, done=True, done_bytes=-1)
                )
            try:
                self.start()
            except Stopped:
                self.power_goes = bool(self.chance(2))
                continue
            self.disk.forget_plans()
            return
        self.disk.crash(self.chance)
        self.start()

    @rule(chance=CHANCE, power=st.booleans())
    def crash(self, chance, power):
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
    def plan_fault(self, chance, ahead, done, done_bytes, error, power):
        """One of the next operations stops the process, or fails."""
        self.chance, self.power_goes = chance.randrange, power
        self.disk.forget_plans()
        self.disk.plan(self.disk.operations + ahead, Fault(error, done_bytes, done))
        self.planned = True
        self.planned_until = self.disk.operations + ahead

    @rule()
    def restart_cleanly(self):
        def work() -> None:
            self.wal.close()
            self.disk.kill()
            self.planned = False
            self.start()

        self.surviving(work)

    # -- commits -----------------------------------------------------------------------------

    def commit(self, *commands: AnyCommand) -> None:
        """Decides and applies the commands, and commits their events in one frame."""
        events, now_ms = [], max(self.clock.now_ms, self.state.time_ms)
        for command in commands:
            decision = decide(self.state, command, now_ms)
            if isinstance(decision, Rejection):
                continue
            for event in decision:
                apply(self.state, event, now_ms)
            events += decision
        if not events:
            return
        payload = encode_commit(now_ms, events)
        self.doubt = (self.state.last_seq, fingerprint(self.state))
        if not self.wal.reserve(frame_bytes(len(payload))):
            # A full disk: the engine would have refused before it decided.
            self.wal.abandon()
            raise OSError(28, "refused")
        self.wal.append(payload, len(events))
        self.acked_seq, self.prints[self.doubt[0]] = self.doubt
        self.doubt = None
        first_seq = self.acked_seq - len(events) + 1
        for seq, event in enumerate(events, first_seq):
            if isinstance(event, Enqueued):
                self.enqueued[event.job] = seq
        assert self.wal.last_seq == self.state.last_seq == self.acked_seq

    def do(self, *commands: AnyCommand) -> None:
        self.surviving(lambda: self.commit(*commands))

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4, unique_by=lambda r: r[0]))
    def enqueue(self, requests):
        now_ms = self.clock.now_ms
        jobs = [
            Job(name, spec, payload, b"digest-%05d" % (len(payload) % 2), delay and now_ms + delay)
            for name, spec, payload, delay in requests
        ]
        self.do(Enqueue(jobs))

    @rule(
        chance=CHANCE,
        requests=st.lists(REQUESTS, min_size=1, max_size=4, unique_by=lambda r: r[0]),
        done_bytes=st.integers(-1, 4_000),
        error=st.sampled_from([0, 0, 5]),
        power=st.booleans(),
    )
    def enqueue_and_be_cut(self, chance, requests, done_bytes, error, power):
        """The commit itself is where the process ends, at any byte."""
        self.plan_fault(chance, 1, True, done_bytes, error, power)
        self.enqueue(requests)

    @rule(worker=st.integers(1, 3), idle=st.booleans())
    def dispatch_what_the_policy_picks(self, worker, idle):
        self.state.advance(self.clock.now_ms)
        row = select(self.state, Offer(idle=idle), self.clock.now_ms)
        if row is not None:
            self.do(Dispatch(row.id, worker, prefetched=not idle))
            self.remember_tokens()

    @rule(name=JOBS, worker=st.integers(1, 3))
    def dispatch_any(self, name, worker):
        self.do(Dispatch(name, worker))
        self.remember_tokens()

    def remember_tokens(self) -> None:
        for token, row in self.state.in_flight.items():
            if (row.id, token) not in self.tokens:
                self.tokens.append((row.id, token))

    @precondition(lambda self: self.tokens)
    @rule(
        pick=st.integers(0, 1 << 30),
        kind=st.sampled_from(["ack", "ack", "fail", "dead", "expire", "snooze", "drain", "stop"]),
        child=st.none() | JOBS,
    )
    def outcome(self, pick, kind, child):
        """Of an attempt in flight, or of one that is long over."""
        job, token = self.tokens[pick % len(self.tokens)]
        spec = encode_spec(Spec("child"))
        children = () if child is None else (Job(child, spec, b"1", b"child-digest"),)
        command = {
            "ack": Complete(job, token, b'{"ok":true}', children),
            "fail": Fail(job, token, "boom"),
            "dead": Fail(job, token, "boom", retry=False),
            "expire": Expire(job, token),
            "snooze": Release(job, token, Cause.SNOOZE, 50),
            "drain": Release(job, token, Cause.DRAIN),
            "stop": ConfirmCancel(job, token),
        }[kind]
        current = self.state.jobs.get(job)
        is_stale = current is None or current.token != token
        before = self.acked_seq
        self.do(command)
        if is_stale and not self.disk_was_cut:
            assert self.acked_seq == before, "a stale token changed something"

    @property
    def disk_was_cut(self) -> bool:
        return self.planned or self.state.last_seq != self.acked_seq

    @rule(first=JOBS, other=JOBS)
    def several_in_one_commit(self, first, other):
        spec = encode_spec(Spec("send"))
        jobs = [Job(first, spec, b"null", b"digest-00000")]
        self.do(Enqueue(jobs), Dispatch(first, 1), Cancel(other), Dispatch(other, 2))
        self.remember_tokens()

    @rule(name=JOBS, what=st.sampled_from([Cancel, Discard, Requeue]))
    def operate(self, name, what):
        self.do(what(name))

    @rule(name=JOBS)
    def requeue_edited(self, name):
        self.do(Requeue(name, b'{"edited":true}'))

    @rule(queue=QUEUES, paused=st.booleans(), weight=st.integers(1, 9))
    def set_queue(self, queue, paused, weight):
        self.do(SetQueue(queue, paused, weight))

    @rule(most=st.sampled_from([0, 1, 3, 100]), age_ms=st.sampled_from([0, 1_000]))
    def set_bounds(self, most, age_ms):
        self.may_forget = self.may_forget or most < 100 or age_ms > 0
        self.do(SetBounds(most, age_ms))

    @rule(ms=st.sampled_from([-5_000, 1, 100, 10_000, 200_000]))
    def time_passes(self, ms):
        self.clock.now_ms += ms
        self.state.advance(max(self.clock.now_ms, self.state.time_ms))

    # -- the log -----------------------------------------------------------------------------

    @rule()
    def mark(self):
        self.surviving(self.wal.mark)

    @rule()
    def rotate(self):
        def work() -> None:
            if self.wal.wants_next:
                prepare_segment(self.disk, DATA.next, SEGMENT_BYTES)
                self.wal.adopt(DATA.next)
            self.wal.seal()

        self.surviving(work)

    @rule()
    def prepare_without_need(self):
        def work() -> None:
            prepare_segment(self.disk, DATA.next, SEGMENT_BYTES)
            if self.wal.wants_next:
                self.wal.adopt(DATA.next)

        self.surviving(work)

    @rule(extra=st.sampled_from([1, 5_000]))
    def extend(self, extra):
        self.surviving(lambda: self.wal.reserve(self.wal.room + extra) and None)

    @rule(prune=st.booleans())
    def snapshot(self, prune):
        def work() -> None:
            taken = take_snapshot(self.disk, DATA, self.acked_seq, self.clock)
            assert taken.fingerprint == self.prints[taken.last_seq]
            assert taken.ledger == self.state.ledger
            if prune:
                prune_archive(
                    self.disk,
                    DATA,
                    keep_bytes=0,
                    keep_ms=0,
                    now_ms=self.clock.now_ms,
                    applied_seq=self.acked_seq,
                )

        self.surviving(work)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def each_job_is_in_exactly_one_set(self):
        if not hasattr(self, "state"):
            return
        assert violations(self.state) == []
        state = self.state
        for job, seq in self.enqueued.items():
            row, tombstone = state.jobs.get(job), state.tombstone(job)
            assert row is None or tombstone is None
            if row is None and tombstone is None:
                # Only a finished job may be forgotten, and only by the bounds.
                assert self.may_forget, job
                continue
            assert seq == (row.seq if row is not None else tombstone.seq), job
            if row is not None:
                sets = [
                    row.state == JobState.PENDING,
                    state.in_flight.get(row.token) is row,
                    state.dead.get(job) is row,
                    state.cancelled.get(job) is row,
                ]
                assert sum(sets) == 1, (job, sets)

    @rule()
    def replaying_is_idempotent_from_anywhere(self):
        """Once, twice, and from each kept snapshot: the same fingerprint."""
        expected = self.prints[self.acked_seq]
        read, _ = read_store(self.disk, "data", clock=self.clock)
        assert fingerprint(read) == expected
        assert fingerprint(thaw(*freeze(read))) == expected
        bases = []
        if segments(self.disk, DATA)[0].first_seq == 1:
            bases.append(State())
        for path in (DATA.snapshot, DATA.snapshot_old):
            try:
                loaded = load_snapshot(self.disk, path, check_fingerprint=True)
            except (FileNotFoundError, SnapshotDamaged):
                continue
            assert loaded.fingerprint == self.prints[loaded.last_seq]
            bases.append(loaded.state)
        assert bases, "there is always something to begin with"
        for state in bases:
            commits = list(read_commits(self.disk, DATA, state.last_seq))
            for _ in range(2):
                for first_seq, time_ms, events in commits:
                    replay(state, first_seq, time_ms, events)
            assert fingerprint(state) == expected
            assert violations(state) == []

    @rule(
        name=st.sampled_from(["wal.log", "wal.log", "archive", "snapshot.json"]),
        where=st.integers(0, 1 << 30),
        bit=st.integers(0, 7),
    )
    def one_flipped_bit_is_refused_or_changes_nothing(self, name, where, bit):
        """On a copy of the store.  The stated exception: rot of the very last frame."""
        rotten = self.disk.copy()
        path = f"data/{name}"
        if name == "archive" and rotten.listdir(path):
            archived = rotten.listdir(path)
            path = f"{path}/{archived[where % len(archived)]}"
        if name == "archive" or not rotten.exists(path):
            path = path if path.endswith(".wal") else DATA.log
        used = len(rotten.contents(path).rstrip(b"\0"))
        rotten.flip(path, where % (used + 8), bit)
        try:
            opened = open_store(rotten, "data", clock=self.clock, create=False)
        except (Corruption, NewerFormat):
            return
        seqs = sorted(seq for seq in self.prints if seq <= self.acked_seq)
        allowed = [self.prints[seq] for seq in seqs[-2:]]
        assert fingerprint(opened.state) in allowed, (path, where % (used + 8), bit)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.chance, self.power_goes = (lambda n: 0), True
            self.disk.forget_plans()
            self.end_of_process()
            self.replaying_is_idempotent_from_anywhere()


TestQueue = pytest.mark.invariants(Queue.TestCase)
TestQueue.settings = settings(
    max_examples=4 * settings.default.max_examples,
    stateful_step_count=50,
    suppress_health_check=list(HealthCheck),
    deadline=None,
)
