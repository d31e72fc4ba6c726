"""The history checker: what producers saw and workers ran, against what the log says.

It knows the promises and nothing of the model: its few states are written here once more, so
that a mistake in `beaver_model` cannot hide itself.  Jobs are independent and the log gives
the order, so one pass is enough, in linear time.

Three accounts are compared:

- `ClientRecord`: what producers and operators were answered.  An answer that never came is an
  unknown outcome and may have gone either way; what was acknowledged may not.
- `RunLine`s: what workers did, from a file that the jobs' own code appends to (`jobs`).
- The commits of the log.

Violations are sentences.  What may not live here: processes, files, random choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from beaver.structs.views import Accepted
from beaver_model.bounds import TOMBSTONES_MAX_DEFAULT
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    BoundsSet,
    Cancelled,
    CancelRequested,
    Cause,
    Died,
    Discarded,
    Dispatched,
    Enqueued,
    JobEvent,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.rows import spec_of, unpack_tombstone
from beaver_model.state import State
from beaver_model.states import JobState
from beaver_spec.traces.lifecycle import LIFE

VIOLATIONS_MAX: Final = 50
"""Violations reported at most; a broken rule may be broken a thousand times."""

PENDING: Final = "pending"
IN_FLIGHT: Final = "in flight"
COMPLETED: Final = "completed"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"
DISCARDED: Final = "discarded"
_WORDS: Final = {
    JobState.PENDING: PENDING,
    JobState.IN_FLIGHT: IN_FLIGHT,
    JobState.COMPLETED: COMPLETED,
    JobState.DEAD: DEAD,
    JobState.CANCELLED: CANCELLED,
    JobState.FORGOTTEN: DISCARDED,
}
_TERMINAL: Final = frozenset({COMPLETED, DEAD, CANCELLED, DISCARDED})

Commit = tuple[int, int, Sequence[AnyEvent]]
"""First seq, stamp and events, as `journal.reader.read_commits` gives them."""


class RunLine(NamedTuple):
    """One line of the workers' account."""

    ended: bool
    """True if the job's code ended, False if it began."""
    token: int
    pid: int
    job: str


