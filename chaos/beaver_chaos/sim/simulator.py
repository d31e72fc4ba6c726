"""The simulator: the whole runtime in one process, and a seed that decides everything else.

Real are engine, controller, housekeeping, service, recovery, log, snapshots, the client and
the protocol.  Simulated are time, disk, network, workers and the helper's process.  One
seed is one run, step by step the same on every Python; `RunReport.trace` proves it.

What may not live here: what is simulated (`sim.world`), what is checked (`sim.watch`), and
how a failure is made small (`shrink`).
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from beaver_chaos.sim.course import Course
from beaver_chaos.sim.hardware import config_of
from beaver_chaos.sim.loop import Choose, StepsExceeded
from beaver_chaos.sim.plan import STEPS_DEFAULT, Plan, draw_plan
from beaver_chaos.sim.world import World


class RunReport(NamedTuple):
    """The result of one run."""

    plan: Plan
    violations: list[str]
    trace: str
    """BLAKE2b over every step, choice, note and event."""
    steps: int
    events: int
    seconds: float
    """Virtual time that went by."""
    notes: list[tuple[Any, ...]]
    sometimes: Counter[str]
    """How often each of `sim.sometimes.SOMETIMES` came to be."""

    @property
    def ok(self) -> bool:
        return not self.violations


def run_seed(seed: int, steps: int = STEPS_DEFAULT, favour: str = "") -> RunReport:
    """Runs the plan of a seed."""
    return run_plan(draw_plan(seed, steps, favour))


def run_plan(plan: Plan, choose: Choose | None = None) -> RunReport:
    """Runs a plan to its end, or to the first violation.

    Args:
        plan: The plan.
        choose: Decides the order of what is ready, instead of the plan's seed.
    """
    with _undisturbed():
        world = World(plan, config_of(plan), choose)
        try:
            world.loop.run(Course(world).main())
        except StepsExceeded as error:
            world.watch.wrong(f"the run does not come to an end: {error}")
        finally:
            world.close()
    return RunReport(
        plan=plan,
        violations=world.watch.violations,
        trace=_trace_of(world),
        steps=world.loop.steps,
        events=world.watch.book.last_seq,
        seconds=world.loop.time(),
        notes=world.notes,
        sometimes=world.sometimes,
    )


def _trace_of(world: World) -> str:
    digest = hashlib.blake2b(world.loop.trace, digest_size=16)
    digest.update(msgspec.msgpack.encode(world.notes))
    return digest.hexdigest()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No collection of garbage and no log lines while a run goes on."""
    log = logging.getLogger("beaver")
    before, was_enabled = log.level, gc.isenabled()
    log.setLevel(logging.CRITICAL + 1)
    gc.disable()
    try:
        yield
    finally:
        log.setLevel(before)
        if was_enabled:
            gc.enable()
