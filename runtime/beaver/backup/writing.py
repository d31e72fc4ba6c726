"""Making a backup: a file that gets its name once it was read back and replayed, or a stream.

A stream has no name to withhold.  What makes it whole is its end, and that is sent once the log
that was copied has been replayed, beside the copying.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec

from beaver.backup.capture import Captured, capture
from beaver.backup.pieces import Piece, Pieces
from beaver.backup.spooled import spooled
from beaver.backup.stream import Head, Progress, Write, Writer, head_of
from beaver.errors import (
    NO_ROOM,
    BackupDamaged,
    DiskFull,
    InvalidInput,
    StorageFailed,
)
from beaver.ports import Clock, Disk
from beaver.replay.verifying import VerifyReport, verify
from beaver.system.disk import SystemFile
from beaver.system.regular import open_regular


class BackupMade(msgspec.Struct):
    """A backup that is whole."""

    file: str
    store: str
    last_seq: int
    """It holds everything up to here."""
    fingerprint: str
    """Of the state at that seq, as a replay of the copy gave it."""
    bytes: int
    segments: int
    seconds: float = 0.0


def _unwatched(done: int, of: int) -> None:
    """Shows nothing."""


def back_up(
    disk: Disk, data: str, file: str, clock: Clock, on_progress: Progress = _unwatched
) -> BackupMade:
    """Copies a store into a file; a server may run meanwhile, and never waits.

    On return the file is durable, whole, and was replayed.  If this raises, there is no file of
    that name; after a crash only one that begins with a dot and ends with `.partial`.

    Args:
        disk: Where the store lies.
        data: The data directory.
        file: Where to write; nothing is overwritten.
        clock: For stamps and for the time that it takes.
        on_progress: Told how far it is: copying, then reading back.

    Raises:
        InvalidInput: The file exists, or cannot be made.
        Corruption, NotFound, StoreUnavailable: As `capture`; or a replay finds damage.
        DiskFull, StorageFailed: It could not be written.
    """
    started_ns = clock.monotonic_ns()
    target = Path(file)
    if os.path.lexists(target):
        raise InvalidInput(f"{file} exists already; nothing is overwritten: give another name")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    captured = capture(disk, data)
    try:
        head = head_of(captured, clock.wall_ms())
        made = _write(captured, head, target, partial, on_progress)
    finally:
        captured.disk.close()
    made.seconds = (clock.monotonic_ns() - started_ns) / 1e9
    return made


def _write(
    captured: Captured, head: Head, target: Path, partial: Path, on_progress: Progress
) -> BackupMade:
    try:
        descriptor = open_regular(str(partial), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except OSError as error:
        raise InvalidInput(f"cannot make {target}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "r+b", buffering=0) as out:
            writer = Writer(lambda data: _write_all(out.fileno(), data), head)
            writer.members(captured, on_progress)
            # What is in the file is judged, not what was meant to be written.
            writer.end(_read_back(out.fileno(), head, writer, target))
            os.fsync(out.fileno())
            with spooled(out.fileno(), str(target), on_progress=_unwatched):
                pass  # Its checksums are right.
        try:
            os.link(partial, target)
        except FileExistsError:
            raise InvalidInput(f"{target} exists by now; nothing is overwritten") from None
        except OSError:
            partial.replace(target)  # No hard links here.
        _sync_names(target.parent)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(f"no room for {target}: {error.strerror}") from error
        raise StorageFailed(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return _made(str(target), head, writer)


def _read_back(descriptor: int, head: Head, writer: Writer, target: Path) -> str:
    """Replays what was written; returns the fingerprint of its state."""
    disk = Pieces(str(target))
    file = disk.keep(SystemFile(os.dup(descriptor)))
    try:
        for member in head.members:
            piece = Piece(file, writer.offsets[member.name], member.size)
            disk.files[f"{target}/{member.name}"] = (piece,)
        return fingerprint_of(refuse_unless_good(disk, disk.path, target))
    finally:
        disk.close()


def stream_backup(
    disk: Disk,
    data: str,
    write: Write,
    clock: Clock,
    on_progress: Progress = _unwatched,
    name: str = "-",
) -> BackupMade:
    """Sends a backup of a store as a stream.

    Where this raises, the stream has no end, and nobody restores it.  The arguments are those
    of `back_up`; `write` may block.
    """
    started_ns = clock.monotonic_ns()
    captured = capture(disk, data)
    try:
        head = head_of(captured, clock.wall_ms())
        judging = _Judging(captured)
        writer = Writer(write, head)
        writer.members(captured, on_progress)
        writer.end(judging.fingerprint())
    finally:
        captured.disk.close()
    made = _made(name, head, writer)
    made.seconds = (clock.monotonic_ns() - started_ns) / 1e9
    return made


class _Judging:
    """Replays what was captured in a thread of its own."""

    def __init__(self, captured: Captured) -> None:
        self._captured = captured
        self._found: str | BaseException = ""
        self._thread = threading.Thread(target=self._judge, name="judging", daemon=True)
        self._thread.start()

    def _judge(self) -> None:
        try:
            report = refuse_unless_good(self._captured.disk, self._captured.layout.path, None)
            self._found = fingerprint_of(report)
        except BaseException as error:  # noqa: BLE001 - raised where it is asked for
            self._found = error

    def fingerprint(self) -> str:
        """Waits for the replay; returns the fingerprint, or raises what is wrong."""
        self._thread.join()
        if isinstance(self._found, BaseException):
            raise self._found
        return self._found


def refuse_unless_good(disk: Disk, path: str, backup: Path | None) -> VerifyReport:
    """Replays a copy; returns what was found.

    Raises:
        BackupDamaged: It is not what a server could start from.
    """
    report = verify(disk, path)
    torn = report.log.torn_tail_bytes
    if report.ok and not torn:
        return report
    if torn:
        # A copy ends with a whole frame, so this is damage.
        raise BackupDamaged(f"{path} is damaged: its last {torn} bytes are no frame")
    wrong = [base.reason for base in report.bases if not base.ok]
    what = report.error.reason if report.error else (wrong or report.log.violations or ["?"])[0]
    where = report.error.file if report.error else path
    if backup is None:
        raise BackupDamaged(
            f"{path} cannot be backed up: {where}: {what}\n"
            "`beaver verify` says more; no backup was made."
        )
    raise BackupDamaged(f"{backup} does not hold what was written to it: {where}: {what}")


def fingerprint_of(report: VerifyReport) -> str:
    """Returns the fingerprint of the state that a copy gives."""
    return report.log.fingerprint or ""


def _made(name: str, head: Head, writer: Writer) -> BackupMade:
    return BackupMade(
        name,
        head.store,
        head.last_seq,
        writer.fingerprint,
        writer.bytes,
        sum(member.name.endswith((".wal", ".log")) for member in head.members),
    )


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_names(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
