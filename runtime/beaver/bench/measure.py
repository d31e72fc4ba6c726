"""The measurements.  Each runs against a real server (or the real files) and returns rows.

Every acknowledgement that is counted came after its sync.  Clients run in this process, so
on a small machine they take their share of the cores from the server, as they would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from beaver.async_client import AsyncClient
from beaver.async_client import connect as connect_async
from beaver.client import connect
from beaver.clock import SystemClock
from beaver.disk import SystemDisk
from beaver.errors import BeaverError
from beaver.journal.codec import encode_commit
from beaver.locking import prepare_directory
from beaver.messages import Request
from beaver.recovery import open_store
from beaver.requests import make_request
from beaver_model import Spec
from beaver_model.events import Acked, AnyEvent, Dispatched, Enqueued
from beaver_model.rows import encode_spec

PAYLOAD = {"value": 42, "note": "bench"}
"""About 30 bytes of JSON."""

READY_S = 60.0
DRAIN_S = 600.0


class Row(NamedTuple):
    """One figure of the table."""

    name: str
    value: float
    unit: str
    note: str = ""


class Sizes(NamedTuple):
    """How much is measured."""

    probe: int = 2_000
    serial: int = 3_000
    many: int = 20_000
    bulk: int = 100_000
    drain: int = 30_000
    latency: int = 500
    events: int = 1_000_000


QUICK = Sizes(
    probe=300, serial=300, many=3_000, bulk=10_000, drain=3_000, latency=50, events=100_000
)


def percentile(values: list[float], share: float) -> float:
    """Returns the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# -- the raw disk ---------------------------------------------------------------------------


def probe_sync(directory: str, count: int) -> tuple[float, float]:
    """Returns the rate and the median seconds of durable writes of 128 bytes, one by one."""
    disk, path = SystemDisk(), str(Path(directory, "probe"))
    file = disk.open(path, write=True, create=True)
    try:
        file.pwrite(bytes(128 * count), 0)
        file.sync()
        record, times = os.urandom(128), []
        started_s = time.perf_counter()
        for index in range(count):
            before_s = time.perf_counter()
            file.pwrite_durable(record, 128 * index)
            times.append(time.perf_counter() - before_s)
        return count / (time.perf_counter() - started_s), statistics.median(times)
    finally:
        file.close()
        disk.unlink(path)


# -- a server -------------------------------------------------------------------------------


