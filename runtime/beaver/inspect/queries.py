"""Questions to a state: what `status`, `list`, `show` and `explain` say.

Pure functions from a `State` to views, used by the server over the live state and by
readers without a server over the state that the files hold.  Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from beaver.errors import NotFound
from beaver.structs.views import (
    ABSENT,
    EventView,
    ExplainView,
    JobView,
    QueueView,
    ResultView,
    StatusView,
    WorkerView,
)
from beaver.text.jsontext import shown
from beaver_model.index import QueueIndex
from beaver_model.policy import why
from beaver_model.rows import Row, Tombstone
from beaver_model.state import State
from beaver_model.states import JobState


def state_word(state: JobState) -> str:
    """Returns the word for a state that users read."""
    return "discarded" if state == JobState.FORGOTTEN else state.name.lower()


def job_view(state: State, row: Row) -> JobView:
    """Returns what is known of an unfinished, dead or cancelled job."""
    spec, extra = row.spec, row.extra
    view = JobView(
        id=row.id,
        seq=row.seq,
        state=state_word(row.state),
        task=spec.task,
        queue=spec.queue,
        priority=spec.priority,
        attempt=row.attempt,
        max_attempts=spec.max_attempts,
        timeout_ms=spec.timeout_ms,
        ready_ms=row.ready_ms,
        worker=row.worker,
        token=row.token,
        generation=0,
        cancel_requested=False,
        suspect=False,
        cause="",
        error="",
        parent="",
        tags=(),
        payload=shown(row.payload, "payload"),
        waiting=why(state, row).reason,
    )
    if extra is not None:
        view.generation = extra.generation
        view.cancel_requested, view.suspect = extra.cancel_requested, extra.suspect
        view.cause, view.error = extra.cause, extra.error
        view.parent, view.tags = extra.parent, extra.tags
    return view


def tombstone_view(job: str, tombstone: Tombstone) -> JobView:
    """Returns what the state still knows of a finished or discarded job."""
    return JobView(
        id=job, seq=tombstone.seq, state=state_word(tombstone.outcome), waiting="finished"
    )


def show(state: State, job: str) -> JobView:
    """Returns one job; of one that has ended only what the state knows.

    Raises:
        NotFound: It is not known, or no longer.
    """
    row = state.jobs.get(job)
    if row is not None:
        return job_view(state, row)
    tombstone = state.tombstone(job)
    if tombstone is None:
        raise NotFound(f"no job {job}")
    return tombstone_view(job, tombstone)


def show_finished(
    state: State, job: str, events: Sequence[EventView], as_of_seq: int = 0
) -> JobView:
    """Returns a job that has ended, or another, with what its events tell.

    Raises:
        NotFound: It is not known, or no longer, and no event of it is kept.
    """
    if job in state.jobs or job in state.tombstones or not events:
        view = show(state, job)
    else:
        view = JobView(job, events[0].seq, "", waiting="finished")
    if job not in state.jobs and events and events[0].seq >= view.seq:
        with_history(view, events)
        view.as_of_seq = as_of_seq or None
    return view


def changed_word(state: State, job: str) -> str:
    """Returns the word that answers an operator's change: the state, or `cancel_requested`."""
    row = state.jobs.get(job)
    if row is None:
        return "discarded"
    return "cancel_requested" if row.cancel_requested else state_word(row.state)


_ENDS: Final = {"ACK": "completed", "DISCARD": "discarded"}


def with_history(view: JobView, events: Iterable[EventView]) -> JobView:
    """Returns the view of a job that has ended, filled with what its events tell."""
    for event in events:
        if event.event == "ENQUEUE":
            view.task, view.queue, view.priority = event.task, event.queue, event.priority
            view.max_attempts, view.timeout_ms = event.max_attempts, event.timeout_ms
            view.parent, view.tags = event.parent or "", event.tags or ()
            view.enqueued_ms, view.attempt, view.generation = event.time_ms, 0, 0
            view.cause = view.error = ""
        elif event.event == "REQUEUE" and view.generation is not None:
            view.attempt, view.generation = 0, view.generation + 1
        elif event.event in _ENDS:
            view.state = _ENDS[event.event]
            view.finished_ms, view.end_seq = event.time_ms, event.seq
        elif event.cause is not None and event.event != "RELEASE":
            view.cause, view.error = event.cause, event.error or ""
        if event.payload is not ABSENT and bytes(event.payload):
            view.payload = event.payload
        if event.result is not ABSENT and bytes(event.result):
            view.result = event.result
        if event.attempt is not None:
            view.attempt = event.attempt
    return view


