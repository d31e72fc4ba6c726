"""The regions of every file of a store: what a byte at some offset is there for.

Bit rot is tried in each of them.  A file whose kind is not known here is an `UnknownFile`, so
that a new kind of file cannot be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from beaver.journal.wal.format import (
    CLOSE,
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    MARK,
    frame_bytes,
)
from beaver.journal.wal.scan import Frame, SegmentScan, read_header
from beaver.system.disk import SystemDisk


class UnknownFile(AssertionError):
    """Nothing is known of a file of the store."""


class FileKind(StrEnum):
    """The kinds of files, as `layout` names them."""

    LOG = "active segment"
    SEALED = "sealed segment"
    PREPARED = "prepared segment"
    SNAPSHOT = "snapshot"
    SLOTS = "slots"
    HISTORY = "history"
    HINT = "server.json"
    LOCK = "LOCK"
    BROKEN = "kept torn tail"


_KINDS: Final = (
    (r"wal\.log", FileKind.LOG),
    (r"archive/[0-9]{20}\.wal", FileKind.SEALED),
    (r"wal\.(next|adopted)", FileKind.PREPARED),
    (r"snapshot(\.old)?\.json", FileKind.SNAPSHOT),
    (r"slots", FileKind.SLOTS),
    (r"history\.db(-wal|-shm)?", FileKind.HISTORY),
    (r"server\.json", FileKind.HINT),
    (r"LOCK", FileKind.LOCK),
    (r"wal\.log\.broken-.*", FileKind.BROKEN),
)


class Region(NamedTuple):
    """Bytes of a file that serve one purpose."""

    name: str
    start: int
    end: int


def kind_of(name: str) -> FileKind:
    """Returns the kind of the file of that name, relative to the data directory.

    Raises:
        UnknownFile: It is of none.
    """
    for pattern, kind in _KINDS:
        if re.fullmatch(pattern, name):
            return kind
    raise UnknownFile(f"{name}: tell the regions of this file in {__name__}")


def regions_of(data: Path, name: str) -> list[Region]:
    """Returns the regions of a file of an intact store; large ones are represented by a few.

    Raises:
        UnknownFile: Its kind is not known.
    """
    kind, path = kind_of(name), data / name
    if kind in (FileKind.LOG, FileKind.SEALED):
        return list(_segment(path))
    size = path.stat().st_size
    if kind is FileKind.SNAPSHOT:
        return list(_snapshot(path.read_bytes()))
    if kind is FileKind.SLOTS:
        return list(_slots(size))
    if kind is FileKind.HISTORY:
        return list(_history(name, path.read_bytes()))
    return [Region("whole file", 0, size)] if size else []


# -- segments ----------------------------------------------------------------------------------

_FILE_FIELDS: Final = (
    ("magic", 0, 8), ("version", 8, 12), ("first reserve", 12, 16), ("store id", 16, 32),
    ("first seq", 32, 40), ("CRC of the frame before", 40, 44), ("second reserve", 44, 60),
    ("CRC", 60, 64),
)  # fmt: skip
_FRAME_FIELDS: Final = (
    ("magic", 0, 4), ("frame CRC", 4, 8), ("header CRC", 8, 12), ("chained CRC", 12, 16),
    ("length", 16, 20), ("count", 20, 24), ("first seq", 24, 32), ("flags", 32, 36),
)  # fmt: skip


def frames_of(path: Path) -> tuple[list[Frame], int]:
    """Returns the frames of a segment, and the offset behind the last one."""
    file = SystemDisk().open(str(path))
    try:
        scan = SegmentScan(file, str(path), read_header(file, str(path)))
        return list(scan), scan.offset
    finally:
        file.close()


def _segment(path: Path) -> Iterator[Region]:
    for name, start, end in _FILE_FIELDS:
        yield Region(f"file header, {name}", start, end)
    frames, tail = frames_of(path)
    data = [frame for frame in frames if frame.count]
    chosen = {
        "first frame": data[0],
        "last frame with events": data[-1],
    }
    if frames[-1].flags & (MARK | CLOSE):
        chosen["last frame, MARK or CLOSE"] = frames[-1]
    for which, frame in chosen.items():
        for name, start, end in _FRAME_FIELDS:
            yield Region(f"{which}, {name}", frame.offset + start, frame.offset + end)
        begin = frame.offset + FRAME_HEADER_BYTES
        end = begin + len(frame.payload)
        behind = frame.offset + frame_bytes(len(frame.payload))
        if frame.payload:
            yield Region(f"{which}, payload", begin, end)
        if behind > end:
            yield Region(f"{which}, padding", end, behind)
    size = path.stat().st_size
    if size > tail:
        yield Region("zeros behind the last frame", tail, size)
    assert tail > FILE_HEADER_BYTES, "a segment of a store at work has frames"


# -- other files -------------------------------------------------------------------------------


def _snapshot(content: bytes) -> Iterator[Region]:
    """The first and the last line of each kind, and the CRC."""
    found: dict[str, list[Region]] = {}
    start = 0
    for line in content.splitlines(keepends=True):
        match = re.match(rb'\{"kind":"([a-z]+)"', line)
        name = match[1].decode() if match else "unknown"
        found.setdefault(name, []).append(Region(name, start, start + len(line)))
        start += len(line)
    for name, lines in found.items():
        yield lines[0]._replace(name=f"first {name}")
        if len(lines) > 1:
            yield lines[-1]._replace(name=f"last {name}")
    yield Region("CRC", len(content) - 11, len(content) - 3)


def _slots(size: int) -> Iterator[Region]:
    fields = (("magic", 0, 8), ("number", 8, 16), ("store id", 16, 32), ("boot id", 32, 64))
    for name, start, end in fields:
        yield Region(name, start, end)
    words = (("pid", 0, 8), ("token", 8, 16), ("since", 16, 24), ("check", 24, 32))
    for slot in range(64, size, 64):
        for name, start, end in words:
            yield Region(f"slot {slot // 64}, {name}", slot + start, slot + end)
        yield Region(f"slot {slot // 64}, reserve", slot + 32, slot + 64)


_PAGES_MAX: Final = 6


def _history(name: str, content: bytes) -> Iterator[Region]:
    """Pages of SQLite: the first ones, and some that are spread over the rest."""
    size = len(content)
    if name.endswith("-shm"):
        yield Region("index", 0, size)
        return
    if name.endswith("-wal"):
        if size:
            yield Region("header", 0, 32)
        step = 24 + 4_096
        for at in _spread(range(32, size - step + 1, step)):
            yield Region("frame header", at, at + 24)
            yield Region("frame", at + 24, at + step)
        return
    yield Region("file header", 0, 100)
    yield Region("schema", 100, 4_096)
    for at in _spread(range(4_096, size, 4_096)):
        page = content[at : at + 4_096]
        yield Region("page header", at, at + 8)
        if page.strip(b"\0"):
            last = at + len(page.rstrip(b"\0"))
            yield Region("page content", max(at + 8, last - 400), last)


def _spread(places: range) -> list[int]:
    if len(places) <= _PAGES_MAX:
        return list(places)
    return [places[n * len(places) // _PAGES_MAX] for n in range(_PAGES_MAX)]
