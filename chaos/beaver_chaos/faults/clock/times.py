"""Checks the times of a log: stamps never go back, nothing starts early, no limit is shortened.

One pass over the commits; what may not live here: processes and clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from beaver_chaos.checker.history import Commit
from beaver_model.events import (
    Cause,
    Died,
    Dispatched,
    Enqueued,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.rows import spec_of

OVERRUN: Final = "overrun"
"""The only task of the load that runs over its limit."""


class Times:
    """Checks the times of a log commit by commit."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.timeouts: Counter[str] = Counter()
        """Attempts that ran over their limit, by job."""
        self.last_ms = 0
        self._due_ms: dict[str, int] = {}
        self._tasks: dict[str, str] = {}

    def read(self, commits: Iterable[Commit]) -> None:
        for first_seq, time_ms, events in commits:
            if time_ms < self.last_ms:
                self.violations.append(
                    f"seq {first_seq} is stamped {time_ms}, {self.last_ms - time_ms} ms before "
                    "the commit before it"
                )
            self.last_ms = max(self.last_ms, time_ms)
            for seq, event in enumerate(events, first_seq):
                match event:
                    case Enqueued():
                        self._due_ms[event.job] = event.run_at_ms
                        self._tasks[event.job] = spec_of(event.spec).task
                    case Retried() | TimedOut() | Released():
                        self._due_ms[event.job] = event.run_at_ms
                    case Requeued():
                        self._due_ms[event.job] = 0
                    case Dispatched() if time_ms < (due_ms := self._due_ms[event.job]):
                        self.violations.append(
                            f"seq {seq}: job {event.job} starts {due_ms - time_ms} ms before its "
                            "time"
                        )
                if isinstance(event, TimedOut | Died) and event.cause == Cause.TIME_LIMIT:
                    self._over_limit(seq, event.job)

    def _over_limit(self, seq: int, job: str) -> None:
        self.timeouts[job] += 1
        if (task := self._tasks[job]) != OVERRUN:
            self.violations.append(
                f"seq {seq}: an attempt of job {job} ran over its limit; {task} never does"
            )
