"""Reading the log on from where the last reading ended.

The projection follows the log beat by beat.  Without a cursor each beat would check the
whole active segment again, only to come to its last few frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from beaver.history import Commit
from beaver.journal.reader import (
    Frame,
    LogScan,
    SegmentScan,
    decode_frame,
    read_header,
    segments,
)
from beaver.journal.scan import is_sealed_end
from beaver.layout import Layout
from beaver.ports import Disk, File


class Cursor(NamedTuple):
    """A place behind a frame of the log."""

    segment_seq: int
    """First seq of the segment."""
    offset: int
    next_seq: int
    crc: int
    flags: int
    """Of that frame: CLOSE where the segment may have ended."""


class Follower:
    """Yields commits; `cursor` is the place behind the last one that was yielded."""

    def __init__(self, disk: Disk, layout: Layout, cursor: Cursor | None = None) -> None:
        self._disk, self._layout = disk, layout
        self.cursor = cursor

    def commits(self, after_seq: int, until_seq: int) -> Iterator[Commit]:
        """Yields the commits above `after_seq`, as far as they end at or below `until_seq`.

        Raises:
            Damaged: The log is corrupt, or begins later.
            FileNotFoundError: A segment was pruned meanwhile.
        """
        cursor = self.cursor
        if cursor is not None and cursor.next_seq == after_seq + 1:
            file = self._reopen(cursor)
            if file is not None:
                try:
                    scan = SegmentScan(file, self._layout.log, read_header(file, self._layout.log))
                    scan.offset, scan.next_seq, scan.crc, scan.flags = cursor[1:]
                    yield from self._run(scan, scan, after_seq, until_seq)
                finally:
                    file.close()
                after_seq = scan.last_seq
                if scan.end is None or not is_sealed_end(scan):
                    return
        log = LogScan(self._disk, self._layout, segments(self._disk, self._layout), after_seq)
        yield from self._run(log, None, after_seq, until_seq)

    def _run(
        self,
        frames: LogScan | SegmentScan,
        scan: SegmentScan | None,
        after_seq: int,
        until_seq: int,
    ) -> Iterator[Commit]:
        for frame in frames:
            if frame.first_seq + frame.count - 1 > until_seq:
                return
            current = frames.scan if isinstance(frames, LogScan) else scan
            assert current is not None, "a frame comes from a scan"
            self.cursor = _behind(current)
            if frame.count and frame.first_seq + frame.count - 1 > after_seq:
                yield _commit(current.path, frame)

    def _reopen(self, cursor: Cursor) -> File | None:
        """Opens the segment of a cursor wherever it lies now."""
        for path in (self._layout.log, self._layout.archived(cursor.segment_seq)):
            try:
                file = self._disk.open(path)
            except FileNotFoundError:
                continue
            if read_header(file, path).first_seq == cursor.segment_seq:
                return file
            file.close()
        return None


def _behind(scan: SegmentScan) -> Cursor:
    return Cursor(scan.header.first_seq, scan.offset, scan.next_seq, scan.crc, scan.flags)


def _commit(path: str, frame: Frame) -> Commit:
    time_ms, events = decode_frame(path, frame)
    return frame.first_seq, time_ms, events
