"""Snapshots: the state of a store at one seq, written and loaded.

What lives here: how a snapshot comes to be durable, and how one is believed: it gets its name
only once what was written was read back and is the whole state (`beaver_model.contents`).
What may not: the lines of the file, which stand in `snapshot.lines`, and when a snapshot is
taken and what it allows to be deleted, which stand in `helper.work`.

The CRC is checked before anything else is believed, so a damaged file, a torn one and an
empty one all end as `SnapshotDamaged`, and only an intact file of a higher version as
`NewerFormat`.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import PurePath
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from beaver.errors import SnapshotDiffers
from beaver.journal.wal.following import behind_seq
from beaver.journal.wal.forensics import told_as_errors
from beaver.journal.wal.recovery_table import RecoveryRow
from beaver.journal.wal.scan import Damage, Damaged
from beaver.ports import Disk, File
from beaver.snapshot.lines import (
    CRC_BYTES,
    CRC_KEY,
    FORMAT,
    READ_BYTES,
    VERSION,
    FooterLine,
    HeaderLine,
    Line,
    LineReader,
    QueueLine,
    SnapshotDamaged,
    encoder,
    job_line,
    spec_line,
    tombstone_line,
)
from beaver.snapshot.port import Snapshot
from beaver.structs.messages import SnapshotWritten
from beaver.structs.recovery import RecoveryReport
from beaver.text.foreign import counted
from beaver_model.contents import Contents, contents_of, difference
from beaver_model.freezing import (
    Fingerprinter,
    assemble,
    freeze_header,
    freeze_job,
    frozen_jobs,
    frozen_queues,
    frozen_tombstones,
    header,
)
from beaver_model.rows import spec_of
from beaver_model.state import State

_MEANINGLESS: Final = (
    msgspec.MsgspecError,
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""Errors of a line that no writer of ours wrote, though its CRC is right."""

_Part = TypeVar("_Part")

_BATCH_BYTES: Final = 1 << 20
_SYNC_BYTES: Final = 16 << 20
"""Written bytes after which the file is synced, so that no sync is long."""


class SnapshotFiles(Protocol):
    """The names that a snapshot needs; `layout.Layout` has them."""

    @property
    def snapshot(self) -> str: ...

    @property
    def snapshot_old(self) -> str: ...


class UnnamedSnapshot(NamedTuple):
    """A snapshot that is synced under a temporary name, and what it must hold."""

    path: str
    taken: SnapshotWritten
    contents: Contents


class LoadedSnapshot(NamedTuple):
    """A snapshot, loaded."""

    state: State
    store: bytes
    last_seq: int
    fingerprint: str
    """As its writer took it; recomputed and compared only where that was asked for."""
    bytes: int


class SnapshotInfo(NamedTuple):
    """The header of an intact snapshot, read without its rows."""

    store: bytes
    last_seq: int
    time_ms: int
    fingerprint: str
    bytes: int


# -- writing --------------------------------------------------------------------------------


def write_snapshot(
    disk: Disk, files: SnapshotFiles, state: State, store: bytes, *, keep_previous: bool = True
) -> SnapshotWritten:
    """Writes a snapshot of `state` and makes it the newest one.

    On return it is durable, name and all, and the one before is kept as the older one.  If
    this raises, the snapshots that were there still are (the newest one perhaps under the
    older one's name).

    Args:
        disk: Where to write.
        files: The names of the newest and the older snapshot.
        state: The state to write; it is only read.
        store: Id of the store.
        keep_previous: False where the newest one is damaged and must not replace an older
            one that is good.

    Raises:
        SnapshotDiffers: The snapshot reads back as another state; it is removed.
        OSError: A write or a sync failed, or the disk is full; the temporary file is removed.
    """
    unnamed = write_unnamed(disk, files, state, store)
    return name_snapshot(disk, files, unnamed, keep_previous=keep_previous)


def write_unnamed(disk: Disk, files: SnapshotFiles, state: State, store: bytes) -> UnnamedSnapshot:
    """Writes a snapshot that nobody takes for one before `name_snapshot`; as `write_snapshot`.

    The state may go before it is named, so that it and what is read back need not be in memory
    at once.
    """
    temporary = files.snapshot + ".tmp"
    if disk.exists(temporary):
        disk.unlink(temporary)
    file = disk.open(temporary, write=True, create=True)
    try:
        try:
            writer = _Writer(file)
            fingerprint = _write_lines(writer, state, store)
            writer.end()
        finally:
            file.close()
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise
    taken = SnapshotWritten(state.last_seq, fingerprint, state.ledger, writer.size)
    return UnnamedSnapshot(temporary, taken, contents_of(state))


