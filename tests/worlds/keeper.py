"""Keepers for tests: found by their files, awaited, and ended when a test is over."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from beaver.client.blocking import find
from beaver.transport import endpoint
from tests.support.program import environment, eventually

SHARED = {"BEAVER_KEEPER_IDLE": "60s"}


def keeper_pid(data: Path) -> int:
    """Returns the pid of the keeper that answers, or 0."""
    found = find(data) if data.exists() else None
    if found is None:
        return 0
    with found:
        return found.greeting.pid if found.greeting.keeper else 0


def start_keeper(data: Path, idle: str = "60s") -> int:
    """Has a keeper started as producers do it; returns its pid, also where it has ended since."""
    from beaver.config.layers import load_config
    from beaver.holder import starting

    data.mkdir(mode=0o700, exist_ok=True)
    assert starting.start(load_config({"data": str(data)}, environ={"BEAVER_KEEPER_IDLE": idle}))
    return int((data / "LOCK").read_text())


def is_alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def ended(pid: int, within_s: float = 30.0) -> None:
    """Waits for the end of a process."""
    eventually(lambda: not is_alive(pid), f"process {pid} has ended", within_s)


@contextlib.contextmanager
def no_keeper_left(data: Path) -> Iterator[None]:
    """Ends the keeper that a test leaves, whose pid `server.json` has."""
    try:
        yield
    finally:
        info = endpoint.read(str(data)) if data.exists() else None
        if info is not None and info.keeper and is_alive(info.pid):
            os.kill(info.pid, signal.SIGKILL)
            ended(info.pid)


def python(
    code: str,
    *arguments: str,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    **env: str,
) -> subprocess.Popen[str]:
    """Starts a program that imports Beaver."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=stdout,
        stderr=stderr,
        text=True,
        env=environment(**(SHARED | env)),
    )


MANY = """
import sys
from beaver import Beaver
app = Beaver(sys.argv[1])
for n in range(int(sys.argv[3])):
    print(app.enqueue("echo", n, id=f"{sys.argv[2]}-{n}").seq, flush=True)
"""