class ClientRecord:
    """The requests of clients and operators, and their answers."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.acknowledged: dict[str, int] = {}
        """Seq of its ENQUEUE, by job."""
        self.refused: set[str] = set()
        """Jobs of which no request was acknowledged or lost: they cannot be in the log."""
        self.batches: list[tuple[str, ...]] = []
        """Jobs that came in together: all or none."""
        self.changes: Counter[tuple[str, str]] = Counter()
        """How often an (event's name, job) was acknowledged to an operator."""
        self.contradictions: list[str] = []
        self.given_up: set[str] = set()
        """Jobs that were refused and are not sent again."""
        self._created: set[str] = set()
        self._lost: set[str] = set()

    def sending(self, jobs: Sequence[str]) -> None:
        """Notes a new request, before it is sent for the first time."""
        self.sent.update(jobs)
        if len(jobs) > 1:
            self.batches.append(tuple(jobs))

    def acknowledge(self, answers: Iterable[Accepted]) -> None:
        """Notes the answer to a request."""
        for answer in answers:
            before = self.acknowledged.setdefault(answer.id, answer.seq)
            if before != answer.seq:
                self.contradictions.append(
                    f"job {answer.id} was acknowledged with seq {before}, then with {answer.seq}"
                )
            if answer.created:
                if answer.id in self._created:
                    self.contradictions.append(f"job {answer.id} was said to be created twice")
                self._created.add(answer.id)
            self.refused.discard(answer.id)

    def forget(self, job: str) -> None:
        """Notes that a job's tombstone is gone: the id may be acknowledged anew."""
        self.acknowledged.pop(job, None)
        self._created.discard(job)

    def refuse(self, jobs: Iterable[str]) -> None:
        """Notes that a request was refused: nothing of it was taken in."""
        self.refused.update(set(jobs) - self.acknowledged.keys() - self._lost)

    def give_up(self, jobs: Sequence[str]) -> None:
        """Notes that a request was refused and is not sent again, whatever became of it before."""
        self.refuse(jobs)
        self.given_up.update(jobs)

    def lose(self, jobs: Iterable[str]) -> None:
        """Notes that the answer did not come: the outcome is unknown."""
        self._lost.update(jobs)
        self.refused.difference_update(jobs)

    def change(self, event: str, job: str) -> None:
        """Notes that an operator's change was acknowledged.

        Cancelling twice is one change, and the second answer is like the first; each
        REQUEUE that was acknowledged is one of its own.
        """
        known = self.changes[event, job]
        self.changes[event, job] = known + 1 if event == Requeued.NAME else 1


class _Job:
    """A job as the log tells it so far."""

    __slots__ = (
        "attempt",
        "ended",
        "generation",
        "limit",
        "parent",
        "queue",
        "seq",
        "state",
        "token",
    )

    def __init__(self, seq: int, limit: int, parent: str, queue: str = "") -> None:
        self.seq, self.limit, self.parent, self.queue = seq, limit, parent, queue
        self.state = PENDING
        self.attempt = 0
        self.generation = 0
        self.token = 0
        self.ended = 0
        """How many jobs were forgotten before it was."""


_WITHOUT_SERVER: Final = (Enqueued, CancelRequested, Cancelled, Requeued, Discarded, QueueSet)
"""Events that need no server: a keeper or a lone producer logs them."""


class HistoryCheck:
    """The log as it is read, commit by commit; then the comparisons."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.lost: list[str] = []
        """Jobs that were acknowledged and are not in the log where they have to be."""
        self.last_seq = 0
        self.jobs: dict[str, _Job] = {}
        self.counts: Counter[str] = Counter()
        """Events by name."""
        self.earlier: set[tuple[str, int]] = set()
        """Id and seq of jobs whose id stands for a later one by now."""
        self._completed_earlier: set[str] = set()
        """Ids of `earlier` that completed then."""
        self._tombstones_max = TOMBSTONES_MAX_DEFAULT
        self._tombstones_age_ms = 0
        self._began_behind = 0
        self._ended = 0
        """Jobs that were forgotten but for their tombstone."""
        self._boot = 0
        self._boots: list[int] = []
        self._starts: list[tuple[int, int]] = []
        """Of each server: the least seq at which whoever came behind its predecessor may have
        begun, since from there on nothing is logged that needs a server, and its BOOT."""
        self._alone_from = 1
        """From here on nothing is logged that needs a server."""
        """Seqs at which a server began, or one that is yet to come may."""
        self._waits: dict[str, list[tuple[int, bool]]] = {}
        """By queue: from which seq on its jobs waited for the sync of their DISPATCH, or did
        not."""
        self._power_cuts: list[int] = []
        self._dispatches: dict[int, Dispatched] = {}
        self._lost: list[tuple[int, int]] = []
        """Attempts that were charged at a start: the BOOT, and the token."""
        self._never_started: dict[int, str] = {}
        self._acks: dict[int, str] = {}
        self._changes: Counter[tuple[str, str]] = Counter()

    def begin(self, state: State) -> None:
        """Begins behind a state, where the log before it is gone.

        The snapshot's jobs are trusted; what was known of them before cannot be checked.
        """
        for row in state.jobs.values():
            extra = row.extra
            job = self.jobs[row.id] = _Job(row.seq, row.spec.max_attempts, "", row.spec.queue)
            job.state = _WORDS[row.state]
            job.attempt, job.token = row.attempt, row.token
            job.generation = extra.generation if extra is not None else 0
            if row.token:
                self._dispatches[row.token] = Dispatched(row.id, row.worker)
        for name in state.tombstone_ids:
            tombstone = unpack_tombstone(state.tombstones[name])
            job = self.jobs[name] = _Job(tombstone.seq, 0, "")
            job.state = _WORDS[tombstone.outcome]
            self._forget(job)
        for name, queue in state.queues.items():
            self._waits[name] = [(state.last_seq, queue.row.durable_dispatch)]
        self._tombstones_max = state.tombstones_max
        self._tombstones_age_ms = state.tombstones_age_ms
        self.last_seq = self._began_behind = state.last_seq

    def read(self, commits: Iterable[Commit]) -> None:
        """Follows the log from where it was left."""
        for first_seq, _, events in commits:
            if first_seq != self.last_seq + 1:
                self._say(f"a commit begins with seq {first_seq}; {self.last_seq + 1} was next")
            for seq, event in enumerate(events, first_seq):
                self.counts[event.NAME] += 1
                if isinstance(event, Booted):
                    self._starts.append((self._alone_from, seq))
                if not isinstance(event, _WITHOUT_SERVER):
                    self._alone_from = seq + 1
                if isinstance(event, JobEvent):
                    self._follow(seq, event)
                elif isinstance(event, BoundsSet):
                    self._tombstones_max = event.tombstones_max
                    self._tombstones_age_ms = event.tombstones_age_ms
                elif isinstance(event, QueueSet):
                    self._waits.setdefault(event.queue, []).append((seq, event.durable_dispatch))
                elif isinstance(event, Booted):
                    self._boot = seq
                    self._boots.append(seq)
                    if event.power_cut:
                        self._power_cuts.append(seq)
            self.last_seq = first_seq + len(events) - 1

    def _say(self, violation: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(violation)

    # -- one event ---------------------------------------------------------------------------

    def _follow(self, seq: int, event: JobEvent) -> None:
        job = self.jobs.get(event.job)
        if isinstance(event, Enqueued):
            if job is not None and not self._is_forgotten(job):
                self._say(f"job {event.job} was enqueued at seq {job.seq} and again at {seq}")
                return
            if job is not None:
                self.earlier.add((event.job, job.seq))
                if job.state == COMPLETED:
                    self._completed_earlier.add(event.job)
            spec = spec_of(event.spec)
            self.jobs[event.job] = _Job(seq, spec.max_attempts, event.parent, spec.queue)
            return
        if job is None:
            self._say(f"seq {seq}: {event.NAME} of job {event.job}, which was never enqueued")
            return
        if isinstance(event, Dispatched):
            self._dispatch(seq, event, job)
        elif isinstance(event, Acked | Retried | TimedOut | Released):
            self._outcome(seq, event, job)
        elif isinstance(event, Died | Cancelled):
            self._end(seq, event, job)
        else:
            self._change(seq, event, job)

    def _is_forgotten(self, job: _Job) -> bool:
        """True where so much has ended since that its id may stand for a new job."""
        if job.state not in (COMPLETED, DISCARDED):
            return False
        return self._tombstones_age_ms > 0 or self._ended - job.ended >= self._tombstones_max

    def _dispatch(self, seq: int, event: Dispatched, job: _Job) -> None:
        self._dispatches[seq] = event
        if job.state == COMPLETED:
            self._say(f"seq {seq}: job {event.job} was dispatched after its ACK")
        elif job.state == IN_FLIGHT:
            self._say(
                f"seq {seq}: job {event.job} was dispatched while its attempt with token "
                f"{job.token} was in flight"
            )
        elif job.state != PENDING:
            self._say(f"seq {seq}: job {event.job} was dispatched while it was {job.state}")
        job.state, job.token = IN_FLIGHT, seq
        job.attempt += 1
        if job.attempt > job.limit:
            self._say(f"seq {seq}: attempt {job.attempt} of job {event.job}; {job.limit} allowed")

    def _outcome(self, seq: int, event: Acked | Retried | TimedOut | Released, job: _Job) -> None:
        self._fence(seq, event, event.token, job)
        if isinstance(event, Acked):
            self._acks[event.token] = event.job
            self._finish(seq, event, job, COMPLETED)
            return
        self._note_loss(event)
        if isinstance(event, Released):
            if event.cause == Cause.NEVER_STARTED:
                self._never_started[event.token] = event.job
            job.attempt -= 1
        elif job.attempt >= job.limit:
            self._say(
                f"seq {seq}: {event.NAME} of job {event.job} after attempt {job.attempt} of "
                f"{job.limit}, which is DEAD"
            )
        job.state, job.token = PENDING, 0

    def _note_loss(self, event: Retried | TimedOut | Released | Died) -> None:
        if event.cause == Cause.NODE_LOST:
            self._lost.append((self._boot, event.token))

    def _end(self, seq: int, event: Died | Cancelled, job: _Job) -> None:
        if event.token or job.state == IN_FLIGHT:
            self._fence(seq, event, event.token, job)
        if isinstance(event, Died):
            self._note_loss(event)
        state = DEAD if isinstance(event, Died) else CANCELLED
        self._finish(seq, event, job, state)
        if state == CANCELLED:
            self._changes[event.NAME, event.job] += 1

    def _fence(self, seq: int, event: JobEvent, token: int, job: _Job) -> None:
        if job.state in _TERMINAL:
            return  # Said by `_finish`, in better words.
        if job.state != IN_FLIGHT or token != job.token:
            holds = f"token {job.token}" if job.token else "no token"
            self._say(
                f"seq {seq}: {event.NAME} of job {event.job} with token {token}; the job is "
                f"{job.state} with {holds}"
            )

    def _finish(self, seq: int, event: JobEvent, job: _Job, state: str) -> None:
        if job.state in _TERMINAL:
            self._say(
                f"seq {seq}: {event.NAME} of job {event.job}, which was {job.state} already: two "
                f"ends of generation {job.generation}"
            )
        job.state, job.token = state, 0
        if state == COMPLETED:
            self._forget(job)

    def _forget(self, job: _Job) -> None:
        """Only a tombstone is left of it, and of so many later ones as the bound says."""
        self._ended += 1
        job.ended = self._ended

    def _change(self, seq: int, event: JobEvent, job: _Job) -> None:
        self._changes[event.NAME, event.job] += 1
        if job.state.replace(" ", "_") not in LIFE[event.NAME]:
            self._say(f"seq {seq}: {event.NAME} of job {event.job} while it was {job.state}")
        if isinstance(event, Requeued):
            job.state, job.attempt = PENDING, 0
            job.generation += 1
        elif isinstance(event, Discarded):
            job.state = DISCARDED
            self._forget(job)

    # -- the other accounts ----------------------------------------------------------------------

    def compare(self, witness: ClientRecord, *, is_whole: bool = True) -> None:
        """Checks that the log has everything that was acknowledged, and nothing from nowhere.

        Args:
            witness: Requests and answers.
            is_whole: It knows of everything that was asked; otherwise other producers may
                have sent what it does not know.
        """
        for contradiction in witness.contradictions:
            self._say(contradiction)
        for name, seq in witness.acknowledged.items():
            job = self.jobs.get(name)
            if job is None and seq <= self._began_behind:
                continue  # Long ended, and its tombstone is gone as well.
            if job is None or job.seq != seq:
                self.lost.append(name)
            if job is None:
                self._say(f"job {name} was acknowledged with seq {seq} and is not in the log")
            elif job.seq != seq:
                self._say(
                    f"job {name} was acknowledged with seq {seq}; the log has it at {job.seq}"
                )
        for name in sorted(witness.refused & self.jobs.keys()):
            self._say(f"job {name} was refused, and is in the log at seq {self.jobs[name].seq}")
        for name, job in self.jobs.items():
            if is_whole and name not in witness.sent and not job.parent:
                self._say(f"job {name} is in the log at seq {job.seq}, and nobody sent it")
            elif job.parent and self._ended_otherwise(job.parent):
                self._say(f"job {name} is a child of {job.parent}, which never completed")
        for batch in witness.batches:
            found = sum(name in self.jobs for name in batch)
            if 0 < found < len(batch):
                self._say(
                    f"of the {len(batch)} jobs that came together with {batch[0]}, {found} are "
                    "in the log"
                )
        for (event, name), times in witness.changes.items():
            if self._changes[event, name] < times:
                self._say(
                    f"{event} of job {name} was acknowledged {times} times and is in the log "
                    f"{self._changes[event, name]} times"
                )

    def compare_state(self, recovered: HistoryCheck) -> None:
        """Checks that recovery comes to what the log says, however much of it was pruned.

        Args:
            recovered: A history that begins with the recovered state, and has read no more.
        """
        own = {name: job.state for name, job in self.jobs.items()}
        found = {name: job.state for name, job in recovered.jobs.items()}
        for name in sorted(own.keys() | found.keys()):
            if own.get(name) != found.get(name):
                self._say(
                    f"job {name} is {own.get(name, 'unknown')} in the log, and recovered as "
                    f"{found.get(name, 'unknown')}"
                )

    def _ended_otherwise(self, name: str) -> bool:
        """True where no job of that id ever completed; one may stand for a later job by now."""
        parent = self.jobs.get(name)
        completed = parent is not None and parent.state == COMPLETED
        return not completed and name not in self._completed_earlier

    def compare_runs(self, runs: Sequence[RunLine], *, closed: bool = False) -> None:
        """Checks what workers ran.  The runs were read before the log was.

        A job of a queue that has opted out of a durable DISPATCH may run with a token that a
        crash then took; see `_may_be_lost`.

        Args:
            runs: The workers' account.
            closed: The log was closed.  Otherwise a server writes it, or was killed at its end.
        """
        starts = self._starts if closed else [*self._starts, (self._alone_from, self.last_seq + 1)]
        ran: dict[int, tuple[int, bool]] = {}
        """By token: the process, and whether a crash may have taken it."""
        newest: dict[str, int] = {}
        last_of: dict[int, int] = {}
        last_logged_of: dict[int, int] = {}
        for run in runs:
            token, pid = run.token, run.pid
            if run.ended:
                if newest.get(run.job) != token:
                    self._say(
                        f"token {token} of job {run.job} still ran when its attempt with token "
                        f"{newest.get(run.job)} had begun"
                    )
                continue
            may_be_lost = self._may_be_lost(run, last_logged_of.get(pid, 0), starts)
            first, first_may_be_lost = ran.get(token, (0, True))
            if first == pid or not (first_may_be_lost or may_be_lost):
                self._say(
                    f"token {token} of job {run.job} ran twice, in processes {first} and {pid}"
                )
            dispatch = self._dispatches.get(token)
            if dispatch is not None and dispatch.job == run.job:
                last_logged_of[pid] = token
            elif dispatch is None and token <= self._began_behind:
                pass  # Before what is kept of the log.
            elif not may_be_lost:
                self._say(
                    f"process {pid} ran job {run.job} with token {token}, which is no DISPATCH of "
                    "that job in the log"
                )
            if self._never_started.get(token) == run.job and not may_be_lost:
                self._say(f"token {token} of job {run.job} ran, and was given back as not started")
            if token < last_of.get(pid, 0):
                self._say(f"process {pid} began token {token} after token {last_of[pid]}")
            newest[run.job] = last_of[pid] = token
            ran[token] = (pid, may_be_lost)

    def _may_be_lost(self, run: RunLine, before: int, starts: Sequence[tuple[int, int]]) -> bool:
        """True where a crash may have taken the DISPATCH of an attempt that had started.

        Its queue had opted out of waiting for it, and the next server (or a keeper or a lone
        producer before it) began at or below its seq, or the log ends there so far, while its
        worker had started nothing that is logged behind that.  A job whose ENQUEUE went with it
        may be of any queue.

        Args:
            run: Where the attempt began.
            before: Last token that its worker had started and that is in the log.
            starts: Where others may have begun, each from its least seq to its last.
        """
        job = self.jobs.get(run.job)
        queues = (job.queue,) if job is not None and job.queue else self._waits
        return any(
            begin <= end and not (self._waited(queue, begin) and self._waited(queue, end))
            for first, boot in starts
            for begin, end in [(max(first, before + 1), min(boot, run.token))]
            for queue in queues
        )

    def _waited(self, queue: str, seq: int) -> bool:
        """True where jobs of a queue waited for the sync of their DISPATCH before `seq`."""
        return next((w for at, w in reversed(self._waits.get(queue, ())) if at < seq), True)

    def compare_charges(
        self, runs: Sequence[RunLine], *, power_was_cut: bool = False, at_once: bool = False
    ) -> None:
        """Checks that what completed or was charged did run.  Read the runs after the log.

        A worker says that it starts an attempt before the attempt's code can: in between it
        may be killed, with one attempt that is charged and never ran; but not with two.

        Args:
            runs: The workers' account.
            power_was_cut: The machine did go down, and then everything in flight is charged.
            at_once: Nothing comes between what a worker says and the code's first step.
        """
        ran = {(run.token, run.job) for run in runs}
        for token, name in self._acks.items():
            if (token, name) not in ran:
                self._say(f"job {name} completed with token {token}, which no worker ran")
        charged: Counter[tuple[int, int]] = Counter()
        for boot, token in self._lost:
            dispatch = self._dispatches.get(token)
            if power_was_cut and boot in self._power_cuts:
                continue
            if dispatch is not None and (token, dispatch.job) not in ran:
                charged[boot, dispatch.worker] += 1
        for (boot, worker), count in charged.items():
            if count > (0 if at_once else 1):
                self._say(
                    f"the BOOT at seq {boot} charged {count} attempts of worker {worker} that "
                    "never ran"
                )
        for boot in () if power_was_cut else self._power_cuts:
            self._say(f"the BOOT at seq {boot} says that the machine went down; it did not")

    def states(self) -> Counter[str]:
        """Returns how many jobs are in each state."""
        return Counter(job.state for job in self.jobs.values())

    def unfinished(self) -> list[str]:
        """Returns the jobs that have not ended."""
        return [name for name, job in self.jobs.items() if job.state not in _TERMINAL]

    def settle(self, witness: ClientRecord) -> None:
        """Checks that all is at rest: every answer has come, and every job has ended."""
        for name in self.unfinished():
            self._say(f"job {name} is still {self.jobs[name].state} when all is quiet")
        answered = witness.acknowledged.keys() | witness.refused | witness.given_up
        for name in sorted(witness.sent - answered):
            self._say(f"job {name} was sent again until it was answered, and has no answer")
