"""The log as people and scripts see it: one view and one line of text for each event.

`replay`, `explain` and `history.db` all build their views here, so that an event looks the
same wherever it is shown.  Nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from beaver.durations import format_time
from beaver.jsontext import shown
from beaver.texts import printable
from beaver.views import EventView
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    BoundsSet,
    Cancelled,
    Died,
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
from beaver_model.rows import spec_of
from beaver_model.state import State


def event_view(
    seq: int, time_ms: int, event: AnyEvent, *, attempt: int | None = None, worker: int = 0
) -> EventView:
    """Returns the view of one event.

    Args:
        seq: Its place in the log.
        time_ms: The stamp of its frame.
        event: The event.
        attempt: Number of the attempt that it starts or ends, where known.
        worker: The worker of that attempt, where known; 0 otherwise.
    """
    job = event.job if isinstance(event, JobEvent) else None
    view = EventView(seq, time_ms, event.NAME, job, attempt=attempt, worker=worker or None)
    fill = _FILL.get(type(event))
    if fill is not None:
        fill(view, event)
    return view


def attempt_of(state: State, event: AnyEvent) -> tuple[int | None, int]:
    """Returns the attempt that `event` starts or ends, and its worker.

    To be asked before the event is applied.  `None` and 0 where it has no part in an
    attempt, or where the state does not know the job.
    """
    if isinstance(event, Enqueued | Requeued) or not isinstance(event, JobEvent):
        return None, 0
    row = state.jobs.get(event.job)
    if row is None:
        return None, getattr(event, "worker", 0)
    if isinstance(event, Dispatched):
        return row.attempt + 1, event.worker
    return (row.attempt or None), row.worker


# -- what each event shows --------------------------------------------------------------------


def _enqueued(view: EventView, event: Enqueued) -> None:
    try:
        spec = spec_of(event.spec)
    except msgspec.MsgspecError:
        view.error = "its spec cannot be read"
        return
    view.task, view.queue, view.priority = spec.task, spec.queue, spec.priority
    view.max_attempts, view.timeout_ms = spec.max_attempts, spec.timeout_ms
    view.payload = msgspec.Raw(event.payload)
    view.run_at = event.run_at_ms or None
    view.parent = event.parent or None
    view.tags = event.tags or None


def _dispatched(view: EventView, event: Dispatched) -> None:
    view.token, view.worker = view.seq, event.worker


def _acked(view: EventView, event: Acked) -> None:
    view.token, view.result = event.token, shown(event.result)


def _ended(view: EventView, event: Retried | TimedOut) -> None:
    view.token, view.cause, view.run_at = event.token, event.cause, event.run_at_ms
    view.error = event.error or None
    if isinstance(event, TimedOut) and event.suspect:
        view.details = {"suspect": True}


def _released(view: EventView, event: Released) -> None:
    view.token, view.cause, view.run_at = event.token, event.cause, event.run_at_ms or None


def _died(view: EventView, event: Died) -> None:
    view.token, view.cause = event.token or None, event.cause
    view.error = event.error or None


def _cancelled(view: EventView, event: Cancelled) -> None:
    view.token, view.cause = event.token or None, event.cause or None
    view.error = event.error or None


def _requeued(view: EventView, event: Requeued) -> None:
    if event.payload is not None:
        view.payload = msgspec.Raw(event.payload)


def _queue_set(view: EventView, event: QueueSet) -> None:
    view.queue = event.queue
    view.details = {
        "paused": event.paused,
        "weight": event.weight,
        "bytes_max": event.bytes_max,
        "durable_dispatch": event.durable_dispatch,
    }


def _queue_forgotten(view: EventView, event: QueueForgotten) -> None:
    view.queue = event.queue


def _booted(view: EventView, event: Booted) -> None:
    view.details = {"epoch": event.epoch, "power_cut": event.power_cut}


def _bounds_set(view: EventView, event: BoundsSet) -> None:
    view.details = {
        "tombstones_max": event.tombstones_max,
        "tombstones_age_ms": event.tombstones_age_ms,
    }


_FILL: Final[dict[type, Callable[[EventView, Any], None]]] = {
    Enqueued: _enqueued,
    Dispatched: _dispatched,
    Acked: _acked,
    Retried: _ended,
    TimedOut: _ended,
    Released: _released,
    Died: _died,
    Cancelled: _cancelled,
    Requeued: _requeued,
    QueueSet: _queue_set,
    Booted: _booted,
    BoundsSet: _bounds_set,
    QueueForgotten: _queue_forgotten,
}


# -- as text --------------------------------------------------------------------------------

_SHOWN: Final = (
    "task",
    "queue",
    "priority",
    "attempt",
    "max_attempts",
    "timeout_ms",
    "worker",
    "token",
    "run_at",
    "cause",
    "parent",
    "tags",
)


def event_line(view: EventView) -> str:
    """Returns `seq time EVENT job details`, always on one line.

    An id or a text that holds white space or quotes stands as a JSON string, so that the
    fields can be told apart.
    """
    job = "-" if view.job is None else _word(view.job)
    parts = [str(view.seq), format_time(view.time_ms), view.event, job]
    for name in _SHOWN:
        value = getattr(view, name)
        if value is not None:
            parts.append(f"{name}={_value(name, value)}")
    parts += [f"{name}={_value(name, value)}" for name, value in (view.details or {}).items()]
    if view.error is not None:
        parts.append(f"error={_quoted(view.error)}")
    for name, raw in (("payload", view.payload), ("result", view.result)):
        if text := bytes(raw):
            parts.append(f"{name}={text.decode('utf-8', 'replace')}")
    return printable(" ".join(parts), "\t")


def _value(name: str, value: Any) -> str:
    if name == "run_at":
        return format_time(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(_word(item) for item in value)
    return _word(value) if isinstance(value, str) else str(value)


def _word(text: str) -> str:
    plain = text and text != "-" and not any(c.isspace() or c in "\"'=," for c in text)
    return text if plain and text.isprintable() else _quoted(text)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
