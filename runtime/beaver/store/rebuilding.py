"""Rebuilding: from the files of a store to its state, only reading.

What lives here: which files are read in which order, and how they are judged.  What each
find means stands in `recovery_table`; the names of its rows are in capitals here.  What
may not live here: a write.  `recovery` repairs what was read here, for whoever holds the
lock; `status`, `list` and `replay --check` stop where this module does, and a server may be
writing meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

import msgspec

from beaver.journal.port import Commit, Position
from beaver.journal.wal.following import Cursor
from beaver.journal.wal.format import CLOSE, MARK
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import LogScan, SegmentInfo, decode_frame, segments
from beaver.journal.wal.recovery_table import Row
from beaver.journal.wal.scan import Damage, Damaged, End, EndKind, SegmentScan
from beaver.ports import Clock, Disk, File
from beaver.store.rebuild import Replica
from beaver_model import State, build_indexes

_COMPARE_BYTES: Final = 1 << 20


class RecoveryReport(msgspec.Struct):
    """What recovery found, and how long each phase took."""

    rows: list[str] = []
    """Labels of the rows of `recovery_table` that were met."""
    base: str = "none"
    """What replay began with: `none`, `snapshot` or `older snapshot`."""
    snapshot_seq: int = 0
    snapshot_bytes: int = 0
    frames: int = 0
    """Valid frames read, those below the base included."""
    events: int = 0
    """Events replayed."""
    torn_tail_bytes: int = 0
    broken: str = ""
    """Where a torn tail is kept; empty where there was none, or no room to keep it."""
    seconds: dict[str, float] = {}
    """By phase: `inspect`, `load`, `replay`, `index`, `open`."""

    def note(self, row: Row) -> None:
        """Adds a row that was met."""
        assert row.goes_on, "a refusal is raised, not noted"
        self.rows.append(row.label)


class Rebuilding:
    """One reading of a store: `find`, perhaps `judge_twin`, then `rebuild`."""

    def __init__(self, disk: Disk, path: str, clock: Clock) -> None:
        self.layout = Layout(path)
        self.report = RecoveryReport()
        self.disk = disk
        self.clock = clock
        self._infos: list[SegmentInfo] = []
        self._active: SegmentInfo | None = None
        self.scan: SegmentScan | None = None
        self._reading: LogScan | None = None
        self.state: State | None = None
        """Once it is rebuilt."""
        self.twin = ""
        """Path of the active segment's second name or copy in the archive."""

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to the phase of that name."""
        started_ns = self.clock.monotonic_ns()
        try:
            yield
        finally:
            seconds = (self.clock.monotonic_ns() - started_ns) / 1e9
            self.report.seconds[name] = self.report.seconds.get(name, 0.0) + seconds

    # -- which files there are -----------------------------------------------------------

    def find(self) -> bool:
        """Finds the segments; False where there is no store.

        Raises:
            Damaged: The files do not fit together, or a store lost its log.
        """
        with self.phase("inspect"):
            if not self.disk.exists(self.layout.log):
                self._refuse_missing_log()
                if self.disk.exists(self.layout.next):
                    self.report.note(Row.PREPARED_ONLY)
                else:
                    self.report.note(Row.NEW_STORE)
                return False
            self._infos = segments(self.disk, self.layout)
            self._active = self._infos[-1] if self._infos else None
        return self._active is not None

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
            self.report.note(Row.SEALING_LINKED)
        else:
            self._refuse_unless_beginning(twin)
            self.report.note(Row.SEALING_COPIED)
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

    # -- what they say -------------------------------------------------------------------

    def rebuild(self) -> State:
        """Returns the state that snapshot and log give.

        Raises:
            Damaged: They do not give one.
            NewerFormat: A part is of a newer version.
        """
        # Nothing here makes cycles, and a collection over a million rows takes its time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            with self.phase("load"):
                replica = self._begin()
            with self.phase("replay"):
                self.report.events = replica.catch_up()
            state = replica.state
            assert self.scan is not None, "a log has a segment"
            assert state.last_seq == self.scan.last_seq, "replay goes to the end"
            with self.phase("index"):
                build_indexes(state)
            self.state = state
        finally:
            if collecting:
                gc.enable()
        return state

    def adopt(self, ahead: Rebuilding, file: File) -> State | None:
        """Returns the state of an earlier reading; `None` where the files have changed since.

        Args:
            ahead: What was read before the lock was ours, so that somebody may have written.
            file: The log, which nobody else writes any more.
        """
        before, now = ahead._segments(), self._segments()
        if ahead.state is None or ahead.scan is None or self.twin or before != now:
            return None
        with self.phase("inspect"):
            scan = ahead.scan.again(file)
            end = scan.read()
        if scan.frames != ahead.scan.frames or end != ahead.scan.end:
            return None
        for name, seconds in self.report.seconds.items():
            ahead.report.seconds[name] = ahead.report.seconds.get(name, 0.0) + seconds
        self.scan, self.report = scan, ahead.report
        return ahead.state

    def _segments(self) -> list[tuple[object, ...]]:
        return [(info.path, info.header, info.archived) for info in self._infos]

    def _begin(self) -> Replica:
        """Returns the state that replay begins with."""
        from beaver.snapshot.files import FileSnapshots

        report, snapshots = self.report, FileSnapshots(self.disk, self.layout)
        replica = Replica(self, snapshots)
        loaded, damaged = snapshots.loaded, snapshots.damaged
        if loaded is not None:
            report.base = "older snapshot" if snapshots.is_older else "snapshot"
            if snapshots.is_older:
                report.note(Row.SNAPSHOT_MISSING if damaged is None else Row.SNAPSHOT_DAMAGED)
            report.snapshot_bytes, report.snapshot_seq = loaded.bytes, loaded.last_seq
            return replica
        first = self._infos[0]
        if first.first_seq > 1:
            what = damaged.reason if damaged is not None else "there is no snapshot"
            raise Damaged(
                Damage.NO_BASE,
                damaged.file if damaged is not None else self.layout.snapshot,
                damaged.offset if damaged is not None else 0,
                0,
                f"{what}, and the log begins with seq {first.first_seq}",
            )
        if damaged is not None:
            report.note(Row.SNAPSHOTS_USELESS)
        return replica

    # -- as a log ------------------------------------------------------------------------

    @property
    def store(self) -> bytes:
        """Id of the store."""
        assert self._active is not None, "found before it is read"
        return self._active.header.store

    @property
    def is_stamped(self) -> bool:
        """See `port.Log`: a log that is locked has one writer at a time."""
        return False

    def read(self, after: Position | None) -> Iterator[Commit]:
        """See `port.Log`; once exhausted, the end was judged, and stands in the report."""
        base_seq = Cursor(*after).next_seq - 1 if after else 0
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
        report = self.report
        if not scan.frames:
            report.note(Row.EMPTY_LOG if scan.header.first_seq == 1 else Row.SEALED_EMPTY)
        elif scan.flags & CLOSE:
            report.note(Row.CLOSED_END)
        else:
            report.note(Row.MARKED_END if scan.flags & MARK else Row.OPEN_END)
        if end.kind == EndKind.TORN:
            report.note(Row.TORN_TAIL)
            report.torn_tail_bytes = end.torn_bytes
