"""Forensics: what the files of a log hold, and whether they fit together, only reading.

What lives here: which files are read in which order, and how they are judged.  What each
find means stands in `recovery_table`; the names of its rows are in capitals here.  What
may not live here: a write.  `repair` mends what was found here, for whoever owns the log;
`status`, `list` and `replay --check` stop where this module does, and a server may be
writing meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Final

from beaver.errors import UNUSABLE, Corruption, StorageFailed, StoreUnavailable
from beaver.journal.port import Commit, Position
from beaver.journal.wal.following import Cursor
from beaver.journal.wal.format import CLOSE, MARK
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, SegmentInfo, decode_frame, segments
from beaver.journal.wal.recovery_table import RecoveryRow
from beaver.journal.wal.scan import Damage, Damaged, End, EndKind, SegmentScan
from beaver.ports import Clock, Disk, File
from beaver.structs.recovery import RecoveryReport

_COMPARE_BYTES: Final = 1 << 20


class Forensics:
    """One reading of a log, as a `port.Log`: `find` it, then `read` it."""

    is_stamped = False

    def __init__(self, disk: Disk, path: str, clock: Clock) -> None:
        self.layout = Layout(path)
        self.report = RecoveryReport()
        self.disk = disk
        self.clock = clock
        self._infos: list[SegmentInfo] = []
        self.scan: SegmentScan | None = None
        """Scan of the active segment, once the log has been read."""
        self._reading: LogScan | None = None
        self.twin = ""
        """Path of the active segment's second name or copy in the archive."""

    def note(self, row: RecoveryRow) -> None:
        """Reports a row that was met."""
        assert row.goes_on, "a refusal is raised, not noted"
        self.report.rows.append(row.label)

    # -- which files there are -----------------------------------------------------------

    def find(self) -> bool:
        """Finds the segments; False where there is no store.

        Raises:
            Damaged: The files do not fit together, or a store lost its log.
        """
        with self.report.phase("inspect", self.clock.monotonic_ns):
            if not self.disk.exists(self.layout.log):
                self._refuse_missing_log()
                if self.disk.exists(self.layout.next):
                    self.note(RecoveryRow.PREPARED_ONLY)
                else:
                    self.note(RecoveryRow.NEW_STORE)
                return False
            self._infos = segments(self.disk, self.layout)
        return bool(self._infos)

    def _refuse_missing_log(self) -> None:
        disk, layout = self.disk, self.layout
        if not disk.exists(layout.path):
            return
        names = [f"{layout.path}/{name}" for name in disk.listdir(layout.path)]
        rescued = [name for name in names if name.startswith(layout.rescued(""))]
        if rescued and not disk.exists(layout.log):
            reason = f"there is no log, but {rescued[-1]} holds what it held: rename that to it"
            raise Damaged(Damage.MISSING, layout.log, 0, 0, reason)
        segments(disk, layout)  # Refuses an archive without an active segment.
        signs = [layout.snapshot, layout.snapshot_old, layout.history, layout.slots, layout.adopted]
        shown = [sign for sign in signs if disk.exists(sign)]
        shown += [name for name in names if name.startswith(layout.broken(""))]
        # It may have been made since it was looked for, by a server that starts.
        if shown and not disk.exists(layout.log):
            reason = f"there is no log, and {shown[0]} shows that there was one"
            raise Damaged(Damage.MISSING, layout.log, 0, 0, reason)

    def judge_twin(self) -> None:
        """Judges a segment that is active and archived at once, for whoever holds the lock.

        Readers need not: they read it in the archive, where it is the same file.

        Raises:
            Damaged: Two different segments begin with one seq.
        """
        disk, layout, twin = self.disk, self.layout, self._infos[-1]
        if not twin.archived:
            return
        if disk.same_file(twin.path, layout.log):
            self.note(RecoveryRow.SEALING_LINKED)
        else:
            self._refuse_unless_beginning(twin)
            self.note(RecoveryRow.SEALING_COPIED)
        self.twin = twin.path
        self._infos[-1] = twin._replace(path=layout.log, archived=False)

    def _refuse_unless_beginning(self, twin: SegmentInfo) -> None:
        """Checks that all frames of an archived copy stand in `wal.log` as well."""
        copy = self.disk.open(twin.path)
        log = self.disk.open(self.layout.log)
        try:
            scan = SegmentScan(copy, twin.path, twin.header)
            scan.read()
            scan.refuse_corrupt()
            for offset in range(0, scan.offset, _COMPARE_BYTES):
                size = min(_COMPARE_BYTES, scan.offset - offset)
                if copy.pread(size, offset) != log.pread(size, offset):
                    reason = f"it is not the beginning of {self.layout.log}, of the same first seq"
                    raise Damaged(Damage.CHAIN, twin.path, offset, twin.first_seq, reason)
        finally:
            copy.close()
            log.close()

    def follows(self, earlier: Forensics, file: File) -> bool:
        """Takes over what an earlier reading has found; False where the files changed since.

        Args:
            earlier: Made before the log was ours, so that somebody may have written.
            file: The log, which nobody else writes any more.
        """
        before, now = earlier._segments(), self._segments()
        if earlier.scan is None or self.twin or before != now:
            return False
        with self.report.phase("inspect", self.clock.monotonic_ns):
            scan = earlier.scan.again(file)
            end = scan.read()
        if scan.frames != earlier.scan.frames or end != earlier.scan.end:
            return False
        for name, seconds in self.report.seconds.items():
            earlier.report.seconds[name] = earlier.report.seconds.get(name, 0.0) + seconds
        self.scan, self.report = scan, earlier.report
        return True

    def _segments(self) -> list[tuple[object, ...]]:
        return [(info.path, info.header, info.archived) for info in self._infos]

    # -- as a log ------------------------------------------------------------------------

    @property
    def store(self) -> bytes:
        """Id of the store."""
        return self._infos[-1].header.store

    @property
    def lineage(self) -> bytes:
        """See `port.Log`."""
        return self._infos[-1].header.lineage

    def check_beginning(self, damaged: Corruption | None) -> None:
        """See `port.Log`."""
        first_seq = self._infos[0].first_seq
        if first_seq > 1:
            what = damaged.reason if damaged is not None else "there is no snapshot"
            raise Damaged(
                Damage.NO_BASE,
                damaged.file if damaged is not None else self.layout.snapshot,
                damaged.offset if damaged is not None else 0,
                0,
                f"{what}, and the log begins with seq {first_seq}",
            )

    def read(self, after: Position | None) -> Iterator[Commit]:
        """See `port.Log`; once exhausted, the end was judged, and stands in the report."""
        base_seq = Cursor(*after).next_seq - 1 if after else 0
        if self.scan is not None and self.scan.last_seq == base_seq:
            return  # It was read to its end already.
        log = self._reading = LogScan(self.disk, self.layout, self._infos, base_seq)
        for frame in log:
            if not frame.count or frame.first_seq + frame.count - 1 <= base_seq:
                continue
            scan = log.scan
            assert scan is not None, "a frame comes from a scan"
            time_ms, events = decode_frame(scan.path, frame)
            # Of a place only the next seq has to be right, and a frame may hold one event.
            place = (0, 0, frame.first_seq + frame.count, 0, 0)
            yield Commit(place, frame.first_seq, time_ms, events)
        scan = self.scan = log.scan
        assert scan is not None, "a log has a segment"
        end = scan.refuse_corrupt()
        if scan.last_seq < base_seq:
            raise Damaged(
                Damage.TOO_SHORT,
                scan.path,
                end.offset,
                scan.next_seq,
                f"the log ends with seq {scan.last_seq}, and the {self.report.base} holds "
                f"everything up to seq {base_seq}",
            )
        self.report.frames = log.frame_count
        self._note_end(scan, end)

    def illegal(self, commit: Commit, seq: int, reason: str) -> Damaged:
        """See `port.Log`."""
        scan = self._reading.scan if self._reading is not None else None
        assert scan is not None, "the commit was just read"
        assert scan.last is not None, "from a frame"
        return Damaged(Damage.ILLEGAL, scan.path, scan.last.offset, seq, reason)

    def _note_end(self, scan: SegmentScan, end: End) -> None:
        if not scan.frames:
            is_first = scan.header.first_seq == 1
            self.note(RecoveryRow.EMPTY_LOG if is_first else RecoveryRow.SEALED_EMPTY)
        elif scan.flags & CLOSE:
            self.note(RecoveryRow.CLOSED_END)
        else:
            self.note(RecoveryRow.MARKED_END if scan.flags & MARK else RecoveryRow.OPEN_END)
        if end.kind == EndKind.TORN:
            self.note(RecoveryRow.TORN_TAIL)
            self.report.torn_tail_bytes = end.torn_bytes


@contextlib.contextmanager
def told_as_errors(path: str) -> Iterator[None]:
    """Turns what the system says of the files of a store into what Beaver says."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in UNUSABLE:
            raise StoreUnavailable(
                f"cannot use the data directory {path}: {where}: {error.strerror}"
            ) from error
        check = (
            "Raise the limit on file sizes (ulimit -f)"
            if error.errno == errno.EFBIG
            else ("Check the disk")
        )
        raise StorageFailed(
            f"cannot recover {path}: {where}: {error.strerror or error}\n"
            f"{check} and start again; nothing acknowledged was given up."
        ) from error
