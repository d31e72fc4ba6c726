"""The world around an engine, played by a machine: loop, writer process, workers.

Nothing here decides anything by itself.  Time passes, frames are written and user code ends
when a rule says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from beaver.ports import File, PoolEvents, Written
from beaver.structs.messages import Attempt, TaskInfo
from beaver_chaos.sim.loop import SimLoop
from tests.stateful.stores import MovedClock, nothing

STEPS_MAX = 100_000
_MS = 1_000_000


class SteppedLoop(SimLoop):
    """The simulator's loop, driven from outside, a callback or a span at a time."""

    def __init__(self) -> None:
        super().__init__(nothing, steps_max=STEPS_MAX)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """What the block makes belongs to this loop."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(before)

    def turn(self) -> bool:
        """Runs one callback that is ready; False where none is."""
        if not self._ready:
            return False
        with self.running():
            self._step()
        return True

    def settle(self) -> None:
        """Runs until nothing is ready.  Time stands still."""
        while self.turn():
            pass

    def pass_ms(self, ms: int, clock: MovedClock) -> None:
        """Lets time go by for the loop and both hands of the clock; timers run when due."""
        self.settle()
        end_ns = self.now_ns + ms * _MS
        while self.now_ns < end_ns:
            due = [when for when, _, handle in self._timers if not handle._cancelled]
            span_ns = min([end_ns, *(when for when in due if when > self.now_ns)]) - self.now_ns
            # The clock has whole milliseconds, as most of what happens here.
            span_ns = min(end_ns - self.now_ns, -(-span_ns // _MS) * _MS)
            clock.wall += span_ns // _MS
            clock.monotonic += span_ns
            self.pass_ns(span_ns)
            self.settle()

    def discard(self) -> None:
        """The process is gone: what it had scheduled never runs."""
        self._discard()


def stepped_loop() -> SteppedLoop:
    return SteppedLoop()  # type: ignore[abstract] # as asyncio's own, it need not do all


class PlayedWriter:
    """`ports.LogWriter`: a frame is written when `finish` says so, or is waited for."""

    def __init__(self) -> None:
        self.frame: tuple[File, bytes, int, Written] | None = None
        self.alive = True

    @property
    def lost(self) -> bool:
        """It was killed with no frame to write."""
        return not self.alive and self.frame is None

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        assert self.frame is None, "one frame at a time"
        self.frame = (file, frame, offset, done)
        if not self.alive:
            self.fail()

    def finish(self) -> None:
        """Writes the frame durably and says so.  A fault of the disk may end it."""
        assert self.frame is not None, "a frame is under way"
        file, frame, offset, done = self.frame
        error: OSError | None = None
        try:
            file.pwrite_durable(frame, offset)
        except OSError as raised:
            error = raised
        self.frame = None
        done(error, 0.002)

    def fail(self, *, after_bytes: int = 0) -> None:
        """The writer is killed; of the frame some bytes may be in the page cache."""
        self.alive = False
        if self.frame is None:
            return
        file, frame, offset, done = self.frame
        self.frame = None
        if after_bytes:
            file.pwrite(frame[:after_bytes], offset)
        done(BrokenPipeError("the writer process died"), 0.0)

    def wait(self) -> None:
        if self.frame is not None:
            self.finish()

    def close(self) -> None:
        self.wait()


class PlayedPool:
    """`ports.Pool`: workers that begin and end user code when a rule says so."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self.sent: dict[int, list[Attempt]] = {}
        """What each worker holds, in the order in which it came."""
        self.begun: dict[int, tuple[int, int]] = {}
        """The slots: highest token that each worker has begun, and when."""
        self.since: dict[int, int] = {}
        """When user code of a token began, monotonic ns; gone once it has ended."""
        self.added: dict[int, int] = {}
        """Workers that are to be started, and since when, monotonic ns."""
        self.killed: set[int] = set()
        """Workers that are to be reaped."""
        self.on_dispatch: Callable[[int, Sequence[Attempt]], None] = _ignore
        self.on_kill: Callable[[int], None] = _ignore

    async def start(self, events: PoolEvents) -> Sequence[TaskInfo]:
        return []

    def add(self, worker: int) -> None:
        assert not self.sent.get(worker), "a new worker holds nothing"
        self.added[worker] = self._clock.monotonic_ns()

    def dispatch(self, worker: int, attempts: Sequence[Attempt]) -> None:
        self.on_dispatch(worker, attempts)
        self.sent.setdefault(worker, []).extend(attempts)

    def waiting(self, worker: int) -> list[Attempt]:
        """What a worker has and has not begun."""
        started = self.begun.get(worker, (0, 0))[0]
        return [attempt for attempt in self.sent.get(worker, []) if attempt.token > started]

    def running(self, worker: int) -> list[Attempt]:
        started = self.begun.get(worker, (0, 0))[0]
        return [attempt for attempt in self.sent.get(worker, []) if attempt.token <= started]

    def begin(self, worker: int) -> Attempt:
        """A worker begins what has waited longest: the slot is marked first."""
        attempt = self.waiting(worker)[0]
        now_ns = self._clock.monotonic_ns()
        self.begun[worker] = (attempt.token, now_ns)
        self.since[attempt.token] = now_ns
        return attempt

    def end(self, worker: int, attempt: Attempt) -> None:
        """User code of an attempt has ended, and its worker lets go of it."""
        self.sent[worker].remove(attempt)
        self.since.pop(attempt.token, None)

    def reap(self, worker: int) -> list[Attempt]:
        """A worker is gone; returns what it held."""
        held = self.sent.pop(worker, [])
        for attempt in held:
            self.since.pop(attempt.token, None)
        self.killed.discard(worker)
        self.added.pop(worker, None)
        return held

    def recall(self, worker: int) -> list[int]:
        waiting = self.waiting(worker)
        self.sent[worker] = self.running(worker)
        return [attempt.token for attempt in waiting]

    def started(self, worker: int) -> tuple[int, int]:
        return self.begun.get(worker, (0, 0))

    def cancel(self, worker: int, token: int) -> None:
        """Told softly; user code here never listens."""

    def retire(self, worker: int) -> None:
        raise AssertionError("nothing retires a worker here")

    def kill(self, worker: int) -> None:
        self.on_kill(worker)
        self.killed.add(worker)

    async def stop(self) -> None:
        self.added.clear()


class SameJitter:
    """`ports.Entropy` without surprises."""

    def random(self) -> float:
        return 0.5

    def token_bytes(self, count: int) -> bytes:
        return bytes(count)


def _ignore(*_: Any) -> None:
    """Nobody listens."""
