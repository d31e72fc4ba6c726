"""Applying events: the only code that changes the state.

`legal` says whether an event can follow; `apply` takes the row out of the indexes, changes
it through the cell table, and puts it back.  `apply` never fails on a legal event and never
stops half-way: recovery asks `legal` first and calls an illegal event corruption; the
engine applies only what `decide` has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from beaver_model.bounds import SNOOZES_MAX
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
from beaver_model.lifecycle import CELLS, JobState, Trigger
from beaver_model.rows import Extra, Row, pack_tombstone, spec_of
from beaver_model.state import State

_PENDING: Final = JobState.PENDING
_IN_FLIGHT: Final = JobState.IN_FLIGHT
STRIDE: Final = 1 << 20
"""Virtual time that one dispatch of a queue of weight 1 takes."""


class IllegalEvent(Exception):
    """The log holds an event that cannot follow: corruption, with the seq that shows it."""

    def __init__(self, seq: int, event: AnyEvent, reason: str) -> None:
        super().__init__(f"seq {seq}: {event.NAME} is illegal here: {reason}")
        self.seq, self.event, self.reason = seq, event, reason


def legal(state: State, event: AnyEvent) -> str | None:
    """Returns why `event` cannot be the next one, or `None` where it can."""
    if isinstance(event, JobEvent):
        return _legal_job_event(state, event)
    if isinstance(event, Booted) and event.epoch != state.epoch + 1:
        return f"epoch {event.epoch} does not follow {state.epoch}"
    return None


def _legal_job_event(state: State, event: Any) -> str | None:
    trigger: Trigger = event.TRIGGER
    row = state.jobs.get(event.job)
    if trigger == Trigger.ENQUEUE:
        if row is not None or event.job in state.tombstones:
            return f"job {event.job} exists"
        try:
            spec_of(event.spec)
        except msgspec.MsgspecError as error:
            return f"job {event.job} has an unreadable spec: {error}"
        return None
    if row is None:
        return f"job {event.job} is not known"
    if CELLS[trigger][row.state] is None:
        return f"job {event.job} is {row.state.name.lower()}"
    if row.state == _IN_FLIGHT:
        if trigger != Trigger.CANCEL_REQUESTED and event.token != row.token:
            return f"job {event.job} is in flight with token {row.token}, not {event.token}"
        if trigger in (Trigger.RETRY, Trigger.TIMEOUT) and row.on_last_attempt:
            return f"job {event.job} has no attempt left after {row.attempt}"
        if (
            trigger == Trigger.RELEASE
            and event.cause == Cause.SNOOZE
            and row.extra is not None
            and row.extra.snoozes >= SNOOZES_MAX
        ):
            return f"job {event.job} has snoozed {SNOOZES_MAX} times"
    elif trigger == Trigger.DISPATCH and row.attempt >= row.spec.max_attempts:
        return f"job {event.job} has spent all {row.spec.max_attempts} attempts"
    return None


def apply(state: State, event: AnyEvent, time_ms: int) -> None:
    """Applies one legal event as the next seq.  `time_ms` is its stamp."""
    state.last_seq += 1
    if time_ms > state.time_ms:
        state.time_ms = time_ms
    _APPLY[type(event)](state, event)


def replay(state: State, first_seq: int, time_ms: int, events: Iterable[AnyEvent]) -> int:
    """Applies the events of one frame, skipping what the state already holds.

    Returns:
        How many events it applied.

    Raises:
        IllegalEvent: An event cannot follow, or seqs are missing.  The events before it
            are applied; the state is to be discarded.
    """
    applied = 0
    for seq, event in enumerate(events, first_seq):
        if seq <= state.last_seq:
            continue
        if seq != state.last_seq + 1:
            raise IllegalEvent(seq, event, f"the last seq applied is {state.last_seq}")
        reason = legal(state, event)
        if reason is not None:
            raise IllegalEvent(seq, event, reason)
        apply(state, event, time_ms)
        applied += 1
    return applied


# -- one function an event ----------------------------------------------------------------


def _enqueued(state: State, event: Enqueued) -> None:
    spec = spec_of(event.spec)
    row = Row(
        seq=state.last_seq,
        id=event.job,
        state=_PENDING,
        attempt=0,
        token=0,
        worker=0,
        ready_ms=max(event.run_at_ms, state.time_ms),
        spec=spec,
        payload=event.payload,
        digest=event.digest,
    )
    if event.parent or event.tags:
        row.extra = Extra(parent=event.parent, tags=event.tags)
    state.enter(row)
    state.queues[spec.queue].row.enqueued += 1


def _dispatched(state: State, event: Dispatched) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.DISPATCH)
    row.attempt += 1
    row.token = state.last_seq
    row.worker = event.worker
    state.put(row)
    queue = state.queues[row.spec.queue]
    queue.stride_pass += STRIDE // queue.row.weight
    state.stride_pass = queue.stride_pass


def _acked(state: State, event: Acked) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.ACK)
    state.queues[row.spec.queue].row.completed += 1
    _forget(state, row)


def _retried(state: State, event: Retried) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.RETRY)
    _extra(row).suspect = False
    _back_to_pending(state, row, event)


def _timed_out(state: State, event: TimedOut) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.TIMEOUT)
    _extra(row).suspect = event.suspect
    _back_to_pending(state, row, event)


def _released(state: State, event: Released) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.RELEASE)
    row.attempt -= 1
    if event.cause == Cause.SNOOZE:
        _extra(row).snoozes += 1
    row.token = row.worker = 0
    # A job that is given back keeps its place in the order.
    row.ready_ms = max(row.ready_ms, event.run_at_ms)
    state.put(row)


def _died(state: State, event: Died) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.DEAD)
    extra = _extra(row)
    extra.suspect = extra.cancel_requested = False
    extra.cause, extra.error = event.cause, event.error
    row.token = row.worker = 0
    state.put(row)


def _cancel_requested(state: State, event: CancelRequested) -> None:
    row = state.jobs[event.job]
    _move(row, Trigger.CANCEL_REQUESTED)
    _extra(row).cancel_requested = True


def _cancelled(state: State, event: Cancelled) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.CANCEL)
    extra = _extra(row)
    extra.suspect = extra.cancel_requested = False
    extra.cause = event.cause
    row.token = row.worker = 0
    state.put(row)


def _requeued(state: State, event: Requeued) -> None:
    row = state.take(state.jobs[event.job])
    _move(row, Trigger.REQUEUE)
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
    _move(row, Trigger.DISCARD)
    _forget(state, row)


def _queue_set(state: State, event: QueueSet) -> None:
    row = state.queue(event.queue).row
    row.paused, row.weight, row.bytes_max = event.paused, event.weight, event.bytes_max


def _booted(state: State, event: Booted) -> None:
    state.epoch = event.epoch


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
}


# -- what they share ----------------------------------------------------------------------


def _extra(row: Row) -> Extra:
    if row.extra is None:
        row.extra = Extra()
    return row.extra


def _move(row: Row, trigger: Trigger) -> None:
    """Changes the state of a row, which stands in no index, through the cell table."""
    state = CELLS[trigger][row.state]
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
    row.state = JobState.FORGOTTEN
    state.bury(row.id, state.time_ms, pack_tombstone(row.seq, outcome, row.digest))
