"""The speed of the machine without any queue: a raw durable write, and a loop of plain Python.

Both run beside every measurement, since machines differ and are noisy: a figure is worth
something only as a ratio to one of them.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

from beaver.system.disk import SystemDisk

RECORD_BYTES: Final = 128
_ROUNDS: Final = 300_000


def probe_sync(directory: str, count: int) -> dict[str, float]:
    """Measures durable writes into a zero-filled file, one after the other."""
    disk, path = SystemDisk(), str(Path(directory, "probe"))
    file = disk.open(path, write=True, create=True)
    try:
        file.pwrite(bytes(RECORD_BYTES * count), 0)
        file.sync()
        record, times = os.urandom(RECORD_BYTES), []
        started_s = time.perf_counter()
        for index in range(count):
            before_s = time.perf_counter()
            file.pwrite_durable(record, RECORD_BYTES * index)
            times.append(time.perf_counter() - before_s)
        took_s = time.perf_counter() - started_s
        return {"probe": count / took_s, "probe_p50": statistics.median(times) * 1000}
    finally:
        file.close()
        disk.unlink(path)


def calibrated_loop() -> float:
    """Returns the rounds that a fixed loop of Python makes in a second of the processor."""

    def step(table: dict[int, tuple[int, str]], index: int) -> int:
        row = (index, "job")
        table[index & 1023] = row
        return len(row[1])

    table: dict[int, tuple[int, str]] = {}
    total = 0
    started_s = time.thread_time()
    for index in range(_ROUNDS):
        total += step(table, index)
    took_s = time.thread_time() - started_s
    assert total == 3 * _ROUNDS, "every round did its work"
    return _ROUNDS / took_s


def loop_cost() -> float:
    """Returns the processor's seconds for one round: the unit in which code is compared."""
    return 1 / calibrated_loop()


def probe(directory: str, count: int) -> dict[str, float]:
    """Measures disk and interpreter once."""
    return {**probe_sync(directory, count), "loop": calibrated_loop()}
