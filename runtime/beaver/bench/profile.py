"""Where a microsecond goes: the server's loop, sampled under the loads that are promised.

`python3 dev.py profile` runs it.  It writes a flame graph and a table of microseconds a job by
layer into a page, between marks, as `beaver bench --report` does its tables.  They are those
of the processor, but for the disk: who waits for a sync, waits for all of it.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from beaver.bench import subject
from beaver.bench.flame import flame
from beaver.bench.report import number, replace_between
from beaver.bench.sampler import LOOP
from beaver.bench.served import Served, ServerProcess
from beaver.bench.subject import BATCH, LoopBudget
from beaver.errors import BeaverError

BEGIN: Final = "<!-- profiled: begin (written by `python3 dev.py profile`) -->"
END: Final = "<!-- profiled: end -->"

Samples = dict[tuple[str, ...], float]
"""Microseconds by stack, outermost frame first."""

_DISPATCH: Final = ("dispatch/",)
LAYERS: Final = (
    ("polling, reading and writing sockets, in C", (LOOP,)),
    ("frames and messages of clients: decode, answer, encode", (
        "transport/framing", "server/connection", "server/outbox", "server/service",
        "server/asking", "server/answers", "server/budget",
        "server/strangers", "structs/views",
    )),
    ("reading payloads as JSON", ("text/jsontext",)),
    ("checking and resolving a request", (
        "request/requests", "request/resolving", "request/options", "structs/messages",
        "beaver_model/rows", "text/durations",
    )),
    ("engine: admission, batch, replies", (
        "engine/engine", "engine/event_sizes", "engine/counters", "engine/admission",
        "engine/stamps", "wal/commit_path", "system/clock",
    )),
    ("decide", ("beaver_model/deciding", "beaver_model/commands")),
    ("apply: rows and indexes", (
        "beaver_model/applying", "beaver_model/state", "beaver_model/index",
        "beaver_model/events",
    )),
    ("select", ("beaver_model/policy", "beaver_model/stride",)),
    ("encode and CRC", ("journal/codec", "wal/format")),
    ("write and sync", ("system/disk", "wal/log", "wal/writer")),
    ("dispatch: slots, limits, outcomes to commands", _DISPATCH),
    ("wire to the workers", ("workers/",)),
    ("results and metrics", ("server/results", "server/metrics")),
)  # fmt: skip
"""Layers by the beginnings of frames, `directory/module:function`; the innermost that fits."""

OTHER: Final = "everything else"


def layer_of(stack: tuple[str, ...]) -> str:
    """Returns the layer that a sample belongs to: that of its innermost known frame."""
    if len(stack) == 1:
        return LAYERS[0][0]
    for frame in reversed(stack[1:]):
        for name, beginnings in LAYERS[1:]:
            if frame.startswith(beginnings):
                return name
    return OTHER


class SampledServer(ServerProcess):
    """A server whose loop is sampled."""

    def __init__(self, data: str, out: str) -> None:
        self._out, self._written = out, 0
        super().__init__(data, program=("-m", "beaver.bench.sampler", out))

    def take(self) -> Samples:
        """Returns what was sampled since the last time."""
        self._written += 1
        path = Path(f"{self._out}.{self._written}")
        self.process.send_signal(signal.SIGUSR1)
        deadline_s = time.monotonic() + 10.0
        while not path.exists():
            if time.monotonic() > deadline_s:
                raise BeaverError("the sampled server does not answer")
            time.sleep(0.01)
        samples: Samples = {}
        for line in path.read_text().splitlines():
            stack, _, value = line.rpartition(" ")
            samples[tuple(stack.split(";"))] = float(value)
        return samples


Profile = dict[str, tuple[int, Samples]]
"""By load: the jobs that were done, and what was sampled meanwhile."""

Begin = Callable[[], object]
"""Called when what is to be sampled begins."""


def profile(directory: str, seconds: float) -> Profile:
    """Returns, by load, the jobs that were done and what was sampled meanwhile.

    Each load meets a new store, with no history to be written of the load before.
    """
    found = {}
    for index, (name, load) in enumerate(LOADS.items()):
        home = Path(directory, f"load-{index}")
        home.mkdir()
        server = SampledServer(str(home / "data"), str(home / "samples"))
        try:
            server.settle()
            with closing(Served(server)) as served:
                jobs = load(served, "profiled", seconds, server.take)
                found[name] = jobs, server.take()
        finally:
            server.stop()
    return found


def _clients(served: Served, queue: str, seconds: float, begin: Begin) -> int:
    begin()
    return served.send_loop(queue, 64, 1, LoopBudget(400_000, seconds)).jobs


def _batches(served: Served, queue: str, seconds: float, begin: Begin) -> int:
    begin()
    return served.send_loop(queue, 1, BATCH, LoopBudget(400_000, seconds)).jobs


def _drain(served: Served, queue: str, seconds: float, begin: Begin) -> int:
    count = served.send_loop(queue, 1, BATCH, LoopBudget(200_000, seconds)).jobs
    begin()
    with served.workers(queue):
        served.finished(queue, count, subject.DRAIN_S)
    return count


def _both(served: Served, queue: str, seconds: float, begin: Begin) -> int:
    with served.workers(queue):
        begin()
        count = served.send_loop(queue, 64, 1, LoopBudget(200_000, seconds)).jobs
        served.finished(queue, count, subject.DRAIN_S)
    return count


LOADS: Final = {
    "64 clients": _clients,
    "batches of 100": _batches,
    "drain, 2 workers": _drain,
    "64 clients and drain": _both,
}


def to_markdown(found: Profile) -> str:
    """Returns the table: microseconds a job by layer, for each load."""
    columns = []
    for jobs, samples in found.values():
        column = dict.fromkeys([name for name, _ in LAYERS] + [OTHER], 0.0)
        for stack, value in samples.items():
            column[layer_of(stack)] += value / jobs
        columns.append(column)
    lines = [f"| microseconds a job | {' | '.join(found)} |", f"|---|{'--:|' * len(found)}"]
    lines += [
        f"| {name} | {' | '.join(f'{column[name]:.2f}' for column in columns)} |"
        for name in columns[0]
        if any(column[name] >= 0.005 for column in columns)
    ]
    totals = [sum(column.values()) for column in columns]
    lines.append(f"| **all of the loop** | {' | '.join(f'**{t:.2f}**' for t in totals)} |")
    lines.append(f"| jobs measured | {' | '.join(number(jobs) for jobs, _ in found.values())} |")
    return "\n".join(lines) + "\n"


def to_flame(found: Profile) -> str:
    """Returns one flame graph with the loads side by side, in microseconds a job."""
    stacks = {
        (name, *stack): value / jobs
        for name, (jobs, samples) in found.items()
        for stack, value in samples.items()
    }
    return flame("The server's loop, microseconds a job under four loads", stacks, "us a job")


def main() -> None:
    """Profiles, and writes page and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", default=None, help="write into this Markdown page")
    parser.add_argument("--dir", default=None, help="measure on the disk of this directory")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beaver-profile-", dir=options.dir) as scratch:
        found = profile(scratch, options.seconds)
    table = to_markdown(found)
    print(table)  # noqa: T201 - what the command is for
    if options.report is not None:
        page = Path(options.report)
        picture = page.with_name(f"{page.stem}-flame.svg")
        picture.write_text(to_flame(found))
        block = f"![Flame graph of the server's loop]({picture.name})\n\n{table}"
        page.write_text(replace_between(page.read_text(), BEGIN, END, block, options.report))


if __name__ == "__main__":
    main()
