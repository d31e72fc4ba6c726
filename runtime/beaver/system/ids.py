"""Ids of new jobs: the time and what the kernel draws."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

_DRAWN_AHEAD: Final = 128
_RANDOM_CHARS: Final = 22
"""Characters of a UUID from its version on: `7xxx-yxxx-xxxxxxxxxxxx`."""
_VARIANT: Final = bytes.maketrans(b"0123456789abcdef", b"89ab" * 4)
_random: Final[list[str]] = []
_drawn = (0, "")
"""The millisecond of the last id, and its text."""
os.register_at_fork(after_in_child=_random.clear)


def draw_id() -> str:
    """Returns a new UUIDv7: its time comes first, so ids sort by when they were drawn.

    The random bits come from the kernel, for many ids at a time, since that call costs more than
    all the rest.  A forked child discards the bits that its parent has drawn ahead.
    """
    global _drawn  # noqa: PLW0603 - a memo
    try:
        random = _random.pop()
    except IndexError:
        random, *ahead = _draw_ahead()
        _random.extend(ahead)
    time_ms = time.time_ns() // 1_000_000
    last_ms, text = _drawn
    if time_ms != last_ms:
        digits = f"{time_ms:012x}"
        text = f"{digits[:8]}-{digits[8:]}-"
        _drawn = time_ms, text
    return text + random


def _draw_ahead() -> Iterator[str]:
    """Yields the random parts of many ids, with the bits of version 7 and variant set."""
    count, step = _DRAWN_AHEAD, _RANDOM_CHARS
    chars = bytearray(os.urandom(count * step // 2).hex().encode())
    chars[0::step] = b"7" * count
    chars[4::step] = chars[9::step] = b"-" * count
    chars[5::step] = chars[5::step].translate(_VARIANT)
    text = chars.decode()
    for at in range(0, count * step, step):
        yield text[at : at + step]
