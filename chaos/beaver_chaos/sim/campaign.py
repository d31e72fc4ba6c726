"""Many seeds in a row: what `beaver simulate` does, without what it prints."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from beaver_chaos.sim.plan import STEPS_DEFAULT, Plan, draw_plan
from beaver_chaos.sim.shrink import Shrunk, command_of, shrink, timeline
from beaver_chaos.sim.simulator import RunReport, run_plan


class Failure(msgspec.Struct):
    """A run that broke a promise."""

    seed: int
    violations: list[str]
    command: str
    """Repeats the whole run."""
    shrunk_command: str
    """Repeats the small one."""
    shrunk_acts: int
    timeline: list[str]


class Campaign(msgspec.Struct):
    """The results of many seeds."""

    first_seed: int
    steps: int
    runs: int = 0
    callbacks: int = 0
    """Steps of the loop, over all runs."""
    events: int = 0
    virtual_seconds: float = 0.0
    seconds: float = 0.0
    acts: dict[str, int] = {}
    """How often each act was in a plan."""
    log: dict[str, int] = {}
    """How often each event was in a log."""
    sometimes: dict[str, int] = {}
    """How often each of `sim.sometimes.SOMETIMES` came to be."""
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


Progress = Callable[[Campaign], None]


def simulate(
    seeds: Iterator[int],
    first_seed: int,
    *,
    steps: int = STEPS_DEFAULT,
    favour: str = "",
    minutes: float = 0.0,
    on_progress: Progress | None = None,
) -> Campaign:
    """Runs seeds until one fails, they run out, or the time is over.

    Args:
        seeds: The seeds to run.
        first_seed: The first of them.
        steps: Acts of each run.
        favour: A fault that is to strike often.
        minutes: Real time after which no further seed is begun; 0 for none.
        on_progress: Called after each run.
    """
    started_s = time.monotonic()
    campaign = Campaign(first_seed, steps)
    for seed in seeds:
        if minutes and time.monotonic() - started_s >= minutes * 60:
            break
        report = run_plan(draw_plan(seed, steps, favour))
        _count(campaign, report, started_s)
        if not report.ok:
            campaign.failure = failure_of(seed, shrink(report), command_of(report.plan, steps))
            break
        if on_progress is not None:
            on_progress(campaign)
    campaign.seconds = time.monotonic() - started_s
    return campaign


def repeat(plan: Plan) -> Campaign:
    """Runs one plan as it is."""
    started_s = time.monotonic()
    campaign = Campaign(plan.seed, len(plan.acts))
    report = run_plan(plan)
    _count(campaign, report, started_s)
    if not report.ok:
        small = Shrunk(report, 0)
        campaign.failure = failure_of(plan.seed, small, small.command)
    return campaign


def failure_of(seed: int, shrunk: Shrunk, command: str) -> Failure:
    """Returns a failure as it is told."""
    return Failure(
        seed=seed,
        violations=shrunk.report.violations,
        command=command,
        shrunk_command=shrunk.command,
        shrunk_acts=len(shrunk.plan.acts),
        timeline=timeline(shrunk.report),
    )


def _count(campaign: Campaign, report: RunReport, started_s: float) -> None:
    campaign.runs += 1
    campaign.callbacks += report.steps
    campaign.events += report.events
    campaign.virtual_seconds += report.seconds
    campaign.seconds = time.monotonic() - started_s
    _add(campaign.acts, Counter(act.kind for act in report.plan.acts))
    notes: Any = report.notes
    commits = (note[4] for note in notes if note[1] == "commit")
    _add(campaign.log, Counter(event.NAME for events in commits for event in events))
    _add(campaign.sometimes, report.sometimes)


def _add(counts: dict[str, int], more: Counter[str]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count
