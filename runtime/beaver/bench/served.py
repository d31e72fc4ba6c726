"""Beaver as a subject: a real server in a process of its own, clients over its local socket."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from beaver.bench import subject
from beaver.bench.processes import tree, wait_until_gone
from beaver.bench.records import RECORDS_VARIABLE, payload
from beaver.bench.rows import API, BEAVER
from beaver.bench.senders import send_with_processes
from beaver.bench.subject import WORKERS, LoopBudget, Sent, Sizes
from beaver.client.asynchronous import AsyncClient
from beaver.client.asynchronous import connect as connect_async
from beaver.client.blocking import Client, connect
from beaver.errors import BeaverError
from beaver.journal.wal.layout import Layout
from beaver.request.requests import make_request
from beaver.structs.messages import Request

END_S: Final = 120.0
GONE_S: Final = 5.0
_SETTLE_S: Final = 15.0

PROGRAM = ("-m", "beaver")
"""The arguments of Python."""


class ServerProcess:
    """One `beaver run`, from its start to its ready line and on to its end."""

    def __init__(
        self,
        data: str,
        *,
        workers: int = WORKERS,
        http: str = "off",
        program: Sequence[str] = PROGRAM,
        **settings: str,
    ) -> None:
        """Starts it and waits until it is ready.

        Args:
            data: The data directory; the jobs' records go to `records` beside it.
            workers: Worker processes.
            http: Address of the pages.
            program: The arguments of Python.
            **settings: Further settings, as their environment variables without `BEAVER_`.
        """
        self.data = data
        self.records = str(Path(data).parent / "records")
        command = [sys.executable, *program, "run", "--data", data, "--http", http]
        command += ["-A", "beaver.bench.tasks:app", "--workers", str(workers), "--grace", "1s"]
        command += ["--log-level", "error"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BEAVER_")}
        environment |= {f"BEAVER_{name.upper()}": value for name, value in settings.items()}
        environment[RECORDS_VARIABLE] = self.records
        self.started_s = started_s = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        stream: IO[str] | None = self.process.stdout
        assert stream is not None
        try:
            self.ready_line = stream.readline()
        except BaseException:
            self.kill()
            raise
        self.ready_s = time.perf_counter() - started_s
        if not self.ready_line:
            raise BeaverError(f"the measured server did not start (exit {self.process.wait()})")

    @property
    def pid(self) -> int:
        return self.process.pid

    def first_answer_s(self) -> float:
        """Asks for the status; returns the seconds from the start of the program to the answer."""
        with connect(self.data) as client:
            client.status()
        return time.perf_counter() - self.started_s

    def settle(self) -> None:
        """Waits until the next log segment is prepared, so that the disk is left alone."""
        layout = Layout(self.data)
        deadline_s = time.monotonic() + _SETTLE_S
        while not Path(layout.adopted).exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`; returns when its workers and its helper are gone too."""
        family = tree(self.pid)
        self.process.kill()
        self.process.wait()
        wait_until_gone(family, GONE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self) -> None:
        """SIGTERM, then the end; killed where that takes too long."""
        self.process.send_signal(signal.SIGTERM)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_S)
        finally:
            self.kill()


@contextmanager
def serving(
    data: str,
    *,
    workers: int = WORKERS,
    http: str = "off",
    program: Sequence[str] = PROGRAM,
    **settings: str,
) -> Iterator[ServerProcess]:
    """Runs a server while the block runs."""
    server = ServerProcess(data, workers=workers, http=http, program=program, **settings)
    try:
        server.settle()
        yield server
    finally:
        server.stop()


def request(number: int, queue: str) -> Request:
    """Returns the request for a job that appends one record."""
    return make_request("bench.record", payload(number), queue=queue)


def _send_batches(
    data: str,
    build: Callable[[Sequence[int]], list[Request]],
    numbers: Sequence[int],
    batch: int,
    seconds: float,
) -> Sent:
    """Sends batches with one client, which sends the next ones before the first is answered."""
    sent_ns: dict[int, int] = {}
    started_ns = time.monotonic_ns()
    limit_ns = started_ns + int(seconds * 1e9)

    def batches() -> Iterator[list[Request]]:
        for at in range(0, len(numbers), batch):
            now_ns = time.monotonic_ns()
            if now_ns >= limit_ns:
                return
            part = numbers[at : at + batch]
            sent_ns[part[0]] = now_ns
            yield build(part)

    client = connect(data)
    try:
        done = sum(map(len, client.enqueue_each(batches())))
    finally:
        client.close()
    return Sent(done, (time.monotonic_ns() - started_ns) / 1e9, [], sent_ns)


class _Blocking:
    def __init__(self, client: Client, queue: str) -> None:
        self._client, self._queue = client, queue

    def send(self, numbers: Sequence[int]) -> None:
        self._client.enqueue([request(number, self._queue) for number in numbers])

    def close(self) -> None:
        self._client.close()


class _Awaited:
    def __init__(self, client: AsyncClient, queue: str) -> None:
        self._client, self._queue = client, queue

    async def send(self, numbers: Sequence[int]) -> None:
        await self._client.enqueue([request(number, self._queue) for number in numbers])

    async def close(self) -> None:
        self._client.close()


