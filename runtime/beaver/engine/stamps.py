"""The one clock for stamps: milliseconds that never go back.

Where the wall clock is behind the last stamp (a step backwards, or a log written by a
machine whose clock ran ahead), stamps advance with the monotonic clock from there until
the wall clock has caught up.
"""

from __future__ import annotations

from typing import Final

from beaver.ports import Clock
from beaver_model.bounds import TIME_MS_MAX

BEHIND_WARN_MS: Final = 300_000
"""A wall clock this far behind the log at start is worth a warning."""


class Stamper:
    """Gives the time of the next commit."""

    def __init__(self, clock: Clock, last_ms: int) -> None:
        self._clock = clock
        self._last_ms = last_ms
        self._last_ns = clock.monotonic_ns()
        self.behind_ms = max(0, last_ms - clock.wall_ms())
        """How far the wall clock was behind the log at start."""

    def now_ms(self) -> int:
        """Returns a stamp at or after every earlier one."""
        wall_ms = self._clock.wall_ms()
        now_ns = self._clock.monotonic_ns()
        if wall_ms >= self._last_ms:
            self._last_ms, self._last_ns = wall_ms, now_ns
        else:
            passed_ms = (now_ns - self._last_ns) // 1_000_000
            self._last_ms += passed_ms
            self._last_ns += passed_ms * 1_000_000
        # Behind the last time that a log may hold it stands still.
        self._last_ms = min(self._last_ms, TIME_MS_MAX)
        return self._last_ms
