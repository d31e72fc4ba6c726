"""Ratios of a short benchmark, pinned: what CI measures, and how it judges.

Nothing is judged by an absolute time.  Rates of single durable operations are compared with
raw durable writes that are made in between, a hundred of each in turn, so that a slow moment
of the disk hits both.  Costs are processor time, which a busy machine changes little, in
rounds of a calibrated loop of plain Python that runs right before and after.  Growth compares
the cost at 100,000 pending jobs with that at 1,000.

`pinned.json` holds each ratio with its margin.  It is rewritten on purpose only, with
`python -m tests.bench.ratios`, and the reason in the commit.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from beaver.bench import inside, stores, subject
from beaver.bench.documented import Documented, application
from beaver.bench.probe import RECORD_BYTES, loop_cost, probe_sync
from beaver.bench.processes import processor_s
from beaver.bench.records import payload
from beaver.bench.run import QUICK
from beaver.bench.served import PROGRAM, Served, ServerProcess, request, serving
from beaver.bench.subject import LoopBudget, Sent
from beaver.client.blocking import connect
from beaver.engine.engine import Engine
from beaver.journal.wal.lock import prepare_directory
from beaver.request.resolving import Resolver
from beaver.store.recovery import open_store
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver_model.commands import Enqueue

PINNED = Path(__file__).with_name("pinned.json")
TRIES = 3
CHUNK = 50
CHUNKS = 12
PENDING = 100_000

MARGINS = {
    "probe": 0.4,
    "server": 0.6,
    "code": 0.4,
    "growth": 0.4,
    "latency": 0.9,
    "memory": 0.1,
}
"""By how much of its pinned value a ratio may be worse, by the kind of measurement.  On a
busy machine with two cores the same code was seen to differ by 5 % in the processor time of
plain calls (and more between processors), by 30 % in that of a whole server, whose batches
depend on the disk, and by 40 % beside a disk that others use.  Latency is mostly that of two
syncs and of processes that are woken, both of which others delay."""


class Pin(NamedTuple):
    """One ratio as it is pinned."""

    value: float
    margin: float
    more_is_better: bool

    @property
    def bound(self) -> float:
        """The worst value that still passes."""
        return self.value * ((1 - self.margin) if self.more_is_better else (1 + self.margin))

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.more_is_better else value <= self.bound


def read_pins() -> dict[str, Pin]:
    """Returns what is pinned, by name."""
    return {name: Pin(**fields) for name, fields in json.loads(PINNED.read_text()).items()}


def judge(pin: Pin, measure: Callable[[], float]) -> list[float]:
    """Measures until the ratio holds, a few times at most; returns the values that did not.

    An empty list, or one that is shorter than `TRIES`, is a pass: noise only ever makes a
    measurement worse, so one good one shows that the code can do it.
    """
    failed: list[float] = []
    for _ in range(TRIES):
        value = measure()
        if pin.holds(value):
            break
        failed.append(value)
    return failed


# -- what is measured -------------------------------------------------------------------------


class Bench:
    """A server and a scratch directory, for the length of all measurements."""

    def __init__(self, stack: ExitStack, program: Sequence[str] = PROGRAM) -> None:
        self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="beaver-ratios-"))
        data = str(Path(self.directory, "data"))
        self.server: ServerProcess = stack.enter_context(serving(data, program=program))
        self.served = stack.enter_context(closing(Served(self.server)))
        self.api = Documented(self.served)
        self._drawn = 0

    def queue(self, name: str) -> str:
        """Returns a name that no other measurement uses."""
        self._drawn += 1
        return f"{name}-{self._drawn}"

    # -- beside the raw probe --------------------------------------------------------------

    def serial_over_probe(self) -> float:
        """Durable enqueues over the socket by one client, over raw durable writes."""
        queue = self.queue("serial")
        with connect(self.server.data) as client:
            client.set_queue(queue, True, None, None)
            numbers = iter(subject.draw_numbers(CHUNK * CHUNKS))
            return self._beside_probe(lambda: client.enqueue([request(next(numbers), queue)]))

    def inside_over_probe(self) -> float:
        """The same through an engine in this process."""
        data, disk, clock = f"{self.directory}/{self.queue('in')}", SystemDisk(), SystemClock()
        prepare_directory(disk, data)
        opened = open_store(disk, data, clock=clock, create=True)
        resolver, numbers = Resolver(), iter(subject.draw_numbers(CHUNK * CHUNKS))

        async def measure() -> float:
            engine = Engine(opened.state, opened.journal, clock, on_failure=_fail)

            def enqueue() -> None:
                job = resolver.job(request(next(numbers), "default"), engine.now_ms())
                engine.submit(Enqueue([job]), lambda _: None)
                engine.flush()

            return self._beside_probe(enqueue)

        try:
            return asyncio.run(measure())
        finally:
            opened.journal.close()

    def _beside_probe(self, work: Callable[[], Any]) -> float:
        """Returns the median over chunks of a probe's median time over the work's."""
        disk, path = SystemDisk(), f"{self.directory}/probe"
        file = disk.open(path, write=True, create=True)
        try:
            file.pwrite(bytes(RECORD_BYTES * CHUNK), 0)
            file.sync()
            record = os.urandom(RECORD_BYTES)
            ratios: list[float] = []
            for _ in range(CHUNKS):
                offsets = [RECORD_BYTES * n for n in range(CHUNK)]
                probe = _median_s([partial(file.pwrite_durable, record, at) for at in offsets])
                ratios.append(probe / _median_s([work] * CHUNK))
            return statistics.median(ratios)
        finally:
            file.close()
            disk.unlink(path)

    def api_serial_over_probe(self) -> float:
        """Durable `task.enqueue` by one client, over raw durable writes."""
        queue = self.queue("api")
        self.served.pause(queue)
        app, record = application(self.server.data, queue)
        numbers = iter(subject.draw_numbers(CHUNK * CHUNKS))
        try:
            return self._beside_probe(lambda: record.enqueue(**payload(next(numbers))))
        finally:
            app.close()

    # -- in rounds of the calibrated loop -----------------------------------------------------

    def clients_64_cost(self) -> float:
        """Processor time of the server for a job, with 64 clients at work."""
        return self._server_cost("clients", 64, 1, LoopBudget(12_800, 5.0))

    def bulk_cost(self) -> float:
        """The same for a job in a batch of 100."""
        return self._server_cost("bulk", 1, subject.BATCH, LoopBudget(40_000, 5.0))

    def _server_cost(self, name: str, clients: int, batch: int, budget: LoopBudget) -> float:
        queue, pid = self.queue(name), self.server.pid
        loop_s, before_s = loop_cost(), processor_s(pid)
        sent = self.served.send_loop(queue, clients, batch, budget)
        used_s = processor_s(pid) - before_s
        return used_s / sent.jobs / min(loop_s, loop_cost())

    def api_tasks_64_cost(self) -> float:
        """Processor time of client and server for a job, with 64 tasks on `aenqueue`."""
        return self._api_cost(
            lambda queue: self.api.send_loop(queue, 64, 1, LoopBudget(12_800, 5.0))
        )

    def api_threads_64_cost(self) -> float:
        """The same with 64 threads on `task.enqueue`."""
        return self._api_cost(
            lambda queue: self.api.send_threads(queue, 64, LoopBudget(6_400, 5.0))
        )

    def api_procs_8_cost(self) -> float:
        """The same with eight processes."""
        return self._api_cost(
            lambda queue: self.api.send_processes(queue, 8, LoopBudget(4_000, 5.0))
        )

    def api_bulk_cost(self) -> float:
        """The same for a job of an `app.enqueue_many` of 100."""
        return self._api_cost(
            lambda queue: self.api.send_loop(queue, 1, subject.BATCH, LoopBudget(40_000, 5.0))
        )

    def _api_cost(self, send: Callable[[str], Sent]) -> float:
        queue, pid = self.queue("api"), self.server.pid
        loop_s, before_s, own_s = loop_cost(), processor_s(pid), time.process_time()
        sent = send(queue)
        clients_s = sent.used_s or time.process_time() - own_s
        used_s = processor_s(pid) - before_s + clients_s
        return used_s / sent.jobs / min(loop_s, loop_cost())

    def concurrent_cost(self) -> float:
        """Processor time of the server for a job that is enqueued and run, both at once."""
        queue, pid = self.queue("both"), self.server.pid
        loop_s, before_s = loop_cost(), processor_s(pid)
        with self.served.workers(queue):
            sent = self.served.send_loop(queue, 64, 1, LoopBudget(6_400, 5.0))
            assert self.served.finished(queue, sent.jobs, 60.0), "the workers finish their jobs"
        used_s = processor_s(pid) - before_s
        return used_s / sent.jobs / min(loop_s, loop_cost())

    def latency_over_probe(self) -> float:
        """Time from the call that enqueues a job to its start, over that of a raw write.

        Two syncs and four wake-ups of processes; the queue is otherwise idle.
        """
        sizes = QUICK.beaver._replace(latency=LoopBudget(60, 1.0))
        before = probe_sync(self.directory, CHUNK)["probe_p50"]
        found = subject.measure_latency(self.served, self.queue("latency"), sizes)
        after = probe_sync(self.directory, CHUNK)["probe_p50"]
        return found["latency_p50"] / max(before, after)

    # -- of stores ---------------------------------------------------------------------------

    def replay_cost(self) -> float:
        """Processor time of recovery for an event of the log, a third of them live jobs."""
        data, events = f"{self.directory}/{self.queue('replay')}", 100_000
        written = stores.write_history(data, events, live=events // 3)
        loop_s, before_s = loop_cost(), time.process_time()
        stores.measure_replay(data, written)
        used_s = time.process_time() - before_s
        return used_s / events / min(loop_s, loop_cost())

    def memory_job(self) -> float:
        """Bytes by which a server grows with a pending job."""
        directory = Path(self.directory, self.queue("memory"))
        directory.mkdir()
        return stores.measure_memory(str(directory), 50_000)

    def drain_cost(self) -> float:
        """Processor time of the server for a job that two workers run."""
        queue, pid, jobs = self.queue("drain"), self.server.pid, 12_000
        self.served.send_loop(queue, 1, subject.BATCH, LoopBudget(jobs, 30.0))
        loop_s, before_s = loop_cost(), processor_s(pid)
        with self.served.workers(queue):
            assert self.served.finished(queue, jobs, 60.0), "the workers finish their jobs"
        used_s = processor_s(pid) - before_s
        return used_s / jobs / min(loop_s, loop_cost())


def measure_costs(pending: int = PENDING) -> dict[str, float]:
    """Returns the costs in rounds of the loop, and their growth with pending jobs."""
    loop_s = loop_cost()
    values = inside.measure_growth(pending)
    loop_us = min(loop_s, loop_cost()) * 1e6
    return {
        name: value / loop_us if name.startswith("cost_") else value
        for name, value in values.items()
    }


SERVED: dict[str, tuple[str, Callable[[Bench], float]]] = {
    "serial_over_probe": ("probe", Bench.serial_over_probe),
    "inside_over_probe": ("probe", Bench.inside_over_probe),
    "api_serial_over_probe": ("probe", Bench.api_serial_over_probe),
    "api_tasks_64_cost": ("server", Bench.api_tasks_64_cost),
    "api_threads_64_cost": ("server", Bench.api_threads_64_cost),
    "api_procs_8_cost": ("server", Bench.api_procs_8_cost),
    "api_bulk_cost": ("server", Bench.api_bulk_cost),
    "clients_64_cost": ("server", Bench.clients_64_cost),
    "bulk_cost": ("server", Bench.bulk_cost),
    "drain_cost": ("server", Bench.drain_cost),
    "concurrent_cost": ("server", Bench.concurrent_cost),
    "latency_over_probe": ("latency", Bench.latency_over_probe),
    "replay_cost": ("code", Bench.replay_cost),
    "memory_job": ("memory", Bench.memory_job),
}
"""What is measured with a server, by name: the kind of its margin, and how."""

MORE_IS_BETTER = ("serial_over_probe", "inside_over_probe", "api_serial_over_probe")
"""Rates; everything else is a cost."""

_KINDS = {"cost": "code", "growth": "growth"}
COSTS = tuple(f"cost_{kind}" for kind in inside.COSTS)
GROWTHS = tuple(f"growth_{kind}" for kind in inside.GROWING)


def _median_s(calls: list[Callable[[], Any]]) -> float:
    times = []
    for call in calls:
        before_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - before_s)
    return statistics.median(times)


def _fail(error: BaseException) -> None:
    raise AssertionError("the log failed") from error


# -- pinning ---------------------------------------------------------------------------------


def main() -> None:
    """Measures everything a few times and pins the medians: run it where nothing else runs."""
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        bench = Bench(stack)
        for _ in range(TRIES):
            for name, (_, measure) in SERVED.items():
                found.setdefault(name, []).append(measure(bench))
            for name, value in measure_costs().items():
                found.setdefault(name, []).append(value)
    pins = {}
    for name, values in found.items():
        more = name in MORE_IS_BETTER
        kind = SERVED[name][0] if name in SERVED else _KINDS[name.partition("_")[0]]
        value = statistics.median(values)
        # What does not grow is pinned as level, not as whatever noise made of it.
        value = max(1.0, value) if kind == "growth" else value
        pins[name] = {"value": round(value, 2), "margin": MARGINS[kind], "more_is_better": more}
        sys.stdout.write(f"{name}: {', '.join(f'{v:.3g}' for v in values)}\n")
    PINNED.write_text(json.dumps(pins, indent=2) + "\n")


if __name__ == "__main__":
    main()
