"""Looking for a message again and again before the thread sleeps: while a core is idle.

An answer needs a sync of the log, a tenth of a millisecond on a fast disk: to fall asleep and
be woken takes half as long again.  But who looks keeps a core from whoever could use it: eight
client processes that all look take a third of their own rate from each other.  A server looks
too, for the next request of a client that is alone (`server.unix_socket`).

Whether a core is idle costs next to nothing to find out.  Between two looks the thread yields:
where nobody else wants its core that takes half a microsecond, else as long as the other one
runs.  Only where a yield was slow, or no answer came, the kernel is asked how many tasks are
runnable (half a dozen microseconds); where there are more than cores, the thread sleeps at once for
a while, twice as long each time it meets that again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

LOOK_S: Final = 0.0003
"""How long a thread looks before it sleeps: a few syncs of a fast disk."""
SLOW_YIELD_S: Final = 20e-6
"""A yield that takes longer let somebody else run."""
PAUSE_S: Final = 0.01
PAUSE_MAX_S: Final = 1.0
"""First and longest pause without a look after the cores were found busy."""

_let_others: Final[Callable[[], object]] = getattr(os, "sched_yield", lambda: None)
_LOAD: Final = "/proc/loadavg"
_LOAD_BYTES_MAX: Final = 128
_ALL_CORES: Final = os.cpu_count()  # Counted in a file of the kernel's: not at each look.


def cores() -> int:
    """Returns how many cores this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def runnable() -> int | None:
    """Returns how many tasks run or want to, this one included; `None` where nobody can say.

    The kernel counts those of all cores, so that says nothing to who may use only some.
    """
    if cores() != _ALL_CORES:
        return None
    try:
        # Between a request and its answer: plain calls take a seventh of the time of a `Path`.
        load = os.open(_LOAD, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(load, _LOAD_BYTES_MAX)
        finally:
            os.close(load)
        return int(text.split()[3].partition(b"/")[0])
    except (OSError, ValueError, IndexError):
        return None


class Looking:
    """Decides for one connection, or one server, from what it has met lately."""

    __slots__ = (
        "_again_s", "_clock", "_cores", "_may_be_vain", "_pause_min_s", "_pause_s", "_runnable",
        "_until_s", "_yield",
    )  # fmt: skip

    def __init__(
        self,
        count: int | None = None,
        runnable: Callable[[], int | None] = runnable,
        clock: Callable[[], float] = time.perf_counter,
        let_others: Callable[[], object] = _let_others,
        *,
        vain_pause_s: float | None = None,
    ) -> None:
        """Takes what to go by.

        Args:
            count: Cores that may be used.
            runnable: See `runnable`.
            clock: Seconds.
            let_others: Yields the core.
            vain_pause_s: Where what is looked for need never come, the least pause: then a look
                in vain is followed by one on idle cores too.
        """
        self._cores = cores() if count is None else count
        self._runnable, self._clock, self._yield = runnable, clock, let_others
        self._may_be_vain = vain_pause_s is not None
        self._pause_s = self._pause_min_s = vain_pause_s or PAUSE_S
        # On a single core the server needs that core.
        self._again_s = 0.0 if self._cores > 1 else float("inf")
        self._until_s = 0.0

    def sees(self, look: Callable[[int], Any]) -> bool:
        """True once `look(0)` is true; False where the thread should sleep until there is more."""
        if not self.begins():
            return False
        while True:
            if look(0):
                self.found()
                return True
            if not self.goes_on():
                return False

    def begins(self) -> bool:
        """True where it is time for a look; then `goes_on` says for how long."""
        now_s = self._clock()
        self._until_s = now_s + LOOK_S
        return now_s >= self._again_s

    def found(self) -> None:
        """The look was worth it."""
        self._pause_s = max(self._pause_min_s, self._pause_s / 2)

    def goes_on(self) -> bool:
        """Yields, then says whether to look again."""
        before_s = self._clock()
        self._yield()
        now_s = self._clock()
        slow, over = now_s - before_s > SLOW_YIELD_S, now_s > self._until_s
        if (slow or over) and ((over and self._may_be_vain) or self._busy(slow)):
            self._again_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
            return False
        return not over

    def _busy(self, slow: bool) -> bool:
        running = self._runnable()
        return slow if running is None else running > self._cores
