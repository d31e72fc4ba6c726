"""How one event changes the history's row of its job.  Pure: no file, no SQLite."""

from __future__ import annotations

from typing import Final

import msgspec

from beaver_model.events import (
    JOB_EVENTS,
    Dispatched,
    Enqueued,
    JobEvent,
    Released,
    Requeued,
)
from beaver_model.lifecycle import LEADS_TO
from beaver_model.rows import spec_of
from beaver_model.states import JobState

_LEADS_TO: Final[dict[type[JobEvent], JobState | None]] = {
    kind: LEADS_TO[kind.TRIGGER] for kind in JOB_EVENTS if kind.TRIGGER is not None
}
_ENDS: Final = (JobState.COMPLETED, JobState.DEAD, JobState.CANCELLED, JobState.FORGOTTEN)
END_OF: Final[dict[type, JobState]] = {
    kind: state for kind, state in _LEADS_TO.items() if state in _ENDS and state is not None
}
"""How the job has ended, for each event that ends one."""


class JobRecord(msgspec.Struct, gc=False):
    """A row of the table of jobs, in the order of its columns."""

    seq: int
    id: str
    task: str = ""
    """Empty where the ENQUEUE was not seen: then attempts cannot be counted."""
    queue: str = ""
    state: int = JobState.PENDING
    enqueued_ms: int = 0
    finished_ms: int = 0
    attempts: int = 0
    token: int = 0
    worker: int = 0
    end_seq: int = 0
    events: int = 0
    """How many of its events are kept."""


def advance(job: JobRecord, event: JobEvent, seq: int, time_ms: int) -> tuple[int, int]:
    """Changes a job by one of its events; returns the attempt and worker of that event."""
    kind = type(event)
    attempt, worker = job.attempts, job.worker
    if isinstance(event, Enqueued):
        spec = spec_of(event.spec)
        job.task, job.queue, job.enqueued_ms = spec.task, spec.queue, time_ms
        return 0, 0
    if isinstance(event, Dispatched):
        job.state = JobState.IN_FLIGHT
        job.attempts = attempt + 1 if job.task else 0
        job.token, job.worker = seq, event.worker
        return job.attempts, job.worker
    end = END_OF.get(kind)
    if end is not None:
        job.state = end
        job.finished_ms, job.end_seq = time_ms, seq
        job.token = job.worker = 0
    elif isinstance(event, Requeued):
        job.state = JobState.PENDING
        job.attempts = job.finished_ms = job.end_seq = 0
        return 0, 0
    elif _LEADS_TO[kind] == JobState.PENDING:
        job.state = JobState.PENDING
        job.token = job.worker = 0
        job.attempts -= isinstance(event, Released) and attempt > 0
    return attempt, worker
