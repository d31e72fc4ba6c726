"""A store made of a copy: nothing gets the name of a data directory before it was verified.

1. The copy is read whole; its checksums are right, and what it announces fits the disk.
2. In a directory of a temporary name beside the target the log is written anew, under an id of
   its own, up to where it was asked for; so are the snapshots that it still reaches.
3. What was written is synced and verified as `beaver verify` does: every base is replayed.
4. The directory is renamed.  The system refuses that where something is in the way, so nothing
   is ever overwritten.

An end before 4 leaves a directory `.NAME.restoring-PID`, which no command takes for a store.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from beaver.backup.rewriting import Reached, rewrite
from beaver.backup.spooled import Backup, spooled
from beaver.backup.stream import Head, Progress
from beaver.errors import (
    NO_ROOM,
    BackupDamaged,
    Corruption,
    DiskFull,
    InvalidInput,
    NotFound,
    StorageFailed,
    StoreUnavailable,
)
from beaver.journal.wal.format import STORE_ID_BYTES
from beaver.journal.wal.layout import Layout
from beaver.ports import Disk
from beaver.replay.verifying import verify
from beaver.snapshot.files import load_snapshot, write_snapshot
from beaver.store.log_source import LogSource, Until, choose_base, find_source
from beaver.system.disk import SystemDisk
from beaver.system.regular import open_regular

_SPARE_BYTES: Final = 16 << 20
"""Room that is left beside what is restored."""


class Restored(msgspec.Struct):
    """A store that was restored."""

    data: str
    store: str
    """Its id, which is new."""
    origin: str
    """The id of the store that it is a copy of."""
    first_seq: int
    last_seq: int
    fingerprint: str
    counts: dict[str, int]
    """Jobs by state."""
    seconds: float = 0.0


def restore_file(
    file: str,
    data: str,
    until: Until,
    on_progress: Progress,
    *,
    incoming: Callable[[int], bytes] | None = None,
) -> Restored:
    """Makes the data directory `data` of a backup.

    Args:
        file: The backup; what to call it where it is `incoming`.
        data: The directory, which does not exist, or is empty.
        until: Whole commits up to here.
        on_progress: Told how far the part under way is.
        incoming: Where a stream comes from.

    Raises:
        InvalidInput: Something is in the way, or the copy does not hold that point.
        BackupDamaged: It is damaged; nothing was restored.
        DiskFull, StorageFailed: It could not be written.
    """
    with _place(data) as place, _opened(file, place, incoming) as descriptor:

        def check_head(head: Head) -> None:
            spooled_too = 2 if incoming is not None else 1
            refuse_without_room(place, spooled_too * sum(member.size for member in head.members))

        with spooled(
            descriptor, file, incoming=incoming, check_head=check_head, on_progress=on_progress
        ) as backup:
            restored = _restore(backup.disk, file, place, until, on_progress)
            _compare(backup, restored)
        name_it(place, data)
    restored.data = data
    return restored


def restore_disk(
    opened: Callable[[str], contextlib.AbstractContextManager[Disk]],
    name: str,
    data: str,
    until: Until,
    on_progress: Progress,
) -> Restored:
    """Makes the data directory `data` of a store that a disk shows under `name`.

    Args:
        opened: Opens that disk; is given a directory with room for what it has to fetch.
        name: Its path there.
        data: The directory, as for `restore_file`; so is the rest.
        until: Up to where.
        on_progress: Told how far the part under way is.

    Raises:
        BeaverError: As `restore_file`.
    """
    with _place(data) as place, opened(str(place)) as source:
        restored = _restore(source, name, place, until, on_progress)
        name_it(place, data)
    restored.data = data
    return restored


def _compare(backup: Backup, restored: Restored) -> None:
    """Refuses a copy whose state is another one than it says; it was made by something else."""
    end = backup.end
    if restored.last_seq == end.last_seq and restored.fingerprint != end.fingerprint:
        raise BackupDamaged(
            f"{backup.disk.path} gives the state {restored.fingerprint} at seq {end.last_seq}, "
            f"and says that it is {end.fingerprint}; nothing was restored"
        )


# -- the place -------------------------------------------------------------------------------


@contextlib.contextmanager
def _place(data: str) -> Iterator[Path]:
    """Yields a new directory beside `data`; it is removed again unless it was renamed."""
    target = Path(data)
    refuse_taken(target)
    parent = target.absolute().parent
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = parent / f".{target.name}.restoring-{os.getpid()}-{secrets.token_hex(4)}"
        place.mkdir(mode=0o700)
    except OSError as error:
        raise StoreUnavailable(f"cannot make {data}: {error.strerror}") from error
    try:
        yield place
    except OSError as error:
        where = error.filename or data
        if error.errno in NO_ROOM:
            raise DiskFull(f"no room to restore {data}: {where}: {error.strerror}") from error
        raise StorageFailed(f"cannot restore {data}: {where}: {error.strerror}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def refuse_taken(target: Path) -> None:
    """Refuses to overwrite.

    Raises:
        InvalidInput: Something is there that is no empty directory.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise InvalidInput(f"{target} exists and is no directory; nothing is overwritten")
    if target.is_dir() and any(target.iterdir()):
        raise InvalidInput(
            f"{target} exists and is not empty; nothing is overwritten: move it away, or give "
            "another directory with --data"
        )


