"""Applying events: the only code that changes the state.

`apply` takes the row out of the indexes, changes it through the cell table, and puts it
back.  It never fails on a legal event and never stops half-way: recovery asks `legal` first
and calls an illegal event corruption; the engine applies only what `decide` has returned.
The bulk forms for many similar events are in `bulk`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice
from operator import is_not
from typing import Any, Final

from beaver_model.bounds import DIGEST_BYTES
from beaver_model.bulk import BULK, RUN_MIN, build_indexes
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
    QueueForgotten,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.legality import CHECK, IllegalEvent, JudgedFrame, refuse_left_in_flight
from beaver_model.lifecycle import CELLS, Cells
from beaver_model.rows import Extra, Row, pack_tombstone, spec_of
from beaver_model.state import State
from beaver_model.states import JobState, Trigger
from beaver_model.stride import STRIDE

# By name: looking up a member of an enumeration takes longer than the rest of a check.
_FORGOTTEN: Final = JobState.FORGOTTEN
_DISPATCH: Final = CELLS[Trigger.DISPATCH]
_ACK: Final = CELLS[Trigger.ACK]
_RETRY: Final = CELLS[Trigger.RETRY]
_TIMEOUT: Final = CELLS[Trigger.TIMEOUT]
_RELEASE: Final = CELLS[Trigger.RELEASE]
_DEAD: Final = CELLS[Trigger.DEAD]
_CANCEL_REQUESTED: Final = CELLS[Trigger.CANCEL_REQUESTED]
_CANCEL: Final = CELLS[Trigger.CANCEL]
_REQUEUE: Final = CELLS[Trigger.REQUEUE]
_DISCARD: Final = CELLS[Trigger.DISCARD]


def apply(state: State, event: AnyEvent, time_ms: int) -> None:
    """Applies one legal event as the next seq.  `time_ms` is its stamp."""
    state.last_seq += 1
    if time_ms > state.time_ms:
        state.time_ms = time_ms
    _APPLY[type(event)](state, event)


def apply_all(
    state: State, events: Sequence[AnyEvent], time_ms: int, *, run_min: int = RUN_MIN
) -> None:
    """Applies the legal events of one decision in order: a run of like events at once.

    Args:
        state: The state, right after which they were decided.
        events: What `decide` returned.
        time_ms: Their stamp.
        run_min: The shortest run of events that is applied at once; checkers pass 1.
    """
    if len(events) >= run_min and len(set(map(type, events))) == 1:
        form = BULK.get(type(events[0]))
        if form is not None:
            if time_ms > state.time_ms:
                state.time_ms = time_ms
            if form(state, events, are_legal=True):
                return
    for event in events:
        apply(state, event, time_ms)


def replay(
    state: State,
    first_seq: int,
    time_ms: int,
    events: Sequence[AnyEvent],
    *,
    run_min: int = RUN_MIN,
) -> int:
    """Applies the events of one frame, skipping what the state already holds.

    Args:
        state: The state, whose indexes may be deferred.
        first_seq: Seq of the first event.
        time_ms: The stamp of the frame.
        events: All its events.
        run_min: The shortest run of similar events that is applied at once, in a frame whose runs
            are as long on average; checkers pass 1.

    Returns:
        How many events it applied.

    Raises:
        IllegalEvent: An event cannot follow, or seqs are missing.  Events before it are
            applied; the state is to be discarded.
    """
    known = state.last_seq + 1 - first_seq
    if known < 0 and events:
        raise IllegalEvent(first_seq, events[0], f"the last seq applied is {state.last_seq}")
    frame = JudgedFrame(time_ms, first_seq, events)
    if known > 0:
        events = events[known:]
        frame.resume(state, known)
    if not events:
        return 0
    reason = frame.why_out_of_time(state)
    if reason is not None:
        raise IllegalEvent(state.last_seq + 1, events[0], reason)
    state.time_ms = time_ms
    kinds = list(map(type, events))
    runs_count = 1 + sum(map(is_not, kinds, islice(kinds, 1, None)))
    if runs_count * run_min > len(events):
        # Runs are short on average: finding each takes longer than it saves.
        _replay_each(state, events, frame)
    else:
        runs = [events] if runs_count == 1 else [list(run) for _, run in groupby(events, type)]
        for run in runs:
            form = BULK.get(type(run[0])) if len(run) >= run_min else None
            if form is None or not form(state, run, are_legal=False):
                _replay_each(state, run, frame)
    if frame.fates_end:
        refuse_left_in_flight(state)
    return len(events)


def _replay_each(state: State, events: Iterable[AnyEvent], frame: JudgedFrame) -> None:
    for event in events:
        kind = type(event)
        reason = _CHECKS[kind](state, event, frame)
        if reason is not None:
            raise IllegalEvent(state.last_seq + 1, event, reason)
        # As `apply` does, without a call for each event of a long log.
        state.last_seq += 1
        _APPLY[kind](state, event)


def _check_forgotten(state: State, event: Any, frame: JudgedFrame) -> str | None:
    """Whether a queue has jobs is counted only where the indexes stand."""
    build_indexes(state)
    return CHECK[QueueForgotten](state, event, frame)


# -- one function an event ----------------------------------------------------------------


def _enqueued(state: State, event: Enqueued) -> None:
    spec = spec_of(event.spec)
    ready_ms = state.time_ms
    if event.run_at_ms > ready_ms:
        ready_ms = event.run_at_ms
    row = Row(state.last_seq, event.job, ready_ms, spec, event.digest + event.payload)
    if event.parent or event.tags:
        row.extra = Extra(parent=event.parent, tags=event.tags)
    state.enter(row).row.enqueued += 1


def _dispatched(state: State, event: Dispatched) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _DISPATCH)
    row.attempt += 1
    row.token = state.last_seq
    row.worker = event.worker
    if row.extra is not None and row.extra.suspect:
        state.suspect_out = row.id, row.token
    state.put(row)
    queue = state.queues[row.spec.queue]
    queue.stride_pass += STRIDE // queue.row.weight
    state.stride_pass = queue.stride_pass


def _acked(state: State, event: Acked) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _ACK)
    state.queues[row.spec.queue].row.completed += 1
    _forget(state, row)


def _retried(state: State, event: Retried) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _RETRY)
    _extra(row).suspect = False
    _back_to_pending(state, row, event)


def _timed_out(state: State, event: TimedOut) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _TIMEOUT)
    _extra(row).suspect = event.suspect
    _back_to_pending(state, row, event)


def _released(state: State, event: Released) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _RELEASE)
    row.attempt -= 1
    if event.cause == Cause.SNOOZE:
        _extra(row).snoozes += 1
    row.token = row.worker = 0
    # A job that is given back keeps its place in the order.
    row.ready_ms = max(row.ready_ms, event.run_at_ms)
    state.put(row)


def _died(state: State, event: Died) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _DEAD)
    extra = _extra(row)
    extra.suspect = extra.cancel_requested = False
    extra.cause, extra.error = event.cause, event.error
    row.token = row.worker = 0
    state.put(row)


def _cancel_requested(state: State, event: CancelRequested) -> None:
    row = state.jobs[event.job]
    _move(row, _CANCEL_REQUESTED)
    _extra(row).cancel_requested = True


def _cancelled(state: State, event: Cancelled) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _CANCEL)
    extra = _extra(row)
    extra.suspect = extra.cancel_requested = False
    extra.cause, extra.error = event.cause, event.error or extra.error
    row.token = row.worker = 0
    state.put(row)


def _requeued(state: State, event: Requeued) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _REQUEUE)
    extra = _extra(row)
    extra.generation += 1
    extra.snoozes = 0
    extra.cause = extra.error = ""
    row.attempt, row.ready_ms = 0, state.time_ms
    if event.payload is not None:
        state.replace_payload(row, event.payload)
    state.put(row)


def _discarded(state: State, event: Discarded) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, _DISCARD)
    _forget(state, row)


def _queue_set(state: State, event: QueueSet) -> None:
    queue = state.queue(event.queue)
    row = queue.row
    row.paused, row.weight, row.bytes_max = event.paused, event.weight, event.bytes_max
    row.durable_dispatch = event.durable_dispatch
    state.list_queue(queue)


def _booted(state: State, event: Booted) -> None:
    state.epoch = event.epoch
    state.boot_seq = state.last_seq


def _queue_forgotten(state: State, event: QueueForgotten) -> None:
    state.forget_queue(event.queue)


def _bounds_set(state: State, event: BoundsSet) -> None:
    state.tombstones_max = event.tombstones_max
    state.tombstones_age_ms = event.tombstones_age_ms


_APPLY: Final[dict[type, Callable[[State, Any], None]]] = {
    Enqueued: _enqueued,
    Dispatched: _dispatched,
    Acked: _acked,
    Retried: _retried,
    TimedOut: _timed_out,
    Released: _released,
    Died: _died,
    CancelRequested: _cancel_requested,
    Cancelled: _cancelled,
    Requeued: _requeued,
    Discarded: _discarded,
    QueueSet: _queue_set,
    Booted: _booted,
    BoundsSet: _bounds_set,
    QueueForgotten: _queue_forgotten,
}
_CHECKS: Final = {**CHECK, QueueForgotten: _check_forgotten}
"""By event: what may keep it out of a log that is replayed."""


# -- what they share ----------------------------------------------------------------------


def _extra(row: Row) -> Extra:
    if row.extra is None:
        row.extra = Extra()
    return row.extra


def _move(row: Row, cells: Cells) -> None:
    """Changes the state of a row, which stands in no index, through a row of the cell table."""
    state = cells[row.state]
    assert state is not None, "only legal events are applied"
    row.state = state


def _back_to_pending(state: State, row: Row, event: Retried | TimedOut) -> None:
    extra = _extra(row)
    extra.cause, extra.error = event.cause, event.error
    row.token = row.worker = 0
    row.ready_ms = max(event.run_at_ms, state.time_ms)
    state.put(row)


def _forget(state: State, row: Row) -> None:
    """Drops a row; a tombstone with its last state stays."""
    state.leave(row)
    outcome = row.state
    row.state = _FORGOTTEN
    digest = row.content[:DIGEST_BYTES]
    state.bury(row.id, state.time_ms, pack_tombstone(row.seq, outcome, digest))
