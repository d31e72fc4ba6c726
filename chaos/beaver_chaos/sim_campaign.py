"""Many seeds in a row: what `beaver simulate` does, without what it prints."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from beaver_chaos.shrink import Shrunk, command_of, keep, shrink, timeline
from beaver_chaos.sim_plan import STEPS_DEFAULT, draw_plan
from beaver_chaos.simulator import Report, run_plan


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
    """What became of many seeds."""

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
        seeds: What to run.
        first_seed: The first of them.
        steps: Acts of each run.
        favour: A fault that is to strike often.
        minutes: Real time after which no further seed is begun; 0 for none.
        on_progress: Called after each run.
    """
    started_s = time.monotonic()
    campaign = Campaign(first_seed, steps)
    acts: Counter[str] = Counter()
    log: Counter[str] = Counter()
    for seed in seeds:
        if minutes and time.monotonic() - started_s >= minutes * 60:
            break
        report = run_plan(draw_plan(seed, steps, favour))
        _count(campaign, report, acts, log)
        campaign.seconds = time.monotonic() - started_s
        if not report.ok:
            campaign.failure = failure_of(shrink(report, steps), report)
            break
        if on_progress is not None:
            on_progress(campaign)
    campaign.seconds = time.monotonic() - started_s
    campaign.acts, campaign.log = dict(sorted(acts.items())), dict(sorted(log.items()))
    return campaign


def repeat(seed: int, steps: int, indexes: Sequence[int], favour: str = "") -> Campaign:
    """Runs a seed with only some of its acts, as they are."""
    started_s = time.monotonic()
    campaign = Campaign(seed, steps)
    report = run_plan(keep(draw_plan(seed, steps, favour), indexes))
    acts: Counter[str] = Counter()
    log: Counter[str] = Counter()
    _count(campaign, report, acts, log)
    if not report.ok:
        campaign.failure = failure_of(Shrunk(steps, indexes, report, 1), report)
    campaign.seconds = time.monotonic() - started_s
    campaign.acts, campaign.log = dict(sorted(acts.items())), dict(sorted(log.items()))
    return campaign


def failure_of(shrunk: Shrunk, report: Report) -> Failure:
    """Returns a failure as it is told."""
    return Failure(
        seed=report.plan.seed,
        violations=shrunk.report.violations,
        command=command_of(report.plan, shrunk.steps),
        shrunk_command=shrunk.command,
        shrunk_acts=len(shrunk.indexes),
        timeline=timeline(shrunk.report),
    )


def _count(campaign: Campaign, report: Report, acts: Counter[str], log: Counter[str]) -> None:
    campaign.runs += 1
    campaign.callbacks += report.steps
    campaign.events += report.events
    campaign.virtual_seconds += report.seconds
    acts.update(act.kind for act in report.plan.acts)
    notes: Any = report.notes
    log.update(event.NAME for note in notes if note[1] == "commit" for event in note[4])
