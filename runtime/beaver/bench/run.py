"""One run of the benchmark: rounds in which every row of every queue is measured once.

Everything is interleaved: each row is measured of all queues in turn before the next row, so
that noise which lasts for minutes hits all of them, and rounds show it as the spread between
the least and the largest value.  The raw probe runs before each measurement.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from beaver.bench import (
    bare,
    documented,
    inside,
    loop_stalls,
    over_http,
    programs,
    served,
    serverless,
    stores,
    subject,
)
from beaver.bench.documented import Documented
from beaver.bench.peers.base import Peer
from beaver.bench.probe import probe
from beaver.bench.rows import API, BEAVER, MACHINE, Figures, choose
from beaver.bench.served import Served, serving
from beaver.bench.subject import LoopBudget, Sizes, Subject

_COMPILING: Final = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
"""Whether Python keeps compiled modules, and where."""
NOT_BELOW: Final = ("processes", "beside")
"""Measured of Beaver through its documented API alone."""
NOT_BY_API: Final = ("drain",)
"""Where clients do nothing that counts."""

Tell = Callable[[int, int, str], None]
"""Called with the parts that are done, how many there are, and what comes next."""


class BenchPlan(NamedTuple):
    """How much is measured."""

    rounds: int
    probes: int
    beaver: Sizes
    peer: Sizes
    events: int
    pending: int
    memory: int


FULL: Final = BenchPlan(
    rounds=3,
    probes=1_000,
    beaver=Sizes(
        serial=LoopBudget(20_000, 3.0),
        many=LoopBudget(100_000, 3.0),
        bulk=LoopBudget(100_000, 4.0),
        drain=LoopBudget(60_000, 5.0),
        latency=LoopBudget(300, 3.0),
        concurrent=LoopBudget(60_000, 5.0),
    ),
    peer=Sizes(
        serial=LoopBudget(20_000, 2.0),
        many=LoopBudget(20_000, 2.0),
        bulk=LoopBudget(20_000, 2.0),
        drain=LoopBudget(4_000, 3.0),
        latency=LoopBudget(200, 2.0),
        concurrent=LoopBudget(4_000, 3.0),
    ),
    events=1_000_000,
    pending=1_000_000,
    memory=100_000,
)

_QUICK_SIZES: Final = Sizes(
    serial=LoopBudget(1_000, 1.0),
    many=LoopBudget(6_400, 1.0),
    bulk=LoopBudget(20_000, 1.0),
    drain=LoopBudget(6_000, 1.0),
    latency=LoopBudget(50, 0.5),
    concurrent=LoopBudget(6_400, 1.0),
)
QUICK: Final = BenchPlan(
    rounds=1,
    probes=500,
    beaver=_QUICK_SIZES,
    peer=_QUICK_SIZES._replace(drain=LoopBudget(1_000, 1.0), concurrent=LoopBudget(1_000, 1.0)),
    events=100_000,
    pending=100_000,
    memory=20_000,
)
"""A first impression: rows of a million jobs or events are measured with a tenth of that."""


class Result(NamedTuple):
    """The results of a run."""

    plan: BenchPlan
    figures: Figures
    setups: dict[str, str]
    """By peer: versions, and how it was set up."""
    missing: dict[str, str]
    """By subject: why it was not measured, or not wholly."""


class Part(NamedTuple):
    """A piece of a round: what is measured together, and the rows that it gives."""

    subject: str
    name: str
    rows: tuple[str, ...]
    measure: Callable[[], dict[str, float]]


def run(
    directory: str | None, plan: BenchPlan, peers: bool, tell: Tell, only: Sequence[str] = ()
) -> Result:
    """Measures everything in a new directory below `directory`, which is removed after.

    Args:
        directory: Its disk is measured; `None` for that of temporary files.
        plan: How much is measured.
        peers: Other queues are measured too, where they are installed.
        tell: Hears how far it is.
        only: Words of rows: what gives none of them is left out.

    Raises:
        InvalidInput: No row fits one of the words.
    """
    chosen = choose(only)
    # Entered by PostgreSQL's user, so it cannot lie in a directory that is closed to others.
    with (
        tempfile.TemporaryDirectory(prefix="beaver-bench-", dir=directory) as scratch,
        compiled_modules(scratch),
    ):
        return _Run(plan, scratch, chosen, tell).run(peers)


@contextmanager
def compiled_modules(scratch: str) -> Iterator[None]:
    """Lets every program that is measured keep its modules compiled, as an installation has them.

    A development tree has none where `PYTHONDONTWRITEBYTECODE` is set, and each start of a server
    compiles 110 modules: 0.15 s of the processor.
    """
    asked = {name: os.environ.get(name) for name in _COMPILING}
    os.environ.pop(_COMPILING[0], None)
    os.environ[_COMPILING[1]] = str(Path(scratch, "compiled"))
    try:
        yield
    finally:
        for name, value in asked.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class _Run:
    """One run, in a scratch directory."""

    def __init__(self, plan: BenchPlan, scratch: str, chosen: frozenset[str], tell: Tell) -> None:
        self._plan, self._scratch, self._chosen, self._tell = plan, scratch, chosen, tell
        self._result = Result(plan, Figures(), {}, {})
        self._done = self._total = 0

    def run(self, peers: bool) -> Result:
        rounds = range(1, self._plan.rounds + 1)
        with ExitStack() as stack:
            of_all = [row for measure in subject.MEASURES.values() for row in measure.rows]
            running = self._start_peers(stack) if peers and self._wants(of_all) else []
            self._total = self._plan.rounds * self._count(2 + len(running))
            for number in rounds:
                self._round(f"{number}", running)
        for number in rounds:
            self._large(f"{number}")
        return self._result

    def _count(self, subjects: int) -> int:
        """Returns the parts of a round."""
        parts = [measure.rows for measure in subject.MEASURES.values()] * subjects
        parts += [more.rows for more in documented.MORE.values()] + [inside.ROWS, bare.ROWS]
        parts += [over_http.BARE_ROWS, over_http.ROWS]
        parts += [part.rows for part in large_parts(self._plan, "")]
        skipped = [subject.MEASURES[name].rows for name in (*NOT_BELOW, *NOT_BY_API)]
        return sum(map(self._wants, parts)) - sum(map(self._wants, skipped))

    def _wants(self, rows: Sequence[str]) -> bool:
        return not self._chosen.isdisjoint(rows)

    def _measure(self, part: Part) -> None:
        """Adds what one part finds; where it fails, says so and lets the others be measured."""
        if not self._wants(part.rows):
            return
        result = self._result
        self._tell(self._done, self._total, f"{part.subject}: {part.name}")
        try:
            result.figures.add(MACHINE, probe(self._scratch, self._plan.probes))
            result.figures.add(part.subject, part.measure())
        except Exception as error:  # noqa: BLE001 - minutes of measurements are not thrown away
            result.missing[part.subject] = f"{part.name}: {type(error).__name__}: {error}"
        self._done += 1

    def _start_peers(self, stack: ExitStack) -> list[Peer]:
        from beaver.bench.peers.catalogue import PEERS

        running = []
        for name, kind in PEERS.items():
            directory = Path(self._scratch, name)
            directory.mkdir()
            peer = kind(str(directory))
            stack.callback(peer.stop)
            self._tell(0, 0, f"{name}: start")
            try:
                peer.start()
            except Exception as error:  # noqa: BLE001 - the others are measured
                self._result.missing[name] = f"not measured: {error}"
                continue
            self._result.setups[name] = f"{peer.versions()}; {peer.setup}"
            running.append(peer)
        return running

    def _round(self, tag: str, peers: list[Peer]) -> None:
        """Measures row by row, each of all queues in turn, with the probe in between."""
        plan = self._plan
        parent = Path(self._scratch, f"round-{tag}")
        (parent / "one").mkdir(parents=True)
        rows = [row for measure in subject.MEASURES.values() for row in measure.rows]
        if self._wants(rows + [row for more in documented.MORE.values() for row in more.rows]):
            self._round_of_servers(parent, tag, peers)
        within = partial(
            inside.measure_inside, str(parent), tag, plan.beaver.serial, plan.beaver.bulk
        )
        self._measure(Part(BEAVER, "in process", inside.ROWS, within))
        nothing_else = partial(bare.measure_bare, str(parent), plan.beaver)
        self._measure(Part(MACHINE, "bare server", bare.ROWS, nothing_else))
        library = partial(over_http.measure_bare, str(parent), plan.beaver)
        self._measure(Part(MACHINE, "bare handler", over_http.BARE_ROWS, library))
        pages = partial(over_http.measure_http, str(parent), plan.beaver)
        self._measure(Part(BEAVER, "over HTTP", over_http.ROWS, pages))
        shutil.rmtree(parent)

    def _round_of_servers(self, parent: Path, tag: str, peers: list[Peer]) -> None:
        plan = self._plan
        # A new store in every round, so that all rounds meet the same.
        with (
            serving(str(parent / "data")) as server,
            serving(str(parent / "one" / "data"), prefetch="1") as single,
            closing(Served(server)) as ours,
            closing(Served(single)) as one,
        ):
            subjects: list[tuple[Subject, Sizes]] = [
                (ours, plan.beaver),
                (Documented(ours), plan.beaver),
            ]
            subjects += [(peer, plan.peer) for peer in peers]
            for name, (rows, measure) in subject.MEASURES.items():
                for measured, sizes in subjects:
                    skipped = {BEAVER: NOT_BELOW, API: NOT_BY_API}.get(measured.name, ())
                    if name in skipped:
                        continue
                    work = partial(
                        measure, measured, f"{name}-{tag}{'-api' * (measured.name == API)}", sizes
                    )
                    self._measure(Part(measured.name, name, rows, work))
            for name, (rows, more) in documented.MORE.items():
                beside = partial(more, ours, one, f"{name}-{tag}", plan.beaver)
                self._measure(Part(BEAVER, name, rows, beside))

    def _large(self, tag: str) -> None:
        """Measures what needs large states, and whole programs."""
        parent = str(Path(self._scratch, f"large-{tag}"))
        Path(parent).mkdir()
        for part in large_parts(self._plan, parent):
            self._measure(part)
        shutil.rmtree(parent)


def large_parts(plan: BenchPlan, parent: str) -> list[Part]:
    """Returns what is measured of large states and of whole programs, below a directory."""
    few = min(plan.pending, 100_000)
    table: dict[str, tuple[tuple[str, ...], Callable[[], dict[str, float]]]] = {
        "replay and snapshot": (
            ("replay", "snapshot_load", "snapshot_index"),
            lambda: stores.measure_files(parent, plan.events, plan.pending),
        ),
        "memory": (
            ("memory_job",),
            lambda: {"memory_job": stores.measure_memory(parent, plan.memory)},
        ),
        "restart": (
            ("start_100k", "answer_100k"),
            lambda: stores.measure_restart_from_log(parent, few),
        ),
        "indexing": (
            ("indexing",),
            lambda: {"indexing": stores.measure_indexing(parent, few)},
        ),
        "kill": (("kill",), lambda: {"kill": programs.measure_kill(parent)}),
        "idle": (programs.IDLE_ROWS, lambda: programs.measure_idle(parent)),
        "commands": (programs.COMMAND_ROWS, lambda: programs.measure_commands(parent)),
        "serverless": (
            serverless.ROWS,
            lambda: serverless.measure_serverless(parent, plan.pending),
        ),
        "growth": (inside.GROWTH_ROWS, lambda: inside.measure_growth(plan.pending)),
        "shapes": (inside.SHAPE_ROWS, lambda: inside.measure_shapes(plan.pending)),
        "eager": (
            ("eager_p50", "eager_p99"),
            lambda: served.measure_eager(parent, plan.beaver),
        ),
        "stalls": (loop_stalls.ROWS, lambda: loop_stalls.measure_stalls(parent)),
    }
    if plan.pending >= stores.SNAPSHOT_PENDING:
        table["large restart"] = (
            (
                "start_1m_log",
                "answer_1m_log",
                "start_1m",
                "pause_idle_p999",
                "pause_p999",
                "pause_max",
            ),
            lambda: stores.measure_restart(parent, plan.pending),
        )
    return [Part(BEAVER, name, rows, measure) for name, (rows, measure) in table.items()]
