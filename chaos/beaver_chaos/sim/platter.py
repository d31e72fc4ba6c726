"""A simulated file: its page cache, its platter, and what happens between the two.

What lives here: the bytes of one file.  Names, descriptors and planned faults are `disk`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Final

BLOCK_BYTES: Final = 512
NUMBERS: Final = count(1)
"""Tells files and directories apart; no number comes twice, on whatever disk."""

Chooser = Callable[[int], int]
"""Asked with n, returns a choice from 0 to n - 1."""


class Inode:
    """A file: what the page cache holds, and what the platter does."""

    def __init__(self) -> None:
        self.number = next(NUMBERS)
        self.cache = bytearray()
        self.platter = bytearray()
        self.dirty: set[int] = set()
        """Blocks that the next sync writes."""
        self.lost: set[int] = set()
        """Blocks that count as clean, though a failed sync may have left them unwritten."""
        self.shrunk_to: int | None = None
        """The least size since the last sync: what was behind it reads as zero."""

    def write(self, data: bytes, offset: int) -> None:
        """Writes to the page cache."""
        if not data:
            return
        end = offset + len(data)
        if end > len(self.cache):
            self.cache.extend(bytes(end - len(self.cache)))
        self.cache[offset:end] = data
        self.dirty.update(range(offset // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1))

    def truncate(self, size: int) -> None:
        """Changes the size, in the cache."""
        if size < len(self.cache):
            del self.cache[size:]
            self.shrunk_to = size if self.shrunk_to is None else min(size, self.shrunk_to)
        else:
            self.cache.extend(bytes(size - len(self.cache)))

    def sync(self, blocks: set[int]) -> None:
        """Brings blocks, and the size, to the platter."""
        self._resize_platter()
        for block in blocks:
            start = block * BLOCK_BYTES
            data = self.cache[start : start + BLOCK_BYTES]
            self.platter[start : start + len(data)] = data
        self.dirty -= blocks
        self.lost -= blocks

    def fail_sync(self) -> None:
        """The kernel gives up on what is dirty, and calls it clean."""
        self.lost |= self.dirty
        self.dirty = set()

    def settle(self, choose: Chooser, blocks: set[int]) -> None:
        """Lets chance decide which unwritten blocks, and whether the size, are on the platter."""
        differing = sorted(
            b for b in blocks if self._block(self.cache, b) != self._block(self.platter, b)
        )
        size_differs = len(self.cache) != len(self.platter)
        mode = choose(3) if differing or size_differs else 0
        if size_differs and (mode == 1 or (mode == 2 and choose(2))):
            self._resize_platter()
        for block in differing:
            if mode == 1 or (mode == 2 and choose(2)):
                start = block * BLOCK_BYTES
                data = self.cache[start : start + BLOCK_BYTES]
                room = max(0, len(self.platter) - start)
                self.platter[start : start + min(room, len(data))] = data[:room]

    def evict(self, choose: Chooser) -> None:
        """Drops clean pages: what a failed sync has lost reads as the platter has it."""
        clean = self.lost - self.dirty
        self.settle(choose, clean)
        for block in clean:
            start = block * BLOCK_BYTES
            size = max(0, min(BLOCK_BYTES, len(self.cache) - start))
            self.cache[start : start + size] = self._block(self.platter, block)[:size]
        self.lost -= clean

    def reload(self) -> None:
        """The page cache is gone: reads come from the platter."""
        self.cache = bytearray(self.platter)
        self.dirty, self.lost = set(), set()
        self.shrunk_to = None

    def _resize_platter(self) -> None:
        if self.shrunk_to is not None:
            del self.platter[self.shrunk_to :]
        del self.platter[len(self.cache) :]
        self.platter.extend(bytes(len(self.cache) - len(self.platter)))
        self.shrunk_to = None

    @staticmethod
    def _block(view: bytearray, block: int) -> bytes:
        data = bytes(view[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES])
        return data.ljust(BLOCK_BYTES, b"\0")