def name_snapshot(
    disk: Disk, files: SnapshotFiles, unnamed: UnnamedSnapshot, *, keep_previous: bool = True
) -> SnapshotWritten:
    """Reads back what was written, compares the whole, and makes it the newest snapshot."""
    try:
        _compare(disk, unnamed)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(unnamed.path)
        raise
    if keep_previous and disk.exists(files.snapshot):
        disk.rename(files.snapshot, files.snapshot_old)
    disk.rename(unnamed.path, files.snapshot)
    disk.sync_dir(str(PurePath(files.snapshot).parent))
    return unnamed.taken


def _compare(disk: Disk, unnamed: UnnamedSnapshot) -> None:
    """Raises `SnapshotDiffers` unless a snapshot is loaded as the very state that it is of."""
    try:
        loaded = load_snapshot(disk, unnamed.path, indexed=False)
        wrong = difference(unnamed.contents, contents_of(loaded.state))
    except SnapshotDamaged as error:
        wrong = error.reason
    if wrong:
        raise SnapshotDiffers(
            f"the snapshot at seq {unnamed.taken.last_seq} is not read back as it was written: "
            f"{wrong}. It is not kept, and no segment of the log is deleted"
        )


class _Writer:
    """Writes lines to a file in batches, with their CRC on the way."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._lines: list[Line] = []
        self._batch_bytes = 0
        self._unsynced = 0
        self.crc = 0
        self.size = 0

    def add(self, line: Line, size: int = 64) -> None:
        """Adds a line; `size` guesses its length."""
        self._lines.append(line)
        self._batch_bytes += size
        if self._batch_bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        self._write(encoder.encode_lines(self._lines))
        self._lines.clear()
        self._batch_bytes = 0

    def footer(self, line: FooterLine) -> None:
        """Adds the last line, which ends with the CRC of all before it."""
        self.flush()
        self._write(encoder.encode(line)[:-1])
        self._write(CRC_KEY + b'%08x"}\n' % self.crc)

    def end(self) -> None:
        self._file.sync()

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self._file.pwrite(data, self.size)
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_BYTES:
            self._file.sync()
            self._unsynced = 0


def _write_lines(writer: _Writer, state: State, store: bytes) -> str:
    """Writes the whole of a state and returns its fingerprint."""
    fingerprinter = Fingerprinter()
    values = header(state)
    fingerprinter.add(freeze_header(values))
    writer.add(HeaderLine(FORMAT, VERSION, store.hex(), *values))
    queues = 0
    for queue in frozen_queues(state):
        fingerprinter.add(queue)
        writer.add(QueueLine(*queue))
        queues += 1
    specs: dict[bytes, int] = {}
    jobs = 0
    for job in frozen_jobs(state):
        fingerprinter.add(job)
        number = specs.get(job[7])
        if number is None:
            number = specs[job[7]] = len(specs)
            writer.add(spec_line(number, spec_of(job[7])))
        writer.add(job_line(job, number), 128 + len(job[8]))
        jobs += 1
    tombstones = 0
    for tombstone in frozen_tombstones(state):
        fingerprinter.add(tombstone)
        writer.add(tombstone_line(tombstone))
        tombstones += 1
    fingerprint = fingerprinter.hexdigest()
    writer.footer(FooterLine(queues, len(specs), jobs, tombstones, fingerprint))
    return fingerprint


# -- reading --------------------------------------------------------------------------------


def load_snapshot(
    disk: Disk, path: str, *, check_fingerprint: bool = False, indexed: bool = True
) -> LoadedSnapshot:
    """Loads a snapshot whole; nothing of a damaged one is ever used.

    Args:
        disk: Where to read.
        path: The snapshot.
        check_fingerprint: Compute the fingerprint of the rows and compare it with the
            writer's.  The CRC shows damage by itself; this shows a wrong writer or loader.
        indexed: Build the indexes now; else `State.index` does once more was replayed.

    Raises:
        SnapshotDamaged: It is torn, changed, or holds what no writer wrote.
        NewerFormat: It is intact, and of a version that this release does not know.
        OSError: It does not exist or cannot be read.
    """
    file = disk.open(path)
    try:
        size = _check_crc(file, path)
        reader = LineReader(file, path)
        try:
            head = reader.header()
            fingerprinter = Fingerprinter() if check_fingerprint else None
            if fingerprinter is not None:
                fingerprinter.add(freeze_header(head))
            state = assemble(
                head,
                chain.from_iterable(_noted(reader.queues(), tuple, fingerprinter)),
                _noted(reader.rows(), freeze_job, fingerprinter),
                _noted(reader.tombstones(), tuple, fingerprinter),
                indexed=indexed,
            )
            footer = reader.footer()
        except _MEANINGLESS as error:
            raise SnapshotDamaged(path, reader.offset, f"a line has no meaning: {error}") from error
    finally:
        file.close()
    if fingerprinter is not None and fingerprinter.hexdigest() != footer.fingerprint:
        found = fingerprinter.hexdigest()
        reason = f"its rows have the fingerprint {found}, its footer says {footer.fingerprint}"
        raise SnapshotDamaged(path, size, reason)
    return LoadedSnapshot(state, reader.store, state.last_seq, footer.fingerprint, size)


class FileSnapshots:
    """The `Snapshots` of a data directory, for a log on the same disk."""

    def __init__(self, disk: Disk, files: SnapshotFiles) -> None:
        self._disk, self._files = disk, files
        self.damaged: SnapshotDamaged | None = None
        """See `Snapshots`."""

    def load(self, store: bytes, report: RecoveryReport) -> Snapshot | None:
        """See `Snapshots`.  The caller builds the indexes after it has replayed the log."""
        with told_as_errors(str(PurePath(self._files.snapshot).parent)):
            return self._load(store, report)

    def _load(self, store: bytes, report: RecoveryReport) -> Snapshot | None:
        for path in (self._files.snapshot, self._files.snapshot_old):
            try:
                loaded = load_snapshot(self._disk, path, indexed=False)
            except FileNotFoundError:
                continue
            except SnapshotDamaged as error:
                self.damaged = self.damaged or error
                continue
            if loaded.store != store:
                raise Damaged(
                    Damage.FOREIGN,
                    path,
                    0,
                    loaded.last_seq,
                    f"it belongs to the store {loaded.store.hex()}, and the log to {store.hex()}",
                )
            report.base = "snapshot"
            if path == self._files.snapshot_old:
                report.base = "older snapshot"
                is_missing = self.damaged is None
                row = RecoveryRow.SNAPSHOT_MISSING if is_missing else RecoveryRow.SNAPSHOT_DAMAGED
                report.rows.append(row.label)
            report.snapshot_bytes, report.snapshot_seq = loaded.bytes, loaded.last_seq
            return Snapshot(loaded.state, behind_seq(loaded.last_seq))
        if self.damaged is not None:
            report.rows.append(RecoveryRow.SNAPSHOTS_USELESS.label)
        return None

    def save(self, store: bytes, snapshot: Snapshot) -> None:
        """See `Snapshots`; a newest one that is damaged does not replace an older good one."""
        is_good = self.damaged is None
        write_snapshot(self._disk, self._files, snapshot.state, store, keep_previous=is_good)


def inspect_snapshot(disk: Disk, path: str) -> SnapshotInfo:
    """Returns what an intact snapshot says of itself.  Raises as `load_snapshot` does."""
    file = disk.open(path)
    try:
        size = _check_crc(file, path)
        reader = LineReader(file, path)
        start = max(0, size - READ_BYTES)
        tail = file.pread(size - start, start).splitlines()
        try:
            head = reader.header()
            footer = msgspec.json.decode(tail[-1], type=FooterLine)
        except _MEANINGLESS as error:
            raise SnapshotDamaged(path, 0, f"a line has no meaning: {error}") from error
    finally:
        file.close()
    return SnapshotInfo(reader.store, head.last_seq, head.time_ms, footer.fingerprint, size)


def _check_crc(file: File, path: str) -> int:
    """Returns the size of a snapshot whose CRC is right."""
    size = file.size()
    end = size - CRC_BYTES
    if end <= 0:
        raise SnapshotDamaged(path, 0, f"a file of {counted(size, 'byte')} is no snapshot")
    tail = file.pread(CRC_BYTES, end)
    if not (tail.startswith(CRC_KEY) and tail.endswith(b'"}\n')):
        raise SnapshotDamaged(path, end, "it does not end with a CRC: it is torn")
    crc = offset = 0
    while offset < end:
        data = file.pread(min(READ_BYTES, end - offset), offset)
        if not data:
            raise SnapshotDamaged(path, offset, "it became shorter while it was read")
        crc = zlib.crc32(data, crc)
        offset += len(data)
    found, expected = b"%08x" % crc, tail[len(CRC_KEY) : len(CRC_KEY) + 8]
    if found != expected:
        reason = f"its CRC is {found.decode()}, its last line says {expected!r}"
        raise SnapshotDamaged(path, 0, reason)
    return size


def _noted(
    pieces: Iterable[list[_Part]],
    frozen: Callable[[_Part], tuple[Any, ...]],
    fingerprinter: Fingerprinter | None,
) -> Iterator[list[_Part]]:
    """Yields the parts of a state, taking their fingerprint on the way, where it is wanted."""
    for piece in pieces:
        if fingerprinter is not None:
            fingerprinter.add_all(map(frozen, piece))
        yield piece
