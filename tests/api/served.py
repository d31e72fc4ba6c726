"""The real server as a process, for tests that talk to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from beaver.transport import endpoint

APP = """
import time
from pathlib import Path
from beaver import Beaver, Cancel, Dead, JobContext

app = Beaver("data")


@app.job(max_attempts=2, backoff="0s")
def add(a: int, b: int = 0) -> int:
    return a + b


@app.job(queue="families")
def parent(ctx: JobContext, children: int) -> list[str]:
    return [ctx.enqueue(add, n, b=n) for n in range(children)]


@app.job(queue="families")
async def aparent(ctx: JobContext, children: int) -> list[str]:
    return [ctx.enqueue(add.options(priority=1), n) for n in range(children)]


@app.job(max_attempts=1)
def bad(word: str) -> None:
    raise ValueError(word)


@app.job
def hopeless() -> None:
    raise Dead("no use")


@app.job
def unwanted(reason: str) -> None:
    raise Cancel(reason)


@app.job
def sleep(seconds: float) -> str:
    Path("sleeping").touch()
    time.sleep(seconds)
    return "slept"


if __name__ == "__main__":
    raise SystemExit(app.run_worker(workers=1, http="off", grace="1s"))
"""

WAIT_S = 30.0

TIED = """
import os, signal, sys
from beaver.system.kinship import die_with_parent

die_with_parent(int(sys.argv[1]), signal.SIGKILL)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Becomes another program that dies with the tests, however those end."""


class ServerProcess:
    """`beaver run` in a directory of its own; started by `start`, in its own session."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = str(directory / "data")
        (directory / "served_app.py").write_text(APP)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str] | None = None) -> ServerProcess:
        """Starts it and waits until it says where it listens."""
        command = command or [
            *("-m", "beaver", "run", "-A", "served_app:app", "--workers", "2"),
            *("--http", "off", "--grace", "1s", "--data", self.data),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TIED, str(os.getpid()), *command],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + WAIT_S
        while (reached := endpoint.reach(self.data) if Path(self.data).exists() else None) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                assert self.process.stderr is not None
                raise AssertionError(self.process.stderr.read().decode())
            time.sleep(0.01)
        reached[0].close()
        assert reached[1].pid == self.process.pid
        return self

    def kill(self) -> None:
        """As `kill -9` and power to the process alone: its workers must end by themselves."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ends it cleanly; returns its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        os.kill(process.pid, number)
        code = process.wait(WAIT_S)
        assert process.stderr is not None
        process.stderr.close()
        return code
