"""Where the time of a run goes: wall and processor seconds of each folder of tests.

Shown at the end of a run over several folders, and written to `reports/seconds.json`, so that
what makes CI slow is seen while it is still small.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPORTS = Path(__file__).parents[2] / "reports"
SLOWEST = 25
"""So many tests are named."""


def processor_s() -> float:
    """Returns the processor time of this process and of those that it waited for."""
    return sum(os.times()[:4])


class Seconds:
    """Counts, in the process that runs the tests."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[float, float]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        wall, processor = time.monotonic(), processor_s()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid] = (time.monotonic() - wall, processor_s() - processor)

    def folders(self) -> dict[str, tuple[float, float]]:
        """Returns the sums of each folder, slowest first."""
        sums: dict[str, tuple[float, float]] = {}
        for name, (wall, processor) in self.tests.items():
            folder = name.split("::")[0].rpartition("/")[0]
            before = sums.get(folder, (0.0, 0.0))
            sums[folder] = (before[0] + wall, before[1] + processor)
        return dict(sorted(sums.items(), key=lambda pair: -pair[1][0]))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        folders = self.folders()
        if len(folders) < 2:
            return
        terminalreporter.section("seconds: wall, processor")
        slowest = sorted(self.tests.items(), key=lambda pair: -pair[1][0])[:SLOWEST]
        for name, (wall, processor) in (*folders.items(), *slowest):
            terminalreporter.write_line(f"{wall:8.1f} {processor:8.1f}  {name}")
        REPORTS.mkdir(exist_ok=True)
        (REPORTS / "seconds.json").write_text(json.dumps(self.tests, indent=0))
