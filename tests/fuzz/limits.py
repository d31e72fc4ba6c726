"""What no input may do: crash with an error that is not ours, hang, or take memory for it."""

from __future__ import annotations

import faulthandler
import resource
import signal
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

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


def within_limits(
    run: Callable[[bytes], T], data: bytes, *, constant: int, factor: int, guarded: bool = True
) -> T:
    """Returns `run(data)`, under the limits that `limits` describes.

    What an input takes it takes each time, so memory is held against it at the second try.
    Once in some ten thousand runs the interpreter rebuilds its table of interned strings, which
    is a megabyte or two and no input's fault.
    """
    try:
        with limits(len(data), constant=constant, factor=factor, guarded=guarded):
            return run(data)
    except TooMuchMemory:
        with limits(len(data), constant=constant, factor=factor, guarded=guarded):
            return run(data)


@contextmanager
def limits(size: int, *, constant: int, factor: int, guarded: bool = True) -> Iterator[None]:
    """Runs a block under a limit of time and of memory.

    Args:
        size: Bytes of the input.
        constant: Bytes that the block may take for any input.
        factor: Bytes that it may take beyond that for each byte of the input.
        guarded: Stops the block where it goes far beyond; False under libFuzzer, which has
            means of its own.
    """
    allowed = constant + factor * size
    started_s = time.monotonic()
    with ExitStack() as stack:
        if guarded:
            stack.enter_context(_alarm(size))
            stack.enter_context(_address_space(allowed))
        is_ours = not tracemalloc.is_tracing()
        if is_ours:
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
    if time.monotonic() - started_s > SECONDS_MAX:
        raise Hung(f"an input of {size} bytes took more than {SECONDS_MAX} s")
    if peak - held > allowed:
        raise TooMuchMemory(
            f"an input of {size} bytes takes {peak - held} bytes of memory; {allowed} are allowed"
        )


@contextmanager
def _alarm(size: int) -> Iterator[None]:
    """Raises `Hung` inside of a block that takes too long; at last ends the process."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hung(f"an input of {size} bytes takes more than {SECONDS_MAX} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
    assert sys.__stderr__ is not None, "a test has one"
    faulthandler.dump_traceback_later(END_S, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _address_space(allowed: int) -> Iterator[None]:
    """Bounds what the kernel gives the process, where it says what it has given."""
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + allowed + SPARE_BYTES
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
