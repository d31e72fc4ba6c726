"""The bounds of a job's id and options, and the forms in which a backoff may be written.

Everything here checks one value and names it; which values a request has stands in
`requests`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NoReturn

from beaver.errors import InvalidInput
from beaver.structs.messages import Backoff, Options
from beaver.text.durations import parse_duration_ms
from beaver.text.jsontext import kind_of
from beaver.text.names import check_name
from beaver.text.near import unknown_name
from beaver_model.bounds import (
    ATTEMPTS_MAX,
    BACKOFF_MS_MAX,
    PRIORITY_MAX,
    TAGS_MAX,
    TIMEOUT_MS_MAX,
)
from beaver_model.rows import BackoffKind

BACKOFF_DEFAULT: Final = Backoff(BackoffKind.EXPONENTIAL, 1_000, 3_600_000, 0.1)
"""The options of a job that sets none."""

_KINDS: Final = {kind.name.lower(): int(kind) for kind in BackoffKind}
_BARE: Final = re.compile(r"[0-9.]+")
_BACKOFF_KEYS: Final = ("kind", "base_ms", "max_ms", "jitter")


def check_range(what: str, value: Any, least: int, most: int, unit: str = "") -> int:
    """Returns `value` if it is an integer in the range.

    Raises:
        InvalidInput: It is not.
    """
    if type(value) is not int:
        raise InvalidInput(f"{what}: an integer is expected, found {kind_of(value)}")
    if not least <= value <= most:
        suffix = f" {unit}" if unit else ""
        raise InvalidInput(f"{what}: {least} to {most}{suffix} is allowed, found {value}")
    return value


def check_tags(tags: Any) -> tuple[str, ...]:
    """Returns tags as a tuple if they are a list of names, not too many.

    Raises:
        InvalidInput: They are not.
    """
    if isinstance(tags, (str, bytes)) or not isinstance(tags, (list, tuple, set, frozenset)):
        raise InvalidInput(f"tags: a list of strings is expected, found {kind_of(tags)}")
    if len(tags) > TAGS_MAX:
        raise InvalidInput(f"tags: at most {TAGS_MAX} are allowed, found {len(tags)}")
    ordered = sorted(tags) if isinstance(tags, (set, frozenset)) else tags
    return tuple(check_name(tag, "tags") for tag in ordered)


def check_options(options: Options) -> None:
    """Checks the names and numbers that are given.

    Raises:
        InvalidInput: One is out of its bounds.
    """
    check_name(options.task, "task")
    if options.queue is not None:
        check_name(options.queue, "queue")
    if options.priority is not None:
        check_range("priority", options.priority, 0, PRIORITY_MAX)
    if options.timeout_ms is not None:
        check_range("timeout_ms", options.timeout_ms, 1, TIMEOUT_MS_MAX, "ms")
    if options.max_attempts is not None:
        check_range("max_attempts", options.max_attempts, 1, ATTEMPTS_MAX)
    if options.backoff is not None:
        _check_backoff(options.backoff)


def _check_backoff(backoff: Backoff) -> Backoff:
    if backoff.kind not in _KINDS.values():
        raise InvalidInput(f"backoff: kind {backoff.kind} is unknown; known are {_known_kinds()}")
    check_range("backoff: base_ms", backoff.base_ms, 0, BACKOFF_MS_MAX, "ms")
    check_range("backoff: max_ms", backoff.max_ms, 0, BACKOFF_MS_MAX, "ms")
    if backoff.max_ms < backoff.base_ms:
        raise InvalidInput(
            f"backoff: max_ms ({backoff.max_ms}) is less than base_ms ({backoff.base_ms})"
        )
    if not 0 <= backoff.jitter <= 1:
        raise InvalidInput(f"backoff: jitter is 0 to 1, found {backoff.jitter}")
    return backoff


def _known_kinds() -> str:
    return ", ".join(_KINDS)


def fixed_backoff(wait_ms: int) -> Backoff:
    """Returns the backoff that waits exactly so long before each further attempt."""
    check_range("backoff", wait_ms, 0, BACKOFF_MS_MAX, "ms")
    return Backoff(BackoffKind.FIXED, wait_ms, wait_ms, 0.0)


def backoff_from_json(value: Any) -> Backoff:
    """Returns a backoff from its JSON form: a fixed wait, in ms or as text, or an object.

    Raises:
        InvalidInput: It is none of these, or a member of the object is wrong.
    """
    if type(value) is int:
        return fixed_backoff(value)
    if isinstance(value, str):
        return _fixed_from_text(value)
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f'backoff: ms, a text such as "5s" or an object is expected, found {kind_of(value)}'
        )
    for key in value:
        if key not in _BACKOFF_KEYS:
            hint = _near(key, _BACKOFF_KEYS) or f"; known are {', '.join(_BACKOFF_KEYS)}"
            raise InvalidInput(f"backoff: {key!r:.80}: unknown key{hint}")
    kind = value.get("kind", "exponential")
    if not isinstance(kind, str) or kind not in _KINDS:
        hint = _near(kind, tuple(_KINDS)) or f"; known are {_known_kinds()}"
        raise InvalidInput(f"backoff: kind {kind!r:.80} is unknown{hint}")
    base_ms = value.get("base_ms", BACKOFF_DEFAULT.base_ms)
    check_range("backoff: base_ms", base_ms, 0, BACKOFF_MS_MAX, "ms")
    max_ms = value.get("max_ms", max(BACKOFF_DEFAULT.max_ms, base_ms))
    jitter = value.get("jitter", BACKOFF_DEFAULT.jitter)
    if type(jitter) not in (int, float):
        raise InvalidInput(f"backoff: jitter: a number is expected, found {kind_of(jitter)}")
    return _check_backoff(Backoff(_KINDS[kind], base_ms, max_ms, float(jitter)))


def _near(name: Any, known: tuple[str, ...]) -> str:
    return unknown_name(str(name), known)


def _fixed_from_text(text: str) -> Backoff:
    """Reads a duration with its unit; a bare number would be ms here and seconds elsewhere."""
    if _BARE.fullmatch(text.strip()):
        _refuse_bare(text.strip())
    return fixed_backoff(parse_duration_ms(text, "backoff"))


def _refuse_bare(number: Any) -> NoReturn:
    raise InvalidInput(
        f'backoff: {number} has no unit: write "{number}s" or "{number}ms" '
        "(a number alone means ms, and only in a job file)"
    )


def backoff_to_json(backoff: Backoff) -> dict[str, Any]:
    """Returns the object that `backoff_from_json` reads as an equal backoff."""
    return {
        "kind": BackoffKind(backoff.kind).name.lower(),
        "base_ms": backoff.base_ms,
        "max_ms": backoff.max_ms,
        "jitter": backoff.jitter,
    }


def backoff_from_python(value: object) -> Backoff:
    """Returns a backoff from what Python code or a command line passes.

    A number alone is refused: it means ms in a job file, and durations are seconds elsewhere.

    Raises:
        InvalidInput: It has none of these forms.
    """
    if isinstance(value, Backoff):
        return _check_backoff(value)
    if isinstance(value, timedelta):
        return fixed_backoff(parse_duration_ms(value, "backoff"))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _refuse_bare(value)
    if isinstance(value, (str, Mapping)):
        return backoff_from_json(value)
    raise InvalidInput(
        f'backoff: a text such as "5s", a timedelta or a mapping is expected, '
        f"found {kind_of(value)}"
    )
