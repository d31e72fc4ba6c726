"""Reading the log on from where the last reading ended.

The history follows the log beat by beat.  Without a cursor each beat would check the whole
active segment again, only to come to its last few frames.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, NamedTuple

from beaver.journal import port
from beaver.journal.port import Position
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, decode_frame, segments
from beaver.journal.wal.scan import Frame, SegmentScan, is_sealed_end, read_header
from beaver.ports import Disk, File
from beaver_model.events import AnyEvent

_NO_END: Final = 1 << 62


class Cursor(NamedTuple):
    """A place behind a frame of the log: its `port.Position`.

    Where a journal is read on only the next seq must be right; the rest saves reading the
    segment from its beginning.
    """

    segment_seq: int
    """First seq of the segment."""
    offset: int
    next_seq: int
    crc: int
    flags: int
    """Flags of that frame; CLOSE means that the segment may have ended."""


def behind_seq(seq: int) -> Cursor:
    """Returns the place behind the commit that ends with a seq."""
    return Cursor(0, 0, seq + 1, 0, 0)


class FramedCommit(NamedTuple):
    """One frame of the log that holds events, and where it stands."""

    first_seq: int
    time_ms: int
    events: Sequence[AnyEvent]
    segment_seq: int
    """First seq of its segment."""
    offset: int
    end: int
    """Offset behind it."""
    crc_before: int
    """CRC of the frame before, which its own is seeded with."""


class Follower:
    """Yields commits; `cursor` is the place behind the last one that was yielded."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        after: Position | None = None,
        *,
        wanted: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Begins to follow a log from a place in it.

        Args:
            disk: Where the store lies.
            layout: Its files.
            after: Where a reading ended; of no use, and ignored, if it was not at the seq that
                is then asked for.
            wanted: Told a payload, says whether it is worth decoding; others are passed over.
        """
        self._disk, self._layout, self._wanted = disk, layout, wanted
        self.cursor = Cursor(*after) if after else None

    def commits(self, after_seq: int, until_seq: int) -> Generator[FramedCommit, None, None]:
        """Yields the commits above `after_seq`, as far as they end at or below `until_seq`.

        Raises:
            Damaged: The log is corrupt, or begins later.
            FileNotFoundError: A segment was pruned meanwhile.
        """
        cursor = self.cursor
        if cursor is not None and cursor.next_seq == after_seq + 1:
            file = open_segment(self._disk, self._layout, cursor.segment_seq)
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
        else:
            self.cursor = None
        log = LogScan(self._disk, self._layout, segments(self._disk, self._layout), after_seq)
        yield from self._run(log, None, after_seq, until_seq)

    def _run(
        self,
        frames: LogScan | SegmentScan,
        scan: SegmentScan | None,
        after_seq: int,
        until_seq: int,
    ) -> Iterator[FramedCommit]:
        wanted = self._wanted
        for frame in frames:
            last_seq = frame.first_seq + frame.count - 1
            if last_seq > until_seq:
                return
            current = frames.scan if isinstance(frames, LogScan) else scan
            assert current is not None, "a frame comes from a scan"
            self.cursor = place_behind(current)
            if frame.count and last_seq > after_seq and (wanted is None or wanted(frame.payload)):
                yield _commit(current, frame)


def read_from(disk: Disk, layout: Layout, after: Position | None) -> Iterator[port.Commit]:
    """Reads a log as `port.Log.read` does.

    Raises:
        FileNotFoundError: A segment was pruned meanwhile; start over.
    """
    if after is None:
        infos = segments(disk, layout)
        after = behind_seq(infos[0].first_seq - 1 if infos else 0)
    cursor = Cursor(*after)
    follower = Follower(disk, layout, cursor)
    for commit in follower.commits(cursor.next_seq - 1, _NO_END):
        assert follower.cursor is not None, "it is behind the commit"
        yield port.Commit(follower.cursor, commit.first_seq, commit.time_ms, commit.events)


def open_segment(disk: Disk, layout: Layout, segment_seq: int) -> File | None:
    """Opens the segment that begins with a seq wherever it lies now; `None` if it is gone."""
    for path in (layout.log, layout.archived(segment_seq)):
        try:
            file = disk.open(path)
        except FileNotFoundError:
            continue
        try:
            if read_header(file, path).first_seq == segment_seq:
                return file
        except BaseException:
            file.close()
            raise
        file.close()
    return None


def place_behind(scan: SegmentScan) -> Cursor:
    """Returns the place behind the last frame that a scan has yielded."""
    return Cursor(scan.header.first_seq, scan.offset, scan.next_seq, scan.crc, scan.flags)


def _commit(scan: SegmentScan, frame: Frame) -> FramedCommit:
    time_ms, events = decode_frame(scan.path, frame)
    return FramedCommit(
        frame.first_seq,
        time_ms,
        events,
        scan.header.first_seq,
        frame.offset,
        scan.offset,
        scan.crc_before_last,
    )
