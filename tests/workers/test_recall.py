"""Recall is exact: what was taken back never starts, what was not is answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.workers.world import World, in_world, until

EXECUTORS = ["process", "thread", "async"]


def test_recall_takes_back_all_but_the_running_attempt(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        running = world.send(1, "sleep", 0.2)
        await until(lambda: world.pool.started(1)[0] == running)
        waiting = [world.send(1, "add", number) for number in range(5)]
        assert world.pool.recall(1) == waiting
        assert world.pool.recall(1) == []
        await world.outcome(running)
        after = world.send(1, "add", 1)
        await world.outcome(after)
        assert world.events.order == [running, after]

    in_world(tmp_path, test)


def test_large_attempts_and_those_that_wait_in_the_server_are_recalled_too(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        running = world.send(1, "sleep", 0.3)
        await until(lambda: world.pool.started(1)[0] == running)
        large = [world.send(1, "first", "x" * 500_000) for _ in range(3)]
        small = [world.send(1, "first", "y" * 20_000) for _ in range(300)]
        assert world.pool.recall(1) == large + small
        again = world.send(1, "first", "x" * 500_000)
        await world.outcome(again)
        assert world.events.order == [running, again]

    in_world(tmp_path, test)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_recall_in_a_race_splits_the_attempts_exactly(tmp_path: Path, executor: str) -> None:
    """Every attempt is either answered or taken back: never both, never neither."""

    async def test(world: World) -> None:
        recalled: list[int] = []
        sent: list[int] = []
        for round_number in range(60):
            attempts = [world.attempt("nothing") for _ in range(40)]
            sent += [attempt.token for attempt in attempts]
            world.pool.dispatch(1, attempts)
            for _ in range(round_number % 7):
                await asyncio.sleep(0)
            recalled += world.pool.recall(1)
        expected = set(sent) - set(recalled)
        await until(lambda: len(world.events.by_token) >= len(expected))
        probe = world.send(1, "nothing")
        await world.outcome(probe)
        assert set(world.events.by_token) == expected | {probe}
        assert recalled, "the race was never won"
        assert expected, "the race was never lost"

    in_world(tmp_path, test, executor=executor, concurrency=4)


def test_recall_of_a_retiring_worker_still_lets_it_end(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        running = world.send(1, "sleep", 0.1)
        await until(lambda: world.pool.started(1)[0] == running)
        waiting = world.send(1, "add", 1)
        world.pool.retire(1)
        assert world.pool.recall(1) == [waiting]
        await until(lambda: world.events.exits)
        assert world.events.order == [running]
        assert world.events.exits == [(1, running, "exited with 0")]

    in_world(tmp_path, test)


def test_an_attempt_sent_before_the_worker_is_ready_is_recalled_or_run(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.pool.add(2)
        token = world.send(2, "add", 1)
        assert world.pool.recall(2) == [token]
        again = world.send(2, "add", 1)
        await world.outcome(again)
        assert token not in world.events.by_token

    in_world(tmp_path, test)
