"""What is counted while the server runs, for metrics and status.

Without locks: the loop adds, and a scrape on the same loop reads.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

SYNC_SECONDS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
BATCH_EVENTS: Final = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)


class Histogram:
    """A histogram without locks: the loop observes, a scrape reads."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class CommitCounters:
    """What the engine counts about its commits."""

    def __init__(self) -> None:
        self.commits = 0
        self.gathered = 0
        """Commits that waited for one more look at what came in."""
        self.taken_in = 0
        """Requests for new jobs that were decided together, the last time."""
        self.told = 0
        """Answers that waited for the last commit."""
        self.events = 0
        self.bytes = 0
        self.syncs = Histogram(SYNC_SECONDS)
        self.batches = Histogram(BATCH_EVENTS)
