"""Opening a log to write to it: first it is owned, then read, and only then changed.

What lives here: how a log of files comes to be owned, and how a new one is made.  What may
not: what the files hold (`forensics`), and how they are made good (`repair`).

1. `LOCK` is taken, which stands for the directory.  2. The log itself is locked: `LOCK` may
have been removed under a process that writes.  3. Whoever recovers reads the log; a refusal
has changed nothing.  4. `begin` makes the files good and hands the log over, locks and all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import PurePath

from beaver.errors import NO_ROOM, BeaverError, DiskFull, NotFound, StoreUnavailable
from beaver.journal.port import Commit, Log, Position
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.following import Cursor
from beaver.journal.wal.forensics import Forensics, told_as_errors
from beaver.journal.wal.format import FileHeader, encode_file_header, first_seed
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import Hold, holder_of, lock_log, try_lock
from beaver.journal.wal.log import SEGMENT_BYTES, Wal
from beaver.journal.wal.repair import repair
from beaver.journal.wal.scan import read_header
from beaver.journal.wal.zeros import EXTEND_BYTES
from beaver.ports import Clock, Disk, File


class OwnedWal(Forensics):
    """The log of a directory whose locks are ours: its `port.Owned`."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        clock: Clock,
        hold: Hold,
        commits: CommitPath | None,
        segment_bytes: int,
        extend_bytes: int,
    ) -> None:
        super().__init__(disk, path, clock)
        self._hold, self._commits = hold, commits
        self._segment_bytes, self._extend_bytes = segment_bytes, extend_bytes
        self._file: File | None = None
        self._wal: Wal | None = None

    def take(self, store: bytes | None) -> None:
        """Locks the log and finds its segments; makes it where there is none and it has an id.

        Raises:
            NotFound: There is no store, and none was to be made.
            Damaged: The files do not fit together, or a store lost its log.
            DiskFull: There is no room to make a store.
        """
        with told_as_errors(self.layout.path):
            self._file = self._lock_log()
            if not self.find():
                if store is None:
                    raise NotFound(f"{self.layout.path} holds no queue")
                with self.report.phase("open", self.clock.monotonic_ns):
                    _create_log(self.disk, self.layout, store, self._extend_bytes)
                self.find()
            self._file = self._file or self._lock_log()
            self.judge_twin()

    def _lock_log(self) -> File | None:
        """Returns the log, locked; `None` where there is none."""
        try:
            return lock_log(self.disk, self.layout.log)
        except FileNotFoundError:
            return None
        except BlockingIOError as error:
            raise StoreUnavailable(
                f"{self.layout.log} is held by {holder_of(self.layout.path)}, though LOCK is ours: "
                "somebody has removed or replaced that\nStop that process first."
            ) from error

    def read(self, after: Position | None) -> Iterator[Commit]:
        """See `port.Log`."""
        with told_as_errors(self.layout.path):
            yield from super().read(after)

    def resume(self, earlier: Log) -> bool:
        """See `port.Owned`: so it is where no file was written since."""
        assert self._file is not None, "the log was locked"
        with told_as_errors(self.layout.path):
            return isinstance(earlier, Forensics) and self.follows(earlier, self._file)

    def begin(self, after: Position | None) -> Wal:
        """See `port.Owned`."""
        assert self._file is not None, "the log was locked"
        assert self.scan is not None, "it was read"
        next_seq = Cursor(*after).next_seq if after else 1
        assert next_seq == self.scan.next_seq, "replay goes to the end"
        with told_as_errors(self.layout.path):
            tail = repair(self, self._file)
            self._wal = Wal(
                self.disk,
                self.layout,
                self._file,
                tail,
                hold=self._hold,
                clock=self.clock,
                commits=self._commits,
                segment_bytes=self._segment_bytes,
                extend_bytes=self._extend_bytes,
            )
        return self._wal

    def abandon(self) -> None:
        """See `port.Owned`."""
        if self._wal is not None:
            self._wal.abandon()
            return
        if self._file is not None:
            self._file.close()
        self._hold.release()


def try_own(
    disk: Disk,
    path: str,
    *,
    clock: Clock,
    store: bytes | None,
    segment_bytes: int = SEGMENT_BYTES,
    extend_bytes: int = EXTEND_BYTES,
    commits: CommitPath | None = None,
) -> OwnedWal | None:
    """Returns the log of a data directory, owned; `None` where another process owns it.

    Args:
        disk: Where it lies.
        path: The data directory, which exists.
        clock: For the phases' seconds, and for the name of a `.broken` file.
        store: 16 bytes to name a new store by; `None` where none is to be made.
        segment_bytes: Size that the next segments should have.
        extend_bytes: Least growth of a segment that is extended in place.
        commits: Chooses how each commit is written; by default on the loop.

    Raises:
        NotFound: There is no store, and none was to be made.
        Corruption: The log is damaged or missing.  Nothing was changed.
        NewerFormat: It is of a newer version.  Nothing was changed.
        StoreUnavailable: No permission, or something is no directory.
        DiskFull: There is no room to make a store.
        StorageFailed: Reading, writing or syncing failed.
    """
    if store is None:
        with told_as_errors(path):
            require_store(disk, path)
    hold = try_lock(disk, path)
    if hold is None:
        return None
    owned = OwnedWal(disk, path, clock, hold, commits, segment_bytes, extend_bytes)
    try:
        owned.take(store)
    except BaseException:
        owned.abandon()
        raise
    return owned


def require_store(disk: Disk, path: str) -> None:
    """Sees that there is something to own, so that a mere try makes no lock file.

    Raises:
        NotFound: Nothing shows that there is a store at `path`.
    """
    layout = Layout(path)
    if not any(map(disk.exists, (layout.lock, layout.log, layout.snapshot))):
        raise NotFound(f"{path} holds no queue")


def peek_store(disk: Disk, path: str) -> bytes | None:
    """Returns the id of the store at `path`; `None` where there is none that can be read."""
    log = Layout(path).log
    try:
        file = disk.open(log)
        try:
            return read_header(file, log).store
        finally:
            file.close()
    except (BeaverError, OSError):
        return None


def _create_log(disk: Disk, layout: Layout, store: bytes, extend_bytes: int) -> None:
    """Makes the log of a new store; the caller holds the lock, and nothing is there.

    The header is synced under the name `wal.next` before it becomes `wal.log`, so a
    `wal.log` always has one.  A crash on the way leaves PREPARED_ONLY, and nothing that
    was acknowledged.  `archive/` is made first: where there is a log, there is an archive.

    Raises:
        DiskFull: There is no room for it.
        OSError: Something else failed.
    """
    disk.mkdir(layout.archive)
    if disk.exists(layout.next):
        disk.unlink(layout.next)
    header = encode_file_header(FileHeader(store, 1, first_seed(store, 1)))
    try:
        file = disk.open(layout.next, create=True)
        try:
            file.pwrite(header + bytes(extend_bytes - len(header)), 0)
            file.sync()
        finally:
            file.close()
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        with contextlib.suppress(OSError):
            disk.unlink(layout.next)
        raise DiskFull(f"no room for a new log at {layout.log}: {error.strerror}") from error
    disk.rename(layout.next, layout.log)
    disk.sync_dir(layout.path)
    # The directory itself may be new, and directories above it.
    for parent in PurePath(layout.path).parents:
        with contextlib.suppress(PermissionError):
            disk.sync_dir(str(parent))
