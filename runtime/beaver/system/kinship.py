"""Ties between parent and child processes: who dies with whom.

Three ties hold a worker, since each alone has a hole:

1. PDEATHSIG kills it when the zygote dies.  (It is set by the child, so the parent may be
   dead already: the parent is checked afterwards.)
2. The zygote watches its socket to the server and kills every worker's process group when
   it ends: a worker's own subprocesses get no PDEATHSIG.
3. Every process carries the mark of the store and the zygote's generation in its
   environment, so that the next start finds what survived both (`leftovers`).

On Linux the zygote is also the subreaper of everything below it: a process that left its
worker's group is handed to the zygote when its parent dies, which can then reap it.
Elsewhere the first tie and the subreaper are missing, and the second holds alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_PR_SET_CHILD_SUBREAPER: Final = 36
_IS_LINUX: Final = sys.platform == "linux"

STORE_VARIABLE: Final = "BEAVER_STORE"
"""Environment variable with the mark of whatever a server started: see `store_mark`."""
GENERATION_VARIABLE: Final = "BEAVER_GENERATION"
"""Environment variable that names one zygote and everything below it."""
WORKER_VARIABLE: Final = "BEAVER_WORKER"
"""Environment variable that names one worker process among those of its zygote."""


def store_mark(store_hex: str, directory: str) -> str:
    """Returns the mark of what a server of this store starts, always of one length.

    Args:
        store_hex: The store's id.
        directory: Identity of its data directory, as `ports.Disk.identity` gives it.  The
            copy of a store has the same id: whoever serves the copy must not take the
            processes of the original for its own.
    """
    return f"{store_hex}@{directory}"


UNMARKED: Final = store_mark("0" * 32, f"{0:016x}:{0:016x}")
"""The mark of a zygote that starts before it is known whose it is."""


class Label:
    """The mark of this process in the block of memory that `/proc/PID/environ` shows.

    A zygote starts before its server holds the lock, and only then is it certain which
    store it serves: the store may not exist yet, or another process may just make it.  So
    the mark can be written again.  What is forked later inherits the new one, and what is
    exec'd gets it from `os.environ`.
    """

    def __init__(self) -> None:
        """Finds the mark's place.  Call it before the application can change the environment."""
        self._address: int | None = None
        if _IS_LINUX:
            getenv = ctypes.CDLL(None).getenv
            getenv.restype, getenv.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
            self._address = getenv(STORE_VARIABLE.encode())

    def write(self, mark: str) -> None:
        """Replaces the mark that this process was exec'd with, which is as long."""
        if self._address is not None:
            assert len(mark) == len(UNMARKED), "it is written over the old one"
            ctypes.memmove(self._address, mark.encode(), len(mark))
        os.environ[STORE_VARIABLE] = mark


def _prctl(option: int, value: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(parent_pid: int, signum: signal.Signals) -> None:
    """Makes the kernel send `signum` to this process when its parent dies.

    Ends this process at once where the parent is dead already.  The tie holds to the
    *thread* that made this process, so only a thread that lives on may make one.
    """
    if _IS_LINUX:
        _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent_pid:
        os._exit(1)


def outlive_hangups() -> None:
    """Keeps SIGHUP and SIGQUIT, which are for the server, from ending this process.

    A supervisor may send them to all of its service.  The handlers that do nothing are not
    passed on to programs, as ignored signals would be; an application may set its own.
    """
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)


def become_subreaper() -> None:
    """Makes orphans among the descendants children of this process, where that exists."""
    if _IS_LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Gives this process a short name for `ps` and `top`, where that exists."""
    if _IS_LINUX:
        _prctl(_PR_SET_NAME, name.encode()[:15])


def kill_group(leader: int) -> bool:
    """Kills every process of a group; false where the group is empty.

    The caller knows that the number still means this group: its leader is not reaped yet,
    or a member was seen after that.
    """
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group that holds zombies only
        return False
    return True


def own_children() -> list[int]:
    """Returns the pids of this process's children, those handed to it included.

    Empty where the kernel does not say; the caller treats that as "none known".
    """
    pid = os.getpid()
    try:
        return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]
    except OSError:
        return []


def environment_of(pid: int) -> frozenset[bytes]:
    """Returns the `NAME=value` entries that a process was exec'd with; empty if unknown."""
    try:
        return frozenset(_read(f"/proc/{pid}/environ").split(b"\0"))
    except OSError:
        return frozenset()


def identity_of(pid: int) -> str | None:
    """Returns what tells a running process from a later one of the same number.

    `None` where there is none, or only a zombie: it runs no code and holds no file.
    """
    try:
        fields = _read(f"/proc/{pid}/stat").decode("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, start_time = fields[0], fields[19]
    return None if state in "ZX" else start_time


def _read(path: str) -> bytes:
    return Path(path).read_bytes()
