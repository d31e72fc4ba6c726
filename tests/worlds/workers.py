"""What the worker tests share: a recorder of pool events, and waiting with a deadline."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from beaver.structs.messages import Attempt, Outcome, OutcomeKind, TaskInfo
from beaver.workers.pool import ProcessPool
from beaver.workers.pool_options import PoolOptions

APPS = Path(__file__).parents[1] / "workers" / "apps"
DEADLINE_S = 20.0


class Recorder:
    """Keeps every pool event, in order."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.pids: dict[int, int] = {}
        self.by_token: dict[int, Outcome] = {}
        self.order: list[int] = []
        self.exits: list[tuple[int, int, str]] = []
        self.failures: list[str] = []
        self.doubles: list[int] = []
        self.on_exit: Callable[[int], None] | None = None

    def worker_ready(self, worker: int, pid: int) -> None:
        self.log.append(("ready", worker, pid))
        self.pids[worker] = pid

    def outcomes(self, worker: int, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.log.append(("outcome", worker, outcome.token))
            if outcome.token in self.by_token:
                self.doubles.append(outcome.token)
            self.by_token[outcome.token] = outcome
            self.order.append(outcome.token)

    def worker_exited(self, worker: int, started: int, detail: str) -> None:
        self.log.append(("exited", worker, started))
        self.exits.append((worker, started, detail))
        if self.on_exit is not None:
            self.on_exit(worker)

    def pool_failed(self, message: str) -> None:
        self.failures.append(message)


class World:
    """A started pool and what it said."""

    def __init__(self, pool: ProcessPool, events: Recorder) -> None:
        self.pool = pool
        self.events = events
        self.tasks: Sequence[TaskInfo] = ()
        self._tokens = 0

    async def add(self, *workers: int) -> None:
        for worker in workers:
            self.events.pids.pop(worker, None)
            self.pool.add(worker)
        await until(lambda: all(worker in self.events.pids for worker in workers))

    def attempt(self, task: str, payload: Any = None, **fields: Any) -> Attempt:
        self._tokens += 1
        body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        values = {
            "token": self._tokens,
            "job": f"job-{self._tokens}",
            "task": task,
            "payload": body,
            "attempt": 1,
            "max_attempts": 5,
            "queue": "default",
            "timeout_ms": 0,
            "idempotency_key": f"key-{self._tokens}",
            "origin": 0,
        }
        return Attempt(**{**values, **fields})

    def send(self, worker: int, task: str, payload: Any = None, **fields: Any) -> int:
        attempt = self.attempt(task, payload, **fields)
        self.pool.dispatch(worker, [attempt])
        return attempt.token

    async def outcome(self, token: int) -> Outcome:
        await until(lambda: token in self.events.by_token)
        return self.events.by_token[token]

    async def call(self, worker: int, task: str, payload: Any = None, **fields: Any) -> Outcome:
        return await self.outcome(self.send(worker, task, payload, **fields))

    async def result(self, worker: int, task: str, payload: Any = None, **fields: Any) -> Any:
        outcome = await self.call(worker, task, payload, **fields)
        assert outcome.kind == OutcomeKind.OK, outcome
        return msgspec.json.decode(outcome.result)


def in_world(
    path: Path,
    test: Callable[[World], Awaitable[None]],
    workers: Sequence[int] = (1,),
    **options: Any,
) -> World:
    """Runs a test over a started pool, and stops the pool whatever happens."""

    async def main() -> World:
        settings = {"workers": 4, "mark": secrets.token_hex(16), "app": "jobs:registry"}
        pool = ProcessPool(PoolOptions(**{**settings, **options}))
        world = World(pool, Recorder())
        world.tasks = await pool.start(world.events)
        try:
            pool.attach(str(path / "slots"), 0)
            await world.add(*workers)
            await test(world)
        finally:
            await pool.stop()
        assert not world.events.doubles, "an attempt has two outcomes"
        return world

    return asyncio.run(main())


async def until(condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE_S) -> None:
    """Waits for a condition; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what or "the condition did not come true in time"
        await asyncio.sleep(0.001)


def wait_until(condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE_S) -> None:
    """The same outside of a loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what or "the condition did not come true in time"
        time.sleep(0.001)


def alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pid_in(path: Path) -> int:
    """Reads a pid that a job wrote into a file, once it is there."""
    wait_until(lambda: path.exists() and path.read_text().strip(), f"no pid in {path}")
    return int(path.read_text())
