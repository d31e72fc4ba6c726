"""Questions to a state: what `status`, `list`, `show` and `explain` say.

Pure functions from a `State` to views, used by the server over the live state and by
readers without a server over the state that the files hold.  Nothing here changes anything.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from beaver.errors import InvalidInput, NotFound
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
from beaver.text.near import unknown_name
from beaver_model.index import QueueIndex
from beaver_model.policy import why
from beaver_model.rows import Row, Tombstone
from beaver_model.state import State
from beaver_model.states import JobState

LIST_LIMIT_MAX: Final = 10_000
SEQ_MAX: Final = (1 << 62) - 1
LIST_BYTES_MAX: Final = 8 << 20
"""Payloads in one answer; a single larger one still comes."""
SLICE_JOBS: Final = 2_000
"""Jobs that are looked at between two pauses: a few ms at most."""
SORTED_MAX: Final = 50_000
"""Up to this many jobs are sorted by seq to find the next; among more, one is nearby."""
STATES: Final = ("pending", "in_flight", "completed", "dead", "cancelled", "discarded")
"""The words by which `list` filters."""
_NEAR_MAX: Final = 256
"""How many queues are compared with an unknown name."""
FINISHED: Final = ("completed", "discarded")
"""Words for jobs of which a tombstone is left; the log tells the rest."""


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
        payload=msgspec.Raw(row.payload),
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


Search = Generator[None, None, list[JobView]]
"""Looks for jobs, and pauses."""


def at_once(search: Search) -> list[JobView]:
    """Returns what a search finds, without its pauses."""
    while True:
        try:
            next(search)
        except StopIteration as end:
            views: list[JobView] = end.value
            return views


def check_listing(
    word: str, limit: int, since_ms: int = 0, until_ms: int = 0, after_seq: int = 0
) -> None:
    """Checks what a list is asked for.

    Raises:
        InvalidInput: There is no such state, a number is out of bounds, or jobs that have not
            finished are asked for by the time at which they did.
    """
    if word and word not in STATES:
        hint = unknown_name(word, STATES)
        raise InvalidInput(f"no state {word!r}; the states are {', '.join(STATES)}{hint}")
    if not 0 <= limit <= LIST_LIMIT_MAX:
        raise InvalidInput(f"a limit of {limit}; it must be from 1 to {LIST_LIMIT_MAX}")
    if min(since_ms, until_ms, after_seq) < 0 or max(since_ms, until_ms, after_seq) > SEQ_MAX:
        raise InvalidInput("a time or a seq is out of bounds")
    if (since_ms or until_ms) and word not in FINISHED:
        raise InvalidInput(
            "since and until are about when a job finished; they go with the state "
            f"{' or '.join(FINISHED)}"
        )


def find_jobs(
    state: State,
    word: str = "",
    queue: str = "",
    task: str = "",
    after_seq: int = 0,
    limit: int = 0,
    tag: str = "",
) -> Search:
    """Returns jobs in seq order after `after_seq`, and pauses while it looks for them.

    At most `limit`, and fewer where their payloads pass `LIST_BYTES_MAX`; ask on from the last
    one's seq until nothing comes.
    Without a state word: those that are pending, in flight, dead or cancelled.  Finished jobs
    are not here: see `stories`.

    The state may change in a pause, which comes after some thousand jobs: each job is as it was
    when it was looked at, and one that has gone by then, or comes in later, may be left out.

    Raises:
        InvalidInput: There is no such state, or the limit is out of bounds.
        NotFound: No such queue.
    """
    check_listing(word, limit)
    assert word not in FINISHED, "asked of the log"
    if queue and queue not in state.queues:
        raise NotFound(f"no queue {queue}{unknown_name(queue, tuple(state.queues)[:_NEAR_MAX])}")
    limit = limit or LIST_LIMIT_MAX
    wanted = JobState[word.upper()] if word else None
    views: list[JobView] = []
    size = 0
    for rows in _slices(state, wanted, after_seq):
        if rows is None:
            yield
            continue
        likely = rows
        if queue:
            likely = [row for row in likely if row.spec.queue == queue]
        if task:
            likely = [row for row in likely if row.spec.task == task]
        if tag:
            likely = [row for row in likely if row.extra is not None and tag in row.extra.tags]
        for seen in likely:
            # Another row may stand for the job since it was seen, or none.
            row = state.jobs.get(seen.id)
            if row is not None and row.seq == seen.seq and (wanted is None or row.state == wanted):
                size += len(row.payload)
                if views and size > LIST_BYTES_MAX:
                    return views
                views.append(job_view(state, row))
                if len(views) == limit:
                    return views
    return views


def _slices(
    state: State, wanted: JobState | None, after_seq: int
) -> Iterator[Sequence[Row] | None]:
    """Yields the rows after a seq, in order, some at a time, and `None` for a pause.

    Rows of other states than the one that is wanted may be among them.
    """
    sets: dict[JobState | None, Mapping[Any, Row]] = {
        JobState.IN_FLIGHT: state.in_flight,
        JobState.DEAD: state.dead,
        JobState.CANCELLED: state.cancelled,
    }
    few = sets.get(wanted)
    if few is not None and len(few) <= SORTED_MAX:
        if len(few) > SLICE_JOBS:
            yield None
        rows = sorted(few.values(), key=_seq)
    else:
        if not after_seq:
            # The most frequent query: the first page.
            first = list(islice(state.jobs.values(), SLICE_JOBS))
            yield first
            if len(first) < SLICE_JOBS:
                return
            after_seq = first[-1].seq
        yield None
        rows = list(state.jobs.values())
    start = bisect_right(rows, after_seq, key=_seq)
    for at in range(start, len(rows), SLICE_JOBS):
        if at > start:
            yield None
        yield rows[at : at + SLICE_JOBS]


def _seq(row: Row) -> int:
    return row.seq


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
