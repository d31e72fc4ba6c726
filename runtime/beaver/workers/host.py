"""What a pool asks of the machine: to start a zygote, and to kill what a dead one has left.

The pool and the zygote's end at the server (`pool`, `zygote_process`) know processes through
this alone, so that they run over simulated ones as well.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

import msgspec

from beaver.system.kinship import GENERATION_VARIABLE, STORE_VARIABLE
from beaver.workers import leftovers, wire


def _named_directory() -> str | None:
    """Returns the working directory by the name under which a shell knows it, if one does."""
    name = os.environ.get("PWD", "")
    try:
        known = Path(name).is_absolute() and Path(name).samefile(".")
    except OSError:
        return None
    return name if known else None


_HOME: Final = _named_directory()
"""Where this program was started.  By its name: where that is a link to the current release of
an application, a later zygote is to import from the release that it leads to by then."""


class Child(Protocol):
    """A process that was started, as `subprocess.Popen` shows it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...

    def wait(self) -> int: ...


class Host(Protocol):
    """The machine under a pool."""

    def new_generation(self) -> str:
        """Returns a name for a zygote and all below it, which no other has."""
        ...

    def start_zygote(
        self, config: wire.WorkerConfig, control: socket.socket, mark: str, generation: str
    ) -> Child:
        """Starts a zygote that speaks with the server over `control`, its end of a stream."""
        ...

    def kill_leftovers(self, mark: str) -> int:
        """Kills what dead servers of a store have left; see `leftovers.kill_leftovers`."""
        ...

    async def kill_generation(self, mark: str, generation: str, wait_s: float) -> None:
        """Kills what a dead zygote has left; see `leftovers.kill_generation`."""
        ...


class RealHost:
    """The machine that this process runs on."""

    def new_generation(self) -> str:
        generation = os.urandom(8).hex()
        leftovers.spare(generation)
        return generation

    def start_zygote(
        self, config: wire.WorkerConfig, control: socket.socket, mark: str, generation: str
    ) -> Child:
        """The calling thread must outlive it: PDEATHSIG is tied to threads."""
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "beaver.workers.zygote",
                msgspec.json.encode(config).decode(),
                str(control.fileno()),
                str(os.getpid()),
            ],
            env={**os.environ, STORE_VARIABLE: mark, GENERATION_VARIABLE: generation},
            stdin=subprocess.DEVNULL,
            cwd=_HOME if _HOME is not None and Path(_HOME).is_dir() else None,
            pass_fds=(control.fileno(),),
            start_new_session=True,
        )

    def kill_leftovers(self, mark: str) -> int:
        return leftovers.kill_leftovers(mark)

    async def kill_generation(self, mark: str, generation: str, wait_s: float) -> None:
        await leftovers.kill_generation(mark, generation, wait_s)


REAL: Final = RealHost()
