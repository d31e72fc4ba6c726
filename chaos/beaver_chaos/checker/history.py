"""The history checker: what producers saw and workers ran, against what the log says.

It knows the promises and nothing of the model: its few states are written here once more, so
that a mistake in `beaver_model` cannot hide itself.  Jobs are independent and the log gives
the order, so one pass is enough, in linear time.

Three accounts are compared:

- `client_record`: what producers and operators were answered.
- `attempts`: what workers did, from a file that the jobs' own code appends to (`jobs`).
- The commits of the log.

Violations are sentences.  What may not live here: processes, files, random choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from beaver_chaos.checker.attempts import Attempts
from beaver_chaos.checker.client_record import ClientRecord
from beaver_model.bounds import TOMBSTONES_MAX_DEFAULT
from beaver_model.events import (
    Acked,
    AnyEvent,
    BoundsSet,
    Cancelled,
    Died,
    Discarded,
    Dispatched,
    Enqueued,
    JobEvent,
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
"""First seq, stamp and events, as `journal.wal.reader.read_commits` gives them."""


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
        self.attempts = Attempts(self._say, self._queue_of)
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
        for name in state.tombstone_ids:
            tombstone = unpack_tombstone(state.tombstones[name])
            job = self.jobs[name] = _Job(tombstone.seq, 0, "")
            job.state = _WORDS[tombstone.outcome]
            self._forget(job)
        self.attempts.begin(state)
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
                self.attempts.follow(seq, event)
                if isinstance(event, JobEvent):
                    self._follow(seq, event)
                elif isinstance(event, BoundsSet):
                    self._tombstones_max = event.tombstones_max
                    self._tombstones_age_ms = event.tombstones_age_ms
            self.last_seq = first_seq + len(events) - 1

    def _say(self, violation: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(violation)

    def _queue_of(self, name: str) -> str:
        job = self.jobs.get(name)
        return job.queue if job is not None else ""

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
        self.attempts.note(seq, event)
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
            self._finish(seq, event, job, COMPLETED)
            return
        if isinstance(event, Released):
            job.attempt -= 1
        elif job.attempt >= job.limit:
            self._say(
                f"seq {seq}: {event.NAME} of job {event.job} after attempt {job.attempt} of "
                f"{job.limit}, which is DEAD"
            )
        job.state, job.token = PENDING, 0

    def _end(self, seq: int, event: Died | Cancelled, job: _Job) -> None:
        if event.token or job.state == IN_FLIGHT:
            self._fence(seq, event, event.token, job)
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
        """Notes that only a tombstone of the job is left, until the bound lets that go as well."""
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
