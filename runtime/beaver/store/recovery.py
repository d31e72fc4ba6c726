"""Recovery: from the files of a store to its state and a log that can be appended to.

What lives here: opening a store, and the repairs with the order in which they are made.
`rebuilding` reads and judges; `recovery_table` says what each find means.

The log itself is locked first: `LOCK` may have been removed under a process that writes.

Reading comes next, and every refusal with it: a start that refuses has changed nothing.
Then the repairs, in an order in which a crash behind any of them leaves a store that the
next recovery brings to the same state:

1. Leftovers of sealing are dropped: the second name of `wal.log` in the archive, and
   prepared segments.  None holds an event that `wal.log` does not.  A crash: the same row
   again, or its name is gone.
2. A torn tail is copied to a `.broken` file, for people.  A crash: torn still; the next
   recovery makes another copy.
3. The tail is zeroed to the end of the file, to be synced before anything is accepted.
   Otherwise a later crash could mix blocks of the old tail with those of a new frame.  A
   crash in the middle leaves some of the old blocks: torn still, or clean.  They never
   become a frame, since the one frame they are of has lost a part.
4. The last valid frame is rewritten with the same bytes, and both are synced.  After a failed sync,
   or a kill in the middle of one, it may live in the page cache alone, in pages that the
   kernel calls clean: a sync of the file would say "done" and write nothing.  Rewriting
   makes the pages dirty again.  A crash in the middle changes nothing where the frame was
   on disk, and tears it where it was not; then nobody was told of it, and it is cut.
   Frames before it need no such care: each was synced, by append or by this very step,
   before the next one was written.
5. The names in both directories are synced.

Only then is the log handed over.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from beaver.errors import (
    NO_ROOM,
    UNUSABLE,
    BeaverError,
    NotFound,
    StorageFailed,
    StoreUnavailable,
)
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.format import CLOSE, FILE_HEADER_BYTES, STORE_ID_BYTES, FileHeader
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import holder_of, lock_log
from beaver.journal.wal.log import EXTEND_BYTES, SEGMENT_BYTES, Tail, Wal, create_log
from beaver.journal.wal.recovery_table import Row
from beaver.journal.wal.scan import Damage, Damaged, End, EndKind, read_header
from beaver.ports import Clock, Disk, File
from beaver.store.rebuilding import Rebuilding, RecoveryReport
from beaver.system.clock import SystemClock, SystemEntropy
from beaver_model import State

_READS_MAX: Final = 5
"""Times that a reader beside a living server starts over when files move under it."""
_ZEROS: Final = bytes(EXTEND_BYTES)


class Opened(NamedTuple):
    """A recovered store."""

    state: State
    wal: Wal
    report: RecoveryReport


def open_store(
    disk: Disk,
    path: str,
    *,
    clock: Clock,
    create: bool,
    store_id: bytes | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    extend_bytes: int = EXTEND_BYTES,
    commits: CommitPath | None = None,
    ahead: Rebuilding | None = None,
) -> Opened:
    """Recovers a store and opens its log for writing; the caller holds the lock.

    Args:
        disk: Where it lies.
        path: The data directory.
        clock: For the phases' seconds, and for the name of a `.broken` file.
        create: Make the store where there is none.
        store_id: 16 bytes to name a new store by; drawn where `None`.
        segment_bytes: Size that the next segments should have.
        extend_bytes: Least growth of a segment that is extended in place.
        commits: Chooses how each commit is written; by default on the loop.
        ahead: What `read_ahead` has found; used if nothing was written since.

    Returns:
        The state and the log, which agree; all that it holds is durable.

    Raises:
        NotFound: There is no store, and none was to be made.
        Corruption: Acknowledged data is damaged or missing.  Nothing was changed.
        NewerFormat: Something is of a newer version.  Nothing was changed.
        StoreUnavailable: No permission, or something is no directory.
        DiskFull: There is no room to make a store.
        StorageFailed: Reading, writing or syncing failed.
    """
    reading = Rebuilding(disk, path, clock)
    with _told_as_errors(path), contextlib.ExitStack() as on_failure:
        file = _hold_log(reading)
        if not reading.find():
            if not create:
                raise NotFound(f"{path} holds no queue")
            store = store_id or SystemEntropy().token_bytes(STORE_ID_BYTES)
            with reading.phase("open"):
                if not disk.exists(path):
                    disk.mkdir(path)
                create_log(disk, reading.layout, store, extend_bytes)
            reading.find()
        file = file or _hold_log(reading)
        assert file is not None, "it was there, or has been made"
        on_failure.callback(file.close)
        reading.judge_twin()
        state = None if ahead is None else reading.adopt(ahead, file)
        if state is None:
            if ahead is not None:
                ahead.state = None  # One state in memory is enough.
            state = reading.rebuild()
        header, tail = _repair(reading, file)
        wal = Wal(
            disk,
            reading.layout,
            file,
            header,
            tail,
            clock=clock,
            commits=commits,
            segment_bytes=segment_bytes,
            extend_bytes=extend_bytes,
        )
        on_failure.pop_all()
        return Opened(state, wal, reading.report)


def _hold_log(reading: Rebuilding) -> File | None:
    """Returns the log, locked; `None` where there is none."""
    try:
        return lock_log(reading.disk, reading.layout.log)
    except FileNotFoundError:
        return None
    except BlockingIOError as error:
        log = reading.layout.log
        raise StoreUnavailable(
            f"{log} is held by {holder_of(reading.layout.path)}, though LOCK is ours: somebody has "
            "removed or replaced that\nStop that process first."
        ) from error


def read_ahead(disk: Disk, path: str, *, clock: Clock) -> Rebuilding | None:
    """Rebuilds the state of a store before its lock is held, only reading, for `open_store`.

    `None` where there is no store, or something is wrong with it: `open_store` says so.
    """
    try:
        reading = Rebuilding(disk, path, clock)
        if reading.find():
            reading.rebuild()
            return reading
    except (BeaverError, OSError):
        pass
    return None


def read_store(
    disk: Disk, path: str, *, clock: Clock | None = None
) -> tuple[State, RecoveryReport]:
    """Rebuilds the state of a store without writing; a server may be writing meanwhile.

    The state is that of some commit at or after the call.  A torn tail is the report's
    business only: it may be a frame that is being written.

    Raises:
        NotFound: There is no store.
        Corruption, NewerFormat, StoreUnavailable, StorageFailed: As `open_store`.
    """
    with _told_as_errors(path):
        for attempt in range(_READS_MAX):
            reading = Rebuilding(disk, path, clock or SystemClock())
            try:
                if not reading.find():
                    raise NotFound(f"{path} holds no queue")
                return reading.rebuild(), reading.report
            except FileNotFoundError:
                # A segment was sealed or pruned between its listing and its reading.
                if attempt == _READS_MAX - 1:
                    raise
            except Damaged as error:
                # The same, seen from the other side: the server has replaced the snapshot
                # that was read and dropped what only that one needed.
                if error.damage not in {Damage.GAP, Damage.NO_BASE} or attempt == _READS_MAX - 1:
                    raise
    raise AssertionError("the last attempt returns or raises")


def peek_store(disk: Disk, path: str) -> bytes | None:
    """Returns the id of the store at `path`; `None` where there is none that can be read."""
    try:
        return store_of(disk, path)
    except BeaverError:
        return None


def store_of(disk: Disk, path: str) -> bytes | None:
    """Returns the id of the store at `path`; `None` where there is none.

    Raises:
        Corruption, NewerFormat, StoreUnavailable, StorageFailed: As `open_store`.
    """
    log = Layout(path).log
    with _told_as_errors(path):
        try:
            file = disk.open(log)
        except FileNotFoundError:
            return None
        try:
            return read_header(file, log).store
        finally:
            file.close()


@contextlib.contextmanager
def _told_as_errors(path: str) -> Iterator[None]:
    """Turns what the system says into what Beaver says."""
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


# -- repairs ---------------------------------------------------------------------------


def _repair(reading: Rebuilding, file: File) -> tuple[FileHeader, Tail]:
    """Makes the files good, durably; the docstring tells the steps.

    Returns:
        The header of the log, which `file` is, and where it goes on.
    """
    disk, layout, scan = reading.disk, reading.layout, reading.scan
    assert scan is not None, "rebuilt before it is repaired"
    assert scan.end is not None, "the scan was exhausted"
    with reading.phase("open"):
        _drop_leftovers(reading)
        if scan.end.kind == EndKind.TORN:
            _keep_tail(reading, file, scan.end)
            _zero(file, scan.end.offset)
        start, last = scan.last_bytes()
        file.pwrite(last, start)
        file.sync()
        disk.mkdir(layout.archive)
        disk.sync_dir(layout.archive)
        disk.sync_dir(layout.path)
    flags = scan.flags if scan.frames else CLOSE
    return scan.header, Tail(scan.offset, scan.next_seq, scan.crc, flags)


def _drop_leftovers(reading: Rebuilding) -> None:
    """Drops what sealing, cut short, has left; step 1."""
    disk, layout = reading.disk, reading.layout
    if reading.twin:
        disk.unlink(reading.twin)
        disk.sync_dir(layout.archive)
    for path in (layout.next, layout.adopted):
        if not disk.exists(path):
            continue
        file = disk.open(path)
        try:
            has_header = bool(file.pread(FILE_HEADER_BYTES, 0).strip(b"\0"))
        finally:
            file.close()
        if not reading.twin:
            reading.report.note(Row.SEALING_NOT_LINKED if has_header else Row.PREPARED_UNUSED)
        disk.unlink(path)


def _keep_tail(reading: Rebuilding, file: File, end: End) -> None:
    """Copies a torn tail beside the log, for people; a full disk does not stop a start."""
    disk = reading.disk
    now = datetime.fromtimestamp(reading.clock.wall_ms() / 1000, UTC)
    stem = now.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
    path, number = reading.layout.broken(stem), 1
    while disk.exists(path):
        number += 1
        path = reading.layout.broken(f"{stem}-{number}")
    try:
        kept = disk.open(path, create=True)
        try:
            for done in range(0, end.torn_bytes, EXTEND_BYTES):
                size = min(EXTEND_BYTES, end.torn_bytes - done)
                kept.pwrite(file.pread(size, end.offset + done), done)
            kept.sync()
        finally:
            kept.close()
        disk.sync_dir(reading.layout.path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        with contextlib.suppress(OSError):
            disk.unlink(path)
        return
    reading.report.broken = path


def _zero(file: File, start: int) -> None:
    """Zeroes a file from `start` to its end; to be synced."""
    size = file.size()
    for offset in range(start, size, EXTEND_BYTES):
        file.pwrite(_ZEROS[: min(EXTEND_BYTES, size - offset)], offset)
