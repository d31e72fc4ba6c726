"""One disk, several processes: whose operation it is, what it takes, and when it goes wrong.

`MachineDisk` is the simulated machine's disk; each process reaches it through a
`ProcessDisk` of its own.  That one counts operations, so that a fault can be planned for
the n-th from now; it ends with its process, as descriptors and locks do; and for the server
it lets time go by, since the server's loop stands still while it syncs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from beaver.ports import DirectoryLock, File
from beaver_chaos.sim.disk import Fault, SimDisk, SimFile
from beaver_chaos.sim.loop import Process, ProcessEnded


class MachineDisk(SimDisk):
    """The disk, with the process that uses it now."""

    user: ProcessDisk | None = None

    def _begin(self, what: str, path: str) -> Fault | None:
        self.operations += 1
        return None if self.user is None else self.user.fault_of(what, path)

    def reading(self, path: str) -> None:
        self.reads += 1
        if self.user is not None and self.user.read_fails():
            raise OSError(errno.EIO, "Input/output error", path)


class ProcessDisk:
    """`ports.Disk` for one process."""

    def __init__(
        self,
        disk: MachineDisk,
        process: Process,
        *,
        on_stop: Callable[[], None],
        on_sync: Callable[[], None],
        on_relock: Callable[[], None] = lambda: None,
        planned_by: ProcessDisk | None = None,
    ) -> None:
        """Makes one process's view of a machine's disk.

        Args:
            disk: The machine's.
            process: Whose it is.
            on_stop: Called where a planned fault stops the process in an operation.
            on_sync: Called before each operation that waits for the platter.
            on_relock: Called where it locks another file than before: one that was made again.
            planned_by: Whose planned faults strike here, where it has none of its own.
        """
        self._disk, self._process = disk, process
        self._on_stop, self._on_sync, self._on_relock = on_stop, on_sync, on_relock
        self._planned_by = planned_by
        self.operations = 0
        self._reads = 0
        self._faults: dict[int, Fault] = {}
        self._read_fault = 0
        self._locks: list[DirectoryLock] = []
        self.locked_files: list[SimFile] = []

    # -- faults --------------------------------------------------------------------------------

    def plan(self, ahead: int, fault: Fault) -> None:
        """Makes the `ahead`-th operation from now go wrong; 1 is the next."""
        self._faults[self.operations + ahead] = fault

    def plan_read_error(self, ahead: int) -> None:
        """Makes the `ahead`-th read from now fail."""
        self._read_fault = self._reads + ahead

    def forget_plans(self) -> None:
        """Nothing planned goes wrong any more."""
        self._faults.clear()
        self._read_fault = 0

    def fault_of(self, what: str, path: str) -> Fault | None:
        """Counts an operation; returns what goes wrong with it."""
        plans = self._planned_by or self
        plans.operations += 1
        fault = plans._faults.pop(plans.operations, None)  # noqa: SLF001 - of this class
        if fault is not None and not fault.error:
            self._on_stop()
        return fault

    def read_fails(self) -> bool:
        self._reads += 1
        return self._reads == self._read_fault

    def end(self) -> None:
        """The process is gone, and its locks with it."""
        for lock in self._locks:
            lock.release()
        self._locks.clear()
        for file in self.locked_files:
            file.close()
        self.locked_files.clear()

    def _as_user(self) -> SimDisk:
        if not self._process.alive:
            raise ProcessEnded
        self._disk.user = self
        return self._disk

    # -- ports.Disk ------------------------------------------------------------------------------

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        file = self._as_user().open(path, write=write, create=create)
        return _ProcessFile(file, self)

    def exists(self, path: str) -> bool:
        return self._as_user().exists(path)

    def listdir(self, path: str) -> list[str]:
        return self._as_user().listdir(path)

    def mkdir(self, path: str) -> None:
        self._as_user().mkdir(path)

    def rename(self, old: str, new: str) -> None:
        self._as_user().rename(old, new)

    def link(self, old: str, new: str) -> None:
        self._as_user().link(old, new)

    def identity(self, path: str) -> str:
        return self._as_user().identity(path)

    def same_file(self, one: str, other: str) -> bool:
        return self._as_user().same_file(one, other)

    def unlink(self, path: str) -> None:
        self._as_user().unlink(path)

    def sync_dir(self, path: str) -> None:
        self._on_sync()
        self._as_user().sync_dir(path)

    def free_bytes(self, path: str) -> int:
        return self._as_user().free_bytes(path)

    def file_bytes_max(self) -> int:
        return self._as_user().file_bytes_max()

    def lock(self, path: str) -> DirectoryLock | None:
        lock = self._as_user().lock(path)
        if lock is not None:
            if any(lock.identity() != former.identity() for former in self._locks):
                self._on_relock()
            self._locks.append(lock)
        return lock


class _ProcessFile:
    """`ports.File` for one process."""

    __slots__ = ("_file", "_owner")

    def __init__(self, file: SimFile, owner: ProcessDisk) -> None:
        self._file, self._owner = file, owner

    def _as_user(self) -> SimFile:
        self._owner._as_user()  # noqa: SLF001 - one thing in two classes
        return self._file

    def pread(self, size: int, offset: int) -> bytes:
        return self._as_user().pread(size, offset)

    def pwrite(self, data: bytes, offset: int) -> None:
        self._as_user().pwrite(data, offset)

    def pwrite_durable(self, data: bytes, offset: int) -> None:
        self._owner._on_sync()  # noqa: SLF001
        self._as_user().pwrite_durable(data, offset)

    def sync(self) -> None:
        self._owner._on_sync()  # noqa: SLF001
        self._as_user().sync()

    def size(self) -> int:
        return self._as_user().size()

    def identity(self) -> str:
        return self._as_user().identity()

    def is_kept(self, size: int) -> bool:
        return self._as_user().is_kept(size)

    def lock(self) -> bool:
        is_ours = self._as_user().lock()
        if is_ours:
            self._owner.locked_files.append(self._file)
        return is_ours

    def truncate(self, size: int) -> None:
        self._as_user().truncate(size)

    def close(self) -> None:
        self._file.close()


def file_of(file: File, owner: ProcessDisk) -> File:
    """Returns a file of one process as another one has it that was handed the descriptor."""
    assert isinstance(file, _ProcessFile)
    return _ProcessFile(file._file, owner)  # noqa: SLF001