def queue_view(queue: QueueIndex, now_ms: int) -> QueueView:
    """Returns a queue's settings and counts."""
    oldest_ms = queue.oldest_ready_ms() if queue.ready else None
    return QueueView(
        pending=queue.counts[JobState.PENDING],
        in_flight=queue.counts[JobState.IN_FLIGHT],
        completed=queue.row.completed,
        dead=queue.counts[JobState.DEAD],
        cancelled=queue.counts[JobState.CANCELLED],
        paused=queue.row.paused,
        weight=queue.row.weight,
        oldest_pending_ms=0 if oldest_ms is None else max(0, now_ms - oldest_ms),
        durable_dispatch=queue.row.durable_dispatch,
    )


def status(
    state: State,
    now_ms: int,
    *,
    running: bool,
    with_queues: bool = True,
    keeper: int = 0,
    store: str = "",
    recovery_ms: float = 0.0,
    recovery: dict[str, Any] | None = None,
    workers: list[WorkerView] | None = None,
    starts_overdue: int = 0,
    halted: str = "",
    disk_full: bool = False,
    commit_path: str = "",
    longest_stall_ms: float = 0.0,
    longest_stall_in: str = "",
) -> StatusView:
    """Returns the whole queue at a glance."""
    return StatusView(
        pending=state.count(JobState.PENDING),
        in_flight=state.count(JobState.IN_FLIGHT),
        completed=state.completed,
        dead=state.count(JobState.DEAD),
        cancelled=state.count(JobState.CANCELLED),
        running=running,
        keeper=keeper,
        last_seq=state.last_seq,
        recovery_ms=recovery_ms,
        scheduled=state.scheduled_live,
        epoch=state.epoch,
        store=store,
        disk_full=disk_full,
        commit_path=commit_path,
        state_bytes=state.bytes,
        queues={
            name: queue_view(queue, now_ms)
            for name, queue in (sorted(state.queues.items()) if with_queues else ())
        },
        workers=workers or [],
        starts_overdue=starts_overdue,
        halted=halted,
        longest_stall_ms=longest_stall_ms,
        longest_stall_in=longest_stall_in,
        recovery=recovery or {},
    )


def explain(
    state: State,
    job: str,
    events: list[EventView],
    history_from_seq: int = 1,
    as_of_seq: int = 0,
    durable_seq: int = 0,
) -> ExplainView:
    """Returns a job with its events and why it does not run now.

    Args:
        state: The state.
        job: Its id.
        events: Its events found in the log.  Later ones than the state knows are left out
            where it has a row: somebody appended while the files were read.
        history_from_seq: Events before are no longer kept.
        as_of_seq: Events up to here were looked for.
        durable_seq: Events up to here are to be told.

    Raises:
        NotFound: It is not known, or no longer, and no event of it is kept.
    """
    row = state.jobs.get(job)
    if row is None:
        view = show_finished(state, job, events, as_of_seq)
        lagging = as_of_seq < durable_seq
        return ExplainView(view, events, history_from_seq, as_of_seq, lagging, waiting="finished")
    waiting = why(state, row)
    as_of_seq = min(as_of_seq, state.last_seq)
    return ExplainView(
        job=job_view(state, row),
        events=[event for event in events if event.seq <= state.last_seq],
        history_from_seq=history_from_seq,
        as_of_seq=as_of_seq,
        lagging=as_of_seq < durable_seq,
        waiting=waiting.reason,
        waiting_until_ms=waiting.until_ms,
        held_by=waiting.worker,
        near_tasks=near(row.spec.task, state.known_tasks or ())
        if waiting.reason == "unknown_task"
        else (),
    )


def near(name: str, known: Iterable[str], most: int | None = None) -> tuple[str, ...]:
    """Returns known names that look like `name`, nearest first; `most` are looked at."""
    import difflib

    return tuple(difflib.get_close_matches(name, sorted(known)[:most], n=3, cutoff=0.6))


def result_told(job: str, events: Sequence[EventView]) -> ResultView | None:
    """Returns how a finished job ended, from its events; `None` where they do not tell."""
    for event in reversed(events):
        if event.event in _ENDS:
            view = ResultView(job, _ENDS[event.event])
            if event.event == "ACK":
                view.result = event.result
            return view
    return None


def result(state: State, job: str, kept: ResultView | None) -> ResultView | None:
    """Returns how a job ended; `None` while it has not.

    Args:
        state: The state.
        job: Its id.
        kept: What the log or `history.db` still holds of a finished job.

    Raises:
        NotFound: It is not known, or no longer.
    """
    row = state.jobs.get(job)
    if row is not None:
        if row.state not in (JobState.DEAD, JobState.CANCELLED):
            return None
        extra = row.extra
        return ResultView(
            id=job,
            state=state_word(row.state),
            cause=extra.cause if extra else "",
            error=extra.error if extra else "",
        )
    if kept is not None:
        return kept
    tombstone = state.tombstone(job)
    if tombstone is None:
        raise NotFound(f"no job {job}")
    if tombstone.outcome == JobState.COMPLETED:
        return ResultView(id=job, state="expired")
    return ResultView(id=job, state=state_word(tombstone.outcome))
