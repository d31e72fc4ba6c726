"""The targets and the goals against the peers, each with how it is judged.

Targets are absolute or ratios to the raw probe of the same run.  Goals are ratios to the
best peer of the same run; without peers they are not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from beaver.bench.rows import API, BEAVER, MACHINE, ROWS, Figures


class TargetVerdict(NamedTuple):
    """The verdict on one target."""

    label: str
    bound: str
    value: float
    unit: str
    met: bool
    detail: str = ""


class Target(NamedTuple):
    """A bound on one row, or on its ratio to a row of the machine."""

    key: str
    bound: float
    over: str = ""
    """Key of the machine's row by which the value is divided."""


TARGETS: Final = (
    Target("serial", 0.6, "probe"),
    Target("serial_p50", 2.0, "probe_p50"),
    Target("clients_64", 60_000),
    Target("http_p50", 4.0, "probe_p50"),
    Target("http_64", 10_000),
    Target("http_bulk", 300_000),
    Target("http_readers", 0.9),
    Target("bulk_made", 300_000),
    Target("inside_bulk", 400_000),
    Target("drain", 100_000),
    Target("drain_one", 2_500),
    Target("concurrent", 45_000),
    Target("latency_p50", 0.7),
    Target("latency_p99", 1.5),
    Target("eager_p50", 0.45),
    Target("stall_usual", 10.0),
    Target("stall_drain", 10.0),
    Target("stall_limit", 150.0),
    Target("replay", 1.0),
    Target("snapshot_load", 0.8),
    Target("start_1m", 2.0),
    Target("answer_1m_log", 1.5),
    Target("answer_100k", 0.3),
    Target("indexing", 3.0),
    Target("memory_job", 400),
    Target("pause_p999", 1.0),
    Target("pause_max", 10.0),
    Target("kill", 10.0),
    Target("growth_enqueue", 1.5),
    Target("growth_dispatch", 1.5),
    Target("growth_cancel", 1.5),
    Target("growth_status", 1.5),
    Target("growth_explain", 1.5),
    Target("growth_list", 1.5),
    Target("growth_queues", 1.5),
    Target("growth_scheduled", 1.5),
    Target("growth_paused", 1.5),
    Target("growth_unknown", 1.5),
    Target("idle_cpu", 1.0),
    Target("idle_all_mb", 60.0),
    Target("help", 150.0),
    Target("enqueue_command", 250.0),
)
"""Bounds of the machine that the targets were set on: two cores, about 9,000 syncs a second."""


class Goal(NamedTuple):
    """A bound on the ratio to a peer: a named one, or the best."""

    key: str
    bound: float
    against: str
    """The peers' row."""
    peer: str = ""
    subject: str = BEAVER


GOALS: Final = (
    Goal("serial", 0.85, "serial", "beanstalkd", API),
    Goal("procs_8", 2.0, "procs_8", subject=API),
    Goal("clients_64", 5.0, "clients_64", subject=API),
    Goal("bulk", 12.0, "bulk", subject=API),
    Goal("beside", 0.8, "beside", "beanstalkd", API),
    Goal("concurrent", 9.0, "concurrent", subject=API),
    Goal("latency_p50", 1.3, "latency_p50", "beanstalkd", API),
    Goal("inside_serial", 1.0, "serial", "beanstalkd"),
    Goal("serial", 0.9, "serial", "beanstalkd"),
    Goal("clients_8", 5.0, "clients_8"),
    Goal("clients_64", 9.0, "clients_64"),
    Goal("bulk", 20.0, "bulk"),
    Goal("drain", 15.0, "drain"),
    Goal("concurrent", 10.0, "concurrent"),
    Goal("latency_p50", 2.0, "latency_p50"),
    Goal("eager_p50", 1.0, "latency_p50"),
)


def judge_targets(figures: Figures) -> list[TargetVerdict]:
    """Returns a verdict for each target whose row was measured."""
    verdicts = []
    for target in TARGETS:
        value = figures.median(BEAVER, target.key)
        unit, label = ROWS[target.key].unit, ROWS[target.key].label
        if value is None:
            continue
        if target.over:
            base = figures.median(MACHINE, target.over)
            assert base is not None, "the probe runs in every round"
            value, unit = value / base, "x"
            label = f"{label}, over the raw probe's"
        verdicts.append(_verdict(target.key, target.bound, label, value, unit))
    return verdicts


def judge_goals(figures: Figures) -> list[TargetVerdict]:
    """Returns a verdict for each goal for which a peer was measured."""
    verdicts = []
    for goal in GOALS:
        ours = figures.median(goal.subject, goal.key)
        rival = _rival(figures, goal)
        if ours is None or rival is None:
            continue
        name, theirs = rival
        unit = ROWS[goal.against].unit
        detail = f"{ours:,.4g} against {theirs:,.4g} {unit} of {name}"
        label = ROWS[goal.key].label + (", documented API" if goal.subject == API else "")
        verdicts.append(
            _verdict(goal.key, goal.bound, label, ours / theirs, "x")._replace(detail=detail)
        )
    return verdicts


def _rival(figures: Figures, goal: Goal) -> tuple[str, float] | None:
    names = [goal.peer] if goal.peer else [n for n in figures.subjects() if n not in (BEAVER, API)]
    found = [(n, v) for n in names if (v := figures.median(n, goal.against)) is not None]
    best: Callable[..., tuple[str, float]] = max if ROWS[goal.against].more_is_better else min
    return best(found, key=lambda pair: pair[1]) if found else None


def _verdict(key: str, bound: float, label: str, value: float, unit: str) -> TargetVerdict:
    more = ROWS[key].more_is_better
    met = value >= bound if more else value <= bound
    return TargetVerdict(label, f"{'≥' if more else '≤'} {bound:,g} {unit}", value, unit, met)
