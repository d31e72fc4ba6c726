"""Where the time of a run goes: wall and processor seconds of each folder of tests.

Shown at the end of a run, and added to `reports/seconds.json`, so that what makes CI slow is
seen while it is still small.  Tests that run side by side tell theirs with their reports.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

REPORTS = Path(__file__).parents[2] / "reports"
SLOWEST = 20
"""So many tests are named."""
SHORT_S = 60.0
"""A run that takes less needs no table."""
PROPERTY = "seconds"

_begun = pytest.StashKey[tuple[float, float]]()


def processor_s() -> float:
    """Returns the processor time of this process and of those that it waited for."""
    return sum(os.times()[:4])


class Seconds:
    """Counts where tests run, and shows it where their reports come in."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[float, float]] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        item.stash[_begun] = (time.monotonic(), processor_s())
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        try:
            return (yield)
        finally:
            wall, processor = item.stash[_begun]
            passed = (time.monotonic() - wall, processor_s() - processor)
            item.user_properties.append((PROPERTY, passed))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            told: dict[str, Any] = dict(report.user_properties)
            self.tests[report.nodeid] = told[PROPERTY]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if sum(wall for wall, _ in self.tests.values()) < SHORT_S:
            return
        folders: dict[str, tuple[float, float]] = {}
        for name, (wall, processor) in self.tests.items():
            folder = name.split("::")[0].rpartition("/")[0]
            so_far = folders.get(folder, (0.0, 0.0))
            folders[folder] = (so_far[0] + wall, so_far[1] + processor)
        terminalreporter.section("seconds: wall, processor")
        for name, (wall, processor) in (*_slowest(folders), *_slowest(self.tests)[:SLOWEST]):
            terminalreporter.write_line(f"{wall:8.1f} {processor:8.1f}  {name}")
        REPORTS.mkdir(exist_ok=True)
        path = REPORTS / "seconds.json"
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(before | self.tests, indent=0))


def _slowest(rows: dict[str, tuple[float, float]]) -> list[tuple[str, tuple[float, float]]]:
    return sorted(rows.items(), key=lambda pair: -pair[1][0])
