"""The report of a recovery, for logs, `status` and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec


class RecoveryReport(msgspec.Struct):
    """The findings of a recovery, and how long each phase took."""

    rows: list[str] = []
    """Labels of the rows of the log's `recovery_table` that were met."""
    base: str = "none"
    """Where replay started: `none`, `snapshot` or `older snapshot`."""
    snapshot_seq: int = 0
    snapshot_bytes: int = 0
    frames: int = 0
    """Valid frames read, those below the base included."""
    events: int = 0
    """Events replayed."""
    torn_tail_bytes: int = 0
    broken: str = ""
    """Where a torn tail is kept; empty where there was none, or no room to keep it."""
    seconds: dict[str, float] = {}
    """By phase: `inspect`, `load`, `replay`, `index`, `open`."""

    @contextlib.contextmanager
    def phase(self, name: str, now_ns: Callable[[], int]) -> Iterator[None]:
        """Adds the time that the block takes to the phase of that name."""
        started_ns = now_ns()
        try:
            yield
        finally:
            seconds = (now_ns() - started_ns) / 1e9
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def total_ms(self) -> float:
        """The time of all phases together."""
        return sum(self.seconds.values()) * 1000
