"""How long the attempts of each task run, and so how many of them a worker may hold.

Measured, never logged: after a restart it is measured again.
"""

from __future__ import annotations

from typing import Final

import msgspec

ADAPTED_MAX: Final = 256
"""Attempts that one worker holds, at most, where their number adapts to their running time."""

PREFETCH_SPAN_MS: Final = 5.0
"""A worker holds attempts for about this many milliseconds, by the measured time of their task."""

PREFETCH_LEARN: Final = 5
"""Attempts of a task that are measured before it is prefetched at all."""

TASKS_TIMED_MAX: Final = 10_000
"""Tasks whose running times are known at once."""


class TaskTime(msgspec.Struct, gc=False):
    """How long the attempts of a task have run."""

    seen: int = 0
    mean_ms: float = 0.0
    """Moving mean, the last attempts weighing most."""

    def learn(self, elapsed_ms: float) -> None:
        """Takes in one attempt."""
        if self.seen:
            self.mean_ms += (elapsed_ms - self.mean_ms) * 0.1
        else:
            self.mean_ms = elapsed_ms
        self.seen += 1


class TaskTimes:
    """The running times of all tasks."""

    def __init__(self) -> None:
        self._times: dict[str, TaskTime] = {}

    def of(self, task: str) -> TaskTime:
        """Returns the entry of a task, to learn from."""
        time = self._times.get(task)
        if time is None:
            if len(self._times) >= TASKS_TIMED_MAX:
                self._times.clear()
            time = self._times[task] = TaskTime()
        return time

    def depth(self, task: str) -> int:
        """Returns how many attempts of a task a worker may hold."""
        time = self._times.get(task)
        if time is None or time.seen < PREFETCH_LEARN:
            return 1
        return max(1, min(ADAPTED_MAX, int(PREFETCH_SPAN_MS / max(time.mean_ms, 0.01))))
