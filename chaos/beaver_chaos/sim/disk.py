"""A simulated disk: `ports.Disk` with a page cache and a platter that loses whatever it may.

What lives here: the simulated machine's files, what a crash does to them, and faults that
can be planned.  It is as unkind as POSIX allows, which is unkinder than ext4 and XFS are:

- A write goes to the page cache.  Until a sync it is on the platter in any subset of its
  blocks, in any order; so is the size of the file.
- A name (made, renamed, linked, removed) is on the platter once its directory was synced.
  Until then a crash keeps any subset of these changes; each of them whole.
- A failed sync loses: the pages count as clean from then on, so a later sync writes nothing
  of them, reads still give them, and a crash or an eviction brings back the platter's.
- Only whole blocks tear.  That a block is written whole or not at all is what disks promise
  and the log relies on.

`crash` is a power cut, `kill` the end of the process alone, behind which the page cache
lives on.  Every choice is asked of a chooser, so a seed or Hypothesis owns them all.
"""

from __future__ import annotations

import errno
import sys
from collections import deque
from typing import Final, NamedTuple

from beaver_chaos.sim.names import Bindings, Directory, Names, identity, os_error
from beaver_chaos.sim.platter import BLOCK_BYTES, Chooser, Inode

_TRACE_MAX: Final = 200


class Stopped(BaseException):
    """The process was stopped inside a disk operation; `crash` or `kill` comes next."""


class Fault(NamedTuple):
    """A fault of one operation."""

    error: int = 0
    """Errno that it raises; 0 stops the process there instead."""
    done_bytes: int = 0
    """For writes: how many bytes reach the page cache all the same; -1 for all of them."""
    done: bool = False
    """For changes of names, and for syncs that stop: it takes effect all the same."""


class SimFile:
    """`ports.File` on a simulated file."""

    def __init__(self, disk: SimDisk, inode: Inode, path: str, *, writable: bool) -> None:
        self._disk = disk
        self._inode = inode
        self._path = path
        self._writable = writable
        self._life = disk.life
        self._lock: SimLock | None = None

    def pread(self, size: int, offset: int) -> bytes:
        self._refuse_stale()
        self._disk.reading(self._path)
        return bytes(self._inode.cache[offset : offset + size])

    def pwrite(self, data: bytes, offset: int) -> None:
        self._refuse_stale(writing=True)
        self._disk.written(self._path, self._inode, data, offset)

    def pwrite_durable(self, data: bytes, offset: int) -> None:
        self._refuse_stale(writing=True)
        self._disk.written_durably(self._path, self._inode, data, offset)

    def sync(self) -> None:
        self._refuse_stale()
        self._disk.synced(self._path, self._inode)

    def size(self) -> int:
        self._refuse_stale()
        return len(self._inode.cache)

    def identity(self) -> str:
        self._refuse_stale()
        return identity(self._inode)

    def is_kept(self, size: int) -> bool:
        self._refuse_stale()
        return self._disk.names.has(self._inode) and len(self._inode.cache) >= size

    def lock(self) -> bool:
        self._refuse_stale()
        if self._lock is None:
            self._lock = self._disk.locked(self._inode)
        return self._lock is not None

    def truncate(self, size: int) -> None:
        self._refuse_stale(writing=True)
        self._disk.truncated(self._path, self._inode, size)

    def close(self) -> None:
        self._life = -1
        if self._lock is not None:
            self._lock.release()

    def _refuse_stale(self, *, writing: bool = False) -> None:
        if self._life != self._disk.life or (writing and not self._writable):
            raise os_error(errno.EBADF, self._path)


class SimLock:
    """A held lock, which ends with the process."""

    def __init__(self, held: set[int], inode: Inode) -> None:
        self._held, self._inode = held, inode
        self._is_held = True
        held.add(inode.number)

    def fileno(self) -> int:
        raise NotImplementedError("the writer of a simulated machine needs none")

    def identity(self) -> str:
        return identity(self._inode)

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._held.discard(self._inode.number)


