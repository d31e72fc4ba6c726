"""Legality: whether an event may come next in a log, checked before it is applied.

What may not live here: policy, such as order and fairness, which only `decide` follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from beaver_model.bounds import DIGEST_BYTES, SNOOZES_MAX
from beaver_model.events import (
    JOB_EVENTS,
    AnyEvent,
    AttemptEnded,
    Booted,
    BoundsSet,
    Cause,
    Dispatched,
    Enqueued,
    JobEvent,
    QueueForgotten,
    QueueSet,
    Released,
    Retried,
    TimedOut,
)
from beaver_model.forgetting import why_kept
from beaver_model.lifecycle import CELLS
from beaver_model.rows import Row, spec_of
from beaver_model.state import State
from beaver_model.states import JobState, Trigger

# By name: looking up a member of an enumeration takes longer than the rest of a check.
_IN_FLIGHT: Final = JobState.IN_FLIGHT
_DISPATCH: Final = CELLS[Trigger.DISPATCH]


class IllegalEvent(Exception):
    """The log holds an event that cannot follow: corruption, with the seq that shows it."""

    def __init__(self, seq: int, event: AnyEvent, reason: str) -> None:
        super().__init__(f"seq {seq}: {event.NAME} is illegal here: {reason}")
        self.seq, self.event, self.reason = seq, event, reason


def legal(state: State, event: AnyEvent) -> str | None:
    """Returns why `event` cannot be the next one, or `None` where it can."""
    return CHECK[type(event)](state, event)


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


def _check_outcome(state: State, event: AttemptEnded) -> str | None:
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


def _check_cell(state: State, event: JobEvent) -> str | None:
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


CHECK: Final[dict[type, Callable[[State, Any], str | None]]] = {
    **{k: _check_outcome if issubclass(k, AttemptEnded) else _check_cell for k in JOB_EVENTS},
    Enqueued: _check_enqueued,
    Dispatched: _check_dispatched,
    Retried: _check_retried,
    TimedOut: _check_retried,
    Released: _check_released,
    QueueSet: _check_nothing,
    Booted: _check_booted,
    BoundsSet: _check_nothing,
    QueueForgotten: _check_queue_forgotten,
}
"""By event: why it cannot follow, or `None`."""
"""An event of a job has to fit its cell, and the token where it ends an attempt; some more."""
