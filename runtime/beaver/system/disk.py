"""The real disk: `ports.Disk` on system calls.

What lives here: one call each, with the durability that the port promises.  What may not:
retries.  After a failed sync the kernel may call the pages clean and drop them, so the
next sync would report success for data that is gone; after this error the process must end.

Files are made 0600 and directories 0700, and no descriptor is inherited by a program that
we start.  On Linux a durable write is one `pwritev2` with `RWF_DSYNC`; where kernel or file
system refuse the flag it is a write and `fdatasync`, on macOS a write and `F_FULLFSYNC`
(its `fsync` leaves data in the drive's cache).
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import struct
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Final

from beaver.errors import NO_ROOM
from beaver.system.ownership import refuse_foreign_directory
from beaver.system.regular import open_regular

_RWF_DSYNC: Final[int] = getattr(os, "RWF_DSYNC", 0)
_FULL_SYNC: Final[int] = getattr(fcntl, "F_FULLFSYNC", 0)
_REFUSED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS})


def _full_sync(descriptor: int) -> None:
    fcntl.fcntl(descriptor, _FULL_SYNC)


_sync: Final[Callable[[int], object]] = (
    _full_sync if _FULL_SYNC else getattr(os, "fdatasync", os.fsync)
)


_LOCK_BYTES_MAX: Final = 64
"""More bytes than a pid takes: a longer file was not made as a lock file."""


_AT_EMPTY_PATH: Final = 0x1000
_STATX_NLINK_AND_SIZE: Final = 0x4 | 0x200
_STATX_BYTES: Final = 256
_STATX: Final = struct.Struct("=16xI20xQ")
"""`stx_nlink` and `stx_size` of Linux's `struct statx`."""


@cache
def _statx() -> Callable[..., int] | None:
    """Returns `statx`, which tells links and size of an open file without asking for its times.

    `fstat` asks for them.  Where the kernel has multigrain timestamps (Linux 6.13 and later),
    the next write then has to give the file a new time, which dirties its inode: a durable
    write behind each `fstat` takes half as long again.
    """
    if sys.platform != "linux":
        return None
    import ctypes  # here, since of all that has a disk only what commits needs it

    statx: Callable[..., int] | None = getattr(ctypes.CDLL(None), "statx", None)
    return statx


def _looking_at(descriptor: int) -> Callable[[], tuple[int, int]]:
    """Returns what tells links and size of an open file, for one thread.

    It stands between each sync and its answer: what it hands to the kernel is made once.
    """
    statx = _statx()
    if statx is None:
        return partial(_look_with_fstat, descriptor)
    import ctypes

    room = (ctypes.c_char * _STATX_BYTES)()
    asked = (
        ctypes.c_int(descriptor),
        ctypes.c_char_p(b""),
        ctypes.c_int(_AT_EMPTY_PATH),
        ctypes.c_uint(_STATX_NLINK_AND_SIZE),
        room,
    )
    unpack = _STATX.unpack_from

    def look() -> tuple[int, int]:
        if statx(*asked):
            return _look_with_fstat(descriptor)  # also where a sandbox refuses it
        links, size = unpack(room)
        return links, size

    return look


