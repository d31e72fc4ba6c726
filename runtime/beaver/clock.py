"""The real clock and the real randomness, and the ids made of both."""

from __future__ import annotations

import os
import random
import time

from beaver.ports import Clock, Entropy


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


def uuid7(clock: Clock, entropy: Entropy) -> str:
    """Returns a UUID of version 7 (RFC 9562): 48 bits of milliseconds, 74 random bits."""
    random_bits = int.from_bytes(entropy.token_bytes(10), "big")
    value = (clock.wall_ms() & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | random_bits & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
