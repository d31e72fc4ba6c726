"""Measurements of the engine in this process: no socket, no client, no workers.

Throughput is measured over the real log.  How cost grows with the number of pending jobs is
measured over a log in memory, so that the disk does not hide the difference.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from beaver.bench.records import payload
from beaver.bench.subject import BATCH, LoopBudget, run_on_loop
from beaver.client.blocking import BATCHES_MAX
from beaver.engine.engine import Engine
from beaver.engine.replies import Reply
from beaver.errors import BeaverError
from beaver.inspect import finding, queries
from beaver.journal.memory import MemoryJournal
from beaver.journal.wal.lock import prepare_directory
from beaver.request.requests import make_request
from beaver.request.resolving import Resolver
from beaver.store.recovery import open_store
from beaver.structs.messages import Request
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver_model import Offer, Spec, State, select
from beaver_model.bounds import DIGEST_BYTES, TIME_MS_MAX
from beaver_model.commands import Cancel, Dispatch, Enqueue, NewJob, SetQueue
from beaver_model.rows import encode_spec

SMALL: Final = 1_000
"""Pending jobs of the state that growth is compared with."""

_SEGMENT_BYTES: Final = 256 << 20
_OPERATIONS: Final = 400
"""Operations of one kind in a sample: few against the size of the smallest state."""

_SAMPLES: Final = 9


ROWS: Final = ("inside_serial", "inside_bulk")
"""The rows of `measure_inside`; those of `measure_growth` are beside it."""


# -- throughput over the real log ---------------------------------------------------------------


def _fail(error: BaseException) -> None:
    raise BeaverError(f"the measured log failed: {error}") from error


def measure_inside(
    directory: str, name: str, serial: LoopBudget, bulk: LoopBudget
) -> dict[str, float]:
    """Enqueues over a real, zero-filled log: one by one, then in batches, several under way."""
    data = str(Path(directory, f"inside-{name}"))
    disk, clock = SystemDisk(), SystemClock()
    prepare_directory(disk, data)
    opened = open_store(disk, data, clock=clock, create=True, segment_bytes=_SEGMENT_BYTES)
    opened.journal.reserve(400 * bulk.jobs + 1_000 * serial.jobs)

    async def work() -> dict[str, float]:
        engine = Engine(opened.state, opened.journal, clock, on_failure=_fail)
        resolver = Resolver()
        one, many = _requests(serial.jobs), _requests(bulk.jobs)

        async def enqueue(requests: list[Request]) -> None:
            now_ms = engine.now_ms()
            await engine.execute(Enqueue([resolver.job(r, now_ms) for r in requests]))

        async def rate(
            requests: list[Request], batch: int, under_way: int, limit_s: float
        ) -> float:
            """Lets so many producers enqueue, each one batch after the other."""
            done, started_s = 0, time.perf_counter()
            batches = (requests[at : at + batch] for at in range(0, len(requests), batch))

            async def produce() -> None:
                nonlocal done
                for part in batches:
                    if time.perf_counter() - started_s >= limit_s:
                        return
                    await enqueue(part)
                    done += len(part)

            await asyncio.gather(*(produce() for _ in range(under_way)))
            return done / (time.perf_counter() - started_s)

        return {
            "inside_serial": await rate(one, 1, 1, serial.seconds),
            "inside_bulk": await rate(many, BATCH, BATCHES_MAX, bulk.seconds),
        }

    try:
        return run_on_loop(work())
    finally:
        opened.journal.close()


def _requests(count: int) -> list[Request]:
    return [make_request("bench.record", payload(1_000_000 + n)) for n in range(count)]


# -- how cost grows -------------------------------------------------------------------------------


def _ignore(reply: Reply) -> None:
    assert not isinstance(reply, BeaverError), "there is room for everything"


class Shape(NamedTuple):
    """State of the many waiting jobs; the operations run beside them."""

    held: Spec | None = None
    """Spec of the jobs that wait; they are like those of the operations where `None`."""
    run_at_ms: int = 0
    queues: int = 1
    """Over how many queues the jobs of the operations go."""


_TASK: Final = "bench.record"
_PAUSED: Final = "paused"
READY: Final = Shape()
SHAPES: Final = {
    "queues": Shape(queues=100),
    "scheduled": Shape(held=Spec(_TASK), run_at_ms=TIME_MS_MAX),
    "paused": Shape(held=Spec(_TASK, queue=_PAUSED)),
    "unknown": Shape(held=Spec("bench.unknown")),
}
"""Other ways to wait: in a hundred queues, for their time, or parked for one reason."""


class _Pending:
    """An engine over a state with so many pending jobs."""

    def __init__(self, pending: int, shape: Shape = READY) -> None:
        self.state = State()
        names = ["default", *(f"queue-{n}" for n in range(1, shape.queues))]
        self._specs = [encode_spec(Spec(_TASK, queue=name)) for name in names]
        self._made = 0
        self.engine = Engine(self.state, MemoryJournal(), SystemClock(), on_failure=_fail)
        self.state.set_known_tasks(frozenset({_TASK}))
        self.engine.submit(SetQueue(_PAUSED, paused=True, weight=1, bytes_max=0), _ignore)
        held = None if shape.held is None else [encode_spec(shape.held)]
        if held is not None:
            self.enqueue(self.jobs(SMALL))
        while self._made < pending:
            self.enqueue(self.jobs(min(1_000, pending - self._made), held, shape.run_at_ms))
        self.engine.flush()

    def jobs(
        self, count: int, specs: list[bytes] | None = None, run_at_ms: int = 0
    ) -> list[NewJob]:
        specs = specs or self._specs
        first, self._made = self._made, self._made + count
        body, digest = b'{"n":1000000,"note":"bench12"}', bytes(DIGEST_BYTES)
        return [
            NewJob(
                f"0193{n:08x}-7000-8000-000000000000",
                specs[n % len(specs)],
                body,
                digest,
                run_at_ms,
            )
            for n in range(first, first + count)
        ]

    def enqueue(self, jobs: list[NewJob]) -> None:
        self.engine.submit(Enqueue(jobs), _ignore)
        self.engine.flush()

    # Each of the following does one operation `_OPERATIONS` times and returns its seconds.

    def time_enqueue(self) -> float:
        jobs = self.jobs(_OPERATIONS)

        def work() -> None:
            for job in jobs:
                self.enqueue([job])

        return _timed(work)

    def time_bulk(self) -> float:
        """The same in batches of 100; of the log nothing but its encoding is left."""
        batches = [self.jobs(BATCH) for _ in range(_OPERATIONS // BATCH)]

        def work() -> None:
            for batch in batches:
                self.enqueue(batch)

        return _timed(work)

    def time_request(self) -> float:
        """The work of a client for one job before it sends it."""
        return _timed(lambda: _requests(_OPERATIONS))

    def time_job(self) -> float:
        """The work of a server for one request before it decides."""
        requests, resolver = _requests(_OPERATIONS), Resolver()
        return _timed(lambda: [resolver.job(request, 0) for request in requests])

    def time_dispatch(self) -> float:
        offer, now_ms = Offer(idle=True), self.engine.now_ms()
        self.state.advance(now_ms)

        def work() -> None:
            for _ in range(_OPERATIONS):
                row = select(self.state, offer, now_ms)
                assert row is not None, "jobs are pending"
                self.engine.submit(Dispatch(row.id, 1), _ignore)
                self.engine.flush()

        return _timed(work)

    def time_cancel(self) -> float:
        """Cancels the newest jobs, which nobody has dispatched."""
        ids = [job.id for job in self.jobs(_OPERATIONS)]
        self._made -= _OPERATIONS
        self.enqueue(self.jobs(_OPERATIONS))

        def work() -> None:
            for job in ids:
                self.engine.submit(Cancel(job), _ignore)
                self.engine.flush()

        return _timed(work)

    def time_status(self) -> float:
        now_ms = self.engine.now_ms()
        return _timed(
            lambda: [queries.status(self.state, now_ms, running=True) for _ in range(_OPERATIONS)]
        )

    def time_explain(self) -> float:
        ids = [f"0193{self._made - 1 - n:08x}-7000-8000-000000000000" for n in range(_OPERATIONS)]
        return _timed(lambda: [queries.explain(self.state, job, []) for job in ids])

    def time_list(self) -> float:
        """Finds the first page of jobs; as many jobs in all as the others have operations."""
        pages = _OPERATIONS // BATCH
        find = partial(finding.find_jobs, self.state, limit=BATCH)
        return _timed(lambda: [finding.at_once(find()) for _ in range(pages)])


_KINDS: Final[dict[str, Callable[[_Pending], float]]] = {
    "enqueue": _Pending.time_enqueue,
    "dispatch": _Pending.time_dispatch,
    "explain": _Pending.time_explain,
    "cancel": _Pending.time_cancel,
    "status": _Pending.time_status,
    "list": _Pending.time_list,
    "bulk": _Pending.time_bulk,
    "request": _Pending.time_request,
    "job": _Pending.time_job,
}
GROWING: Final = ("enqueue", "dispatch", "explain", "cancel", "status", "list")
COSTS: Final = ("request", "job", "enqueue", "bulk", "dispatch")
SHAPE_ROWS: Final = tuple(f"growth_{name}" for name in SHAPES)
GROWTH_ROWS: Final = (*(f"growth_{k}" for k in GROWING), *(f"cost_{k}" for k in COSTS))


def _timed(work: Callable[[], object]) -> float:
    """Returns the processor's seconds, which a busy machine changes least."""
    started_s = time.thread_time()
    work()
    return time.thread_time() - started_s