@contextmanager
def server(data: str, workers: int) -> Iterator[subprocess.Popen[str]]:
    """Runs a real server over `data` while the block runs."""
    command = [sys.executable, "-m", "beaver", "run", "--data", data, "--http", "off"]
    command += ["-A", "beaver.bench.tasks:app", "--workers", str(workers), "--grace", "1s"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise BeaverError(f"the measured server did not start (exit {process.wait()})")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _jobs(count: int, task: str = "bench.nothing", queue: str = "default") -> list[Request]:
    payload = PAYLOAD if task == "echo" else None
    return [make_request(task, payload, queue=queue) for _ in range(count)]


def enqueue_serial(data: str, count: int) -> list[Row]:
    """One client, one job at a time, over the local socket."""
    requests = _jobs(count, "echo", "parked")
    times = []
    with connect(data) as client:
        client.set_queue("parked", True, None, None)
        started_s = time.perf_counter()
        for request in requests:
            before_s = time.perf_counter()
            client.enqueue([request])
            times.append(time.perf_counter() - before_s)
        took_s = time.perf_counter() - started_s
    return [
        Row("enqueue, 1 client", count / took_s, "jobs/s"),
        Row("enqueue, 1 client, p50", percentile(times, 0.5) * 1000, "ms"),
        Row("enqueue, 1 client, p99", percentile(times, 0.99) * 1000, "ms"),
    ]


def enqueue_many(data: str, clients: int, count: int) -> list[Row]:
    """Many clients, each with a connection of its own and one job under way."""

    async def one(client: AsyncClient, requests: list[Request]) -> None:
        for request in requests:
            await client.enqueue([request])

    async def all_of_them() -> float:
        share = count // clients
        connections = [await connect_async(data) for _ in range(clients)]
        work = [_jobs(share, "echo", "parked") for _ in connections]
        started_s = time.perf_counter()
        await asyncio.gather(*map(one, connections, work))
        took_s = time.perf_counter() - started_s
        for connection in connections:
            connection.close()
        return share * clients / took_s

    return [Row(f"enqueue, {clients} clients", asyncio.run(all_of_them()), "jobs/s")]


def enqueue_bulk(data: str, count: int, batch: int = 100) -> list[Row]:
    """One client, batches of 100, one after the other; requests are made before."""
    requests = _jobs(count, "echo", "parked")
    with connect(data) as client:
        started_s = time.perf_counter()
        for first in range(0, count, batch):
            client.enqueue(requests[first : first + batch])
        took_s = time.perf_counter() - started_s
    return [Row(f"enqueue, batches of {batch}", count / took_s, "jobs/s")]


def drain(data: str, count: int) -> list[Row]:
    """Jobs that wait in a paused queue, from its resume to the last ACK."""
    with connect(data) as client:
        client.set_queue("drain", True, None, None)
        requests = _jobs(count, queue="drain")
        for first in range(0, count, 1_000):
            client.enqueue(requests[first : first + 1_000])
        done = client.status().queues["drain"].completed + count
        started_s = time.perf_counter()
        client.set_queue("drain", False, None, None)
        _until(lambda: client.status().queues["drain"].completed >= done)
        took_s = time.perf_counter() - started_s
    return [Row("drain, 2 workers", count / took_s, "jobs/s")]


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DRAIN_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise BeaverError("the measured server did not finish its jobs")
        time.sleep(0.01)


def latency(data: str, count: int, rate: int = 100) -> list[Row]:
    """From sending a job to the start of its code, and to its result, at 100 jobs/s."""
    starts, ends = [], []
    with connect(data) as client:
        for _ in range(count):
            request = make_request("bench.started")
            sent_ns = time.monotonic_ns()
            client.enqueue([request])
            result = client.wait(request.id, 10.0)
            ended_ns = time.monotonic_ns()
            starts.append((int(bytes(result.result)) - sent_ns) / 1e6)
            ends.append((ended_ns - sent_ns) / 1e6)
            time.sleep(1 / rate)
    return [
        Row("enqueue to start, p50", percentile(starts, 0.5), "ms", f"at {rate} jobs/s"),
        Row("enqueue to start, p99", percentile(starts, 0.99), "ms"),
        Row("enqueue to result, p50", percentile(ends, 0.5), "ms"),
    ]


# -- recovery --------------------------------------------------------------------------------


def write_history(data: str, events: int, *, live: int) -> int:
    """Writes a log of about so many events, 100 a frame, of which `live` jobs stay pending."""
    disk = SystemDisk()
    prepare_directory(disk, data)
    opened = open_store(disk, data, clock=SystemClock(), create=True, segment_bytes=64 << 20)
    wal, spec, digest = opened.wal, encode_spec(Spec("echo")), bytes(12)
    batch: list[AnyEvent] = []
    finished = max(0, (events - live) // 3)
    seq = wal.last_seq

    def flush(now_ms: int) -> None:
        nonlocal seq
        payload = encode_commit(now_ms, batch)
        wal.reserve(len(payload) + 64)
        wal.append(payload, len(batch))
        seq += len(batch)
        batch.clear()

    for index in range(live + finished):
        name = f"0193{index:08x}-7000-8000-000000000000"
        batch.append(Enqueued(name, spec, b'{"value": 42, "note": "bench"}', digest))
        if index >= live:
            token = seq + len(batch) + 1
            batch += [Dispatched(name, 1), Acked(name, token, b"null")]
        if len(batch) >= 99:
            flush(1_700_000_000_000 + index)
    if batch:
        flush(1_700_000_000_000 + live + finished)
    wal.close()
    return seq


def recovery(directory: str, events: int) -> list[Row]:
    """Opening a store whose log holds a million events and no snapshot."""
    data = str(Path(directory, "history"))
    written = write_history(data, events, live=events // 3)
    started_s = time.perf_counter()
    opened = open_store(SystemDisk(), data, clock=SystemClock(), create=False)
    took_s = time.perf_counter() - started_s
    if opened.state.last_seq != written:
        raise BeaverError(f"recovered {opened.state.last_seq} events of {written}")
    opened.wal.close()
    note = f"{written} events, {len(opened.state.jobs)} jobs live"
    return [
        Row("recovery of the log", took_s, "s", note),
        Row("replay", written / took_s, "events/s"),
    ]


# -- all together ------------------------------------------------------------------------------


def run_all(directory: str, sizes: Sizes, workers: int, tell: Callable[[str], Any]) -> list[Row]:
    """Measures every row in a fresh directory below `directory`; `tell` gets each name."""
    data = str(Path(directory, "data"))
    tell("raw sync probe")
    rate, median_s = probe_sync(directory, sizes.probe)
    rows: list[Row] = []
    measures: dict[str, Callable[[], list[Row]]] = {
        "enqueue, 1 client": lambda: enqueue_serial(data, sizes.serial),
        "enqueue, 8 clients": lambda: enqueue_many(data, 8, sizes.many),
        "enqueue, 64 clients": lambda: enqueue_many(data, 64, sizes.many),
        "enqueue in bulk": lambda: enqueue_bulk(data, sizes.bulk),
        "latency": lambda: latency(data, sizes.latency),
        "drain": lambda: drain(data, sizes.drain),
    }
    with server(data, workers):
        for name, measure in measures.items():
            tell(name)
            rows += measure()
    tell("recovery")
    rows += recovery(directory, sizes.events)
    tell("raw sync probe again")
    rate_after, median_after_s = probe_sync(directory, sizes.probe)
    rate, median_s = (rate + rate_after) / 2, (median_s + median_after_s) / 2
    first = [
        Row("raw sync probe", rate, "syncs/s", "before and after, mean"),
        Row("raw sync probe, p50", median_s * 1000, "ms"),
    ]
    return first + rows
