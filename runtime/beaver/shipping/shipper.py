"""Bringing a target up to the log, step by step; each step may be the last one.

Only bytes that are *proven* are sent: a frame proves that the one before it is on disk, so the
last frame of the active segment waits for its successor (50 ms later a MARK is one).  What a power
cut can take back is never in a target, and what is there never differs from the log.

Nothing is remembered here: where to go on is what the target holds.  A shipper that is killed
between two requests leaves

- a piece, whole, or none: objects appear at once;
- pieces that were merged beside the merged one: found needless at the next start, and deleted;
- snapshots and segments that were to go: they go next time, the oldest first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from beaver.errors import BackupDamaged, NotFound, StoreUnavailable
from beaver.journal.wal.following import open_segment
from beaver.journal.wal.format import (
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    BadHeader,
    decode_file_header,
    frame_bytes,
    unpack_frame_header,
)
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import SegmentInfo, segments
from beaver.journal.wal.scan import SegmentScan, is_sealed_end
from beaver.ports import Clock, Disk, File
from beaver.shipping.contents import PIECE_BYTES, Contents, Piece, Segment, ShippedSnapshot
from beaver.shipping.ownership import Ownership
from beaver.shipping.targets import Target
from beaver.snapshot.files import inspect_snapshot
from beaver.snapshot.lines import SnapshotDamaged

MERGED: Final = 16
"""So many pieces of like size are merged into one."""
SNAPSHOT_MS: Final = 3_600_000
"""Least time between two snapshots that are sent."""
_ATTEMPTS: Final = 100


class Progress(NamedTuple):
    """How far a target is."""

    seq: int
    """It holds everything up to here."""
    last_seq: int
    """The log reaches to here."""
    sent_bytes: int


class Place(NamedTuple):
    """A place between two frames of the log."""

    segment: int
    """First seq of the segment."""
    offset: int
    next_seq: int
    crc: int
    """Frame CRC of the frame before."""


class Shipper:
    """Ships one store to one target."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        target: Target,
        ownership: Ownership,
        clock: Clock,
        *,
        keep_ms: int = 0,
        snapshot_ms: int = SNAPSHOT_MS,
    ) -> None:
        """Begins with what the target holds.

        Args:
            disk: Where the store lies.
            layout: Its files.
            target: Where it is shipped to.
            ownership: The right to write there, held.
            clock: For retention.
            keep_ms: For how long every point can be restored; 0 for ever.
            snapshot_ms: Least time between two snapshots.

        Raises:
            BackupDamaged: The target is damaged, or holds another history.
            StoreUnavailable: The log begins behind what the target holds.
        """
        self._disk, self._layout, self._clock = disk, layout, clock
        self._target, self._ownership = target, ownership
        self._keep_ms, self._snapshot_ms = keep_ms, snapshot_ms
        self.sent_bytes = 0
        self._seen = Place(0, 0, 1, 0)
        """Behind the last frame that was looked at: nothing was there."""
        self._snapshot = ""
        """The newest snapshot that was looked at."""
        self.contents = Contents(target.name, target.list())
        self.contents.check(ownership.begins)
        for first_seq, segment in sorted(self.contents.segments.items()):
            if first_seq < ownership.begins:  # It was to go.
                self._drop(segment, list(reversed(segment.pieces)))
                del self.contents.segments[first_seq]
            else:
                self._drop(segment, segment.needless())
        self._place = self._resume()

    @property
    def seq(self) -> int:
        """The target holds everything up to here."""
        return self._place.next_seq - 1 if self._place is not None else 0

    # -- where to go on ------------------------------------------------------------------------

    def _resume(self) -> Place | None:
        """Returns the place that the target has come to; what is there is compared."""
        last = self.contents.last
        if last is None:
            return None
        piece = last.cover()[-1]
        found = self._target.read(piece.key)
        place = _end_of(piece, found.data if found is not None else b"")
        if place is None:
            raise self._differs(last.first_seq)
        file = open_segment(self._disk, self._layout, last.first_seq)
        if file is None:
            if not last.is_sealed:
                raise self._left_behind(place)
            return place  # The next segment has to follow it.
        try:
            if found is None or found.data != file.pread(piece.size, piece.start):
                raise self._differs(last.first_seq)
        finally:
            file.close()
        return place

    def _differs(self, first_seq: int) -> BackupDamaged:
        return BackupDamaged(
            f"{self._target.name} and the log differ in the segment that begins with seq "
            f"{first_seq}: the target is damaged, or holds another history of this store\n"
            "Ship to a new target; `beaver ship TARGET --check` says what that one holds."
        )

    def _left_behind(self, place: Place) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._target.name} ends with seq {place.next_seq - 1}, and {self._layout.path} no "
            "longer holds what follows: its retention was shorter than the time without a shipper\n"
            "Ship to a new target; that one can still be restored up to there."
        )

    # -- the log ---------------------------------------------------------------------------------

    def step(self) -> Progress:
        """Sends all that is proven, then a snapshot if it is time, and prunes the target.

        Raises:
            TakenOver: Another shipper is at work.
            TargetFailed: To be tried again.
            Corruption: The log is damaged.
        """
        self._ownership.hold()
        for _ in range(_ATTEMPTS):  # A segment may be sealed and pruned meanwhile.
            with contextlib.suppress(FileNotFoundError):
                self._ship_log()
                break
        self._ship_snapshots()
        self._prune()
        return Progress(self.seq, max(self._seen.next_seq - 1, self.seq), self.sent_bytes)

    def _ship_log(self) -> None:
        infos = segments(self._disk, self._layout)
        if not infos:
            raise NotFound(f"{self._layout.path} holds no queue")
        begin = self._place.segment if self._place is not None else 0
        for number, info in enumerate(infos):
            if info.first_seq < begin:
                continue
            file = open_segment(self._disk, self._layout, info.first_seq)
            if file is None:
                raise FileNotFoundError(info.path)
            try:
                self._ship_segment(info, file, sealed=number < len(infos) - 1)
            finally:
                file.close()

    def _ship_segment(self, info: SegmentInfo, file: File, *, sealed: bool) -> None:
        """Sends what is proven of one segment."""
        segment = self.contents.segments.get(info.first_seq)
        if segment is not None and segment.is_sealed:
            return
        scan, start = SegmentScan(file, info.path, info.header), 0
        place = self._place
        if place is not None and place.segment == info.first_seq:
            start = place.offset
            scan.offset, scan.next_seq, scan.crc = place.offset, place.next_seq, place.crc
        elif place is not None and place.next_seq != info.first_seq:
            raise self._left_behind(place)
        elif place is not None and place.crc != info.header.previous_crc:
            raise self._differs(info.first_seq)
        seen = self._seen
        if not sealed and seen.segment == info.first_seq:
            ahead = file.pread(FRAME_HEADER_BYTES, seen.offset)
            if not ahead.strip(b"\0"):
                return  # Nothing was added.
        for until in _cuts(scan, start, sealed=sealed):
            is_end = sealed and scan.end is not None and until.offset == scan.offset
            next_seq = until.next_seq if is_end else 0
            self._send(Piece(info.first_seq, start, until.offset, next_seq), file)
            self._place, start = until, until.offset
        scan.refuse_corrupt()
        self._seen = _behind(scan)
        if sealed and not is_sealed_end(scan):
            raise BackupDamaged(f"{info.path} is sealed and cut short; `beaver verify` says more")
        self._tidy(info.first_seq, file)

    def _send(self, piece: Piece, file: File) -> None:
        self._put(piece, file.pread(piece.size, piece.start))
        if not piece.next_seq:
            self._merge_like(piece.segment, file)

    def _put(self, piece: Piece, data: bytes) -> None:
        """Makes a piece; one that is there already has to hold the same."""
        assert len(data) == piece.size, "it was scanned"
        self._ownership.hold()
        if not self._target.put_new(piece.key, data):
            found = self._target.read(piece.key)
            if found is None or found.data != data:
                raise self._differs(piece.segment)
        self.contents.add(piece)
        self.sent_bytes += piece.size
        if not self._ownership.begins:
            self._ownership.begin_at(piece.segment)

    # -- fewer objects -------------------------------------------------------------------------

    def _merge_like(self, first_seq: int, file: File) -> None:
        """Merges the newest pieces where there are many of about one size.

        So the pieces of a segment stay few, and a byte is sent again a few times only.
        """
        while True:
            cover = self.contents.segments[first_seq].cover()
            group: list[Piece] = []
            for piece in reversed(cover):
                if _class(piece) > _class(cover[-1]):
                    break
                group.insert(0, piece)
            if len(group) < MERGED or sum(piece.size for piece in group) > PIECE_BYTES:
                return
            self._merge(group, file)

    def _tidy(self, first_seq: int, file: File) -> None:
        """Merges whatever fits together of a segment that is complete."""
        segment = self.contents.segments.get(first_seq)
        if segment is None or not segment.is_sealed:
            return
        group: list[Piece] = []
        for piece in segment.cover():
            if sum(one.size for one in group) + piece.size > PIECE_BYTES:
                self._merge(group, file)
                group = []
            group.append(piece)
        self._merge(group, file)

    def _merge(self, group: list[Piece], file: File) -> None:
        if len(group) < 2:
            return
        first, last = group[0], group[-1]
        merged = Piece(first.segment, first.start, last.end, last.next_seq)
        self._put(merged, file.pread(merged.size, merged.start))
        self._drop(self.contents.segments[first.segment], group)

    def _drop(self, segment: Segment, pieces: list[Piece]) -> None:
        """Deletes pieces that nothing needs."""
        for piece in pieces:
            self._ownership.hold()
            self._target.delete(piece.key)
            segment.pieces.remove(piece)

    # -- snapshots and retention ---------------------------------------------------------------

    def _ship_snapshots(self) -> None:
        """Sends the newest snapshot if it is time; both where the target has none."""
        layout, known = self._layout, self.contents.snapshots
        try:
            newest = self._disk.identity(layout.snapshot)
        except OSError:
            return
        if newest == self._snapshot:
            return
        for path in (layout.snapshot,) if known else (layout.snapshot_old, layout.snapshot):
            try:
                info = inspect_snapshot(self._disk, path)
                file = self._disk.open(path)
            except (FileNotFoundError, SnapshotDamaged):
                continue
            try:
                found = ShippedSnapshot(info.last_seq, info.time_ms)
                if found.seq > self.seq:
                    return  # The log comes first.
                last = max(known, default=None)
                is_time = last is None or found.time_ms - last.time_ms >= self._snapshot_ms
                if found not in known and (is_time or len(known) < 2):
                    self._ownership.hold()
                    self._target.put_file(found.key, file)
                    known.append(found)
                    self.sent_bytes += info.bytes
            finally:
                file.close()
        self._snapshot = newest

    def _prune(self) -> None:
        """Deletes what is needed for no point in time that is to be kept."""
        if not self._keep_ms:
            return
        before_ms = self._clock.wall_ms() - self._keep_ms
        old = [one for one in sorted(self.contents.snapshots) if one.time_ms <= before_ms]
        if not old:
            return
        base = old[-1]
        order = sorted(self.contents.segments)
        for first_seq, following in pairwise(order):
            if following - 1 > base.seq:
                break
            segment = self.contents.segments[first_seq]
            self._ownership.begin_at(following)
            self._drop(segment, list(reversed(segment.pieces)))
            del self.contents.segments[first_seq]
        for snapshot in old[:-1]:
            self._ownership.hold()
            self._target.delete(snapshot.key)
            self.contents.snapshots.remove(snapshot)


