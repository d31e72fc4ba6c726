"""Seeds: many runs without a violation, and the proof that they get everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from beaver_chaos.sim_campaign import simulate
from beaver_chaos.sim_plan import _FAULT_ARGS, _ORDERS
from beaver_model.events import ALL_EVENTS

FEW = 150
MINUTES = float(os.environ.get("BEAVER_SIMULATE_MINUTES", "1.3"))
RUNS_MIN = 500


@pytest.mark.invariants
def test_a_few_seeds_break_no_promise_and_meet_every_event_and_act() -> None:
    campaign = simulate(iter(range(FEW)), 0)
    failure = campaign.failure
    assert failure is None, f"{failure.violations}\n{failure.shrunk_command}"
    assert campaign.log.keys() == {event.NAME for event in ALL_EVENTS}
    assert campaign.acts.keys() >= {*_FAULT_ARGS, *_ORDERS} - {"again"}


@pytest.mark.simulator
def test_thousands_of_seeds_break_no_promise() -> None:
    """Two processes, each from a first seed of its own; some runs are long."""
    command = [sys.executable, "-m", "beaver", "simulate", "--json", "--minutes", str(MINUTES)]
    plans = (["--seed", "1000000"], ["--seed", "2000000", "--steps", "60"])
    running = [
        subprocess.Popen([*command, *plan], stdout=subprocess.PIPE, text=True) for plan in plans
    ]
    reports = [json.loads(process.communicate()[0]) for process in running]
    for report in reports:
        assert report["failure"] is None, (
            f"{report['failure']['violations']}\n{report['failure']['shrunk_command']}"
        )
    assert sum(report["runs"] for report in reports) >= RUNS_MIN
    summary = [{key: r[key] for key in ("runs", "events", "seconds")} for r in reports]
    Path("reports").mkdir(exist_ok=True)
    Path("reports/simulator.json").write_text(json.dumps(reports, indent=1) + "\n")
    print(summary)
