"""Soft stops: time limits and cancels in the thread and async executors."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from beaver.structs.messages import Outcome, OutcomeKind
from beaver.task.directives import TimeLimit
from beaver.workers.stopping import ThreadStop
from tests.worlds.workers import World, in_world, until

SOFT = ["thread", "async"]


@pytest.mark.parametrize("task", ["nap_in_slices", "nap_async"])
@pytest.mark.parametrize("executor", SOFT)
def test_an_attempt_over_its_limit_is_stopped_softly(
    tmp_path: Path, executor: str, task: str
) -> None:
    async def test(world: World) -> None:
        start = time.monotonic()
        outcome = await world.call(1, task, {"path": str(tmp_path / "pid")}, timeout_ms=150)
        assert outcome.kind == OutcomeKind.TIMED_OUT
        assert "time limit" in outcome.error
        assert 0.15 <= time.monotonic() - start < 10
        assert await world.result(1, "add", 1) == 11, "the worker goes on"

    in_world(tmp_path, test, executor=executor, concurrency=2)


@pytest.mark.parametrize("task", ["nap_in_slices", "nap_async"])
@pytest.mark.parametrize("executor", SOFT)
def test_a_cancelled_attempt_is_stopped_softly(tmp_path: Path, executor: str, task: str) -> None:
    async def test(world: World) -> None:
        token = world.send(1, task, {"path": str(tmp_path / "pid")}, timeout_ms=60_000)
        await until((tmp_path / "pid").exists)
        world.pool.cancel(1, token)
        outcome = await world.outcome(token)
        assert outcome.kind == OutcomeKind.CANCELLED
        assert await world.result(1, "add", 1) == 11, "the worker goes on"

    in_world(tmp_path, test, executor=executor)


@pytest.mark.parametrize("executor", SOFT)
def test_a_cancel_that_overtakes_its_attempt_is_not_lost(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        first = world.send(1, "later", {"value": 1, "seconds": 0.2})
        await until(lambda: world.pool.started(1)[0] == first)
        second = world.send(1, "nap_async", {"path": str(tmp_path / "pid")})
        world.pool.cancel(1, second)
        assert (await world.outcome(first)).kind == OutcomeKind.OK
        assert (await world.outcome(second)).kind == OutcomeKind.CANCELLED

    in_world(tmp_path, test, executor=executor, concurrency=1)


@pytest.mark.parametrize("executor", SOFT)
def test_a_stop_hits_only_the_attempt_that_it_is_for(tmp_path: Path, executor: str) -> None:
    """Many short attempts end around their limit; none of their neighbours is ever hit."""

    async def test(world: World) -> None:
        calm = [world.send(1, "later", {"value": n, "seconds": 0.3}) for n in range(2)]
        edge = [world.send(1, "sleep", 0.02, timeout_ms=20) for _ in range(60)]
        plain = [world.send(1, "add", n) for n in range(60)]
        for token in calm + plain:
            assert (await world.outcome(token)).kind == OutcomeKind.OK
        kinds = {(await world.outcome(token)).kind for token in edge}
        assert kinds <= {OutcomeKind.OK, OutcomeKind.TIMED_OUT}
        assert not world.events.exits

    in_world(tmp_path, test, executor=executor, concurrency=4)


def test_a_stop_that_comes_at_the_very_end_never_leaks_out() -> None:
    """Whenever the stop comes, it is raised inside of `run`, or not at all."""
    current: list[ThreadStop] = []
    done = threading.Event()

    def keep_stopping() -> None:
        while not done.is_set():
            if current:
                current[-1].stop(TimeLimit)

    stopper = threading.Thread(target=keep_stopping)
    kinds: Counter[int] = Counter()
    steps = 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    stopper.start()
    deadline = time.monotonic() + 20
    try:
        while min(kinds[OutcomeKind.OK], kinds[OutcomeKind.TIMED_OUT]) < 300:
            assert time.monotonic() < deadline, f"one end of the race is hardly seen: {kinds}"
            stop = ThreadStop()
            current[:] = [stop]
            kind = stop.run(partial(busy, steps), told).kind
            kinds[kind] += 1
            # Finds the end of the run, however seldom the other thread gets its turn.
            steps = max(0, steps + (5 if kind == OutcomeKind.OK else -5))
            busy(50)
    finally:
        done.set()
        stopper.join()
        sys.setswitchinterval(interval)


def busy(steps: int) -> Outcome:
    for _ in range(steps):
        pass
    return Outcome(1, "j", OutcomeKind.OK)


def told(error: BaseException) -> Outcome:
    return Outcome(1, "j", OutcomeKind.TIMED_OUT, error=type(error).__name__)


@pytest.mark.parametrize("executor", SOFT)
def test_a_result_that_comes_in_spite_of_a_stop_counts(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        payload = {"path": str(tmp_path / "pid")}
        outcome = await world.call(1, "stubborn", payload, timeout_ms=100)
        assert outcome.kind == OutcomeKind.OK
        assert outcome.result == b'"completed all the same"'

    in_world(tmp_path, test, executor=executor)


@pytest.mark.parametrize("executor", SOFT)
def test_what_a_soft_stop_cannot_reach_is_for_the_server_to_kill(
    tmp_path: Path, executor: str
) -> None:
    async def test(world: World) -> None:
        token = world.send(1, "busy_in_c", {"path": str(tmp_path / "pid")}, timeout_ms=50)
        await until((tmp_path / "pid").exists)
        world.pool.cancel(1, token)
        world.pool.kill(1)
        await until(lambda: world.events.exits)
        assert world.events.exits[0][1] == token
        assert token not in world.events.by_token

    in_world(tmp_path, test, executor=executor)


def test_a_job_of_the_process_executor_may_ask_whether_it_is_cancelled(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        token = world.send(1, "wait_for_cancel", {"path": str(tmp_path / "pid")})
        await until((tmp_path / "pid").exists)
        world.pool.cancel(1, 12345)
        world.pool.cancel(1, token)
        outcome = await world.outcome(token)
        assert (outcome.kind, outcome.error) == (OutcomeKind.CANCELLED, "as you wish")

    in_world(tmp_path, test)


@pytest.mark.parametrize("executor", SOFT)
def test_as_many_attempts_run_at_once_as_allowed_and_no_more(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        payload = {"seconds": 0.05, "path": ""}
        tokens = [world.send(1, "peak_of", payload) for _ in range(12)]
        counts = [int((await world.outcome(token)).result) for token in tokens]
        assert max(counts) == 3

    in_world(tmp_path, test, executor=executor, concurrency=3)


def test_hundreds_of_coroutines_run_at_once_in_one_worker(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        start = time.monotonic()
        tokens = [world.send(1, "later", {"value": n, "seconds": 0.3}) for n in range(300)]
        for token in tokens:
            await world.outcome(token)
        assert time.monotonic() - start < 10, "one after the other takes 90 s"

    in_world(tmp_path, test, executor="async", concurrency=300)


def test_the_slot_names_the_attempt_before_its_code_runs(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        before_ns = time.monotonic_ns()
        assert world.pool.started(1) == (0, 0)
        token = world.send(1, "sleep", 0.2)
        await until(lambda: world.pool.started(1)[0] == token)
        _, since_ns = world.pool.started(1)
        assert before_ns <= since_ns <= time.monotonic_ns()
        await world.outcome(token)
        assert world.pool.started(1) == (token, since_ns), "it stays until the next one starts"

    in_world(tmp_path, test)
