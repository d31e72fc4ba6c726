"""The store of a data directory: its log and its snapshots, opened to write or only read.

What lives here: the two ports of `rebuild`, each with what it is in files.  What may not: how a
state is rebuilt (`rebuild`), how a log is read and made good (`journal.wal`).
"""

from __future__ import annotations

from typing import Any, Final

from beaver.errors import BeaverError, NotFound, StoreUnavailable
from beaver.journal.wal.forensics import Forensics, told_as_errors
from beaver.journal.wal.format import STORE_ID_BYTES
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import holder_of
from beaver.journal.wal.log import Wal
from beaver.journal.wal.opening import try_own
from beaver.journal.wal.scan import Damage, Damaged
from beaver.ports import Clock, Disk
from beaver.snapshot.files import FileSnapshots
from beaver.store.rebuild import Recovered, Replica, rebuild, recover
from beaver.structs.recovery import RecoveryReport
from beaver.system.clock import SystemClock, SystemEntropy
from beaver_model import State

_READS_MAX: Final = 5
"""Times that a reader beside a living server starts over when files move under it."""


def open_store(
    disk: Disk,
    path: str,
    *,
    clock: Clock,
    create: bool,
    store: bytes | None = None,
    ahead: Replica | None = None,
    **options: Any,
) -> Recovered[Wal]:
    """Owns and recovers a store that nobody else holds, for whoever does not wait.

    Args:
        disk: Where it lies.
        path: The data directory.
        clock: For the phases' seconds, and for the name of a `.broken` file.
        create: Make the store where there is none.
        store: 16 bytes to name a new store by; drawn where `None`.
        ahead: What `read_ahead` has found; used if nothing was written since.
        options: See `try_own`.

    Raises:
        StoreUnavailable: Another process holds it.
        BeaverError: As `try_own` and `recover`.
    """
    with told_as_errors(path):
        if create and not disk.exists(path):
            disk.mkdir(path)
    new = (store or SystemEntropy().token_bytes(STORE_ID_BYTES)) if create else None
    owned = try_own(disk, path, clock=clock, store=new, **options)
    if owned is None:
        raise StoreUnavailable(f"{path} is held by {holder_of(path)}; stop that process first")
    return recover(owned, FileSnapshots(disk, owned.layout), clock.monotonic_ns, ahead)


def read_ahead(disk: Disk, path: str, *, clock: Clock) -> Replica | None:
    """Rebuilds the state of a store before it is owned, only reading, for `recover`.

    `None` where there is no store, or something is wrong with it: whoever owns it says so.
    """
    try:
        return _read(disk, path, clock)[0]
    except (BeaverError, OSError):
        return None


def read_store(
    disk: Disk, path: str, *, clock: Clock | None = None
) -> tuple[State, RecoveryReport]:
    """Rebuilds the state of a store without writing; a server may be writing meanwhile.

    The state is that of some commit at or after the call.  A torn tail is the report's
    business only: it may be a frame that is being written.

    Raises:
        NotFound: There is no store.
        Corruption, NewerFormat, StoreUnavailable, StorageFailed: As `recover`.
    """
    with told_as_errors(path):
        for attempt in range(_READS_MAX):
            try:
                replica, report = _read(disk, path, clock or SystemClock())
                return replica.state, report
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


def _read(disk: Disk, path: str, clock: Clock) -> tuple[Replica, RecoveryReport]:
    reading = Forensics(disk, path, clock)
    if not reading.find():
        raise NotFound(f"{path} holds no queue")
    snapshots = FileSnapshots(disk, Layout(path))
    return rebuild(reading, snapshots, reading.report, clock.monotonic_ns), reading.report
