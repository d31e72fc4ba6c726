"""Waiting for the lock on a data directory: one writer at a time, server or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from beaver import endpoint
from beaver.errors import StoreUnavailable
from beaver.layout import Layout
from beaver.ports import DirectoryLock, Disk

LOCK_WAIT_S: Final = 5.0
"""For so long a second writer waits before it gives up."""
CHANGING_S: Final = 60.0
"""For so long it waits for a server that is starting or ending."""
_POLL_S: Final = 0.02


def prepare_directory(disk: Disk, path: str) -> None:
    """Makes the data directory and its parents unless they exist.

    Raises:
        StoreUnavailable: The path is a file, or may not be made.
    """
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


def acquire(
    disk: Disk,
    path: str,
    wait_s: float = LOCK_WAIT_S,
    between: Callable[[], object] = lambda: None,
) -> DirectoryLock:
    """Returns the lock on the data directory at `path`, which exists.

    Args:
        disk: Where it lies.
        path: The data directory.
        wait_s: For so long it is tried.
        between: Called between two tries: it may make who has it give it back.

    Raises:
        StoreUnavailable: Another process held it all the time (named by its pid), or the
            lock file cannot be opened.
    """
    deadline = time.monotonic() + wait_s
    while True:
        lock = try_lock(disk, path)
        if lock is not None:
            return lock
        if time.monotonic() >= deadline:
            raise StoreUnavailable(
                f"{path} is in use by {holder_of(path)} (waited {wait_s:g} s)\n"
                "Stop that one first, or give another directory with --data."
            )
        between()
        time.sleep(_POLL_S)


class Patience:
    """Waits for whoever is about to hold a store, or to give it up, for a while.

    Longer where a server says that it starts or ends: what recovers or closes a large store
    gets the time for it.
    """

    def __init__(self, path: str, wait_s: float) -> None:
        self._path, self._wait_s = path, wait_s
        self._began_s = time.monotonic()

    def wait(self) -> None:
        """Waits for a moment.

        Raises:
            StoreUnavailable: It was waited for long enough; the holder is named.
        """
        waited_s = time.monotonic() - self._began_s
        if waited_s >= self._wait_s and (waited_s >= CHANGING_S or not phase_of(self._path)):
            raise StoreUnavailable(
                f"{self._path} is in use by {holder_of(self._path)}, which does not answer "
                f"(waited {waited_s:.0f} s); nothing was changed\n"
                "If that process is starting or stopping, try again."
            )
        time.sleep(_POLL_S)


def try_lock(disk: Disk, path: str) -> DirectoryLock | None:
    """Returns the lock on a data directory, or `None` where somebody holds it.

    Raises:
        StoreUnavailable: The lock file cannot be opened.
    """
    lock_path = Layout(path).lock
    try:
        return disk.lock(lock_path)
    except OSError as error:
        raise StoreUnavailable(f"cannot lock {lock_path}: {error.strerror}") from error


def phase_of(path: str) -> str:
    """Returns `starting` or `ending` where whoever has the lock says so of itself."""
    info = endpoint.read(path)
    return info.phase if info is not None and str(info.pid) == _pid(path) else ""


def holder_of(path: str) -> str:
    """Returns what is known of the process that holds the store at `path`."""
    pid, phase = _pid(path), phase_of(path)
    doing = f", a server that is {phase}" if phase else ""
    if pid.isdecimal() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
        doing = ", which is not to be seen from here"
    return f"process {pid}{doing}"


def _pid(path: str) -> str:
    """Returns the pid that the lock's holder wrote into it."""
    try:
        text = Path(Layout(path).lock).read_text(encoding="ascii", errors="replace")
    except OSError:
        return "unknown"
    return text.strip() or "unknown"
