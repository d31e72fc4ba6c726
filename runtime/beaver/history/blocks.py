"""Blocks of the log and the keys that lead to them, as they are cut.

What lives here: pure functions on commits.  What may not: SQLite and files; those are in
`history`, which says what blocks and keys are for.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from beaver.journal.wal.following import FramedCommit
from beaver_model.events import Acked, Discarded, JobEvent

BLOCK_EVENTS: Final = 400
"""Events from which a block is full: they are read together where one of them is asked for."""
BLOCK_BYTES: Final = 256 << 10


class Block(NamedTuple):
    """A few hundred events in a row, and where they stand in the log."""

    number: int
    first_seq: int
    last_seq: int
    first_ms: int
    last_ms: int
    segment_seq: int
    begin: int
    end: int
    crc_before: int
    ends: int
    """Jobs that completed or were discarded in it."""


def hash_of(job: str) -> int:
    """Returns the hash by which a job is found; the reader then compares the id."""
    return zlib.crc32(job.encode("utf-8", "surrogatepass"))


def _keys_of(jobs: Iterable[str], number: int) -> list[int]:
    """Returns the keys of jobs in a block."""
    return [zlib.crc32(job.encode()) << 32 | number for job in jobs]


class Blocks:
    """Cuts commits into blocks, and collects their keys."""

    def __init__(self, number: int, open_block: Block | None = None) -> None:
        """Goes on behind the blocks that there are.

        Args:
            number: Number of the first new block.
            open_block: The last one so far, which goes on if it is not full.
        """
        self.next_number = number
        self._open = open_block
        self._jobs: set[str] = set()
        """With events in the open block."""
        self._changed: list[Block] = []
        self._keys: list[int] = []

    def add(self, commit: FramedCommit) -> None:
        """Takes in the next commit."""
        first_seq, time_ms, events, segment_seq, begin, end, crc_before = commit
        kinds = list(map(type, events))
        ends = kinds.count(Acked) + kinds.count(Discarded)
        last_seq = first_seq + len(events) - 1
        block = self._open
        if block is None or _is_full(block) or block.segment_seq != segment_seq:
            self._close()
            block = Block(
                self.next_number,
                first_seq,
                last_seq,
                time_ms,
                time_ms,
                segment_seq,
                begin,
                end,
                crc_before,
                ends,
            )
            self.next_number += 1
        else:
            block = block._replace(
                last_seq=last_seq, last_ms=time_ms, end=end, ends=block.ends + ends
            )
        self._open = block
        try:
            self._jobs.update([event.job for event in events])  # type: ignore[union-attr]
        except AttributeError:
            self._jobs.update([event.job for event in events if isinstance(event, JobEvent)])

    def _close(self) -> None:
        if self._open is not None:
            self._changed.append(self._open)
            self._keys += _keys_of(self._jobs, self._open.number)
            self._jobs.clear()

    def finish(self) -> tuple[list[Block], list[int]]:
        """Returns the blocks that are new or have grown, and the keys in order."""
        self._close()
        self._keys.sort()
        return self._changed, self._keys


def _is_full(block: Block) -> bool:
    return (
        block.last_seq - block.first_seq + 1 >= BLOCK_EVENTS
        or block.end - block.begin >= BLOCK_BYTES
    )


def numbers_in(keys: Sequence[int], wanted: int) -> Iterator[int]:
    """Yields the numbers of blocks that sorted keys hold for a hash."""
    at = bisect_left(keys, wanted << 32)
    while at < len(keys) and keys[at] >> 32 == wanted:
        yield keys[at] & 0xFFFFFFFF
        at += 1
