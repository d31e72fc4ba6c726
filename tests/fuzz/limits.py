"""What no input may do: crash with an error that is not ours, hang, or take memory for it."""

from __future__ import annotations

import faulthandler
import resource
import signal
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SECONDS_MAX = 5.0
"""Far more than any input here takes, on a busy machine too."""


END_S = 60.0
"""After so long the process is ended with a traceback: C code is deaf to signals."""

SPARE_BYTES = 1 << 30
"""Beyond what it has, the process gets so much and then a `MemoryError`: an input that asks
for all the memory there is must not take the machine along."""


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
    faulthandler.dump_traceback_later(END_S, exit=True, file=sys.__stderr__)
    before_bytes = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + constant + factor * size + SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, before_bytes[1]))
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
        resource.setrlimit(resource.RLIMIT_AS, before_bytes)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if time.monotonic() - started_s > SECONDS_MAX:
        raise Hung(f"an input of {size} bytes took more than {SECONDS_MAX} s")
    allowed = constant + factor * size
    if peak - held > allowed:
        raise TooMuchMemory(
            f"an input of {size} bytes takes {peak - held} bytes of memory; {allowed} are allowed"
        )