class Served:
    """A running server, measured as every other queue is."""

    name = BEAVER
    batches = True

    def __init__(self, server: ServerProcess) -> None:
        self.data, self.records = server.data, server.records
        self._control = connect(server.data)
        self._open: set[str] = set()
        """Queues that are not paused."""

    def close(self) -> None:
        """Ends the connection of this side."""
        self._control.close()

    def send_loop(self, queue: str, clients: int, batch: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`.  One client blocks; several share an event loop."""
        self.pause(queue)
        if clients == 1 and batch > 1:

            def build(part: Sequence[int]) -> list[Request]:
                return [request(number, queue) for number in part]

            numbers = subject.draw_numbers(budget.jobs)
            return _send_batches(self.data, build, numbers, batch, budget.seconds)
        if clients == 1:
            sender = _Blocking(connect(self.data), queue)
            try:
                numbers = subject.draw_numbers(budget.jobs)
                return subject.send_one_by_one(sender, numbers, batch, budget.seconds)
            finally:
                sender.close()

        async def open_one() -> _Awaited:
            return _Awaited(await connect_async(self.data), queue)

        return subject.run_on_loop(subject.send_with_tasks(open_one, clients, batch, budget))

    def send_paced(self, queue: str, budget: LoopBudget, rate: int) -> Sent:
        """See `subject.Subject`."""
        sender = _Blocking(connect(self.data), queue)
        try:
            return subject.send_paced(sender, budget, rate)
        finally:
            sender.close()

    def send_processes(self, queue: str, clients: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`: by the documented API, as programs of their own do it."""
        self.pause(queue)
        return send_with_processes(API, self.data, queue, clients, budget)

    def send_made(self, queue: str, batch: int, budget: LoopBudget) -> Sent:
        """Sends batches of requests that were made before the clock starts."""
        self.pause(queue)
        numbers = subject.draw_numbers(budget.jobs)
        made = {number: request(number, queue) for number in numbers}

        def build(part: Sequence[int]) -> list[Request]:
            return [made[number] for number in part]

        return _send_batches(self.data, build, numbers, batch, budget.seconds)

    @contextmanager
    def workers(self, queue: str) -> Iterator[None]:
        """See `subject.Subject`: the workers are there; the queue is resumed meanwhile."""
        self._open.add(queue)
        self._control.set_queue(queue, False, None, None)
        try:
            yield
        finally:
            self._open.discard(queue)

    def pause(self, queue: str) -> None:
        """Keeps a queue's jobs from running, unless workers are at it."""
        if queue not in self._open:
            self._control.set_queue(queue, True, None, None)

    def finished(self, queue: str, count: int, seconds: float) -> bool:
        """See `subject.Subject`: counts what is durably completed."""
        deadline_s = time.monotonic() + seconds
        while self._control.status().queues[queue].completed < count:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.002)
        return True


EAGER: Final = "eager"
"""A queue whose jobs may start before their DISPATCH is durable."""


def measure_eager(directory: str, sizes: Sizes) -> dict[str, float]:
    """Measures latency in a queue that has opted out of a durable DISPATCH."""
    parent = Path(directory, EAGER)
    parent.mkdir()
    settings = parent / "beaver.yaml"
    settings.write_text(f"queues: {{{EAGER}: {{durable_dispatch: false}}}}\n")
    with (
        serving(str(parent / "data"), config=str(settings)) as server,
        closing(Served(server)) as ours,
    ):
        found = subject.measure_latency(ours, EAGER, sizes)
    return {"eager_p50": found["latency_p50"], "eager_p99": found["latency_p99"]}


class More(NamedTuple):
    """A measurement of Beaver alone: of a server, and of one whose workers hold one job."""

    rows: tuple[str, ...]
    measure: Callable[[Served, Served, str, Sizes], dict[str, float]]


def _bulk_made(served: Served, one: Served, queue: str, sizes: Sizes) -> dict[str, float]:
    return {"bulk_made": served.send_made(queue, subject.BATCH, sizes.bulk).rate}


def _drain_one(served: Served, one: Served, queue: str, sizes: Sizes) -> dict[str, float]:
    return {"drain_one": subject.measure_drain(one, queue, sizes)}


def _concurrent_bulk(served: Served, one: Served, queue: str, sizes: Sizes) -> dict[str, float]:
    batch = subject.BATCH
    rate = subject.measure_concurrent(served, queue, 1, batch, sizes.concurrent)
    return {"concurrent_bulk": rate}


def _bulk_crowd(served: Served, one: Served, queue: str, sizes: Sizes) -> dict[str, float]:
    return {"bulk_8": served.send_loop(queue, 8, subject.BATCH, sizes.bulk).rate}


MORE: Final[dict[str, More]] = {
    "made": More(("bulk_made",), _bulk_made),
    "crates": More(("bulk_8",), _bulk_crowd),
    "one": More(("drain_one",), _drain_one),
    "stream": More(("concurrent_bulk",), _concurrent_bulk),
}
"""Measurements of Beaver alone, by the prefix of the queue's name; see `documented.MORE`."""
