"""A ladder from a bare server to Beaver: what each part that a promise needs adds to a job.

The pairs stand in `rungs`.  All are measured in one run, in turns, each time with a server of its
own.  `python -m tests.bench.ladder [ROUNDS]` prints the table that stands in
`docs/explanation/performance.md`.

Noise only ever adds time, and so does a server that finds itself on the core which does not take
the disk's interrupts: the best round of each rung counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from beaver.bench.processes import processor_s
from beaver.bench.senders import send_with_processes
from beaver.bench.served import Served, serving
from beaver.bench.subject import BATCH, LoopBudget, Sent
from tests.bench.rungs import ADDS, QUEUE, Rung

_PROGRAM: Final = "tests.bench.rungs"


class Found(NamedTuple):
    """What a job costs on one rung, in microseconds."""

    lone: float
    """From call to return, at the median."""
    crowd: float
    """Between two jobs of eight client processes."""
    crowd_used: float
    """Of the processor, server and clients, for each of these."""
    batch: float
    """For each job of a batch of 100."""


class Sizes(NamedTuple):
    """How much is sent in a round."""

    lone: LoopBudget
    crowd: LoopBudget
    batch: LoopBudget


USUAL: Final = Sizes(LoopBudget(3_000, 3.0), LoopBudget(12_000, 3.0), LoopBudget(40_000, 3.0))


@contextmanager
def running(rung: Rung, directory: str) -> Iterator[tuple[int, str]]:
    """Runs the server of a rung while the block runs; yields its pid and where it is."""
    with tempfile.TemporaryDirectory(prefix="ladder-", dir=directory) as home:
        if rung == Rung.BEAVER:
            with serving(str(Path(home, "data"))) as server, closing(Served(server)) as served:
                served.pause(QUEUE)
                yield server.pid, server.data
            return
        command = [sys.executable, "-m", _PROGRAM, "serve", rung.name, home]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError(f"the server of {rung.name} did not start")
            yield process.pid, str(Path(home, "socket"))
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def measure(rung: Rung, directory: str, sizes: Sizes = USUAL) -> Found:
    """Measures a rung once."""

    def sent(clients: int, batch: int, budget: LoopBudget) -> Sent:
        return send_with_processes(rung.name, where, str(batch), clients, budget, program=_PROGRAM)

    with running(rung, directory) as (pid, where):
        lone = sent(1, 1, sizes.lone)
        before_s = processor_s(pid)
        crowd = sent(8, 1, sizes.crowd)
        used_s = processor_s(pid) - before_s + crowd.used_s
        batch = sent(1, BATCH, sizes.batch)
    middle_s = sorted(lone.times_s)[len(lone.times_s) // 2]
    return Found(middle_s * 1e6, 1e6 / crowd.rate, used_s / crowd.jobs * 1e6, 1e6 / batch.rate)


def table(found: dict[Rung, list[Found]]) -> str:
    """Returns the best round of each rung, and what it adds to the one below, as a page has it."""
    lines = [
        "| each rung does all above it, and | lone | + | 8 processes | + | processor | batch | + |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    below: Found | None = None
    for rung, rounds in found.items():
        best = Found(*map(min, zip(*rounds, strict=True)))
        more = [now - then for now, then in zip(best, below or best, strict=True)]
        lone, crowd, _, batch = (f"{value:+.1f}" if below else "" for value in more)
        lines.append(
            f"| {ADDS[rung]} | {best.lone:.0f} | {lone} | {best.crowd:.0f} | {crowd} "
            f"| {best.crowd_used:.0f} | {best.batch:.1f} | {batch} |"
        )
        below = best
    return "\n".join(lines)


def main(rounds: int) -> None:
    """Measures all rungs, in turns, and prints the table."""
    found: dict[Rung, list[Found]] = {rung: [] for rung in Rung}
    with tempfile.TemporaryDirectory(prefix="beaver-ladder-") as directory:
        for number in range(rounds):
            for rung in list(Rung)[:: 1 if number % 2 else -1]:
                found[rung].append(measure(rung, directory))
    print(table(found))


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["5"])[0]))
