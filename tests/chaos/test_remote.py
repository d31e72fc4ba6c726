"""Remote workers behind a link with faults, killed and frozen, and a server that is killed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from beaver_chaos.faults.proxy import LinkFault
from beaver_chaos.faults.remote import CAPACITY, Figures, run_remote

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc"),
]


def check(figures: Figures) -> None:
    """Nothing is lost or done twice, which `run_remote` has checked; the plan's floors hold."""
    print(figures)
    assert set(figures.faults) == {fault.name for fault in LinkFault}
    for event in ("ACK", "RETRY", "TIMEOUT"):
        assert figures.events[event], f"the faults led to no {event}"
    assert figures.events["ACK"] == figures.jobs
    assert figures.sent_again > 0.02
    assert figures.succeeded > 0.98, "of the calls, under 10 % faults, with retries"
    assert 0 < figures.moved <= CAPACITY
    assert figures.elsewhere_s < 5, "the jobs of the worker that died are at work elsewhere"


@pytest.mark.nightly
def test_nothing_is_lost_or_completed_twice_over_a_link_with_faults(tmp_path: Path) -> None:
    check(run_remote(tmp_path, 7, 60))


@pytest.mark.nightly
def test_a_worker_of_three_that_dies_takes_less_than_two_fifths_of_the_throughput(
    tmp_path: Path,
) -> None:
    figures = run_remote(tmp_path, 11, 600)
    check(figures)
    assert figures.throughput_lost < 0.4
