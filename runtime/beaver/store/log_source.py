"""Where a replay begins: which segments a path names, and which snapshot they build on.

A path is a data directory or one segment file, in its place or copied anywhere.  Nothing
here writes, and a server may be at work in the directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple

from beaver.errors import Corruption, NewerFormat, NotFound, StoreUnavailable
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import SegmentInfo, segments
from beaver.journal.wal.scan import Damage, Damaged, read_header
from beaver.ports import Disk
from beaver.snapshot.files import SnapshotInfo, inspect_snapshot
from beaver.snapshot.lines import SnapshotDamaged

BASE_START = "start"
BASE_SNAPSHOT = "snapshot"
BASE_OLDER = "older snapshot"
BASE_NONE = "none"


class KnownSnapshot(NamedTuple):
    """An intact snapshot beside a log, of the same store."""

    name: str
    """`snapshot` or `older snapshot`."""
    path: str
    info: SnapshotInfo


class LogSource(NamedTuple):
    """What a path names."""

    layout: Layout
    """The store that the segments lie in, or would."""
    infos: Sequence[SegmentInfo]
    """Segments to read, oldest first."""
    shown_seq: int
    """Events before this seq are read for the state only: a file begins here."""
    snapshots: Sequence[KnownSnapshot]
    """By ascending seq."""
    whole: bool
    """The segments reach to the end of the log."""

    @property
    def first_seq(self) -> int:
        return self.infos[0].first_seq

    @property
    def store(self) -> bytes:
        return self.infos[0].header.store


class Until(NamedTuple):
    """Where a replay ends; without any value, at the end of the log."""

    seq: int | None = None
    time_ms: int | None = None

    def holds(self, seq: int, time_ms: int) -> bool:
        """True where an event of this seq and stamp comes before the end."""
        return (self.seq is None or seq <= self.seq) and (
            self.time_ms is None or time_ms <= self.time_ms
        )


def find_source(disk: Disk, path: str) -> LogSource:
    """Returns what a path names.

    Raises:
        NotFound: There is nothing, or a directory without a log.
        Corruption: The segments do not belong together, or the active one is missing.
        NewerFormat: A segment is of a newer version.
    """
    try:
        disk.listdir(path)
    except NotADirectoryError:
        return _file(disk, path)
    except FileNotFoundError as error:
        raise NotFound(f"there is no log or data directory at {path}") from error
    except PermissionError as error:
        raise StoreUnavailable(f"{path} may not be read: {error.strerror}") from error
    layout = Layout(path)
    # Snapshots before the log: one taken meanwhile would be ahead of what is listed.
    candidates = list(_intact(disk, layout))
    infos = segments(disk, layout)
    if not infos:
        if candidates:
            seq = candidates[-1].info.last_seq
            reason = f"there is no log, and {candidates[-1].path} shows that it reached seq {seq}"
            raise Damaged(Damage.MISSING, layout.log, 0, seq, reason)
        raise NotFound(f"{path} holds no log: it is no data directory")
    snapshots = [known for known in candidates if known.info.store == infos[0].header.store]
    return LogSource(layout, infos, infos[0].first_seq, snapshots, whole=True)


def _file(disk: Disk, path: str) -> LogSource:
    """Returns the source of one segment: with the segments before it, where they are there."""
    file = disk.open(path)
    try:
        header = read_header(file, path)
        lone = SegmentInfo(path, header, file.size(), archived=False)
    finally:
        file.close()
    parent = PurePath(path).parent
    layouts = [Layout(str(parent))]
    if parent.name == "archive":
        layouts.insert(0, Layout(str(parent.parent)))
    for layout in layouts:
        snapshots = [known for known in _intact(disk, layout) if known.info.store == header.store]
        try:
            infos = segments(disk, layout)
        except (Corruption, NewerFormat, OSError):
            infos = []
        for index, info in enumerate(infos):
            if disk.same_file(info.path, path):
                whole = index == len(infos) - 1
                return LogSource(layout, infos[: index + 1], info.first_seq, snapshots, whole)
        if snapshots:
            return LogSource(layout, [lone], lone.first_seq, snapshots, whole=False)
    return LogSource(layouts[-1], [lone], lone.first_seq, (), whole=False)


def _intact(disk: Disk, layout: Layout) -> Iterator[KnownSnapshot]:
    """Yields the snapshots of a directory that are whole, the older one first."""
    for name, path in ((BASE_OLDER, layout.snapshot_old), (BASE_SNAPSHOT, layout.snapshot)):
        try:
            yield KnownSnapshot(name, path, inspect_snapshot(disk, path))
        except (FileNotFoundError, SnapshotDamaged):
            continue


def choose_base(source: LogSource, until: Until) -> KnownSnapshot | None:
    """Returns the snapshot that a replay of a log without its beginning has to start from.

    That is the lowest one that the kept segments reach back to; `None` where there is none
    before the end of the replay.
    """
    for known in sorted(source.snapshots, key=lambda known: known.info.last_seq):
        info = known.info
        if info.last_seq >= source.first_seq - 1 and until.holds(info.last_seq, info.time_ms):
            return known
    return None
