"""The options of a job as Python code gives them: their names, types and meaning, told once.

Whatever takes them takes `**options: Unpack[JobOptions]`, so type checkers refuse an unknown
one; code that no checker has read is told here, with the name that was probably meant.
"""

# Annotations are types here and not text: a TypedDict compiles each text as it is made.
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, TypeVar

from beaver.errors import InvalidInput
from beaver.structs.messages import Backoff
from beaver.text.near import unknown_name

Duration = timedelta | str | float
"""A `timedelta`, a text such as `"5m"`, or seconds."""


class DeclaredOptions(TypedDict, total=False):
    """Options of `@app.job`, beside `name`."""

    queue: str | None
    priority: int | None
    timeout: Duration | None
    max_attempts: int | None
    backoff: Backoff | Mapping[str, Any] | timedelta | str | None


class JobOptions(DeclaredOptions, total=False):
    """Options of one job: of `Job.options`, `Beaver.enqueue` and `JobContext.enqueue_json`."""

    id: str | None
    at: datetime | str | int | None
    delay: Duration | None
    tags: Sequence[str]


MEANING: Final = {
    "id": "Identity of the job: enqueued again with the same content it is a no-op.",
    "at": "Not before this time: a `datetime` with a zone, ISO 8601, or ms since the epoch.",
    "delay": "Not before this long after it came in; a child comes in with the ACK.",
    "queue": "Name of its queue.",
    "priority": "0 (first) to 9 (last).",
    "timeout": "Limit of one attempt.",
    "max_attempts": "Attempts, the first included.",
    "backoff": 'A fixed wait with its unit (`"5s"`, a `timedelta`), or a mapping as in a job file.',
    "tags": "Up to 16 words to find it by.",
}
"""Texts of the options for `help`, in the order in which it shows them."""

OPTIONS: Final = tuple(MEANING)

_NAMES: Final = {name: "run_at" if name == "at" else name for name in OPTIONS}
"""Each with its name in `make_template`."""

DECLARED: Final = ("name", *DeclaredOptions.__annotations__)
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
"""Names of options elsewhere: in a job file, or in another queue."""


def refuse_unknown(
    given: Mapping[str, object], where: str, known: tuple[str, ...] = OPTIONS
) -> None:
    """Refuses unknown options, and options of later releases.

    Args:
        given: The options passed.
        where: The name of the called function, for the message.
        known: The options that there are.

    Raises:
        InvalidInput: It belongs to a later release.
        TypeError: It is no option at all; the message names the nearest one.
    """
    for name in given:
        if name in known:
            continue
        if name in LATER:
            raise InvalidInput(f"{where}: {name}= is not available in this release ({LATER[name]})")
        other = _OTHER_NAMES.get(name)
        hint = f"; did you mean {other}?" if other in known else unknown_name(name, known)
        raise TypeError(f"{where} has no option {name!r}{hint or f'; known are {_names(known)}'}")


def _names(known: tuple[str, ...]) -> str:
    return ", ".join(known)


def given_of(options: JobOptions, where: str) -> dict[str, Any]:
    """Returns the options that are set, as `make_template` takes them.

    Raises:
        InvalidInput, TypeError: See `refuse_unknown`.
    """
    try:
        given = {_NAMES[name]: value for name, value in options.items() if value is not None}
    except KeyError:
        refuse_unknown(options, where)
        raise
    if "tags" in given and not given["tags"]:
        del given["tags"]
    return given


F = TypeVar("F", bound=Callable[..., Any])

_KEYWORDS: Final = {
    f"Unpack[{options.__name__}]": [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=() if name == "tags" else None,
            annotation=options.__annotations__[name],
        )
        for name in OPTIONS
        if name in options.__annotations__
    ]
    for options in (JobOptions, DeclaredOptions)
}


def takes_options(function: F) -> F:
    """Shows each of the options that a function takes, to `inspect` and in `help`."""
    signature = inspect.signature(function)
    *own, last = signature.parameters.values()
    keywords = _KEYWORDS[last.annotation]
    shown = signature.replace(parameters=[*own, *keywords])
    function.__signature__ = shown  # type: ignore[attr-defined]
    before, found, rest = (function.__doc__ or "").partition("**options: ")
    indent = before.rpartition("\n")[2]
    each = f"\n{indent}".join(f"{key.name}: {MEANING[key.name]}" for key in keywords)
    if found:  # With `python -OO` there is no text.
        function.__doc__ = f"{before}{each}\n{rest.partition(chr(10))[2]}"
    return function
