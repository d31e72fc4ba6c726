"""The simulator sees: each seeded bug is found within a bounded number of seeds."""

from __future__ import annotations

import re

import pytest

from beaver_chaos.shrink import keep, shrink, timeline
from beaver_chaos.sim_plan import draw_plan
from beaver_chaos.simulator import Report, run_plan, run_seed
from tests.simulator.bugs import BUGS

pytestmark = pytest.mark.simulator


def hunt(name: str) -> Report | None:
    """Returns the first run in which a bug is noticed as it should be."""
    bug = BUGS[name]
    for seed in range(bug.seeds):
        report = run_seed(seed, favour=bug.favour)
        if any(re.search(bug.noticed, violation) for violation in report.violations):
            return report
    return None


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name].sow(monkeypatch)
    report = hunt(name)
    assert report is not None, f"{name}: not found within {BUGS[name].seeds} seeds"


@pytest.mark.parametrize("name", ["timeout without kill", "reply before sync"])
def test_a_failure_is_shrunk_to_a_few_acts_that_still_fail(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    BUGS[name].sow(monkeypatch)
    report = hunt(name)
    assert report is not None
    shrunk = shrink(report)
    assert len(shrunk.indexes) <= 8
    seed = report.plan.seed
    again = run_plan(keep(draw_plan(seed), shrunk.indexes))
    assert again.violations == shrunk.report.violations, "the command repeats it exactly"
    assert shrunk.command.startswith(f"beaver simulate --seed {seed}")
    told = "\n".join(timeline(shrunk.report))
    assert "VIOLATION" in told
    assert "ENQUEUE" in told or not shrunk.indexes
