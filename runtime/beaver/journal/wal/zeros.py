"""Zero bytes: room that frames go into without a change of the file's size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from beaver.errors import NO_ROOM
from beaver.ports import File

EXTEND_BYTES: Final = 1 << 20
"""Least growth of a segment that is extended in place."""
_ZEROS: Final = bytes(EXTEND_BYTES)


def write_zeros(file: File, start: int, end: int) -> None:
    """Zeroes a part of a file, or appends to it; to be synced."""
    for offset in range(start, end, EXTEND_BYTES):
        file.pwrite(_ZEROS[: min(EXTEND_BYTES, end - offset)], offset)


def extend(file: File, before: int, after: int, fail: Callable[[str, OSError], NoReturn]) -> bool:
    """Appends zero bytes, synced.

    Args:
        file: The active segment.
        before: Its size.
        after: The size that it gets.
        fail: Told what was done and what went wrong; makes the log useless.

    Returns:
        False where the disk is full; nothing was changed.
    """
    try:
        write_zeros(file, before, after)
    except OSError as error:
        if error.errno not in NO_ROOM:
            fail(f"extending it from {before} to {after} bytes", error)
        try:
            file.truncate(before)  # It held zero bytes only.
        except OSError as cut:
            fail(f"shrinking it to {before} bytes", cut)
        return False
    try:
        file.sync()
    except OSError as error:
        # Also where it says that the disk is full: after a failed sync nobody knows.
        fail(f"syncing its extension to {after} bytes", error)
    return True
