"""Finding and killing what an earlier server of the same store left running.

A server that was killed takes its zygote and workers with it; a subprocess of a job may
survive when the zygote was killed in the same moment.  Everything below a zygote carries
the store's mark in its environment, so the next start finds it.  It must do so before it
reads the slots and logs BOOT: only then can no attempt start or go on behind its back.

The mark names the store and its data directory, so that the server of a copy kills nothing
of the original.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from typing import Final

from beaver.system.kinship import (
    GENERATION_VARIABLE,
    STORE_VARIABLE,
    environment_of,
    identity_of,
    kill_group,
)

_WAIT_S: Final = 10.0
_PAUSE_S: Final = 0.002

_log: Final = logging.getLogger("beaver.workers")

_own_generations: set[bytes] = set()


def spare(generation: str) -> None:
    """Notes a generation of this process's own, which is no leftover."""
    _own_generations.add(f"{GENERATION_VARIABLE}={generation}".encode())


def find_leftovers(mark: str, *, only: str | None = None) -> list[int]:
    """Returns the pids of live processes that belong to a store.

    Args:
        mark: The store's mark, as its zygotes carry it.
        only: The one generation that is looked for instead, be it one of our own.  Without
            it all of the store are, our own excepted.

    Zombies are not listed: they run no code.  Linux only; elsewhere nothing is found.
    """
    if only is not None:
        wanted, spared = f"{GENERATION_VARIABLE}={only}".encode(), set[bytes]()
    else:
        wanted, spared = f"{STORE_VARIABLE}={mark}".encode(), _own_generations
    found = []
    for pid in _pids():
        environment = environment_of(pid)
        if wanted in environment and spared.isdisjoint(environment):
            found.append(pid)
    return found


class Hunt:
    """Kills processes of a store.  `step` is called until it says that all are gone.

    Each step looks anew, so a process that was forked between a look and its kill is met by
    the next one.  A process that is ending loses its environment before its descriptors, so
    those that were found are watched until they are reaped, or zombies.
    """

    def __init__(self, mark: str, *, only: str | None = None) -> None:
        self.killed: dict[int, str] = {}
        """Pids of those that were found, each with what tells it from a later process."""
        self._mark = mark
        self._only = only

    def step(self) -> bool:
        """Looks and kills; true once there is nothing left to wait for."""
        found = {pid: identity_of(pid) for pid in find_leftovers(self._mark, only=self._only)}
        # All are named before one is killed: the death of a zygote ends its workers.
        self.killed |= {pid: identity for pid, identity in found.items() if identity is not None}
        for pid, identity in found.items():
            if identity is not None and identity_of(pid) == identity:
                kill_marked(pid)
        return not self.remaining()

    def remaining(self) -> list[int]:
        """Returns the pids of those that are not gone yet."""
        return [pid for pid, identity in self.killed.items() if identity_of(pid) == identity]


def kill_leftovers(mark: str, *, wait_s: float = _WAIT_S) -> int:
    """Kills what is left of earlier servers of a store; returns how many, once they are gone.

    Raises:
        TimeoutError: Some are still there after `wait_s` (in an uninterruptible call).
    """
    hunt = Hunt(mark)
    deadline_s = time.monotonic() + wait_s
    while not hunt.step():
        if time.monotonic() > deadline_s:
            raise TimeoutError(
                f"processes {hunt.remaining()} of a dead server of this store cannot be "
                "killed; they hang in the kernel (a dead mount?)"
            )
        time.sleep(_PAUSE_S)
    return len(hunt.killed)


async def kill_generation(mark: str, generation: str, wait_s: float) -> None:
    """Kills whatever still carries a dead zygote's mark; returns once it is gone, or hangs.

    In a thread: it looks at every process of the machine, and a server that reloads has
    others to serve.
    """
    hunt = Hunt(mark, only=generation)
    deadline_s = time.monotonic() + wait_s
    while not await asyncio.to_thread(hunt.step):
        if time.monotonic() > deadline_s:
            _log.error("processes %s hang in the kernel", hunt.remaining())
            return
        await asyncio.sleep(_PAUSE_S)


def kill_marked(pid: int) -> None:
    """Kills a marked process, and its whole group where it leads one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid and pid != os.getpgrp():
            kill_group(pid)
        os.kill(pid, signal.SIGKILL)


def _pids() -> list[int]:
    try:
        names = os.listdir("/proc")  # noqa: PTH208 -- only names are wanted, many of them
    except OSError:
        return []
    own = os.getpid()
    return [int(name) for name in names if name.isdigit() and int(name) != own]
