"""Sets of jobs that one action is for, in files of the store.

`bulk/ID` (0600): a line of JSON for the action, and one for each job of the set: its id, the seq
of its ENQUEUE, and its generation.  These three say which life of which job is meant, so the set
can be gone through again from its beginning after a restart: no job is changed twice.

It is written and synced before anybody hears of it, and replaced by its first line, with the
counts, when all is done.

What may not live here: a wait, and what is done to the jobs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from beaver.errors import StoreUnavailable
from beaver.inspect.matching import Member
from beaver.system.regular import read_regular

DIRECTORY: Final = "bulk"
SET_BYTES_MAX: Final = 32 << 20
"""Bytes of the lines of one set."""
_FILE_BYTES_MAX: Final = SET_BYTES_MAX + (64 << 10)
_FRESH: Final = ".new"


class Bulk(msgspec.Struct):
    """One action on a set of jobs."""

    bulk: str
    """Its id; ids sort by when they were drawn."""
    action: str
    matched: int
    by: str = ""
    created_ms: int = 0
    done: int = 0
    refused: int = 0
    """Jobs whose state had changed so that the action was impossible."""
    state: str = "running"
    """`running` or `done`."""


_encode: Final = msgspec.json.Encoder().encode
_decode_bulk: Final = msgspec.json.Decoder(Bulk).decode
_decode_member: Final = msgspec.json.Decoder(Member).decode


def line_of(member: Member) -> bytes:
    """Returns the line of a job."""
    return _encode(member) + b"\n"


def members_of(lines: bytes) -> Iterator[Member]:
    """Yields the jobs of lines."""
    at = 0
    while at < len(lines):
        end = lines.find(b"\n", at)
        yield _decode_member(lines[at:end])
        at = end + 1


class BulkFiles:
    """The sets of one store."""

    def __init__(self, data: str) -> None:
        self._directory = Path(data, DIRECTORY)

    def write(self, bulk: Bulk, lines: Sequence[bytes] = ()) -> None:
        """Writes a set, whole or not at all, and durably.

        Raises:
            StoreUnavailable: It cannot be written; nothing of it is left.
        """
        path = self._directory / bulk.bulk
        fresh = path.with_suffix(_FRESH)
        try:
            made = not self._directory.exists()
            self._directory.mkdir(mode=0o700, exist_ok=True)
            if made:
                _sync(self._directory.parent)
            fresh.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
                file.write(_encode(bulk) + b"\n")
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)
            _sync(self._directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise StoreUnavailable(
                f"cannot write {path}: {error.strerror or error}; nothing was changed"
            ) from error

    def read(self, bulk: str) -> tuple[Bulk, bytes]:
        """Returns an action and the lines of its set.

        Raises:
            StoreUnavailable: The file is none, or cannot be read.
        """
        path = self._directory / bulk
        try:
            head, _, lines = read_regular(str(path), _FILE_BYTES_MAX, trusted=True).partition(b"\n")
            found = _decode_bulk(head)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreUnavailable(f"cannot read {path}: {error}") from error
        if found.bulk != bulk or (lines and not lines.endswith(b"\n")):
            raise StoreUnavailable(f"{path} is damaged: remove it, and ask again for what is left")
        return found, lines

    def names(self) -> list[str]:
        """Returns the ids that there are, oldest first."""
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 - names are wanted
        except OSError:
            return []
        return sorted(name for name in names if not name.endswith(_FRESH))

    def remove(self, bulk: str) -> None:
        """Forgets one."""
        with contextlib.suppress(OSError):
            (self._directory / bulk).unlink()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
