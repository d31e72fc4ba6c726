"""Estimates, with a few reads, how much of a store has to be read before it can be appended to.

A wrong estimate costs time and nothing else, so whatever is damaged counts as nothing here:
recovery finds it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import msgspec

from beaver.errors import BeaverError
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.ports import Disk, File
from beaver.snapshot.lines import HeaderLine

_BLOCK_BYTES: Final = 4096


def bytes_to_recover(disk: Disk, layout: Layout) -> int:
    """Returns about how many bytes of snapshot and log recovery reads."""
    try:
        infos = segments(disk, layout)
        base_seq, size = _snapshot(disk, layout)
        for info, after in pairwise(infos):
            if after.first_seq > base_seq + 1:
                size += _size(disk, info.path)
        return size + (_used(disk, layout.log) if infos else 0)
    except (OSError, BeaverError):
        return 0


def _snapshot(disk: Disk, layout: Layout) -> tuple[int, int]:
    """Returns last seq and size of the newest snapshot."""
    if not disk.exists(layout.snapshot):
        return 0, 0
    file = disk.open(layout.snapshot)
    try:
        line = file.pread(_BLOCK_BYTES, 0).partition(b"\n")[0]
        return msgspec.json.decode(line, type=HeaderLine).last_seq, file.size()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0, 0
    finally:
        file.close()


def _size(disk: Disk, path: str) -> int:
    file = disk.open(path)
    try:
        return file.size()
    finally:
        file.close()


def _used(disk: Disk, path: str) -> int:
    file = disk.open(path)
    try:
        return used_bytes(file)
    finally:
        file.close()


def used_bytes(file: File) -> int:
    """Returns how long a segment is before its zeros, to a block."""
    least, most = 0, -(-file.size() // _BLOCK_BYTES)
    while least < most:
        middle = (least + most) // 2
        if file.pread(_BLOCK_BYTES, middle * _BLOCK_BYTES).strip(b"\0"):
            least = middle + 1
        else:
            most = middle
    return least * _BLOCK_BYTES
