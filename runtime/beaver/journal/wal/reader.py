"""Reading a whole log: the archive and the active segment, in order.

What lives here: finding the segments of a store and going through their frames as one
chain.  Used by recovery, the helper, `replay` and `verify`; it never writes and takes no
lock, so a server may append, seal and prune meanwhile.

Two races with a server that seals:

1. The header of the active segment is read, the archive is listed, and in between the one
   has moved into the other: a segment would be missing.  So the header is read again
   after the listing, and where it has changed both are read anew.
2. A segment that was active when it was listed may lie in the archive when it is opened.
   Its header tells, and the archive has it under the name of its first seq.

A segment that was pruned meanwhile is a `FileNotFoundError`: the caller starts over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from beaver.journal.codec import Undecodable, decode_commit
from beaver.journal.wal.format import FileHeader, first_seed
from beaver.journal.wal.layout import Layout, archived_first_seq
from beaver.journal.wal.scan import (
    Damage,
    Damaged,
    Frame,
    SegmentScan,
    is_sealed_end,
    read_header,
)
from beaver.ports import Disk, File
from beaver.text.foreign import counted
from beaver_model.events import AnyEvent

_LISTINGS_MAX: Final = 100
"""Times that a listing is repeated because a segment was sealed meanwhile."""


class SegmentInfo(NamedTuple):
    """A segment of a store, as its header and its place describe it."""

    path: str
    header: FileHeader
    bytes: int
    """Size of the file, zero bytes included."""
    archived: bool

    @property
    def first_seq(self) -> int:
        return self.header.first_seq


def segments(disk: Disk, layout: Layout) -> list[SegmentInfo]:
    """Returns the segments of a store, oldest first; the active one is the last.

    Only headers are read.  A directory without a log gives an empty list.

    Raises:
        Damaged: A header is damaged, a file belongs to another store or another name, or
            the archive stands without an active segment.
        NewerFormat: A segment is of a newer version.
    """
    for _ in range(_LISTINGS_MAX):
        active = _active(disk, layout)
        archived = _archived(disk, layout)
        again = _active(disk, layout)
        if (active and active.header) == (again and again.header):
            break
    if active is None:
        if archived:
            raise Damaged(
                Damage.MISSING,
                layout.log,
                0,
                archived[-1].first_seq,
                f"there is no active segment, and {archived[-1].path} shows that there was one",
            )
        return []
    _refuse_strangers(archived, active)
    # While a segment is being sealed it stands in both places for a moment.
    if not (archived and archived[-1].first_seq == active.first_seq):
        archived.append(active)
    return archived


def _active(disk: Disk, layout: Layout) -> SegmentInfo | None:
    try:
        return _info(disk, layout.log, archived=False)
    except FileNotFoundError:
        return None


def _archived(disk: Disk, layout: Layout) -> list[SegmentInfo]:
    infos: list[SegmentInfo] = []
    for name in disk.listdir(layout.archive) if disk.exists(layout.archive) else []:
        first_seq = archived_first_seq(name)
        if first_seq is None:
            continue
        path = layout.archived(first_seq)
        try:
            info = _info(disk, path, archived=True, seq=first_seq)
        except FileNotFoundError:
            continue  # Pruned since it was listed.
        if info.first_seq != first_seq:
            reason = f"the header says that it begins with seq {info.first_seq}"
            raise Damaged(Damage.FOREIGN, path, 0, first_seq, reason)
        infos.append(info)
    return infos


def _info(disk: Disk, path: str, *, archived: bool, seq: int = 0) -> SegmentInfo:
    file = disk.open(path)
    try:
        return SegmentInfo(path, read_header(file, path, seq), file.size(), archived)
    finally:
        file.close()


def _refuse_strangers(archived: Sequence[SegmentInfo], active: SegmentInfo) -> None:
    """Checks that all segments are of one store and that the active one is the last."""
    for info in archived:
        if info.header.store != active.header.store:
            raise Damaged(
                Damage.FOREIGN,
                info.path,
                0,
                info.first_seq,
                f"it belongs to the store {info.header.store.hex()}, "
                f"and {active.path} to {active.header.store.hex()}",
            )
    if archived and archived[-1].first_seq > active.first_seq:
        reason = f"it begins with seq {active.first_seq}, before {archived[-1].path}"
        raise Damaged(Damage.CHAIN, active.path, 0, active.first_seq, reason)


def frames(file: File, path: str, header: FileHeader | None = None) -> SegmentScan:
    """Returns the frames of one segment, to be iterated; `end` then says how it ends."""
    return SegmentScan(file, path, header or read_header(file, path))


class LogScan:
    """The frames of a log from the segment that holds `after_seq + 1`, as one chain.

    Iterate it; `scan` is the segment that the last frame came from, and once exhausted the
    last segment, whose `end` is *clean* or *torn*.

    Raises:
        Damaged: From the constructor where the log begins later; from iteration where a
            frame is corrupt or a segment does not go on where the one before ends.
    """

    def __init__(
        self, disk: Disk, layout: Layout, infos: Sequence[SegmentInfo], after_seq: int
    ) -> None:
        self._disk = disk
        self._layout = layout
        begins = [n for n, info in enumerate(infos) if info.first_seq <= after_seq + 1]
        if infos and not begins:
            first = infos[0]
            raise Damaged(
                Damage.GAP,
                first.path,
                0,
                after_seq + 1,
                f"the log begins with seq {first.first_seq}; the seqs from {after_seq + 1} on "
                "are missing",
            )
        self._infos = infos[begins[-1] :] if begins else []
        self.scan: SegmentScan | None = None
        self.frames = 0
        """Frames of the segments that have been read whole; add `scan.frames`."""

    def __iter__(self) -> Iterator[Frame]:
        before: SegmentScan | None = None
        for info in self._infos:
            file = _open_segment(self._disk, self._layout, info)
            try:
                if before is not None:
                    self.frames += before.frames
                _refuse_break(before, info)
                scan = self.scan = before = SegmentScan(file, info.path, info.header)
                yield from scan
                _check_end(scan, info)
            finally:
                file.close()

    @property
    def frame_count(self) -> int:
        return self.frames + (self.scan.frames if self.scan is not None else 0)


def _open_segment(disk: Disk, layout: Layout, info: SegmentInfo) -> File:
    """Opens a segment wherever it lies now; see race 2 above."""
    file = disk.open(info.path)
    if info.archived:
        return file
    try:
        moved = read_header(file, info.path).first_seq != info.first_seq
    except BaseException:
        file.close()
        raise
    if moved:
        file.close()
        file = disk.open(layout.archived(info.first_seq))
    return file


def _refuse_break(before: SegmentScan | None, info: SegmentInfo) -> None:
    """Checks that a segment goes on where the one before ends, or begins a store."""
    header = info.header
    if before is None:
        if header.first_seq == 1 and header.previous_crc != first_seed(header.store, 1):
            reason = "it begins the store, and its chain does not begin with the store's id"
            raise Damaged(Damage.CHAIN, info.path, 0, 1, reason)
        return
    if header.first_seq > before.next_seq:
        raise Damaged(
            Damage.GAP,
            info.path,
            0,
            before.next_seq,
            f"{before.path} ends with seq {before.last_seq}, and this segment begins with seq "
            f"{header.first_seq}",
        )
    if header.first_seq < before.next_seq or header.previous_crc != before.crc:
        raise Damaged(
            Damage.CHAIN,
            info.path,
            0,
            header.first_seq,
            f"it follows a frame before seq {header.first_seq} with the CRC "
            f"{header.previous_crc:08x}; {before.path} ends before seq {before.next_seq} with the "
            f"CRC {before.crc:08x}",
        )


def _check_end(scan: SegmentScan, info: SegmentInfo) -> None:
    """A sealed segment ends closed; the active one may end torn, which is no damage."""
    end = scan.refuse_corrupt()
    if info.archived and not is_sealed_end(scan):
        reason = end.reason or "the last frame of a sealed segment must be a CLOSE"
        raise Damaged(
            Damage.CUT, info.path, end.offset, scan.next_seq, f"the segment is cut short: {reason}"
        )


def decode_frame(path: str, frame: Frame) -> tuple[int, list[AnyEvent]]:
    """Returns the stamp and the events of a frame that has some.

    Raises:
        Damaged: The payload is no commit, or holds another number of events.
        NewerFormat: It holds an event that this release does not know.
    """
    try:
        time_ms, events = decode_commit(frame.payload)
    except Undecodable as error:
        reason = str(error)
        raise Damaged(Damage.PAYLOAD, path, frame.offset, frame.first_seq, reason) from error
    if len(events) != frame.count:
        reason = f"the frame says {counted(frame.count, 'event')} and holds {len(events)}"
        raise Damaged(Damage.PAYLOAD, path, frame.offset, frame.first_seq, reason)
    return time_ms, events


def read_commits(
    disk: Disk, layout: Layout, after_seq: int, until_seq: int | None = None
) -> Iterator[tuple[int, int, list[AnyEvent]]]:
    """Yields (first seq, stamp, events) of each commit with a seq above `after_seq`.

    The first commit may begin at or below `after_seq`; the last is cut at `until_seq`.  A
    torn tail ends the log: a server may be writing it.

    Raises:
        Damaged: As `segments` and `LogScan`.
        NewerFormat: Something is of a newer version.
        FileNotFoundError: A segment was pruned meanwhile; start over.
    """
    log = LogScan(disk, layout, segments(disk, layout), after_seq)
    for frame in log:
        if not frame.count or frame.first_seq + frame.count - 1 <= after_seq:
            continue
        if until_seq is not None and frame.first_seq > until_seq:
            return
        assert log.scan is not None, "a frame comes from a scan"
        time_ms, events = decode_frame(log.scan.path, frame)
        if until_seq is not None:
            del events[until_seq + 1 - frame.first_seq :]
        yield frame.first_seq, time_ms, events
