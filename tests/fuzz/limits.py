"""What no input may do: crash with an error that is not ours, hang, or take memory for it."""

from __future__ import annotations

import signal
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS_MAX = 5.0
"""Far more than any input here takes, on a busy machine too."""


class Hung(BaseException):
    """An input took too long.  No `Exception`, so that no code under test can swallow it."""


class TooMuchMemory(AssertionError):
    """An input took more memory than its size allows."""


@contextmanager
def limits(size: int, *, constant: int, factor: int) -> Iterator[None]:
    """Runs a block under a limit of time and of memory.

    Args:
        size: Bytes of the input.
        constant: Bytes that the block may take for any input.
        factor: Bytes that it may take beyond that for each byte of the input.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hung(f"an input of {size} bytes takes more than {SECONDS_MAX} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
    is_ours = not tracemalloc.is_tracing()
    if is_ours:
        tracemalloc.start()
    tracemalloc.reset_peak()
    held, _ = tracemalloc.get_traced_memory()
    started_s = time.monotonic()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if is_ours:
            tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if time.monotonic() - started_s > SECONDS_MAX:
        raise Hung(f"an input of {size} bytes took more than {SECONDS_MAX} s")
    allowed = constant + factor * size
    if peak - held > allowed:
        raise TooMuchMemory(
            f"an input of {size} bytes takes {peak - held} bytes of memory; {allowed} are allowed"
        )
