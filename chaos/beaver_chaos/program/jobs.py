"""The application whose jobs run while faults are injected.

Each attempt says in a file of its own that it begins and that it ends, before the log can
know: the workers' account of what ran.  One line is one `write` to a file opened for
appending, so lines of several processes never mix and their order is that of the writes.
Nothing is synced: the file has to survive killed processes, not a power cut.

A line that does not end as it should was cut by the kill of its writer, whose job has done
nothing yet (or nothing more); it is left out.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from beaver import Beaver, Cancel, Dead, JobContext, Snooze
from beaver_chaos.checker.attempts import RunLine

RUNS_VARIABLE: Final = "CHAOS_RUNS"
"""Environment variable with the path of the workers' account."""

_BEGINS: Final = "begins"
_ENDS: Final = "ends"
_LINE_END: Final = "."

app = Beaver("data")


def read_runs(path: Path) -> list[RunLine]:
    """Returns the workers' account so far, in order."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    fields = (line.split(" ") for line in lines if line.endswith(" " + _LINE_END))
    return [
        RunLine(verb == _ENDS, int(token), int(pid), job) for verb, token, pid, job, _ in fields
    ]


def _tell(verb: str, context: JobContext) -> None:
    path = os.environ.get(RUNS_VARIABLE)
    if path is None:
        return
    # A line feed on both sides keeps a cut line from swallowing its neighbour.
    line = f"\n{verb} {context.token} {os.getpid()} {context.job_id} {_LINE_END}\n"
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


@contextmanager
def _told(context: JobContext) -> Iterator[None]:
    _tell(_BEGINS, context)
    try:
        yield
    finally:
        _tell(_ENDS, context)


@app.job
def work(ctx: JobContext, sleep_ms: float = 0, lines: int = 0, pad: str = "") -> str:
    """Takes a while and prints; gives back what it was given, so results have a size."""
    with _told(ctx):
        for line in range(lines):
            print(f"line {line} of {lines}")  # noqa: T201 - a job that prints
        time.sleep(sleep_ms / 1000)
        return pad


@app.job
def swallow(ctx: JobContext, pad: str) -> int:
    """Takes much and gives back little."""
    with _told(ctx):
        return len(pad)


@app.job
def flaky(ctx: JobContext, fails: int) -> int:
    """Fails its first attempts."""
    with _told(ctx):
        if ctx.attempt <= fails:
            raise ValueError(f"attempt {ctx.attempt} of {fails} that fail")
        return ctx.attempt


@app.job
def steered(ctx: JobContext, how: str) -> None:
    """Asks for another end than success."""
    with _told(ctx):
        if how == "cancel":
            raise Cancel("not wanted")
        if how == "dead":
            raise Dead("hopeless")
        if random.random() < 0.6:  # noqa: S311 - a snooze spends no attempt, so chance ends it
            raise Snooze(0.01)


@app.job
def parent(ctx: JobContext, children: int) -> None:
    """Enqueues jobs with its own success."""
    with _told(ctx):
        for number in range(children):
            ctx.enqueue_json("work", {"sleep_ms": 1}, id=f"{ctx.job_id}/{number}")


@app.job
def overrun(ctx: JobContext, times: int) -> None:
    """Runs over its limit, and is killed for it, in its first attempts."""
    with _told(ctx):
        if ctx.attempt <= times:
            time.sleep(600)


@app.job
def poison(ctx: JobContext, times: int) -> None:
    """Kills its worker in its first attempts."""
    with _told(ctx):
        if ctx.attempt <= times:
            os.kill(os.getpid(), signal.SIGKILL)


@app.job
def litter(ctx: JobContext) -> None:
    """Leaves a process behind in its worker's group."""
    with _told(ctx):
        subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)  # noqa: S607
