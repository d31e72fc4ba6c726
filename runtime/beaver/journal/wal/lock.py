"""The locks of a data directory: one writer at a time, server or not.

There are two.  `LOCK` is taken first, and waited for: it stands for the whole directory, also
where there is no log yet.  But people remove lock files, and then the next process locks
another file of that name.  So whoever writes the log has locked that as well.  A lock is
worth something only on the file that its name stands for, so both are compared with their
names once they are taken.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from beaver.errors import StoreUnavailable
from beaver.journal.wal.layout import Layout
from beaver.limits import LIMITS, hint
from beaver.ports import DirectoryLock, Disk, File
from beaver.system.regular import read_regular
from beaver.transport import endpoint

_log: Final = logging.getLogger("beaver")
T = TypeVar("T")

LOCK_WAIT_S: Final = 5.0
"""Seconds that a second writer waits for the lock before it gives up."""
CHANGING_S: Final = 60.0
"""Seconds that a call waits for a server that says that it is starting or ending."""
_POLL_S: Final = 0.02
_PID_BYTES_MAX: Final = 64
_RACES_MAX: Final = 100
"""Times that a file may be replaced between its opening and its locking."""


class Hold:
    """The held lock on a data directory, made again where somebody removes the lock file."""

    def __init__(self, disk: Disk, path: str, lock: DirectoryLock) -> None:
        self._disk, self._path, self._lock = disk, path, lock

    def fileno(self) -> int:
        """The descriptor, for a writer process that holds the lock with us."""
        return self._lock.fileno()

    def identity(self) -> str:
        """See `ports.DirectoryLock`."""
        return self._lock.identity()

    def renew(self) -> bool:
        """Locks the file that has the name now, if it is another one; true where that was so.

        The log is locked as well, so nobody came in meanwhile.  False also where somebody
        holds the new file: that one waits for the log, gives up, and it is ours later.
        """
        try:
            if names(self._disk, self._path, self._lock):
                return False
            again = self._disk.lock(self._path)
        except OSError:
            return False  # A full disk, or no directory: the check of the log tells more.
        if again is None:
            return False
        self._lock.release()
        self._lock = again
        return True

    def release(self) -> None:
        """Gives the lock back."""
        self._lock.release()


def names(disk: Disk, path: str, locked: DirectoryLock | File) -> bool:
    """True where the path still stands for that file."""
    try:
        return disk.identity(path) == locked.identity()
    except (FileNotFoundError, NotADirectoryError):
        return False


def prepare_directory(disk: Disk, path: str) -> None:
    """Makes the data directory and its parents unless they exist.

    Raises:
        StoreUnavailable: The path is a file, too long, or may not be made.
    """
    size = len(os.fsencode(os.path.realpath(path)))
    most = LIMITS["path"].value
    if size > most:
        raise StoreUnavailable(
            f"the path of the data directory {path} has {size} bytes; at most {most} work, since "
            f"its database opens no longer ones; {hint('path')}"
        )
    try:
        missing = []
        parent = Path(path).absolute()
        while not parent.exists():
            missing.append(parent)
            parent = parent.parent
        for directory in reversed(missing):
            disk.mkdir(str(directory))
        if not Path(path).is_dir():
            raise StoreUnavailable(f"{path} is not a directory; give another one with --data")
    except OSError as error:
        raise StoreUnavailable(
            f"cannot make the data directory {path}: {error.strerror}"
        ) from error


def try_lock(disk: Disk, path: str) -> Hold | None:
    """As `try_acquire`.

    Raises:
        StoreUnavailable: The lock file cannot be opened.
    """
    try:
        return try_acquire(disk, path)
    except FileNotFoundError as error:
        raise StoreUnavailable(
            f"the data directory {path} is gone: it was deleted or renamed meanwhile\n"
            "Start again with --data and the directory that is meant."
        ) from error
    except OSError as error:
        where = error.filename or Layout(path).lock
        raise StoreUnavailable(f"cannot lock {where}: {error.strerror}") from error


def try_acquire(disk: Disk, path: str) -> Hold | None:
    """Returns the lock on the data directory at `path`; `None` where another process has it.

    Also where it has but the log, since its `LOCK` was removed.

    Raises:
        OSError: The lock file cannot be opened.
    """
    layout = Layout(path)
    for _ in range(_RACES_MAX):
        lock = disk.lock(layout.lock)
        if lock is None:
            return None
        if not _is_free(disk, layout.log):
            lock.release()
            return None
        if names(disk, layout.lock, lock):
            return Hold(disk, layout.lock, lock)
        lock.release()  # The file was removed between its opening and its locking.
    return None


def lock_log(disk: Disk, path: str) -> File:
    """Opens the log at `path` for writing, and locks it until it is closed.

    Raises:
        BlockingIOError: Another process holds it.
        FileNotFoundError: There is none.
        OSError: It cannot be opened.
    """
    for _ in range(_RACES_MAX):
        file = disk.open(path, write=True)
        try:
            if not file.lock():
                break
            if names(disk, path, file):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # It was sealed since it was opened: another one is the log.
    file.close()
    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path)


def _is_free(disk: Disk, path: str) -> bool:
    """True where nobody holds the log; also where it cannot be opened, which recovery tells."""
    try:
        lock_log(disk, path).close()
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def acquire(
    attempt: Callable[[], T | None],
    path: str,
    wait_s: float = LOCK_WAIT_S,
    between: Callable[[], object] = lambda: None,
) -> T:
    """Returns what is had only by whoever holds the data directory at `path`, which exists.

    Args:
        attempt: Tries once, as `try_lock` does; returns `None` where another process has it.
        path: The data directory.
        wait_s: For so long it is tried.
        between: Called between two tries: it may make who has it give it back.

    Raises:
        StoreUnavailable: Another process held it all the time; it is named by its pid.
    """
    deadline = time.monotonic() + wait_s
    while (held := attempt()) is None:
        if time.monotonic() >= deadline:
            raise StoreUnavailable(
                f"{path} is in use by {holder_of(path)} (waited {wait_s:g} s)\n"
                "Stop it, replace it with `beaver run --takeover`, or give another directory "
                "with --data."
            )
        between()
        time.sleep(_POLL_S)
    return held


class Patience:
    """Waits, during one call, for whoever is about to hold a store, or to give it up.

    The lock is waited for as everywhere.  But a holder that says of itself that it starts or ends
    is a running server: the call goes through it or its successor, and waits for an answer.
    """

    def __init__(
        self,
        path: str,
        wait_s: float = LOCK_WAIT_S,
        *,
        now_s: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._wait_s = path, wait_s
        self._now_s, self._pause = now_s, pause
        self._began_s = now_s()
        self._told = False

    def wait(self) -> None:
        """Waits for a moment.

        Raises:
            StoreUnavailable: It was waited for long enough; the holder is named.
        """
        waited_s = self._now_s() - self._began_s
        if waited_s >= self._wait_s:
            changing = phase_of(self._path)
            if waited_s >= CHANGING_S or not changing:
                raise StoreUnavailable(
                    f"{self._path} is in use by {holder_of(self._path)}, which does not answer "
                    f"(waited {waited_s:.0f} s); nothing was changed\n"
                    "If that process is starting or stopping, try again."
                )
            if not self._told:
                self._told = True
                _log.warning(
                    "%s is held by %s: it is waited for, up to %g s",
                    self._path,
                    holder_of(self._path),
                    CHANGING_S,
                )
        self._pause(_POLL_S)


def phase_of(path: str) -> str:
    """Returns `starting` or `ending` where whoever has the lock says so of itself."""
    pid, phase = endpoint.read_phase(path)
    return phase if pid == _pid(path) else ""


def holder_of(path: str) -> str:
    """Returns what is known of the process that holds the store at `path`."""
    pid, phase = _pid(path), phase_of(path)
    doing = f", a server that is {phase}" if phase else ""
    if pid.isdecimal() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
        doing = ", which is not to be seen from here"
    return f"process {pid}{doing}"


def silent_server(path: str) -> int:
    """Returns the pid of a server that holds the store at `path`, for who could not reach it.

    0 where none does, as far as the kernel tells: a keeper is none, nor is a producer that
    appends.
    """
    pid = _locker(path)
    told, info = endpoint.read_phase(path)[0], endpoint.read(path)
    says_so = told == pid or (info is not None and str(info.pid) == pid)
    return int(pid) if pid and says_so and not (info is not None and info.keeper) else 0


def _pid(path: str) -> str:
    """Returns the pid of the process that holds the data directory at `path`, for a message.

    Where the kernel does not tell, as the holder has written it into `LOCK`.
    """
    if pid := _locker(path):
        return pid
    try:
        text = read_regular(Layout(path).lock, _PID_BYTES_MAX).decode("ascii", "replace").strip()
    except OSError:
        return "unknown"
    return text if text.isdigit() else "unknown"


def _locker(path: str) -> str:
    """Returns the pid of the process that holds the data directory; empty where none is known.

    As the kernel tells it, of the log before `LOCK`: a removed lock file names nobody.  Who
    holds neither may have the turn (`holder.turn`), which is a lock on the directory.
    """
    layout = Layout(path)
    for held in (layout.log, layout.lock, path):
        try:
            found = os.stat(held)  # noqa: PTH116 - Path.stat says no more
            place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
            lines = Path("/proc/locks").read_text().splitlines()
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[1:2] == ["FLOCK"] and fields[5] == place and int(fields[4]) > 0:
                return fields[4]
    return ""
