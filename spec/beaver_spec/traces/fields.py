"""Checks of names, numbers and the options of a job as a log may hold them.

What may not live here: anything of `beaver_model`, and what depends on other events (`rules`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

ID_BYTES_MAX: Final = 255
NAME_BYTES_MAX: Final = 200
DIGEST_BYTES: Final = 12
TAGS_MAX: Final = 16
ATTEMPTS_MAX: Final = 10_000
TIME_MS_MAX: Final = 253_402_300_799_000
NUMBER_MAX: Final = (1 << 53) - 1


@lru_cache(maxsize=1_000)
def options_of(raw: bytes) -> tuple[str, int] | None:
    """Returns queue and attempts of a job from its options as they stand in the log.

    `None` where they cannot be read, or one is out of its bounds.
    """
    try:
        found = msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if not isinstance(found, list) or not found:
        return None
    options = [*found, *_DEFAULTS[len(found) :]]
    if not all(is_right(value) for is_right, value in zip(_OPTIONS, options, strict=False)):
        return None
    return options[1], options[4]


def _number(least: float, most: float, kind: Any = int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most
    )


def is_name(text: Any, bytes_max: int) -> bool:
    """True for 1 to so many bytes of UTF-8 without a control character."""
    if not isinstance(text, str):
        return False
    if text.isprintable() and 0 < 4 * len(text) <= bytes_max:
        return True  # No character has more than four bytes.
    if not 0 < len(text.encode()) <= bytes_max:
        return False
    return text.isprintable() or not any(
        ord(character) < 32 or 127 <= ord(character) < 160 for character in text
    )


def are_tags(tags: list[Any]) -> bool:
    """True for a list of tags that a job may have."""
    return len(tags) <= TAGS_MAX and all(is_name(tag, NAME_BYTES_MAX) for tag in tags)


def _is_short_name(text: Any) -> bool:
    return is_name(text, NAME_BYTES_MAX)


_MS: Final = _number(0, TIME_MS_MAX)
_OPTIONS: Final = (
    _is_short_name,
    _is_short_name,
    _number(0, 9),
    _MS,
    _number(1, ATTEMPTS_MAX),
    _number(0, 2),
    _MS,
    _MS,
    _number(0, 1, (int, float)),
    _number(0, 2),
)
"""What each option has to be: task, queue, priority, time limit, attempts, kind, base, longest
and spread of the backoff, origin."""
_DEFAULTS: Final = (None, "default", 5, 600_000, 5, 2, 1_000, 3_600_000, 0.1, 0)
