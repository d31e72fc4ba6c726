"""The real clock and the real randomness."""

from __future__ import annotations

import os
import random
import time


class SystemClock:
    """`ports.Clock` on the machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class SystemEntropy:
    """`ports.Entropy` on the kernel's randomness; jitter needs no more than a generator."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing

    def random(self) -> float:
        return self._random.random()

    def token_bytes(self, count: int) -> bytes:
        return os.urandom(count)
