"""A queue that is measured, Beaver or a peer, and the measurements that are made of all.

A `Subject` knows how to send jobs and how to start two workers; the functions below do with
it what each row says.  Every loop is bounded in jobs and in time, and a rate counts only what
the queue acknowledged: each subject is set up to sync before it acknowledges.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from beaver.bench.records import FIRST_NUMBER, Records
from beaver.bench.rows import percentile

T = TypeVar("T")

BATCH: Final = 100
RATE: Final = 100
"""Jobs a second while latency is measured."""

WORKERS: Final = 2
DRAIN_S: Final = 60.0
"""No wait for jobs is longer."""


class LoopBudget(NamedTuple):
    """Bounds of a loop: it ends at the first one that it reaches."""

    jobs: int
    seconds: float


class Sizes(NamedTuple):
    """How much of each row is done in a round."""

    serial: LoopBudget
    many: LoopBudget
    bulk: LoopBudget
    drain: LoopBudget
    latency: LoopBudget
    concurrent: LoopBudget


class Sent(NamedTuple):
    """The result of a sending loop."""

    jobs: int
    seconds: float
    times_s: list[float]
    """Duration of each call."""
    sent_ns: dict[int, int]
    """When the call for a number began; for batches, that of the first number."""
    used_s: float = 0.0
    """Processor's seconds of the clients, where they are processes."""

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds


class Sender(Protocol):
    """One client's connection."""

    def send(self, numbers: Sequence[int]) -> None:
        """Enqueues a job for each number; durable on return.  Several are one batch."""
        ...

    def close(self) -> None: ...


class AsyncSender(Protocol):
    """One client's connection, awaited."""

    async def send(self, numbers: Sequence[int]) -> None: ...

    async def close(self) -> None: ...


class Subject(Protocol):
    """One queue, running."""

    name: str
    batches: bool
    """It takes many jobs in one call."""
    records: str
    """Path of the file that its jobs append to."""

    def send_loop(self, queue: str, clients: int, batch: int, budget: LoopBudget) -> Sent:
        """Lets so many clients send until the budget is spent."""
        ...

    def send_processes(self, queue: str, clients: int, budget: LoopBudget) -> Sent:
        """Lets so many processes send, one job at a time."""
        ...

    def send_paced(self, queue: str, budget: LoopBudget, rate: int) -> Sent:
        """Lets one client send jobs at a rate."""
        ...

    def workers(self, queue: str) -> AbstractContextManager[None]:
        """Runs two workers on a queue; ready to run jobs when the block begins."""
        ...

    def finished(self, queue: str, count: int, seconds: float) -> bool:
        """Waits until so many jobs of the queue are known to be finished."""
        ...


_numbers = itertools.count(FIRST_NUMBER)


def draw_numbers(count: int) -> list[int]:
    """Returns numbers that no other job of this run has."""
    return list(itertools.islice(_numbers, count))


# -- sending loops --------------------------------------------------------------------------


def send_one_by_one(sender: Sender, numbers: Sequence[int], batch: int, seconds: float) -> Sent:
    """Sends with one client until the numbers or the time are used up."""
    times, sent_ns, done = [], {}, 0
    started_ns = before_ns = time.monotonic_ns()
    limit_ns = started_ns + int(seconds * 1e9)
    while done < len(numbers) and before_ns < limit_ns:
        part = numbers[done : done + batch]
        sent_ns[part[0]] = before_ns
        sender.send(part)
        after_ns = time.monotonic_ns()
        times.append((after_ns - before_ns) / 1e9)
        before_ns, done = after_ns, done + len(part)
    return Sent(done, (before_ns - started_ns) / 1e9, times, sent_ns)


def send_with_threads(
    connect: Callable[[], Sender], clients: int, batch: int, budget: LoopBudget
) -> Sent:
    """Sends with a thread and a connection for each client."""
    shares = _shares(clients, budget.jobs)
    senders = [connect() for _ in shares]
    results: list[Sent] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(clients + 1)

    def work(sender: Sender, share: list[int]) -> None:
        try:
            barrier.wait()
            results.append(send_one_by_one(sender, share, batch, budget.seconds))
        except BaseException as error:  # noqa: BLE001 - raised by the caller's thread
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=pair, daemon=True)
        for pair in zip(senders, shares, strict=True)
    ]
    try:
        for thread in threads:
            thread.start()
        barrier.wait()
        started_s = time.perf_counter()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - started_s
    finally:
        for sender in senders:
            sender.close()
    if failures:
        raise failures[0]
    return _merge(results, took_s)


