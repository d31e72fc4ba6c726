"""The watch: what must hold at every step of a simulated run.

It follows the log commit by commit with a *book* of its own and the validator of traces, neither
of which shares code with the model, and compares: events with what may happen then, the live
state with the book, what anyone outside was told with what is durable, and what workers run
with what they may.  At the end the history checker goes over the whole once more.

What may not live here: how anything happens.  The watch only looks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, Protocol

from beaver.engine.counters import CommitCounters
from beaver.errors import BeaverError
from beaver.journal.wal.following import Cursor
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import read_commits
from beaver.server.assembly import Assembly
from beaver.store.recovery import read_store
from beaver.structs.messages import Attempt
from beaver_chaos.checker.attempts import RunLine
from beaver_chaos.checker.book import Book, BookDiffers, Page
from beaver_chaos.checker.history import Commit, HistoryCheck
from beaver_chaos.sim.hardware import MS, Hardware
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.sometimes import CHARGES, RELEASES, SIZED, sized
from beaver_chaos.sim.stories import wrong_stories
from beaver_model import Offer, State, select, violations
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    Cause,
    Died,
    Discarded,
    Dispatched,
    JobEvent,
    Released,
    Retried,
    TimedOut,
)
from beaver_spec.traces.following import steps_of
from beaver_spec.traces.rules import Validator

SMALL_JOBS: Final = 64
"""With at most this many jobs, all invariants of the model are checked after each commit."""
_STARVED_NS: Final = 5_000_000_000
"""Longest time that a job may wait beside an idle worker once the disk was full."""
_VIOLATIONS_MAX: Final = 20
_ENDS: Final = {
    "ACK": "completed",
    "DEAD": "dead",
    "CANCEL": "cancelled",
    "DISCARD": "discarded",
}


class Watched(Protocol):
    """The part of a server or keeper that is watched."""

    process: Process
    parts: Assembly
    runs_jobs: bool
    listening: bool
    ending: bool

    @property
    def writing(self) -> bool:
        """A frame is under way in the writer, or its end was not heard of."""
        ...


class RunWatch:
    """Looks at one run."""

    def __init__(self, world: Hardware) -> None:
        self._world = world
        self.violations: list[str] = []
        self.commits: list[Commit] = []
        self.runs: list[RunLine] = []
        self.book = Book()
        self._validator = Validator()
        self._life: Watched | None = None
        self._told_seq = 0
        self._ends: dict[str, set[str]] = {}
        self._running: dict[str, int] = {}
        """Token whose user code runs, by job."""
        self._began_ns: dict[int, int] = {}
        self._ended: set[int] = set()
        """Tokens whose user code came to its end."""
        self._reported: set[int] = set()
        """Tokens whose outcome was written to the server that runs."""
        self._early: set[int] = set()
        """Tokens of attempts that have started and whose DISPATCH is not durable yet."""
        self._starved_ns = 0
        self._buried: deque[str] = deque()
        """Finished jobs whose tombstones are kept, oldest first."""
        self.forgotten: set[str] = set()
        """Ids of finished jobs whose tombstone was evicted: each may stand for a new job."""
        self._path = ""
        """How the last commit was written."""

    def wrong(self, violation: str) -> None:
        """Notes a violation and ends the run."""
        if len(self.violations) < _VIOLATIONS_MAX:
            self.violations.append(violation)
        self._world.note("VIOLATION", violation)
        self._world.loop.halt()

    # -- the log -------------------------------------------------------------------------------

    def attach(self, life: Watched) -> None:
        """A server has recovered and logged BOOT, or a keeper none: is everything there?"""
        engine = life.parts.engine
        before_seq = self.book.last_seq
        found = list(read_commits(self._world.bare_disk(), self._layout, before_seq))
        boots = [
            seq
            for first_seq, _, events in found
            for seq, event in enumerate(events, first_seq)
            if isinstance(event, Booted)
        ]
        if not life.runs_jobs:
            boots = boots or [engine.durable_seq + 1]
        if not boots or engine.durable_seq < before_seq:
            self.wrong(
                f"seq {before_seq} was durable, and the next BOOT came below it: "
                "recovery lost what was acknowledged"
            )
            return
        # At most one frame is ever in doubt: the one that a crash found being written.
        doubtful = [commit for commit in found if commit[0] < boots[0]]
        if len(doubtful) > 1:
            self.wrong(f"{len(doubtful)} frames behind seq {before_seq} were never synced")
        for first_seq, now_ms, events in found:
            if first_seq == boots[0] and self._early:
                self._world.reach("a crash takes the DISPATCH of what had started")
            # Still without a server: it is what the last one had written and nobody has seen.
            self._take_in(first_seq, now_ms, events)
        self._life = life
        if life.runs_jobs:
            self._early.clear()
        if self.book.last_seq == engine.durable_seq:
            self._compare(engine.state, "recovery gives another state than the log")
        engine.observers.insert(0, self._observe)
        self._path = ""
        report = life.parts.report
        for label in report.rows:
            self._world.reach(f"recovery meets {label}")
        if report.base == "older snapshot":
            self._world.reach("the older snapshot has to do")

    def detach(self) -> None:
        """The server is gone, and what was told to it and not read."""
        self._reported.clear()
        self._life = None

    @property
    def _layout(self) -> Layout:
        return Layout(self._world.config.data)

    def _observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """After a commit, before anyone is told of it."""
        life = self._life
        if life is None:
            return
        if not life.runs_jobs and {type(event) for event in events} & {Booted, Dispatched}:
            self.wrong("a keeper runs nothing, and logs no BOOT and no DISPATCH")
        self._take_in(first_seq, now_ms, events)
        state, journal = life.parts.engine.state, life.parts.journal
        path = journal.commit_path
        if self._path and path != self._path:
            where = "to the writer" if path == "writer" else "back to the loop"
            self._world.reach(f"commits move {where}")
        self._path = path
        self._measure(events, life.parts.engine.counters)
        if life.parts.engine.counters.gathered:
            self._world.reach("a commit waits for others to come in")
        last_seq, logged_seq = self.book.last_seq, Cursor(*journal.position).next_seq - 1
        if not last_seq == logged_seq == life.parts.engine.durable_seq <= state.last_seq:
            self.wrong(f"log, engine and state end at different seqs, the log at {logged_seq}")
        if state.last_seq == last_seq:
            jobs = {event.job for event in events if isinstance(event, JobEvent)}
            self._compare(state, "the live state is not what its events give", jobs)
        if len(state.jobs) <= SMALL_JOBS:
            for violation in violations(state):
                self.wrong(f"at seq {last_seq}: {violation}")

    def _measure(self, events: Sequence[AnyEvent], counters: CommitCounters) -> None:
        """Counts how large things were: whatever is done otherwise for many must come to be."""
        runs = [len(list(run)) for _, run in groupby(map(type, events))]
        sizes = (counters.taken_in, counters.told, len(events), max(runs, default=0))
        for what, size in zip(SIZED, sizes, strict=False):
            self._reach_size(what, size)
        counters.taken_in = 0

    def _reach_size(self, what: str, size: int) -> None:
        if name := sized(what, size):
            self._world.reach(name)

    def _compare(self, state: State, what: str, jobs: Iterable[str] | None = None) -> None:
        try:
            self.book.check(state, jobs)
        except BookDiffers as error:
            self.wrong(f"{what}: at seq {self.book.last_seq}, {error}")

    def _take_in(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        book = self.book
        if first_seq != book.last_seq + 1:
            self.wrong(f"a commit begins with seq {first_seq}; {book.last_seq + 1} was next")
            return
        if now_ms < book.time_ms:
            self.wrong(f"the stamp of seq {first_seq} lies before that of the commit before")
        self.commits.append((first_seq, now_ms, events))
        self._world.note("commit", first_seq, now_ms, events)
        for step, event in zip(steps_of(first_seq, now_ms, events), events, strict=True):
            reason = self._validator.step(step)
            if reason is not None:
                self.wrong(f"seq {step.seq}: {event.NAME} is illegal: {reason}")
                return
            self._look_at(event, now_ms)
            try:
                book.step(step)
            except BookDiffers as error:
                self.wrong(f"seq {step.seq}: {event.NAME} cannot follow: {error}")
                return
            if type(event) is Acked or type(event) is Discarded:
                self._buried.append(event.job)
                self._look_at_evictions()

    def _look_at(self, event: AnyEvent, now_ms: int) -> None:
        """Looks at an event before it is in the book."""
        if type(event) is Dispatched:
            self._early.discard(self.book.last_seq + 1)
            self._check_dispatch(self.book.pages[event.job], event.worker, now_ms)
        elif type(event) is Acked and event.token not in self._ended:
            self.wrong(f"job {event.job} completes, and its token {event.token} has not ended")
        elif type(event) is Released:
            self._check_give_back(event)
        elif type(event) is TimedOut or type(event) is Died:
            self._check_limit(event)
        if (
            isinstance(event, Retried | TimedOut | Died)
            and event.cause == Cause.WORKER_LOST
            and event.token in self._reported
        ):
            self.wrong(f"token {event.token} is lost with its worker, which has told its outcome")
        if isinstance(event, JobEvent) and event.NAME in _ENDS:
            self._ends.setdefault(event.job, set()).add(_ENDS[event.NAME])
        self._count(event)

    def _check_give_back(self, event: Released) -> None:
        """A reload gives back what has not started, and nothing else."""
        drains = self._life is None or self._life.ending
        if event.cause == Cause.DRAIN and not drains:
            self._world.reach("a reload gives back a prefetch")
            if event.token in self._began_ns:
                self.wrong(f"job {event.job} had started, and a reload gives it back")

    def _count(self, event: AnyEvent) -> None:
        """Counts what comes to be, before the event is applied."""
        reach = self._world.reach
        if type(event) is Released and event.cause in RELEASES:
            reach(f"an attempt is given back: {event.cause}")
        elif type(event) in (Retried, TimedOut, Died) and getattr(event, "cause", "") in CHARGES:
            reach(f"an attempt is charged: {event.cause}")  # type: ignore[union-attr]
        elif type(event) is Dispatched and self.book.pages[event.job].suspect:
            reach("a suspect is dispatched")

    def _look_at_evictions(self) -> None:
        book = self.book
        while self._buried[0] not in book.ended:
            self.forgotten.add(self._buried.popleft())
            by = "number" if len(book.ended) >= book.ended_max else "age"
            self._world.reach(f"a tombstone is evicted by {by}")

    def _check_dispatch(self, job: Page, worker: int, now_ms: int) -> None:
        """P9 and P12: the job's time has come, and none like it should have gone first."""
        seq, running = self.book.last_seq + 1, self.book.in_flight()
        if job.ready_ms > now_ms:
            self.wrong(f"seq {seq}: job {job.id} goes {job.ready_ms - now_ms} ms before its time")
        busy = any(held.worker == worker for held in running)
        beside_a_suspect = any(held.suspect for held in running)
        key = (job.ready_ms, job.seq)
        for other in self.book.pages.values():
            if (
                other.state == "PENDING"
                and (other.ready_ms, other.seq) < key
                and other.queue == job.queue
                and other.priority == job.priority
            ):
                waits = (busy and (other.on_last_attempt or other.suspect)) or (
                    other.suspect and beside_a_suspect
                )
                if not waits:
                    self.wrong(f"seq {seq}: job {job.id} goes before {other.id}, which is first")

    def _check_limit(self, event: TimedOut | Died) -> None:
        """P12: nobody is timed out before the limit has passed, whatever the clock says."""
        began_ns = self._began_ns.get(event.token)
        if event.cause != Cause.TIME_LIMIT or began_ns is None:
            return
        ran_ms = (self._world.loop.now_ns - began_ns) / MS
        limit_ms = self.book.pages[event.job].timeout_ms
        if ran_ms < limit_ms:
            self.wrong(f"job {event.job} is timed out after {ran_ms:.0f} of {limit_ms} ms")

    # -- what is told outside -------------------------------------------------------------------

    def told(self, seq: int) -> None:
        """Someone outside has seen this seq."""
        self._told_seq = max(self._told_seq, seq)
        if seq > self.book.last_seq:
            self.wrong(f"seq {seq} was told, and only {self.book.last_seq} is durable")

    def told_end(self, job: str, state: str) -> None:
        """Someone outside has heard how a job ended."""
        word = "completed" if state == "expired" else state
        if word not in self._ends.get(job, ()):
            self.wrong(f"job {job} was said to be {word}, and the log knows nothing of it")

    def sent(self, attempts: Sequence[Attempt]) -> None:
        """Attempts go to a worker: their DISPATCH has to be durable, where it is waited for."""
        self._reach_size(SIZED[-1], len(attempts))
        for attempt in attempts:
            queue = self.book.queues.get(attempt.queue)
            waits = queue is None or queue.durable_dispatch
            if waits and attempt.token > self.book.last_seq:
                self.wrong(f"token {attempt.token} goes to a worker before its DISPATCH is durable")

    # -- what runs --------------------------------------------------------------------------------

    def began(self, worker: int, pid: int, attempt: Attempt) -> None:
        """User code of an attempt begins (P10)."""
        self._world.note("worker", worker, "begins", attempt.job, attempt.token)
        other = self._running.get(attempt.job)
        if other is not None:
            self.wrong(
                f"job {attempt.job} runs twice at once, with tokens {other} and {attempt.token}"
            )
        self._running[attempt.job] = attempt.token
        self._began_ns[attempt.token] = self._world.loop.now_ns
        self._ended.discard(attempt.token)
        if attempt.token > self.book.last_seq:
            self._early.add(attempt.token)
            self._world.reach("an attempt starts before its DISPATCH is durable")
        self.runs.append(RunLine(False, attempt.token, pid, attempt.job))

    def ended(self, worker: int, pid: int, attempt: Attempt) -> None:
        """User code of an attempt came to its end."""
        self._world.note("worker", worker, "ends", attempt.job, attempt.token)
        self.runs.append(RunLine(True, attempt.token, pid, attempt.job))
        self._ended.add(attempt.token)
        self.stopped(attempt)

    def reported(self, token: int) -> None:
        """A worker has written an outcome to its server: its own death cannot lose that."""
        self._reported.add(token)

    def stopped(self, attempt: Attempt) -> None:
        """User code of an attempt was ended."""
        if self._running.get(attempt.job) == attempt.token:
            del self._running[attempt.job]

    # -- at rest -----------------------------------------------------------------------------------

    def quiet(self) -> None:
        """P1 and P5: nothing is ready to happen now, so nothing may be left undone."""
        life = self._life
        if life is None or not life.listening or life.ending or life.process.stopped:
            return
        if not life.process.alive or life.writing:
            return
        engine = life.parts.engine
        state = engine.state
        if engine.durable_seq != state.last_seq:
            self.wrong(f"seq {state.last_seq} was decided and nothing will ever write it")
        if not life.runs_jobs:
            return
        controller = life.parts.controller
        if controller.halted:
            self.wrong(f"dispatch was halted: {controller.halted}")
        held = {token for worker in controller.workers.values() for token in worker.held}
        lost = state.in_flight.keys() - held
        if controller.unwritten:
            self._world.reach("an outcome waits for room in the log")
        elif lost:
            token = min(lost)
            self.wrong(f"job {state.in_flight[token].id} is in flight and no worker holds it")
        idle = any(
            worker.ready and worker.serving and not worker.held and worker.killed is None
            for worker in controller.workers.values()
        )
        row = select(state, Offer(idle=True), engine.now_ms()) if idle else None
        if row is None:
            self._starved_ns = 0
            return
        now_ns = self._world.loop.now_ns
        self._starved_ns = self._starved_ns or now_ns
        if now_ns - self._starved_ns >= (_STARVED_NS if self._world.was_full else 0):
            self.wrong(f"job {row.id} could run, and an idle worker does not get it")

    # -- at the end --------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """Returns the jobs that have not ended, each with the reason why it waits."""
        return [
            f"{page.id} ({page.state}, ready at {page.ready_ms})"
            for page in self.book.pages.values()
            if page.state in ("PENDING", "IN_FLIGHT")
        ]

    def finish(self) -> None:
        """Goes over the whole once more, and over the files."""
        witness = self._world.witness
        history = HistoryCheck()
        history.read(self.commits)
        for name, seq in witness.acknowledged.items():
            if (name, seq) in history.earlier:
                # It was forgotten since, and then the id stood for a new job.
                witness.acknowledged[name] = history.jobs[name].seq
        history.compare(witness)
        history.attempts.compare(self.runs, closed=True)
        power_was_cut = self._world.power_was_cut
        history.attempts.compare_charges(self.runs, power_was_cut=power_was_cut, at_once=True)
        history.settle(witness)
        for violation in history.violations:
            self.wrong(violation)
        try:
            state, _ = read_store(
                self._world.bare_disk(), self._layout.path, clock=self._world.clock
            )
        except BeaverError as error:
            self.wrong(f"the files cannot be read at the end: {error}")
            return
        self._compare(state, "the files give another state at the end than the commits")
        for wrong in wrong_stories(self._world.bare_disk(), self._layout.path, state.last_seq):
            self.wrong(wrong)
