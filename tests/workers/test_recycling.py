"""Workers end between jobs: after enough of them, grown too large, or retired."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.structs.messages import OutcomeKind
from beaver.workers import mailbox
from tests.worlds.workers import World, alive, in_world, until

EXECUTORS = ["process", "thread", "async"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_recycling_loses_nothing_and_repeats_nothing(tmp_path: Path, executor: str) -> None:
    """A worker takes exactly max_jobs; the rest is told apart by the token it started last."""

    async def test(world: World) -> None:
        attempts = {a.token: a for a in (world.attempt("nothing") for _ in range(100))}

        def replace(worker: int) -> None:
            started = world.events.exits[-1][1]
            rest = [a for token, a in attempts.items() if token > started]
            if rest:
                world.pool.add(worker)
                world.pool.dispatch(worker, rest)

        world.events.on_exit = replace
        world.pool.dispatch(1, list(attempts.values()))
        await until(lambda: len(world.events.by_token) == 100)
        await until(lambda: len(world.events.exits) == 10)
        world.events.on_exit = None
        assert [started for _, started, _ in world.events.exits] == list(range(10, 101, 10))
        assert {detail for _, _, detail in world.events.exits} == {"exited with 0"}

    in_world(tmp_path, test, executor=executor, concurrency=3, max_jobs=10)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_worker_that_has_done_enough_ends_though_nothing_more_comes(
    tmp_path: Path, executor: str
) -> None:
    """Also where its last attempts run at the same time, as many as it has room for."""

    async def test(world: World) -> None:
        tokens = [world.send(1, "later", {"value": n, "seconds": 0.05}) for n in range(2)]
        await until(lambda: world.events.exits, "it ends")
        assert sorted(world.events.by_token) == tokens
        assert world.events.exits == [(1, tokens[-1], "exited with 0")]

    in_world(tmp_path, test, executor=executor, concurrency=2, max_jobs=2)


def test_outcomes_come_before_the_exit_that_follows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where most of them are still unread when the zygote says that it is reaped."""
    monkeypatch.setattr(mailbox, "_READ_BYTES", 100)
    # As many bytes as before: what a stream can hold is read to its end.
    monkeypatch.setattr(mailbox, "_LAST_READS", 100_000)

    async def test(world: World) -> None:
        world.pool.dispatch(1, [world.attempt("first", "z" * 5_000) for _ in range(20)])
        await until(lambda: world.events.exits)
        names = [name for name, *_ in world.events.log]
        assert names == ["ready"] + ["outcome"] * 20 + ["exited"]

    in_world(tmp_path, test, max_jobs=20)


@pytest.mark.parametrize("executor", ["process", "async"])
def test_a_worker_that_grows_too_large_ends_though_nothing_more_comes(
    tmp_path: Path, executor: str
) -> None:
    async def test(world: World) -> None:
        assert (await world.call(1, "grow", 300)).kind == OutcomeKind.OK
        await until(lambda: world.events.exits, "it ends")

    in_world(tmp_path, test, executor=executor, concurrency=2, max_rss_bytes=250 << 20)


def test_a_worker_that_has_grown_too_large_ends_between_jobs(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        small = await world.result(1, "grow", 1)
        assert await world.result(1, "grow", 1) == small
        assert await world.result(1, "grow", 300) == small
        left = world.send(1, "grow", 1)
        await until(lambda: world.events.exits)
        assert world.events.exits[0][1] < left, "it did not start what it did not run"
        assert left not in world.events.by_token
        assert not alive(small)

    in_world(tmp_path, test, max_rss_bytes=250 << 20)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_retired_worker_ends_after_what_it_was_sent(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        tokens = [world.send(1, "later", {"value": n, "seconds": 0.02}) for n in range(5)]
        world.pool.retire(1)
        await until(lambda: world.events.exits)
        assert sorted(world.events.by_token) == tokens
        assert world.events.exits == [(1, tokens[-1], "exited with 0")]

    in_world(tmp_path, test, executor=executor, concurrency=2)


def test_an_idle_worker_retires_at_once(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.pool.retire(1)
        await until(lambda: world.events.exits)
        assert world.events.exits[0][2] == "exited with 0"

    in_world(tmp_path, test)
