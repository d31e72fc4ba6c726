"""The log of a copy, written anew under another store id, up to some point.

A copy that kept the id of its original could not be told from it: by a client that finds an old
`server.json`, by the target of `beaver ship`, by whoever mixes their files up.  The id seeds every
check value, so each frame is encoded again; what it says stays as it is, byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from beaver.backup.stream import Progress
from beaver.journal.wal.format import (
    CLOSE,
    FileHeader,
    encode_file_header,
    encode_frame,
    first_seed,
    header_seed,
)
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, SegmentInfo, decode_frame
from beaver.journal.wal.scan import Damage, Damaged, Frame
from beaver.ports import Disk, File
from beaver.store.log_source import Until

_WRITE_BYTES: Final = 1 << 20


class Reached(NamedTuple):
    """How far a log was written."""

    last_seq: int
    segments: int


class _Segment:
    """One segment that is being written."""

    def __init__(self, disk: Disk, path: str, header: FileHeader) -> None:
        self.header = header
        self.crc = header.previous_crc
        self.flags = CLOSE
        self._file: File = disk.open(path, write=True, create=True)
        self._seed = header_seed(header.store)
        self._parts = [encode_file_header(header)]
        self._buffered = len(self._parts[0])
        self._offset = 0

    def add(self, frame: Frame) -> None:
        self._add(frame.payload, frame.count, frame.first_seq, frame.flags)

    def close_at(self, next_seq: int) -> None:
        """Ends it with a CLOSE, unless it has one."""
        if not self.flags & CLOSE:
            self._add(b"", 0, next_seq, CLOSE)

    def _add(self, payload: bytes, count: int, seq: int, flags: int) -> None:
        raw, self.crc = encode_frame(
            payload, count, seq, flags, previous_crc=self.crc, seed=self._seed
        )
        self.flags = flags
        self._parts.append(raw)
        self._buffered += len(raw)
        if self._buffered >= _WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._file.pwrite(data, self._offset)
        self._offset += len(data)
        self._parts, self._buffered = [], 0

    def end(self) -> None:
        """Makes it durable; may be called again."""
        if self._parts:
            try:
                self._flush()
                self._file.sync()
            finally:
                self._file.close()


def rewrite(
    source: Disk,
    layout: Layout,
    infos: Sequence[SegmentInfo],
    disk: Disk,
    target: Layout,
    store: bytes,
    until: Until,
    on_progress: Progress,
) -> Reached:
    """Writes the log of a store anew; the caller syncs the names.

    Whole commits only: the first one that is not before the end in all its events is left out,
    and so is everything behind it.

    Args:
        source: Where the log is read.
        layout: Its names there.
        infos: Its segments.
        disk: Where it is written.
        target: Its names there; `archive/` exists.
        store: The new id.
        until: Where it ends.
        on_progress: Told how far it is.

    Raises:
        Damaged: It is corrupt.
    """
    log = LogScan(source, layout, infos, infos[0].first_seq - 1)
    total, told = sum(info.bytes for info in infos), 0
    last_seq, time_ms, number = infos[0].first_seq - 1, 0, 0
    segment = _begin(disk, target, infos[0], store, first_seed(store, infos[0].first_seq))
    try:
        for frame in log:
            scan = log.scan
            assert scan is not None, "a frame comes from a scan"
            if frame.count and until.time_ms is not None:
                time_ms, _ = decode_frame(scan.path, frame)
            if frame.count and not until.holds(frame.first_seq + frame.count - 1, time_ms):
                break
            if infos[number].path != scan.path:
                segment.end()
                number += 1
                segment = _begin(disk, target, infos[number], store, segment.crc)
            segment.add(frame)
            last_seq += frame.count
            told += len(frame.payload)
            on_progress(min(told, total), total)
        _refuse_torn(log)
        segment.close_at(last_seq + 1)
    finally:
        segment.end()
    # The last one is the active one.
    disk.rename(target.archived(infos[number].first_seq), target.log)
    return Reached(last_seq, number + 1)


def _refuse_torn(log: LogScan) -> None:
    """Refuses a copy that was read to its end, and has no whole frame there: it was cut at one."""
    scan = log.scan
    if scan is not None and scan.end is not None and scan.end.torn_bytes:
        reason = f"the last {scan.end.torn_bytes} bytes are no frame, and a copy ends with one"
        raise Damaged(Damage.CUT, scan.path, scan.end.offset, scan.next_seq, reason)


def _begin(
    disk: Disk, target: Layout, info: SegmentInfo, store: bytes, previous_crc: int
) -> _Segment:
    header = FileHeader(store, info.first_seq, previous_crc, origin=info.header.lineage)
    return _Segment(disk, target.archived(info.first_seq), header)
