"""What a test needs of the machine; where it is missing, that is said loudly.

Where `BEAVER_REQUIRE_ALL` is set, whatever is skipped, for any reason, fails.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

from beaver_chaos.faults.full_disk import FAULT, can_mount, small_disk
from beaver_chaos.faults.table import Experiment, tell_fault


def need(missing: str | None, fault: str | None = None) -> None:
    """Skips the test for the reason given.

    Args:
        missing: What is not here; `None` where all is.
        fault: The fault that is not injected then, for the table of faults and outcomes.
    """
    if missing is None:
        return
    if fault is not None:
        tell_fault(Experiment(fault=fault, times=0, skipped=missing))
    pytest.skip(f"NOT CHECKED: {missing}")


def need_small_disk(place: Path) -> None:
    """Skips the test where no small file system can be mounted at `place`."""
    need(can_mount(), FAULT)
    try:
        with small_disk(place, 1 << 20):
            pass
    except OSError as error:
        need(f"root may not mount here: {error}", FAULT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that is skipped, by whatever means, where everything is required."""
    return _required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that is skipped as a whole, `importorskip` for one."""
    return _required((yield))


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _required(report: Report) -> Report:
    if (
        os.environ.get("BEAVER_REQUIRE_ALL") == "1"
        and report.outcome == "skipped"
        and not hasattr(report, "wasxfail")
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"BEAVER_REQUIRE_ALL is set, and this was skipped: {reason}"
    return report
