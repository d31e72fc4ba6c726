"""Recall is exact: what was taken back never starts, what was not is answered."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.worlds.workers import World, in_world, until

ROUNDS: Final = 2_000
EXECUTORS = ["process", "thread", "async"]


async def started(world: World, token: int) -> None:
    """Waits until the worker has started that attempt."""
    await until(lambda: world.pool.started(1)[0] >= token)


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
            for _ in range(round_number % 30):
                await asyncio.sleep(0)
            if round_number % 30 == 29:
                await started(world, attempts[0].token)
            recalled += world.pool.recall(1)
        expected = set(sent) - set(recalled)
        await until(lambda: len(world.events.by_token) >= len(expected))
        probe = world.send(1, "nothing")
        await world.outcome(probe)
        assert set(world.events.by_token) == expected | {probe}
        assert recalled, "the race was never won"
        assert expected, "the race was never lost"

    in_world(tmp_path, test, executor=executor, concurrency=4)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_thousands_of_recalls_lose_nothing_and_repeat_nothing(
    tmp_path: Path, executor: str
) -> None:
    """By what the worker itself has written down; some of what comes back goes out again."""
    notes = tmp_path / "notes"
    chance = random.Random(7)

    async def test(world: World) -> None:
        dropped: set[int] = set()
        kept: set[int] = set()
        split = 0
        number = 0
        for _ in range(ROUNDS):
            attempts = {}
            for _ in range(chance.choice((1, 2, 5, 40))):
                number += 1
                long = b" " * 70_000 if chance.random() < 0.01 else b""
                payload = msgspec.json.encode({"path": str(notes), "number": number}) + long
                attempts[number] = world.attempt("note", payload)
            world.pool.dispatch(1, list(attempts.values()))
            for _ in range(chance.choice((0, 0, 1, 3))):
                for _ in range(chance.choice((0, 1, 10))):
                    await asyncio.sleep(0)
                taken = world.pool.recall(1)
                assert taken == sorted(set(taken)), "out of order"
                gone = taken[: chance.choice((0, 1, 100))]
                again = taken[len(gone) :]
                dropped.update(gone)
                split += 0 < len(taken) < len(attempts)
                if again:
                    world.pool.dispatch(1, [attempts[token] for token in again])
            if not dropped.issuperset(attempts):
                last = max(set(attempts) - dropped)
                await started(world, last)
            kept.update(set(attempts) - dropped)
        await until(lambda: len(world.events.by_token) == len(kept))
        ran = [int(line) for line in notes.read_text().split()]
        assert len(ran) == len(set(ran)), "an attempt ran twice"
        assert not dropped.intersection(ran), "what was recalled has started"
        assert set(ran) == kept, "an attempt was lost"
        # A slot holds one token, which says that all before it have started.
        assert executor != "process" or ran == sorted(ran), "one started after a later one"
        assert split > ROUNDS / 100, "a recall was hardly ever in the middle of it"

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