def measure_growth(pending: int) -> dict[str, float]:
    """Compares the processor time of operations at many pending jobs with that at 1,000."""
    many, few = _compare(_Pending, pending)
    values = {f"growth_{kind}": many[kind] / few[kind] for kind in GROWING}
    for kind in COSTS:
        values[f"cost_{kind}"] = few[kind] / _OPERATIONS * 1e6
    return values


def measure_shapes(pending: int) -> dict[str, float]:
    """Returns, for each other way to wait, the growth of the operation that grows most."""
    values = {}
    for name, shape in SHAPES.items():
        # The small state is of the same shape.
        many, few = _compare(partial(_Pending, shape=shape), pending, GROWING)
        values[f"growth_{name}"] = max(many[kind] / few[kind] for kind in GROWING)
    return values


def _compare(
    build: Callable[[int], _Pending], pending: int, kinds: Sequence[str] = tuple(_KINDS)
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the seconds of each kind of operation at many pending jobs, and at few.

    Samples of both alternate, and the best of each counts: noise only ever adds.
    """

    async def work() -> tuple[dict[str, float], dict[str, float]]:
        large = build(pending)
        gc.collect()
        gc.freeze()
        best: tuple[dict[str, float], dict[str, float]] = ({}, {})
        try:
            for _ in range(_SAMPLES):
                # A small state does not stay small under its own samples, so it is new each time.
                for found, side in zip(best, (large, build(SMALL)), strict=True):
                    for kind in kinds:
                        took_s = _KINDS[kind](side)
                        found[kind] = min(took_s, found.get(kind, took_s))
        finally:
            gc.unfreeze()
        return best

    return asyncio.run(work())
