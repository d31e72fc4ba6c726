"""Runs of keys: which blocks may hold events of a job.

A *key* is the hash of a job's id and the number of a block with events of that job.  Keys are
kept sorted, in *runs*: each transaction adds one, and many small ones are merged into a larger
one.  So a job costs a few bytes written in sequence, whatever its id; a look-up asks each run.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from beaver.history.blocks import numbers_in
from beaver.history.rows import HistoryDamaged, Meta, checked, with_crc

CHUNK_KEYS: Final = 4_096
"""Keys in a row, on average."""
MERGE_RUNS: Final = 16
"""How many runs of one magnitude are merged into one."""
RUN_KEYS_MAX: Final = 1 << 20

_CHUNKS_MAX_BITS: Final = 20


class Run(NamedTuple):
    """Keys in order, in rows of those that begin with the same bits."""

    number: int
    keys: int
    bits: int
    last_block: int


class Runs:
    """The runs of one index."""

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db, self._path = db, path

    def numbers_of(self, wanted: int, count: int) -> set[int]:
        """Returns the numbers of the blocks that may hold events of a job.

        Args:
            wanted: The hash of its id.
            count: Runs that there have to be.
        """
        runs = self.listed()
        if len(runs) != count:
            raise HistoryDamaged(f"{self._path} has lost keys")
        numbers: set[int] = set()
        for run in runs:
            chunk = run.number << _CHUNKS_MAX_BITS | wanted >> (32 - run.bits)
            numbers.update(numbers_in(self._keys(chunk), wanted))
        return numbers

    def listed(self) -> list[Run]:
        """Returns all runs, the oldest first."""
        rows = self._db.execute("SELECT * FROM runs ORDER BY run").fetchall()
        return [Run(*checked(row)) for row in rows]

    def _keys(self, chunk: int) -> Sequence[int]:
        row = self._db.execute("SELECT * FROM keys WHERE chunk = ?", (chunk,)).fetchone()
        if row is None:
            raise HistoryDamaged(f"{self._path} has lost keys")
        return memoryview(checked(row)[1]).cast("Q")

    def add(self, meta: Meta, keys: list[int], last_block: int) -> Meta:
        """Writes keys in order as a run of their own."""
        if not keys:
            return meta
        run = meta.next_run
        bits = (len(keys) // CHUNK_KEYS).bit_length()
        row = with_crc((run, len(keys), bits, last_block))
        self._db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", row)
        begin = 0
        for part in range(1 << bits):
            end = bisect_left(keys, (part + 1) << (64 - bits), begin)
            body = array("Q", keys[begin:end]).tobytes()
            chunk = run << _CHUNKS_MAX_BITS | part
            self._db.execute("INSERT INTO keys VALUES (?, ?, ?)", with_crc((chunk, body)))
            begin = end
        return meta._replace(runs=meta.runs + 1, next_run=run + 1)

    def merge(self, meta: Meta) -> Meta:
        """Makes one run of many small ones; each key is written again a few times at most."""
        while True:
            runs = self.listed()
            magnitude = _magnitude(runs[-1].keys) if runs else 0
            same: list[Run] = []
            for run in reversed(runs):
                if _magnitude(run.keys) > magnitude:
                    break
                same.append(run)
            if len(same) < MERGE_RUNS or sum(run.keys for run in same) > RUN_KEYS_MAX:
                return meta
            merged = array("Q")
            for run in reversed(same):
                for part in range(1 << run.bits):
                    merged.extend(self._keys(run.number << _CHUNKS_MAX_BITS | part))
                self.drop(run.number)
            keys = [key for key in sorted(merged) if key & 0xFFFFFFFF >= meta.first_block]
            last_block = max(run.last_block for run in same)
            meta = self.add(meta._replace(runs=meta.runs - len(same)), keys, last_block)

    def drop(self, run: int) -> None:
        """Deletes a run and its keys."""
        chunks = (run << _CHUNKS_MAX_BITS, (run + 1) << _CHUNKS_MAX_BITS)
        self._db.execute("DELETE FROM keys WHERE chunk >= ? AND chunk < ?", chunks)
        self._db.execute("DELETE FROM runs WHERE run = ?", (run,))


def _magnitude(count: int) -> int:
    """Returns how large a run is, in steps of sixteen times."""
    return (count.bit_length() + 3) // 4
