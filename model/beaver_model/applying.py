"""Applying events: the only code that changes the state.

`legal` says whether an event can follow; `apply` takes the row out of the indexes, changes
it through the cell table, and puts it back.  `apply` never fails on a legal event and never
stops half-way: recovery asks `legal` first and calls an illegal event corruption; the
engine applies only what `decide` has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, repeat
from operator import attrgetter
from typing import Any, Final, cast

import msgspec

from beaver_model.bounds import DIGEST_BYTES, SNOOZES_MAX
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
    QueueForgotten,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.forgetting import why_kept
from beaver_model.lifecycle import CELLS, Cells, JobState, Trigger
from beaver_model.rows import SPECS, Extra, Row, pack_tombstone, spec_of
from beaver_model.runs import AT_ONCE, RUN_MIN
from beaver_model.state import State
from beaver_model.turns import STRIDE

# By name: looking up a member of an enumeration takes longer than the rest of a check.
_PENDING: Final = JobState.PENDING
_IN_FLIGHT: Final = JobState.IN_FLIGHT
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
_job: Final = attrgetter("job")
_digest: Final = attrgetter("digest")


class IllegalEvent(Exception):
    """The log holds an event that cannot follow: corruption, with the seq that shows it."""

    def __init__(self, seq: int, event: AnyEvent, reason: str) -> None:
        super().__init__(f"seq {seq}: {event.NAME} is illegal here: {reason}")
        self.seq, self.event, self.reason = seq, event, reason


def legal(state: State, event: AnyEvent) -> str | None:
    """Returns why `event` cannot be the next one, or `None` where it can."""
    return _CHECK[type(event)](state, event)


def apply(state: State, event: AnyEvent, time_ms: int) -> None:
    """Applies one legal event as the next seq.  `time_ms` is its stamp."""
    state.last_seq += 1
    if time_ms > state.time_ms:
        state.time_ms = time_ms
    _APPLY[type(event)](state, event)


def apply_all(state: State, events: Sequence[AnyEvent], time_ms: int) -> None:
    """Applies the legal events of one decision in order: a run of like events at once."""
    if len(events) >= RUN_MIN:
        at_once = AT_ONCE.get(type(events[0]))
        if at_once is not None and len(set(map(type, events))) == 1:
            if time_ms > state.time_ms:
                state.time_ms = time_ms
            if at_once(state, events):
                return
    for event in events:
        apply(state, event, time_ms)


def replay(state: State, first_seq: int, time_ms: int, events: Sequence[AnyEvent]) -> int:
    """Applies the events of one frame, skipping what the state already holds.

    Returns:
        How many events it applied.

    Raises:
        IllegalEvent: An event cannot follow, or seqs are missing.  The events before it
            are applied; the state is to be discarded.
    """
    known = state.last_seq + 1 - first_seq
    if known < 0 and events:
        raise IllegalEvent(first_seq, events[0], f"the last seq applied is {state.last_seq}")
    if known > 0:
        events = events[known:]
    deferred = not state.indexed
    if deferred and len(events) >= RUN_MIN and _all_enqueued_deferred(state, events, time_ms):
        return len(events)
    for event in events:
        kind = type(event)
        if deferred and kind is QueueForgotten:
            # Whether a queue has jobs is counted only where the indexes stand.
            state.index()
            deferred = False
        if deferred and kind in _DEFERRED and _DEFERRED[kind](state, event, time_ms):
            continue
        reason = _CHECK[kind](state, event)
        if reason is not None:
            raise IllegalEvent(state.last_seq + 1, event, reason)
        state.last_seq += 1
        if time_ms > state.time_ms:
            state.time_ms = time_ms
        _APPLY[kind](state, event)
    return len(events)


# A long log is made of three kinds of events.  While indexes are deferred each of them is
# checked and applied in one go.  Returns False, with nothing changed, where the event needs a
# closer look.


def _enqueued_deferred(state: State, event: Enqueued, time_ms: int) -> bool:
    job, digest = event.job, event.digest
    spec = SPECS.get(event.spec)
    if (
        spec is None
        or job in state.jobs
        or job in state.tombstones
        or len(digest) != DIGEST_BYTES
        or event.parent
        or event.tags
    ):
        return False
    queue = state.queues.get(spec.queue)
    if queue is None:
        return False
    if time_ms > state.time_ms:
        state.time_ms = time_ms
    state.last_seq = seq = state.last_seq + 1
    ready_ms = state.time_ms
    if event.run_at_ms > ready_ms:
        ready_ms = event.run_at_ms
    state.jobs[job] = Row(seq, job, ready_ms, spec, digest + event.payload)
    queue.row.enqueued += 1
    return True


def _all_enqueued_deferred(state: State, events: Sequence[AnyEvent], time_ms: int) -> bool:
    """The same for many jobs that came in with one commit, of one spec and ready at once."""
    if len(set(map(type, events))) > 1 or type(events[0]) is not Enqueued:
        return False
    came_in = cast("Sequence[Enqueued]", events)
    ready_ms = max(time_ms, state.time_ms)
    raw = came_in[0].spec
    spec = SPECS.get(raw)
    if spec is None or spec.queue not in state.queues:
        return False
    contents = [
        event.digest + event.payload
        for event in came_in
        if event.spec == raw and not (event.parent or event.tags or event.run_at_ms > ready_ms)
    ]
    jobs: list[str] = list(map(_job, events))
    if (
        len(contents) != len(events)
        or len(set(jobs)) != len(jobs)
        or set(map(len, map(_digest, events))) != {DIGEST_BYTES}
        or not state.jobs.keys().isdisjoint(jobs)
        or not state.tombstones.keys().isdisjoint(jobs)
    ):
        return False
    seq = state.last_seq + 1
    rows = map(Row, count(seq), jobs, repeat(ready_ms), repeat(spec), contents)
    state.jobs.update(zip(jobs, rows, strict=False))
    state.time_ms = ready_ms
    state.last_seq += len(jobs)
    state.queues[spec.queue].row.enqueued += len(jobs)
    return True


def _dispatched_deferred(state: State, event: Dispatched, time_ms: int) -> bool:
    row = state.jobs.get(event.job)
    if row is None or row.state != _PENDING or row.attempt >= row.spec.max_attempts:
        return False
    if time_ms > state.time_ms:
        state.time_ms = time_ms
    state.last_seq = row.token = state.last_seq + 1
    _move(row, _DISPATCH)
    row.attempt += 1
    row.worker = event.worker
    queue = state.queues[row.spec.queue]
    queue.stride_pass += STRIDE // queue.row.weight
    state.stride_pass = queue.stride_pass
    return True


def _acked_deferred(state: State, event: Acked, time_ms: int) -> bool:
    row = state.jobs.get(event.job)
    if row is None or row.state != _IN_FLIGHT or row.token != event.token:
        return False
    if time_ms > state.time_ms:
        state.time_ms = time_ms
    state.last_seq += 1
    _move(row, _ACK)
    state.queues[row.spec.queue].row.completed += 1
    _forget(state, row)
    return True


_DEFERRED: Final[dict[type, Callable[[State, Any, int], bool]]] = {
    Enqueued: _enqueued_deferred,
    Dispatched: _dispatched_deferred,
    Acked: _acked_deferred,
}


# -- what may follow --------------------------------------------------------------------


def _check_enqueued(state: State, event: Enqueued) -> str | None:
    if event.job in state.jobs or event.job in state.tombstones:
        return f"job {event.job} exists"
    if len(event.digest) != DIGEST_BYTES:
        return f"job {event.job} has a digest of {len(event.digest)} bytes"
    try:
        spec_of(event.spec)
    except msgspec.MsgspecError as error:
        return f"job {event.job} has an unreadable spec: {error}"
    return None


def _check_dispatched(state: State, event: Dispatched) -> str | None:
    row = state.jobs.get(event.job)
    if row is None or _DISPATCH[row.state] is None:
        return _out_of_place(event, row)
    if row.attempt >= row.spec.max_attempts:
        return f"job {event.job} has no attempt left of {row.spec.max_attempts}"
    return None


def _check_outcome(
    state: State, event: Acked | Retried | TimedOut | Released | Died | Cancelled
) -> str | None:
    row = state.jobs.get(event.job)
    if row is None or CELLS[event.TRIGGER][row.state] is None:  # type: ignore[index]
        return _out_of_place(event, row)
    if row.token != event.token and row.state == _IN_FLIGHT:
        return f"job {event.job} is in flight with token {row.token}, not {event.token}"
    return None


def _check_retried(state: State, event: Retried | TimedOut) -> str | None:
    reason = _check_outcome(state, event)
    if reason is None and state.jobs[event.job].on_last_attempt:
        return f"job {event.job} has no attempt left after {state.jobs[event.job].attempt}"
    return reason


def _check_released(state: State, event: Released) -> str | None:
    reason = _check_outcome(state, event)
    if reason is None and event.cause == Cause.SNOOZE:
        extra = state.jobs[event.job].extra
        if extra is not None and extra.snoozes >= SNOOZES_MAX:
            return f"job {event.job} has snoozed {SNOOZES_MAX} times"
    return reason


def _check_cell(state: State, event: CancelRequested | Requeued | Discarded) -> str | None:
    row = state.jobs.get(event.job)
    if row is None or CELLS[event.TRIGGER][row.state] is None:  # type: ignore[index]
        return _out_of_place(event, row)
    return None


def _out_of_place(event: JobEvent, row: Row | None) -> str:
    if row is None:
        return f"job {event.job} is not known"
    return f"job {event.job} is {row.state.name.lower()}"


def _check_booted(state: State, event: Booted) -> str | None:
    if event.epoch != state.epoch + 1:
        return f"epoch {event.epoch} does not follow {state.epoch}"
    return None


def _check_queue_forgotten(state: State, event: QueueForgotten) -> str | None:
    queue = state.queues.get(event.queue)
    if queue is None:
        return f"queue {event.queue} is not known"
    why = why_kept(queue)
    return None if why is None else f"queue {event.queue} cannot be forgotten: {why}"


def _check_nothing(state: State, event: QueueSet | BoundsSet) -> str | None:
    return None


_CHECK: Final[dict[type, Callable[[State, Any], str | None]]] = {
    Enqueued: _check_enqueued,
    Dispatched: _check_dispatched,
    Acked: _check_outcome,
    Retried: _check_retried,
    TimedOut: _check_retried,
    Released: _check_released,
    Died: _check_outcome,
    CancelRequested: _check_cell,
    Cancelled: _check_outcome,
    Requeued: _check_cell,
    Discarded: _check_cell,
    QueueSet: _check_nothing,
    Booted: _check_booted,
    BoundsSet: _check_nothing,
    QueueForgotten: _check_queue_forgotten,
}


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
