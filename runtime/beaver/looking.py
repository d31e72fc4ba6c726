"""Looking for an answer again and again before the thread sleeps: while a core is idle.

An answer needs a sync of the log, a tenth of a millisecond on a fast disk: to fall asleep and
be woken takes half as long again.  But who looks keeps a core from whoever could use it: eight
client processes that all look take a third of their own rate from each other.

Whether a core is idle costs next to nothing to find out.  Between two looks the thread yields:
where nobody else wants its core that takes half a microsecond, else as long as the other one
runs.  Only where a yield was slow, or no answer came, the kernel is asked how many tasks are
runnable (a dozen microseconds); where there are more than cores, the thread sleeps at once for
a while, twice as long each time it meets that again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

LOOK_S: Final = 0.0003
"""For so long it is looked: a few syncs of a fast disk."""
SLOW_YIELD_S: Final = 20e-6
"""A yield that takes longer let somebody else run."""
PAUSE_S: Final = 0.01
PAUSE_MAX_S: Final = 1.0
"""For so long, at first and at most, it is not looked once the cores were found busy."""

_let_others: Final[Callable[[], object]] = getattr(os, "sched_yield", lambda: None)
_LOAD: Final = Path("/proc/loadavg")


def cores() -> int:
    """Returns how many cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def runnable() -> int | None:
    """Returns how many tasks run or want to, this one included; `None` where nobody can say.

    The kernel counts those of all cores, so that says nothing to who may use only some.
    """
    if cores() != os.cpu_count():
        return None
    try:
        return int(_LOAD.read_bytes().split()[3].partition(b"/")[0])
    except (OSError, ValueError, IndexError):
        return None


class Looking:
    """Decides for one connection, from what it has met lately."""

    __slots__ = ("_again_s", "_clock", "_cores", "_pause_s", "_runnable", "_yield")

    def __init__(
        self,
        count: int | None = None,
        runnable: Callable[[], int | None] = runnable,
        clock: Callable[[], float] = time.perf_counter,
        let_others: Callable[[], object] = _let_others,
    ) -> None:
        self._cores = cores() if count is None else count
        self._runnable, self._clock, self._yield = runnable, clock, let_others
        # On a single core the server needs that core.
        self._again_s = 0.0 if self._cores > 1 else float("inf")
        self._pause_s = PAUSE_S

    def sees(self, look: Callable[[int], Any]) -> bool:
        """True once `look(0)` is true; False where the thread should sleep until there is more."""
        clock = self._clock
        now_s = clock()
        if now_s < self._again_s:
            return False
        until_s = now_s + LOOK_S
        while True:
            if look(0):
                self._pause_s = max(PAUSE_S, self._pause_s / 2)
                return True
            before_s = now_s
            self._yield()
            now_s = clock()
            slow = now_s - before_s > SLOW_YIELD_S
            if slow or now_s > until_s:
                if self._busy(slow):
                    self._again_s = now_s + self._pause_s
                    self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
                    return False
                if now_s > until_s:
                    return False

    def _busy(self, slow: bool) -> bool:
        running = self._runnable()
        return slow if running is None else running > self._cores
