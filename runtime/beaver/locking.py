"""Waiting for the lock on a data directory: one writer at a time, server or not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from beaver.errors import StoreUnavailable
from beaver.layout import Layout
from beaver.ports import DirectoryLock, Disk

LOCK_WAIT_S: Final = 5.0
"""For so long a second writer waits before it gives up."""
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


def acquire(disk: Disk, path: str, wait_s: float = LOCK_WAIT_S) -> DirectoryLock:
    """Returns the lock on the data directory at `path`, which exists.

    Raises:
        StoreUnavailable: Another process held it all the time (named by its pid), or the
            lock file cannot be opened.
    """
    lock_path = Layout(path).lock
    deadline = time.monotonic() + wait_s
    while True:
        try:
            lock = disk.lock(lock_path)
        except OSError as error:
            raise StoreUnavailable(f"cannot lock {lock_path}: {error.strerror}") from error
        if lock is not None:
            return lock
        if time.monotonic() >= deadline:
            raise StoreUnavailable(
                f"{path} is in use by process {holder_of(lock_path)} (waited {wait_s:g} s)\n"
                "Stop that one first, or give another directory with --data."
            )
        time.sleep(_POLL_S)


def holder_of(lock_path: str) -> str:
    """Returns the pid that the lock's holder wrote into it."""
    try:
        return Path(lock_path).read_text(encoding="ascii", errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"