class SimDisk:
    """`ports.Disk` in memory.  All paths that are no file are taken as given."""

    def __init__(self, *directories: str, capacity: int = 1 << 40) -> None:
        """Makes a disk with these directories, durably.

        Args:
            directories: Paths of directories that exist.
            capacity: Bytes that all files together may take.
        """
        self.capacity = capacity
        self.file_limit = sys.maxsize
        """How far into a file may be written (`ulimit -f`)."""
        self.life = 0
        """Counts processes: a descriptor of a dead one is stale."""
        self.operations = 0
        """Operations that change something, so far; faults are planned by their number."""
        self.reads = 0
        self.trace: deque[str] = deque(maxlen=_TRACE_MAX)
        """The last operations, for the message of a failed test."""
        self._faults: dict[int, Fault] = {}
        self._read_faults: dict[int, int] = {}
        self.names = Names(directories)
        self._locks: set[int] = set()
        """Numbers of the locked files: a lock is of the file, not of its name."""

    # -- faults, crashes -------------------------------------------------------------------

    def plan(self, operation: int, fault: Fault) -> None:
        """Makes the operation with that number (from `operations + 1`) go wrong."""
        self._faults[operation] = fault

    def plan_read_error(self, read: int, error: int = errno.EIO) -> None:
        """Makes the read with that number (from `reads + 1`) fail."""
        self._read_faults[read] = error

    def forget_plans(self) -> None:
        """Nothing planned goes wrong any more."""
        self._faults.clear()
        self._read_faults.clear()

    def kill(self) -> None:
        """The process dies: descriptors and locks are gone, the page cache is not."""
        self.life += 1
        self._locks = set()
        self.forget_plans()

    def crash(self, choose: Chooser) -> None:
        """The power goes: of what was not synced, chance decides what is left."""
        self.kill()
        for inode in self.names.inodes():
            inode.settle(choose, inode.dirty | inode.lost)
            inode.reload()
        self.names.crash(choose)

    def evict(self, choose: Chooser) -> None:
        """The kernel drops clean pages: what a failed sync has lost shows now."""
        for inode in self.names.inodes():
            inode.evict(choose)

    def flip(self, path: str, offset: int, bit: int) -> None:
        """Rots one bit, in the cache and on the platter."""
        inode = self.names.inode(path)
        for view in (inode.cache, inode.platter):
            if offset < len(view):
                view[offset] ^= 1 << bit

    def contents(self, path: str) -> bytes:
        """Returns what a reader sees."""
        return bytes(self.names.inode(path).cache)

    def put(self, path: str, data: bytes) -> None:
        """Makes or replaces a file, durably, as if it had always been so."""
        inode = Inode()
        inode.cache, inode.platter = bytearray(data), bytearray(data)
        self.names.put(path, inode)

    def copy(self) -> SimDisk:
        """Returns another disk with the same files, all of them synced; hard links are lost."""
        other = SimDisk(capacity=self.capacity)
        for path, node in self.names:
            if isinstance(node, Inode):
                other.put(path, bytes(node.cache))
            else:
                other.names.put(path, Directory())
        return other

    # -- operations of files -----------------------------------------------------------------

    def reading(self, path: str) -> None:
        """Counts a read; raises where it was to fail."""
        self.reads += 1
        error = self._read_faults.pop(self.reads, 0)
        if error:
            raise os_error(error, path)

    def written(self, path: str, inode: Inode, data: bytes, offset: int) -> None:
        """Writes to the page cache."""
        fault = self._begin("write", path)
        if fault is None:
            self._allocate(path, inode, data, offset)
            inode.write(data, offset)
            return
        inode.write(data[: fault.done_bytes] if fault.done_bytes >= 0 else data, offset)
        raise _outcome(fault, path)

    def written_durably(self, path: str, inode: Inode, data: bytes, offset: int) -> None:
        """Writes, and brings what was written to the platter."""
        fault = self._begin("write durably", path)
        if fault is None:
            self._allocate(path, inode, data, offset)
            inode.write(data, offset)
            if data:
                last = (offset + len(data) - 1) // BLOCK_BYTES
                inode.sync(set(range(offset // BLOCK_BYTES, last + 1)))
            return
        inode.write(data[: fault.done_bytes] if fault.done_bytes >= 0 else data, offset)
        if fault.error:
            inode.fail_sync()
        raise _outcome(fault, path)

    def synced(self, path: str, inode: Inode) -> None:
        """Brings everything of a file to the platter."""
        fault = self._begin("sync", path)
        if fault is None or fault.done:
            inode.sync(set(inode.dirty))
        if fault is not None:
            if fault.error:
                inode.fail_sync()
            raise _outcome(fault, path)

    def truncated(self, path: str, inode: Inode, size: int) -> None:
        """Changes a file's size."""
        fault = self._begin("truncate", path)
        if fault is None or fault.done:
            inode.truncate(size)
        if fault is not None:
            raise _outcome(fault, path)

    # -- ports.Disk ----------------------------------------------------------------------------

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SimFile:
        if create:
            if path in self.names:
                raise os_error(errno.EEXIST, path)
            inode = Inode()
            self._change("create", path, {path: inode})
            return SimFile(self, inode, path, writable=True)
        return SimFile(self, self.names.inode(path), path, writable=write)

    def exists(self, path: str) -> bool:
        return path in self.names

    def listdir(self, path: str) -> list[str]:
        self.names.require_directory(path)
        return self.names.listdir(path)

    def mkdir(self, path: str) -> None:
        node = self.names.get(path)
        if isinstance(node, Inode):
            raise os_error(errno.ENOTDIR, path)
        if node is None:
            self._change("mkdir", path, {path: Directory()})

    def rename(self, old: str, new: str) -> None:
        for path in (old, new):
            self.names.require_directory(path.rpartition("/")[0])
        inode = self.names.inode(old)
        if self.names.get(new) is inode:
            return  # POSIX: two names of one file stay as they are.
        self._change("rename", f"{old} -> {new}", {old: None, new: inode})

    def link(self, old: str, new: str) -> None:
        inode = self.names.inode(old)
        if new in self.names:
            raise os_error(errno.EEXIST, new)
        self._change("link", f"{old} -> {new}", {new: inode})

    def identity(self, path: str) -> str:
        return identity(self.names.node(path))

    def same_file(self, one: str, other: str) -> bool:
        node = self.names.get(one)
        return node is not None and node is self.names.get(other)

    def unlink(self, path: str) -> None:
        self.names.inode(path)
        self._change("unlink", path, {path: None})

    def sync_dir(self, path: str) -> None:
        """Brings the names of a directory to the platter; unknown ones hold none of ours."""
        if isinstance(self.names.get(path), Inode):
            raise os_error(errno.ENOTDIR, path)
        fault = self._begin("sync names", path)
        if fault is None or fault.done:
            self.names.sync(path)
        if fault is not None:
            raise _outcome(fault, path)

    def free_bytes(self, path: str) -> int:
        return max(0, self.capacity - self._used())

    def file_bytes_max(self) -> int:
        return self.file_limit

    def lock(self, path: str) -> SimLock | None:
        if path not in self.names:
            self._change("create", path, {path: Inode()})
        return self.locked(self.names.inode(path))

    def locked(self, inode: Inode) -> SimLock | None:
        """Locks a file; `None` where it is locked."""
        return None if inode.number in self._locks else SimLock(self._locks, inode)

    # -- what they share -------------------------------------------------------------------------

    def _begin(self, what: str, path: str) -> Fault | None:
        self.operations += 1
        fault = self._faults.pop(self.operations, None)
        self.trace.append(f"{self.operations} {what} {path}{' (faulty)' if fault else ''}")
        return fault

    def _change(self, what: str, described: str, bindings: Bindings) -> None:
        for path in bindings:
            self.names.require_directory(path.rpartition("/")[0])
        fault = self._begin(what, described)
        if fault is None or fault.done:
            self.names.change(bindings)
        if fault is not None:
            raise _outcome(fault, described)

    def _allocate(self, path: str, inode: Inode, data: bytes, offset: int) -> None:
        if offset + len(data) > self.file_limit:
            raise os_error(errno.EFBIG, path)
        growth = offset + len(data) - len(inode.cache)
        if growth > 0 and self._used() + growth > self.capacity:
            raise os_error(errno.ENOSPC, path)

    def _used(self) -> int:
        return sum(len(inode.cache) for inode in self.names.inodes())


def _outcome(fault: Fault, path: str) -> BaseException:
    return os_error(fault.error, path) if fault.error else Stopped(path)