def _class(piece: Piece) -> int:
    """Returns a number that pieces of like size have in common."""
    return piece.size.bit_length() // 4


def _behind(scan: SegmentScan) -> Place:
    return Place(scan.header.first_seq, scan.offset, scan.next_seq, scan.crc)


def _cuts(scan: SegmentScan, start: int, *, sealed: bool) -> Iterator[Place]:
    """Yields the places up to which pieces reach: each is proven by a frame behind it."""
    segment, proven = scan.header.first_seq, None
    for frame in scan:
        proven = Place(segment, frame.offset, frame.first_seq, scan.crc_before_last)
        if proven.offset - start >= PIECE_BYTES:
            yield proven
            start = proven.offset
    if sealed:
        proven = _behind(scan)
    if proven is not None and proven.offset > start:
        yield proven


def _end_of(piece: Piece, data: bytes) -> Place | None:
    """Returns the place that a piece reaches, as its last frame says; `None` where it has none."""
    at = 0 if piece.start else FILE_HEADER_BYTES
    place = None
    if not piece.start:
        try:
            header = decode_file_header(data)
        except BadHeader:
            return None
        place = Place(piece.segment, at, header.first_seq, header.previous_crc)
    while at + FRAME_HEADER_BYTES <= len(data):
        magic, crc, _, _, length, count, first_seq, _ = unpack_frame_header(data, at)
        at += frame_bytes(length)
        if magic != FRAME_MAGIC or at > len(data):
            return None
        place = Place(piece.segment, piece.start + at, first_seq + count, crc)
    return place if at == len(data) == piece.size else None