def _look_with_fstat(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_nlink, found.st_size


def _identity(found: os.stat_result) -> str:
    return f"{found.st_dev:016x}:{found.st_ino:016x}"


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    written = os.pwrite(descriptor, data, offset)
    if written != len(data):
        raise _short(written, len(data), offset)


def _short(written: int, wanted: int, offset: int) -> OSError:
    return OSError(errno.EIO, f"short write: {written} of {wanted} bytes at offset {offset}")


class SystemFile:
    """`ports.File` on a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._dsync = _RWF_DSYNC
        self._look: Callable[[], tuple[int, int]] | None = None

    def fileno(self) -> int:
        """The descriptor, for a writer process that shares the file."""
        return self._descriptor

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        # One call may give less than there is (it is cut at 2 GiB, and by signals on some
        # file systems); only an empty answer is the end of the file.
        parts = [data]
        read = len(data)
        while read < size:
            data = os.pread(self._descriptor, size - read, offset + read)
            if not data:
                break
            parts.append(data)
            read += len(data)
        return b"".join(parts)

    def pwrite(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        while written != len(data):
            # A disk that fills up takes what there is room for; the next call tells why, or
            # goes on where others have made room meanwhile.
            more = os.pwrite(self._descriptor, data[written:], offset + written)
            if not more:
                raise _short(written, len(data), offset)
            written += more

    def pwrite_durable(self, data: bytes, offset: int) -> None:
        if self._dsync:
            try:
                written = os.pwritev(self._descriptor, (data,), offset, self._dsync)
            except OSError as error:
                # The flag is refused before anything is written.
                if error.errno not in _REFUSED:
                    raise
                self._dsync = 0
            else:
                if written != len(data):
                    raise _short(written, len(data), offset)
                return
        _write_all(self._descriptor, data, offset)
        _sync(self._descriptor)

    def sync(self) -> None:
        _sync(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def identity(self) -> str:
        return _identity(os.fstat(self._descriptor))

    def is_kept(self, size: int) -> bool:
        look = self._look or self._begin_looking()
        links, found = look()
        return links > 0 and found >= size

    def _begin_looking(self) -> Callable[[], tuple[int, int]]:
        self._look = look = _looking_at(self._descriptor)
        return look

    def lock(self) -> bool:
        return _try_flock(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._look = None
            os.close(descriptor)


class SystemLock:
    """A held `flock`; the kernel drops it when the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor, for a writer process that holds the lock with us."""
        return self._descriptor

    def identity(self) -> str:
        return _identity(os.fstat(self._descriptor))

    def release(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)


def _sync_directory(descriptor: int) -> None:
    # A directory has no data of its own to tell apart: whole fsync, everywhere.
    if _FULL_SYNC and sys.platform == "darwin":
        _full_sync(descriptor)
    else:
        os.fsync(descriptor)


class SystemDisk:
    """`ports.Disk` on the machine's file systems."""

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        """Directories that are open all the time."""

    def keep(self, *paths: str) -> None:
        """Keeps directories open, so that syncing their names needs no descriptor."""
        for path in paths:
            former = self._kept.pop(path, None)
            if former is not None:
                os.close(former)
            self._kept[path] = _open_directory(path)

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SystemFile:
        flags = os.O_RDWR if write or create else os.O_RDONLY
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        return SystemFile(open_regular(path, flags))

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))  # noqa: PTH208 - names, not paths

    def mkdir(self, path: str) -> None:
        try:
            Path(path).mkdir(mode=0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                why = "it is no directory; links are not followed"
                raise NotADirectoryError(errno.ENOTDIR, why, path) from None

    def rename(self, old: str, new: str) -> None:
        Path(old).replace(new)

    def link(self, old: str, new: str) -> None:
        Path(new).hardlink_to(old)

    def identity(self, path: str) -> str:
        return _identity(os.stat(path))  # noqa: PTH116 - Path.stat says no more

    def same_file(self, one: str, other: str) -> bool:
        try:
            return Path(one).samefile(other)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def unlink(self, path: str) -> None:
        Path(path).unlink()

    def sync_dir(self, path: str) -> None:
        kept = self._kept.get(path)
        if kept is not None and os.path.samestat(os.fstat(kept), Path(path).stat()):
            _sync_directory(kept)
            return
        descriptor = _open_directory(path)
        try:
            _sync_directory(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, path: str) -> int:
        figures = os.statvfs(path)
        return figures.f_bavail * figures.f_frsize

    def file_bytes_max(self) -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft

    def lock(self, path: str) -> SystemLock | None:
        refuse_foreign_directory(os.path.dirname(path) or ".")  # noqa: PTH120 - a string
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            is_ours = _try_flock(descriptor)
            is_lock = os.fstat(descriptor).st_size <= _LOCK_BYTES_MAX
        except BaseException:
            os.close(descriptor)
            raise
        if not is_ours or not is_lock:
            os.close(descriptor)
            if is_lock:
                return None
            raise OSError(errno.EEXIST, "it is no lock file, and is left as it is", path)
        # For processes that find the lock held.  Not synced: it matters only while we live.
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            # A full disk has no room for a pid; the lock is held all the same.
            if error.errno not in NO_ROOM:
                os.close(descriptor)
                raise
        return SystemLock(descriptor)
