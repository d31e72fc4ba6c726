"""Loop stalls: how long the event loop is blocked between two polls, measured each time.

While the loop runs callbacks it reads no socket, so this time is what every client may have to
wait for.  asyncio reports slow callbacks in its debug mode only, which doubles the cost of each.
Here the time runs from when a poll returns until the next poll, and costs two reads of a clock,
whatever runs meanwhile:

- asyncio's own loop polls through a selector, and gets one that notes both (`_Selector`);
- uvloop polls in C, so `server.uvloop_stalls` notes what a poll leads to.

That says how long, not what.  A thread samples the loop's stack once the loop has been blocked
for `LONG_S`; while the loop waits, the thread sleeps.
"""

from __future__ import annotations

import asyncio
import logging
import selectors
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

from beaver.engine.counters import Histogram
from beaver.text.foreign import counted

STALL_SECONDS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.5, 1.0, 5.0,
)  # fmt: skip

LONG_S: Final = 0.025
"""Once the loop has been blocked for so long, its stack is sampled."""
TOO_LONG_S: Final = 0.15
"""No commit may take longer, so a longer stall is a warning."""
LOG_EVERY_S: Final = 10.0
"""Least time between two log lines about stalls."""

_LOOK_S: Final = 0.02
"""How often the thread looks whether the loop is blocked, while it is at work."""
_LOOKS_IDLE: Final = 5
"""Looks at a waiting loop after which the thread sleeps until it is woken."""
_FRAMES_MAX: Final = 20

log: Final = logging.getLogger("beaver")


class Sample(NamedTuple):
    """Where the loop was once it had been blocked for long."""

    since_ns: int
    """When the poll before it returned."""
    callback: str
    """Qualified name of what the loop had called."""
    frames: tuple[str, ...]
    """From the callback to the innermost: file, line and function."""

    @property
    def place(self) -> str:
        return f"{self.callback}, at {self.frames[-1]}" if self.frames else self.callback


class LoopStalls:
    """Measures how long one loop is blocked.  Made, begun and ended in the loop's thread."""

    def __init__(self) -> None:
        self.lengths = Histogram(STALL_SECONDS)
        self.longest_s = 0.0
        self.longest_in = ""
        """What ran in the longest; empty where that was not long enough to be looked at."""
        self._since_ns = 0
        """When the last poll returned; 0 while the loop polls."""
        self._sample: Sample | None = None
        self._told_ns = 0
        self._untold = 0
        self._thread_id = threading.get_ident()
        self._parked = False
        self._wake = threading.Event()
        self._ended = False
        self._watcher: threading.Thread | None = None

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Returns a loop that is measured: uvloop where that is installed."""
        try:
            from beaver.server.uvloop_stalls import Loop
        except ImportError:
            return asyncio.SelectorEventLoop(_Selector(self))
        return Loop(self.poll_begins, self.poll_returned)

    def watch(self) -> None:
        """Begins anew: what was measured is forgotten, and long stalls are sampled."""
        self.lengths = Histogram(STALL_SECONDS)
        self.longest_s, self.longest_in = 0.0, ""
        self._watcher = threading.Thread(target=self._watch, name="beaver-stalls", daemon=True)
        self._watcher.start()

    def end(self) -> None:
        """Ends the thread."""
        self._ended = True
        self._wake.set()
        if self._watcher is not None:
            self._watcher.join()

    # -- called by the loop, each time ---------------------------------------------------

    def poll_returned(self) -> None:
        """The loop's poll has returned."""
        self._since_ns = time.perf_counter_ns()
        if self._parked:
            self._parked = False
            self._wake.set()

    def poll_begins(self) -> None:
        """The loop is going to poll."""
        since_ns, self._since_ns = self._since_ns, 0
        if since_ns:
            took_s = (time.perf_counter_ns() - since_ns) / 1e9
            self.lengths.observe(took_s)
            if took_s > self.longest_s or took_s >= LONG_S:
                self._long(since_ns, took_s)

    def _long(self, since_ns: int, took_s: float) -> None:
        sample = self._sample
        if sample is not None and sample.since_ns != since_ns:
            sample = None
        if took_s > self.longest_s:
            self.longest_s = took_s
            self.longest_in = sample.place if sample is not None else ""
        if took_s < LONG_S or sample is None:
            return
        now_ns = time.perf_counter_ns()
        if self._told_ns and now_ns - self._told_ns < LOG_EVERY_S * 1e9:
            self._untold += 1
            return
        before = f" (and {counted(self._untold, 'time')} before)" if self._untold else ""
        self._told_ns, self._untold = now_ns, 0
        log.log(
            logging.WARNING if took_s >= TOO_LONG_S else logging.DEBUG,
            "the event loop was blocked for %.0f ms by %s%s; after %.0f ms it was in\n%s",
            took_s * 1000,
            sample.callback,
            before,
            LONG_S * 1000,
            "\n".join(f"  {frame}" for frame in sample.frames),
        )

    # -- the thread that looks ----------------------------------------------------------------

    def _watch(self) -> None:
        idle = 0
        while not self._ended:
            since_ns = self._since_ns
            if not since_ns:
                idle += 1
                if idle > _LOOKS_IDLE:
                    idle = 0
                    self._park()
                else:
                    time.sleep(_LOOK_S)
                continue
            idle = 0
            rest_s = LONG_S - (time.perf_counter_ns() - since_ns) / 1e9
            if rest_s > 0:
                time.sleep(rest_s)
            elif self._sample is None or self._sample.since_ns != since_ns:
                self._look(since_ns)
            else:
                time.sleep(_LOOK_S)

    def _park(self) -> None:
        """Waits until the loop is at work again.

        1. The event is cleared and `_parked` says that somebody waits for it.  2. A poll that
        returned before that did not see it, so the time is looked at once more.
        """
        self._wake.clear()
        self._parked = True
        if self._since_ns or self._ended:
            self._parked = False
        else:
            self._wake.wait()

    def _look(self, since_ns: int) -> None:
        frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001 - the documented way
        if frame is not None and self._since_ns == since_ns:
            self._sample = _sample(since_ns, frame)


def _sample(since_ns: int, innermost: FrameType) -> Sample:
    """Returns what a loop has called, and where in it it is."""
    stack: list[FrameType] = []
    frame: FrameType | None = innermost
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    stack.reverse()
    # The program, then the loop's own frames, then what the loop has called.
    owned = [_is_of_loop(frame.f_code.co_filename) for frame in stack]
    first = owned.index(True) if True in owned else 0
    while first < len(stack) - 1 and owned[first]:
        first += 1
    called = stack[first:]
    frames = tuple(
        f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_qualname}"
        for frame in called[:1] + called[1:][-_FRAMES_MAX:]
    )
    return Sample(since_ns, called[0].f_code.co_qualname, frames)


_LOOP_FILES: Final = (
    str(Path(asyncio.__file__).parent),
    selectors.__file__,
    __file__,
    str(Path(__file__).with_name("uvloop_stalls.py")),
)


def _is_of_loop(path: str) -> bool:
    return path.startswith(_LOOP_FILES)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


class _Selector(selectors.DefaultSelector):
    """The system's best selector, which notes when it is asked and when it answers."""

    def __init__(self, stalls: LoopStalls) -> None:
        super().__init__()
        self._stalls = stalls

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, Any]]:
        """See `selectors.BaseSelector`."""
        self._stalls.poll_begins()
        try:
            return super().select(timeout)
        finally:
            self._stalls.poll_returned()
