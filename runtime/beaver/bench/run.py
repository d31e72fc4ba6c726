"""One run of the benchmark: rounds in which every row of every queue is measured once.

Everything is interleaved: each row is measured of all queues in turn before the next row, so
that noise which lasts for minutes hits all of them, and rounds show it as the spread between
the least and the largest value.  The raw probe runs before each measurement.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from beaver.bench import inside, programs, served, stores, subject
from beaver.bench.peers.base import Peer
from beaver.bench.probe import probe
from beaver.bench.rows import BEAVER, MACHINE, Figures
from beaver.bench.served import Served, serving
from beaver.bench.subject import Budget, Sizes, Subject

Tell = Callable[[str], None]


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    probes: int
    beaver: Sizes
    peer: Sizes
    events: int
    pending: int
    memory: int


FULL: Final = Plan(
    rounds=3,
    probes=1_000,
    beaver=Sizes(
        serial=Budget(20_000, 3.0),
        many=Budget(100_000, 3.0),
        bulk=Budget(100_000, 4.0),
        drain=Budget(60_000, 5.0),
        latency=Budget(300, 3.0),
        concurrent=Budget(60_000, 5.0),
    ),
    peer=Sizes(
        serial=Budget(20_000, 2.0),
        many=Budget(20_000, 2.0),
        bulk=Budget(20_000, 2.0),
        drain=Budget(4_000, 3.0),
        latency=Budget(200, 2.0),
        concurrent=Budget(4_000, 3.0),
    ),
    events=1_000_000,
    pending=1_000_000,
    memory=100_000,
)

_QUICK_SIZES: Final = Sizes(
    serial=Budget(1_000, 1.0),
    many=Budget(6_400, 1.0),
    bulk=Budget(20_000, 1.0),
    drain=Budget(6_000, 1.0),
    latency=Budget(50, 0.5),
    concurrent=Budget(6_400, 1.0),
)
QUICK: Final = Plan(
    rounds=1,
    probes=500,
    beaver=_QUICK_SIZES,
    peer=_QUICK_SIZES._replace(drain=Budget(1_000, 1.0), concurrent=Budget(1_000, 1.0)),
    events=100_000,
    pending=100_000,
    memory=20_000,
)
"""A first impression: rows of a million jobs or events are measured with a tenth of that."""


class Result(NamedTuple):
    """What a run found."""

    plan: Plan
    figures: Figures
    setups: dict[str, str]
    """By peer: versions, and how it was set up."""
    missing: dict[str, str]
    """By subject: why it was not measured, or not wholly."""


def run(directory: str | None, plan: Plan, peers: bool, tell: Tell) -> Result:
    """Measures everything in a new directory below `directory`, which is removed after."""
    result = Result(plan, Figures(), {}, {})
    # Entered by PostgreSQL's user, so it cannot lie in a directory that is closed to others.
    with tempfile.TemporaryDirectory(prefix="beaver-bench-", dir=directory) as scratch:
        with ExitStack() as stack:
            running = _start_peers(scratch, result, stack, tell) if peers else []
            for number in range(plan.rounds):
                _round(scratch, result, running, f"{number + 1}", tell)
        for number in range(plan.rounds):
            _large(scratch, result, f"{number + 1}", tell)
    return result


def _start_peers(scratch: str, result: Result, stack: ExitStack, tell: Tell) -> list[Peer]:
    from beaver.bench.peers.catalogue import PEERS

    running = []
    for name, kind in PEERS.items():
        directory = Path(scratch, name)
        directory.mkdir()
        peer = kind(str(directory))
        stack.callback(peer.stop)
        tell(f"starting {name}")
        try:
            peer.start()
        except Exception as error:  # noqa: BLE001 - the others are measured
            result.missing[name] = f"not measured: {error}"
            continue
        result.setups[name] = f"{peer.versions()}; {peer.setup}"
        running.append(peer)
    return running


def _round(scratch: str, result: Result, peers: list[Peer], tag: str, tell: Tell) -> None:
    """Measures row by row, each of all queues in turn, with the probe in between."""
    plan = result.plan
    parent = Path(scratch, f"round-{tag}")
    (parent / "one").mkdir(parents=True)
    # A new store in every round, so that all rounds meet the same.
    with (
        serving(str(parent / "data")) as server,
        serving(str(parent / "one" / "data"), prefetch="1") as single,
        closing(Served(server)) as ours,
        closing(Served(single)) as one_by_one,
    ):
        subjects: list[tuple[Subject, Sizes]] = [(ours, plan.beaver)]
        subjects += [(peer, plan.peer) for peer in peers]
        for row, measure in subject.MEASURES.items():
            for measured, sizes in subjects:
                result.figures.add(MACHINE, probe(scratch, plan.probes))
                part = partial(measure, measured, f"{row}-{tag}", sizes)
                _attempt(result, measured.name, row, part, tell)
        more = partial(served.measure_more, ours, one_by_one, tag, plan.beaver)
        _attempt(result, BEAVER, "more", more, tell)
    inside_it = partial(
        inside.measure_inside, str(parent), tag, plan.beaver.serial, plan.beaver.bulk
    )
    _attempt(result, BEAVER, "in process", inside_it, tell)
    result.figures.add(MACHINE, probe(scratch, plan.probes))
    shutil.rmtree(parent)


def _large(scratch: str, result: Result, tag: str, tell: Tell) -> None:
    """Measures what needs large states, and whole programs."""
    plan = result.plan
    parent = str(Path(scratch, f"large-{tag}"))
    Path(parent).mkdir()
    result.figures.add(MACHINE, probe(scratch, plan.probes))
    few = min(plan.pending, 100_000)
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "replay and snapshot": lambda: stores.measure_files(parent, plan.events, plan.pending),
        "memory": lambda: {"memory_job": stores.measure_memory(parent, plan.memory)},
        "restart": lambda: {"start_100k": stores.measure_restart_from_log(parent, few)},
        "kill": lambda: {"kill": programs.measure_kill(parent)},
        "idle": lambda: programs.measure_idle(parent),
        "commands": lambda: programs.measure_commands(parent),
        "growth": lambda: inside.measure_growth(plan.pending),
    }
    if plan.pending >= stores.SNAPSHOT_PENDING:
        parts["large restart"] = lambda: stores.measure_restart(parent, plan.pending)
    for name, measure in parts.items():
        _attempt(result, BEAVER, name, measure, tell)
    shutil.rmtree(parent)


def _attempt(
    result: Result, name: str, part: str, measure: Callable[[], dict[str, float]], tell: Tell
) -> None:
    """Adds what one part finds; where it fails, says so and lets the others be measured."""
    tell(f"{name}: {part}")
    try:
        result.figures.add(name, measure())
    except Exception as error:  # noqa: BLE001 - minutes of measurements are not thrown away
        result.missing[name] = f"{part}: {type(error).__name__}: {error}"
