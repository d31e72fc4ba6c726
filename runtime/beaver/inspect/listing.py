"""The log as people and scripts see it: one view and one line of text for each event.

`replay`, `explain` and `history.db` all build their views here, so that an event looks the
same wherever it is shown.  Nothing here reads a file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from beaver.structs.views import EventView
from beaver.text.durations import format_time
from beaver.text.foreign import printable
from beaver.text.jsontext import shown
from beaver_model.events import AnyEvent, Dispatched, Enqueued, Event, JobEvent, Requeued
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
    _FILL.get(type(event), _fields)(view, event)
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
    view.payload = shown(event.payload, "payload")
    view.run_at = event.run_at_ms or None
    view.by = spec.by or None
    view.parent = event.parent or None
    view.tags = event.tags or None


def _dispatched(view: EventView, event: Dispatched) -> None:
    view.token, view.worker = view.seq, event.worker


def _fields(view: EventView, event: AnyEvent) -> None:
    """Each field under its name in the view, or among the details.

    For a job's event only fields with a value; for a store's event all but empty names.
    """
    of_a_job = isinstance(event, JobEvent)
    for name, place, shape in _plan(type(event)):
        value = getattr(event, name)
        if value or isinstance(value, bytes) or not (of_a_job or value == ""):
            if shape is not None:
                value = shape(value)
            if place:
                setattr(view, place, value)
            elif view.details is None:
                view.details = {name: value}
            else:
                view.details[name] = value


@functools.cache
def _plan(kind: type[Event]) -> list[tuple[str, str, Callable[[Any], Any] | None]]:
    """Returns fields of a kind, each with its name in the view (none: a detail) and its shape.

    The id of the job is left out: it stands in every view.
    """
    found = []
    for name in kind.__struct_fields__[issubclass(kind, JobEvent) :]:
        place, shape = _PLACES.get(name, (name, None))
        found.append((name, place if place in EventView.__struct_fields__ else "", shape))
    return found


_FILL: Final[dict[type, Callable[[EventView, Any], None]]] = {
    Enqueued: _enqueued,
    Dispatched: _dispatched,
}
"""Events whose fields are not what is shown."""
_PLACES: Final[dict[str, tuple[str, Callable[[Any], Any] | None]]] = {
    "run_at_ms": ("run_at", None),
    "result": ("result", shown),
    "payload": ("payload", partial(shown, what="payload")),
}
"""Fields that are shown under another name, or in another shape."""


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
    "by",
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
