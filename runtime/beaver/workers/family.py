"""The processes below a zygote, as the kernel shows them: started, killed, reaped, adopted.

`Forked` copies the zygote with the application imported; `Spawned` starts a new program where
forking is not safe.  `zygote.Zygote` knows processes through `Family` alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import msgspec

from beaver.system import kinship
from beaver.task.registry import Registry
from beaver.workers import child, wire


class Family(Protocol):
    """The processes of one zygote."""

    def start(self, add: wire.Add, ends: wire.Ends) -> int:
        """Starts a worker and returns its pid.  The descriptors stay the caller's."""
        ...

    def kill(self, pid: int) -> None:
        """Kills a worker that is not reaped yet, with its group."""
        ...

    def kill_group(self, pid: int) -> None:
        """Kills what is left of the group of a worker that is not reaped yet."""
        ...

    def next_dead(self) -> tuple[int, str] | None:
        """Returns a dead child that is not reaped yet and how it ended, or `None`."""
        ...

    def reap(self, pid: int) -> None:
        """Reaps a dead child."""
        ...

    def pids(self) -> list[int]:
        """Returns all children, those that were handed to the subreaper too."""
        ...

    def belongs(self, pid: int, leader: int, birth: int) -> bool | None:
        """Tells whether an orphan is of a worker; `None` where that is not known yet."""
        ...

    def kill_orphan(self, pid: int) -> None:
        """Kills an orphan, and the group that it leads."""
        ...

    def now_s(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class _Children(ABC):
    """What forked and spawned workers have in common."""

    @abstractmethod
    def start(self, add: wire.Add, ends: wire.Ends) -> int: ...

    def kill(self, pid: int) -> None:
        kinship.kill_group(pid)
        with contextlib.suppress(ProcessLookupError):  # It may not lead a group yet.
            os.kill(pid, signal.SIGKILL)

    def kill_group(self, pid: int) -> None:
        kinship.kill_group(pid)

    def next_dead(self) -> tuple[int, str] | None:
        return _next_dead()

    def reap(self, pid: int) -> None:
        os.waitpid(pid, 0)

    def pids(self) -> list[int]:
        return kinship.own_children()

    def belongs(self, pid: int, leader: int, birth: int) -> bool | None:
        return _belongs(pid, leader, birth)

    def kill_orphan(self, pid: int) -> None:
        # It is our child, so the number is its own.
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                kinship.kill_group(pid)
            os.kill(pid, signal.SIGKILL)

    def now_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Forked(_Children):
    """Workers that are copies of the zygote."""

    def __init__(
        self, config: wire.WorkerConfig, registry: Registry, leave: Callable[[], None]
    ) -> None:
        """Has no child yet.

        Args:
            config: What a worker has to know.
            registry: The application.
            leave: Closes, in a worker, what belongs to the zygote.
        """
        self._config, self._registry, self._leave = config, registry, leave

    def start(self, add: wire.Add, ends: wire.Ends) -> int:
        zygote_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._leave()
            child.run_forked(self._config, self._registry, add, ends, zygote_pid)
        return pid


class Spawned(_Children):
    """Workers that import the application themselves."""

    def __init__(self, config: wire.WorkerConfig) -> None:
        """Has no child yet."""
        self._config = config
        self._handles: dict[int, subprocess.Popen[bytes]] = {}
        """Told of the exit, so that they do not warn."""

    def start(self, add: wire.Add, ends: wire.Ends) -> int:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "beaver.workers.child",
                msgspec.json.encode(self._config).decode(),
                msgspec.json.encode(add).decode(),
                *map(str, ends),
                str(os.getpid()),
            ],
            env={**os.environ, kinship.WORKER_VARIABLE: str(add.birth)},
            stdin=subprocess.DEVNULL,
            pass_fds=ends,
            start_new_session=True,
        )
        self._handles[process.pid] = process
        return process.pid

    def reap(self, pid: int) -> None:
        super().reap(pid)
        # Only now may the handle go: it would reap the child itself.
        process = self._handles.pop(pid, None)
        if process is not None:
            process.returncode = 0


def _next_dead() -> tuple[int, str] | None:
    """Returns a dead child that is not reaped yet and how it ended, or `None`."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return info.si_pid, f"exited with {info.si_status}"
    try:
        name = f" ({signal.Signals(info.si_status).name})"
    except ValueError:
        name = ""
    return info.si_pid, f"killed by signal {info.si_status}{name}"


def _belongs(pid: int, leader: int, birth: int) -> bool | None:
    """True for an orphan that was in a worker's group, or has left it but carries its mark.

    `None` where its environment is empty: so it is in the middle of an exec.
    """
    try:
        if os.getpgid(pid) == leader:
            return True
    except ProcessLookupError:
        return False
    mark = f"{kinship.WORKER_VARIABLE}={birth}".encode()
    environment = kinship.environment_of(pid)
    if environment <= {b""} and kinship.identity_of(pid) is not None:
        return None
    return mark in environment
