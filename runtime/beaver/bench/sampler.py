"""A server whose main thread is sampled: `python -m beaver.bench.sampler OUT run --data ...`.

A timer interrupts the process every two milliseconds; the handler notes the stack of the loop's
thread.  A sample weighs the processor's time since the last one, so neither waiting for work
nor what others run counts; but at the disk it weighs all of the time, since a sync keeps
everybody waiting.  What C code does is counted to the line of Python that called it, and what
the loop does in C (polling, reading and writing sockets) to `loop`.

`SIGUSR1` writes what was counted to OUT and begins anew: lines of `frame;frame;frame us`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

from beaver.config.layers import Config, load_config
from beaver.server.serve import run
from beaver.system import disk

INTERVAL_S: Final = 0.002
LOOP: Final = "loop"
_OWN: Final = ("beaver", "beaver_model")
_DISK: Final = disk.__file__


class StackSampler:
    """Counts stacks of the thread that handles signals."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._counts: Counter[tuple[CodeType, ...]] = Counter()
        self._number = 0
        self._last_ns = self._last_used_ns = 0
        self._wake_ns = int(INTERVAL_S * 1e9)

    def start(self) -> None:
        """Samples from now on."""
        self._begin()
        signal.signal(signal.SIGALRM, self._sample)
        signal.signal(signal.SIGUSR1, self._write)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, INTERVAL_S, INTERVAL_S)

    def _begin(self) -> None:
        self._counts.clear()
        self._last_ns, self._last_used_ns = time.perf_counter_ns(), time.thread_time_ns()

    def _sample(self, number: int, innermost: FrameType | None) -> None:
        now_ns, used_ns = time.perf_counter_ns(), time.thread_time_ns()
        codes, frame = [], innermost
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        own = tuple(code for code in reversed(codes) if _is_ours(code))
        at_disk = own and own[-1].co_filename == _DISK
        took_ns = now_ns - self._last_ns if at_disk else used_ns - self._last_used_ns
        if not own:
            # A loop that waits is woken by the timer alone: the least that this has taken is
            # the timer's, not the loop's.
            self._wake_ns = min(self._wake_ns, took_ns)
            took_ns -= self._wake_ns
        self._counts[own] += took_ns
        # The time of this handler counts for nobody.
        self._last_ns, self._last_used_ns = time.perf_counter_ns(), time.thread_time_ns()

    def _write(self, number: int, innermost: FrameType | None) -> None:
        lines = [
            f"{';'.join((LOOP, *map(_name, codes)))} {took_ns / 1000:.0f}"
            for codes, took_ns in dict(self._counts).items()  # a copy: samples go on
        ]
        self._number += 1
        part = Path(f"{self._path}.part")
        part.write_text("\n".join(lines))
        part.rename(f"{self._path}.{self._number}")
        self._begin()


_ours: dict[CodeType, bool] = {}


def _is_ours(code: CodeType) -> bool:
    """True for code of Beaver that the loop calls; what is below every stack is left out."""
    known = _ours.get(code)
    if known is None:
        path = Path(code.co_filename)
        inside = any(name in path.parts for name in _OWN)
        known = inside and path.name not in ("serve.py", "sampler.py", "uvloop_stalls.py")
        _ours[code] = known
    return known


def _name(code: CodeType) -> str:
    path = Path(code.co_filename)
    return f"{path.parent.name}/{path.stem}:{code.co_qualname}".replace(";", ",")


def config_of(flags: Sequence[str]) -> Config:
    """Returns the configuration of `beaver run` with these flags, each with a value."""
    names = [flag.removeprefix("--").replace("-", "_") for flag in flags[::2]]
    given = dict(zip(names, flags[1::2], strict=True))
    return load_config({"app" if name == "_A" else name: value for name, value in given.items()})


def main() -> int:
    """Runs a server with the flags behind OUT and `run`."""
    StackSampler(sys.argv[1]).start()
    return run(config_of(sys.argv[3:]))


if __name__ == "__main__":
    sys.exit(main())