def refuse_without_room(place: Path, size: int) -> None:
    """Refuses what does not fit, before it is read."""
    free = SystemDisk().free_bytes(str(place))
    if size + _SPARE_BYTES > free:
        raise DiskFull(
            f"restoring needs {size + _SPARE_BYTES} bytes in {place.parent}, and {free} are free; "
            "nothing was restored"
        )


def name_it(place: Path, data: str) -> None:
    """Gives a verified store its name."""
    target = Path(data)
    store = place / "store"
    try:
        store.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise InvalidInput(f"{data} is taken by now; nothing is overwritten") from error
        if error.errno == errno.EBUSY:
            raise InvalidInput(
                f"{data} is a mount point, which cannot be replaced; restore into a directory "
                "below it"
            ) from error
        raise
    SystemDisk().sync_dir(str(target.absolute().parent))


@contextlib.contextmanager
def _opened(file: str, place: Path, incoming: Callable[[int], bytes] | None) -> Iterator[int]:
    """Yields the descriptor of a backup, or of the file that a stream is kept in."""
    if incoming is not None:
        spool = str(place / "incoming.tar")
        descriptor = open_regular(spool, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    else:
        if os.path.isdir(file):  # noqa: PTH112 - a string
            raise InvalidInput(f"{file} is a directory, and no backup made by `beaver backup`")
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"there is no backup at {file}") from error
        except OSError as error:
            raise InvalidInput(f"cannot read {file}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# -- the store -------------------------------------------------------------------------------


def _restore(source: Disk, name: str, place: Path, until: Until, on_progress: Progress) -> Restored:
    """Writes and verifies `place/store`."""
    disk, target = SystemDisk(), Layout(str(place / "store"))
    disk.mkdir(target.path)
    disk.mkdir(target.archive)
    store = secrets.token_bytes(STORE_ID_BYTES)
    try:
        origin = find_source(source, name)
        _refuse_unreachable(origin, until, name)
        reached = rewrite(
            source, origin.layout, origin.infos, disk, target, store, until, on_progress
        )
        _write_snapshots(source, origin, disk, target, store, reached)
        disk.sync_dir(target.archive)
        disk.sync_dir(target.path)
    except Corruption as error:
        raise _damaged(name, error) from error
    report = verify(disk, target.path, on_progress=on_progress)
    if not report.ok:
        wrong = [base.reason for base in report.bases if not base.ok]
        what = report.error.reason if report.error else (wrong or report.log.violations or ["?"])[0]
        raise BackupDamaged(f"{name} does not give a store that holds together: {what}")
    log = report.log
    return Restored(
        target.path,
        store.hex(),
        origin.infos[0].header.lineage.hex(),
        log.first_seq,
        reached.last_seq,
        log.fingerprint or "",
        log.counts,
    )


def _damaged(name: str, error: Corruption) -> BackupDamaged:
    return BackupDamaged(
        f"{name} is damaged: {error.file} at offset {error.offset}, seq {error.seq}: "
        f"{error.reason}\nNothing was restored."
    )


def _refuse_unreachable(origin: LogSource, until: Until, name: str) -> None:
    """Refuses a point that lies before what the copy holds."""
    first = origin.first_seq
    if first == 1:
        if until.seq is None or until.seq >= 1:
            return
        raise InvalidInput(f"--until: the first event of {name} has seq 1")
    if choose_base(origin, until) is None:
        known = [f"seq {known.info.last_seq}" for known in origin.snapshots]
        raise InvalidInput(
            f"--until: the log in {name} begins with seq {first}, and it can be restored to "
            f"{' or '.join(known) or 'nothing'} and later"
        )


def _write_snapshots(
    source: Disk, origin: LogSource, disk: Disk, target: Layout, store: bytes, reached: Reached
) -> None:
    """Writes the snapshots that the log still reaches, under the new id, the older one first."""
    for known in origin.snapshots:
        if origin.first_seq - 1 <= known.info.last_seq <= reached.last_seq:
            loaded = load_snapshot(source, known.path, check_fingerprint=True)
            write_snapshot(disk, target, loaded.state, store)
