"""Measurements of the engine in this process: no socket, no client, no workers.

Throughput is measured over the real log.  How cost grows with the number of pending jobs is
measured over a log that writes nothing, so that the disk does not hide the difference.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from beaver import queries
from beaver.bench.records import payload
from beaver.bench.subject import BATCH, Budget, run_on_loop
from beaver.clock import SystemClock
from beaver.disk import SystemDisk
from beaver.engine import Engine, Reply
from beaver.errors import BeaverError
from beaver.journal.wal import Staged
from beaver.locking import prepare_directory
from beaver.messages import Request
from beaver.recovery import open_store
from beaver.requests import make_request
from beaver.resolving import Resolver, to_job
from beaver_model import Offer, Spec, State, select
from beaver_model.bounds import DIGEST_BYTES
from beaver_model.commands import Cancel, Dispatch, Enqueue, Job
from beaver_model.rows import encode_spec

SMALL: Final = 1_000
"""Pending jobs of the state that growth is compared with."""

_SEGMENT_BYTES: Final = 256 << 20
_OPERATIONS: Final = 400
"""Operations of one kind in a sample: few against the size of the smallest state."""

_SAMPLES: Final = 9


# -- throughput over the real log ---------------------------------------------------------------


def _fail(error: BaseException) -> None:
    raise BeaverError(f"the measured log failed: {error}") from error


def measure_inside(directory: str, name: str, serial: Budget, bulk: Budget) -> dict[str, float]:
    """Enqueues over a real, zero-filled log: one by one, then in batches of 100."""
    data = str(Path(directory, f"inside-{name}"))
    disk, clock = SystemDisk(), SystemClock()
    prepare_directory(disk, data)
    opened = open_store(disk, data, clock=clock, create=True, segment_bytes=_SEGMENT_BYTES)
    opened.wal.reserve(400 * bulk.jobs + 1_000 * serial.jobs)

    async def work() -> dict[str, float]:
        engine = Engine(opened.state, opened.wal, clock, on_failure=_fail)
        resolver = Resolver()
        one, many = _requests(serial.jobs), _requests(bulk.jobs)

        async def enqueue(requests: list[Request]) -> None:
            now_ms = engine.now_ms()
            await engine.execute(Enqueue([to_job(r, now_ms, resolver) for r in requests]))

        async def rate(requests: list[Request], batch: int, seconds: float) -> float:
            done, started_s = 0, time.perf_counter()
            while done < len(requests) and time.perf_counter() - started_s < seconds:
                await enqueue(requests[done : done + batch])
                done += batch
            return min(done, len(requests)) / (time.perf_counter() - started_s)

        return {
            "inside_serial": await rate(one, 1, serial.seconds),
            "inside_bulk": await rate(many, BATCH, bulk.seconds),
        }

    try:
        return run_on_loop(work())
    finally:
        opened.wal.close()


def _requests(count: int) -> list[Request]:
    return [make_request("bench.record", payload(1_000_000 + n)) for n in range(count)]


# -- how cost grows -------------------------------------------------------------------------------


class _NoLog:
    """A log that keeps nothing; for costs of the processor alone."""

    def __init__(self) -> None:
        self.last_seq = 0

    def append(self, payload: bytes, count: int) -> None:
        self.last_seq += count

    def stage(self, payload: bytes, count: int) -> Staged:
        raise AssertionError("commits are written inline here")

    def confirm(self) -> None:
        """Nothing is staged."""

    @property
    def room(self) -> int:
        return _SEGMENT_BYTES

    def mark(self) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """Nothing is open."""

    def reserve(self, size: int) -> bool:
        return True


def _ignore(reply: Reply) -> None:
    assert not isinstance(reply, BeaverError), "there is room for everything"


class _Pending:
    """An engine over a state with so many pending jobs."""

    def __init__(self, pending: int) -> None:
        self.state = State()
        self._spec = encode_spec(Spec("bench.record"))
        self._made = 0
        self.engine = Engine(self.state, _NoLog(), SystemClock(), on_failure=_fail)
        self.state.set_known_tasks(frozenset({"bench.record"}))
        while self._made < pending:
            self.enqueue(self.jobs(min(1_000, pending - self._made)))
        self.engine.flush()

    def jobs(self, count: int) -> list[Job]:
        first, self._made = self._made, self._made + count
        body, digest = b'{"n":1000000,"note":"bench12"}', bytes(DIGEST_BYTES)
        return [
            Job(f"0193{n:08x}-7000-8000-000000000000", self._spec, body, digest)
            for n in range(first, first + count)
        ]

    def enqueue(self, jobs: list[Job]) -> None:
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
        """What a client does for a job before it sends it."""
        return _timed(lambda: _requests(_OPERATIONS))

    def time_job(self) -> float:
        """What a server does with a request before it decides."""
        requests, resolver = _requests(_OPERATIONS), Resolver()
        return _timed(lambda: [to_job(request, 0, resolver) for request in requests])

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


_KINDS: Final[dict[str, Callable[[_Pending], float]]] = {
    "enqueue": _Pending.time_enqueue,
    "dispatch": _Pending.time_dispatch,
    "explain": _Pending.time_explain,
    "cancel": _Pending.time_cancel,
    "status": _Pending.time_status,
    "bulk": _Pending.time_bulk,
    "request": _Pending.time_request,
    "job": _Pending.time_job,
}
GROWING: Final = ("enqueue", "dispatch", "explain", "cancel", "status")
COSTS: Final = ("request", "job", "enqueue", "bulk", "dispatch")


def _timed(work: Callable[[], object]) -> float:
    """Returns the processor's seconds, which a busy machine changes least."""
    started_s = time.thread_time()
    work()
    return time.thread_time() - started_s


def measure_growth(pending: int) -> dict[str, float]:
    """Compares the processor time of operations at many pending jobs with that at 1,000.

    Samples of both alternate, and the best of each counts: noise only ever adds.
    """

    async def work() -> dict[str, float]:
        large = _Pending(pending)
        gc.collect()
        gc.freeze()
        best: dict[tuple[str, int], float] = {}
        try:
            for _ in range(_SAMPLES):
                # A small state does not stay small under its own samples, so it is new each time.
                for size, side in ((SMALL, _Pending(SMALL)), (pending, large)):
                    for kind, sample in _KINDS.items():
                        took_s = sample(side)
                        best[kind, size] = min(took_s, best.get((kind, size), took_s))
        finally:
            gc.unfreeze()
        values = {f"growth_{kind}": best[kind, pending] / best[kind, SMALL] for kind in GROWING}
        for kind in COSTS:
            values[f"cost_{kind}"] = best[kind, SMALL] / _OPERATIONS * 1e6
        return values

    return asyncio.run(work())
