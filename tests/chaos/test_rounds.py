"""The real program, killed at random moments under load: nothing acknowledged is lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from beaver_chaos.faults.rounds import ProgramFault, run_rounds

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]

ROUNDS = 20
SEEDS = (17, 27)
"""Each draws nearly every fault; `dev.py nightly` goes from seed to seed for half an hour."""


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_and_nothing_completes_twice(
    seed: int, tmp_path: Path
) -> None:
    """40 rounds in all; a failure names the command that repeats its seed."""
    report = run_rounds(seed, ROUNDS, tmp_path)
    print(report)
    assert sum(report.faults.values()) == ROUNDS
    # A run in which next to nothing happened would prove nothing.
    assert report.acknowledged > 50 * ROUNDS
    assert report.events["ACK"] > 50 * ROUNDS
    for event in ("RETRY", "TIMEOUT", "RELEASE", "DEAD", "CANCEL", "REQUEUE", "BOOT"):
        assert report.events[event], f"the load led to no {event}"


def test_the_seeds_draw_every_fault() -> None:
    """The faults that CI meets are no matter of luck: the draws are those of the seeds."""
    from beaver_chaos.faults.rounds import drawn_faults

    drawn = {fault for seed in SEEDS for fault in drawn_faults(seed, ROUNDS)}
    assert drawn == set(ProgramFault)
