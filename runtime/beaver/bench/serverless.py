"""The cost of an enqueue without a server, with few jobs pending or very many.

Each call is made as a new client makes it: it finds who holds the store, connects, says hello
and sends.  The first one at a large store starts a keeper, which recovers it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from beaver.api.app import Beaver
from beaver.bench.processes import processor_s
from beaver.bench.stores import write_history
from beaver.holder import starting
from beaver.transport import endpoint

FEW: Final = 1_000
CALLS: Final = 200
PRODUCERS: Final = 50
EACH: Final = 100
IDLE: Final = {"BEAVER_KEEPER_IDLE": "10m"}

ROWS: Final = (
    "serverless_p50",
    "serverless_many_p50",
    "growth_serverless",
    "serverless_start",
    "serverless_50",
)

_PRODUCER: Final = """
import sys
from beaver import Beaver
app = Beaver(sys.argv[1])
app.enqueue("echo", 0)
print(flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[2])):
    app.enqueue("echo", n)
"""


@contextmanager
def kept(directory: str, pending: int) -> Iterator[tuple[str, float]]:
    """Makes a store with so many pending jobs, and a keeper; gives its path, and how long the
    first enqueue took, which has started that.
    """
    data = str(Path(directory, f"serverless-{pending}"))
    write_history(data, pending, live=pending)
    before = os.environ.get("BEAVER_KEEPER_IDLE")
    os.environ.update(IDLE)
    try:
        started_s = time.perf_counter()
        enqueue_anew(data)
        took_s = time.perf_counter() - started_s
        while (info := endpoint.read(data)) is None or not info.keeper:
            enqueue_anew(data, 2)  # A small store needs no keeper for the first one.
        yield data, took_s
    finally:
        info = endpoint.read(data)
        starting.ask_to_leave(data)
        while info is not None and Path(f"/proc/{info.pid}").exists():
            time.sleep(0.01)  # It closes the log behind its last answer.
        os.environ.pop("BEAVER_KEEPER_IDLE")
        if before is not None:
            os.environ["BEAVER_KEEPER_IDLE"] = before


def enqueue_anew(data: str, count: int = 1) -> None:
    """Enqueues as a program that has just begun."""
    app = Beaver(data)
    for n in range(count):
        app.enqueue("echo", n)
    app.close()


def call_s(data: str) -> float:
    """Returns the median time of an enqueue by a new client."""
    times = []
    for _ in range(CALLS):
        started_s = time.perf_counter()
        enqueue_anew(data)
        times.append(time.perf_counter() - started_s)
    return statistics.median(times)


def keeper_s(data: str) -> float:
    """Returns the processor's seconds that the keeper takes for an enqueue by a new client."""
    info = endpoint.read(data)
    assert info is not None, "a keeper runs"
    before_s = processor_s(info.pid)
    for _ in range(CALLS):
        enqueue_anew(data)
    return (processor_s(info.pid) - before_s) / CALLS


def crowd_rate(data: str) -> float:
    """Returns how many jobs a second many producer processes enqueue together."""
    command = [sys.executable, "-c", _PRODUCER, data, str(EACH)]
    producers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PRODUCERS)
    ]
    for producer in producers:
        assert producer.stdout is not None, "piped"
        producer.stdout.readline()
    started_s = time.perf_counter()
    for producer in producers:
        producer.communicate(b"\n")
    return PRODUCERS * EACH / (time.perf_counter() - started_s)


def measure_serverless(directory: str, many: int) -> dict[str, float]:
    """Measures enqueues without a server, beside few pending jobs and beside many."""
    with kept(directory, FEW) as (data, _):
        few_s = call_s(data)
    with kept(directory, many) as (data, started_s):
        many_s = call_s(data)
        rate = crowd_rate(data)
    return {
        "serverless_p50": few_s * 1000,
        "serverless_many_p50": many_s * 1000,
        "growth_serverless": many_s / few_s,
        "serverless_start": started_s,
        "serverless_50": rate,
    }
