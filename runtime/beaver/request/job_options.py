"""The options of a job as Python code gives them: their names, and what is said of any other.

Type checkers refuse an unknown option (`**unknown: Never`); who runs none is told here, with
the name that was probably meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from beaver.errors import InvalidInput
from beaver.text.near import unknown_name

Duration = timedelta | str | float
"""A `timedelta`, a text such as `"5m"`, or seconds."""

OPTIONS: Final = (
    "id",
    "at",
    "delay",
    "queue",
    "priority",
    "timeout",
    "max_attempts",
    "backoff",
    "tags",
)
"""Options of one job: of `Job.options`, `Beaver.enqueue` and `JobContext.enqueue_json`."""

DECLARED: Final = ("name", "queue", "priority", "timeout", "max_attempts", "backoff")
"""Options of `@app.job`."""

LATER: Final = {
    "unique": "unique jobs",
    "unique_key": "unique jobs",
    "unique_for": "unique jobs",
    "after": "dependencies between jobs",
    "depends_on": "dependencies between jobs",
    "concurrency_key": "limits by key",
    "rate_limit": "rate limits",
    "schedule": "schedules",
    "cron": "schedules",
    "expires": "expiry",
    "expires_at": "expiry",
    "deadline": "expiry",
    "durable_dispatch": "it is a setting of a queue",
}
"""Options of later releases, and what they bring: refused by name, never ignored."""

_OTHER_NAMES: Final = {
    "run_at": "at",
    "eta": "at",
    "countdown": "delay",
    "timeout_ms": "timeout",
    "time_limit": "timeout",
    "retries": "max_attempts",
    "max_retries": "max_attempts",
    "job_id": "id",
    "task_id": "id",
    "tag": "tags",
}
"""What an option is called elsewhere: in a job file, or by another queue."""


def refuse_unknown(
    given: Mapping[str, object], where: str, known: tuple[str, ...] = OPTIONS
) -> None:
    """Refuses options that are none, or none yet.

    Args:
        given: What was passed beside the known options.
        where: What it was passed to, for the message.
        known: The options that there are.

    Raises:
        InvalidInput: It belongs to a later release.
        TypeError: It is no option at all; the message names the nearest one.
    """
    for name in given:
        if name in LATER:
            raise InvalidInput(f"{where}: {name}= is not available in this release ({LATER[name]})")
        other = _OTHER_NAMES.get(name)
        hint = f"; did you mean {other}?" if other in known else unknown_name(name, known)
        raise TypeError(f"{where} has no option {name!r}{hint or f'; known are {_names(known)}'}")


def _names(known: tuple[str, ...]) -> str:
    return ", ".join(known)