async def send_with_tasks(
    connect: Callable[[], Awaitable[AsyncSender]], clients: int, batch: int, budget: LoopBudget
) -> Sent:
    """Sends with a task and a connection for each client, on one loop."""
    shares = _shares(clients, budget.jobs)
    senders = [await connect() for _ in shares]

    async def work(sender: AsyncSender, share: list[int]) -> Sent:
        times, sent_ns, done = [], {}, 0
        started_ns = before_ns = time.monotonic_ns()
        limit_ns = started_ns + int(budget.seconds * 1e9)
        while done < len(share) and before_ns < limit_ns:
            part = share[done : done + batch]
            sent_ns[part[0]] = before_ns
            await sender.send(part)
            after_ns = time.monotonic_ns()
            times.append((after_ns - before_ns) / 1e9)
            before_ns, done = after_ns, done + len(part)
        return Sent(done, (before_ns - started_ns) / 1e9, times, sent_ns)

    try:
        started_s = time.perf_counter()
        results = await asyncio.gather(*map(work, senders, shares))
        took_s = time.perf_counter() - started_s
    finally:
        for sender in senders:
            await sender.close()
    return _merge(results, took_s)


def send_paced(sender: Sender, budget: LoopBudget, rate: int) -> Sent:
    """Sends jobs one by one, each at its time."""
    times, sent_ns = [], {}
    started_ns = time.monotonic_ns()
    numbers = draw_numbers(min(budget.jobs, int(budget.seconds * rate)))
    for index, number in enumerate(numbers):
        _sleep_until(started_ns + index * 1_000_000_000 // rate)
        before_ns = sent_ns[number] = time.monotonic_ns()
        sender.send([number])
        times.append((time.monotonic_ns() - before_ns) / 1e9)
    return Sent(len(numbers), (time.monotonic_ns() - started_ns) / 1e9, times, sent_ns)


async def send_paced_async(sender: AsyncSender, budget: LoopBudget, rate: int) -> Sent:
    """The same for an awaited connection."""
    times, sent_ns = [], {}
    started_ns = time.monotonic_ns()
    numbers = draw_numbers(min(budget.jobs, int(budget.seconds * rate)))
    for index, number in enumerate(numbers):
        due_ns = started_ns + index * 1_000_000_000 // rate
        await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
        before_ns = sent_ns[number] = time.monotonic_ns()
        await sender.send([number])
        times.append((time.monotonic_ns() - before_ns) / 1e9)
    return Sent(len(numbers), (time.monotonic_ns() - started_ns) / 1e9, times, sent_ns)


def _sleep_until(due_ns: int) -> None:
    rest_s = (due_ns - time.monotonic_ns()) / 1e9
    if rest_s > 0:
        time.sleep(rest_s)


def _shares(clients: int, count: int) -> list[list[int]]:
    each = max(1, count // clients)
    return [draw_numbers(each) for _ in range(clients)]


def _merge(results: Sequence[Sent], took_s: float) -> Sent:
    times = [value for result in results for value in result.times_s]
    sent_ns = {n: at for result in results for n, at in result.sent_ns.items()}
    return Sent(sum(result.jobs for result in results), took_s, times, sent_ns)


def run_on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine as a client would: on uvloop where that is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


# -- the rows ----------------------------------------------------------------------------------


def measure_serial(subject: Subject, queue: str, sizes: Sizes) -> dict[str, float]:
    """One client, one job at a time."""
    sent = subject.send_loop(queue, 1, 1, sizes.serial)
    return {
        "serial": sent.rate,
        "serial_p50": percentile(sent.times_s, 0.5) * 1000,
        "serial_p99": percentile(sent.times_s, 0.99) * 1000,
    }


def measure_bulk(subject: Subject, queue: str, sizes: Sizes) -> dict[str, float]:
    """One client, batches of 100, where the queue takes batches."""
    if not subject.batches:
        return {}
    return {"bulk": subject.send_loop(queue, 1, BATCH, sizes.bulk).rate}


def measure_processes(subject: Subject, queue: str, sizes: Sizes) -> dict[str, float]:
    """Eight clients, each a process of its own."""
    return {"procs_8": subject.send_processes(queue, 8, sizes.many).rate}


def measure_beside(subject: Subject, queue: str, sizes: Sizes) -> dict[str, float]:
    """One client, one job at a time, whose jobs two workers run meanwhile."""
    with subject.workers(queue):
        warm = Records(subject.records)
        warm.wait(subject.send_loop(queue, 1, 1, LoopBudget(20, 1.0)).jobs, DRAIN_S)
        return {"beside": subject.send_loop(queue, 1, 1, sizes.serial).rate}


def measure_drain(subject: Subject, queue: str, sizes: Sizes) -> float:
    """Returns the jobs a second that two workers finish, from the first start to the end.

    The jobs are enqueued before the workers look at the queue.
    """
    records = Records(subject.records)
    batch, clients = (BATCH, 1) if subject.batches else (1, 8)
    count = subject.send_loop(queue, clients, batch, sizes.drain).jobs
    with subject.workers(queue):
        done = records.wait(count, DRAIN_S)
        subject.finished(queue, done, DRAIN_S)
        ended_ns = time.monotonic_ns()
    starts = sorted(record.started_ns for record in records.read())
    end_ns = ended_ns if done == count else starts[-1]
    return len(starts) / ((end_ns - starts[0]) / 1e9)


def measure_latency(subject: Subject, queue: str, sizes: Sizes) -> dict[str, float]:
    """From the call that enqueues a job to the start of its code."""
    with subject.workers(queue):
        # A few jobs first: connections are open and code is loaded.
        warm = Records(subject.records)
        warm.wait(subject.send_paced(queue, LoopBudget(20, 1.0), RATE).jobs, DRAIN_S)
        records = Records(subject.records)
        sent = subject.send_paced(queue, sizes.latency, RATE)
        records.wait(sent.jobs, DRAIN_S)
        took_ms = [
            (record.started_ns - sent.sent_ns[record.number]) / 1e6
            for record in records.read()
            if record.number in sent.sent_ns
        ]
    return {"latency_p50": percentile(took_ms, 0.5), "latency_p99": percentile(took_ms, 0.99)}


def measure_concurrent(
    subject: Subject, queue: str, clients: int, batch: int, budget: LoopBudget
) -> float:
    """Returns the jobs a second that are enqueued and finished, both at once.

    From the first call that enqueues one to the last record, which is all that a job does; no
    client's coming and going counts.
    """
    with subject.workers(queue):
        warm = Records(subject.records)
        warm.wait(subject.send_loop(queue, 1, 1, LoopBudget(20, 1.0)).jobs, DRAIN_S)
        records = Records(subject.records)
        sent = subject.send_loop(queue, clients, batch, budget)
        records.wait(sent.jobs, DRAIN_S)
    ran = records.read()
    started_ns = min(sent.sent_ns.values())
    ended_ns = max((record.started_ns for record in ran), default=time.monotonic_ns())
    return len(ran) / ((ended_ns - started_ns) / 1e9)


class Measure(NamedTuple):
    """One measurement of a queue, and the rows that it gives."""

    rows: tuple[str, ...]
    measure: Callable[[Subject, str, Sizes], dict[str, float]]


MEASURES: Final[dict[str, Measure]] = {
    "serial": Measure(("serial", "serial_p50", "serial_p99"), measure_serial),
    "many": Measure(
        ("clients_8",), lambda s, q, sizes: {"clients_8": s.send_loop(q, 8, 1, sizes.many).rate}
    ),
    "crowd": Measure(
        ("clients_64",), lambda s, q, sizes: {"clients_64": s.send_loop(q, 64, 1, sizes.many).rate}
    ),
    "processes": Measure(("procs_8",), measure_processes),
    "beside": Measure(("beside",), measure_beside),
    "bulk": Measure(("bulk",), measure_bulk),
    "drain": Measure(("drain",), lambda s, q, sizes: {"drain": measure_drain(s, q, sizes)}),
    "latency": Measure(("latency_p50", "latency_p99"), measure_latency),
    "both": Measure(
        ("concurrent",),
        lambda s, q, sizes: {"concurrent": measure_concurrent(s, q, 64, 1, sizes.concurrent)},
    ),
}
"""Measurements of every queue, by the prefix of the queue's name."""
