"""Draining while a commit is with the writer: what the explorer's scope `drain` found."""

from __future__ import annotations

import asyncio
from pathlib import Path

from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.writer import WriterProcess
from beaver_model import JobState
from beaver_model.commands import Cancel, Enqueue
from tests.runtime.test_controller import ControllerWorld
from tests.worlds.model import job
from tests.worlds.runtime import on_loop, turns


def world_beside_the_loop(path: Path) -> ControllerWorld:
    """A worker that prefetches, over an engine whose commits a writer process does."""
    commits = CommitPath(WriterProcess, "writer")
    return ControllerWorld(path, prefetch=2, engine_options={"commits": commits})


@on_loop
async def test_nothing_is_sent_behind_what_a_drain_has_taken_back(tmp_path: Path) -> None:
    """Else it may start first, and after a crash the slot says that both had begun."""
    world = world_beside_the_loop(tmp_path / "data")
    world.engine.submit(Enqueue([job("a")]), lambda _: None)
    while not world.pool.sent.get(1):
        await turns(1)
    world.engine.submit(Enqueue([job("b")]), lambda _: None)
    await turns(2)
    assert world.state.jobs["b"].state == JobState.IN_FLIGHT
    assert world.engine.durable_seq < world.state.jobs["b"].token, "the writer has its DISPATCH"
    await asyncio.wait_for(world.controller.drain(50), 5)
    assert world.pool.sent[1] == []
    assert [world.state.jobs[name].state for name in "ab"] == [JobState.PENDING] * 2
    world.engine.close()


@on_loop
async def test_nothing_is_sent_to_a_worker_that_is_being_killed(tmp_path: Path) -> None:
    world = world_beside_the_loop(tmp_path / "data")
    world.engine.submit(Enqueue([job("a")]), lambda _: None)
    while not world.pool.sent.get(1):
        await turns(1)
    token = world.begin()
    # Cancel and the next DISPATCH share a frame; the kill comes first.
    world.engine.submit(Cancel("a"), lambda _: None)
    world.engine.submit(Enqueue([job("b")]), lambda _: None)
    while not world.pool.killed:
        await turns(1)
    await turns()
    assert [attempt.token for attempt in world.pool.sent[1]] == [token]
    world.controller.worker_exited(1, token, "was killed by signal 9")
    world.engine.flush()
    assert world.state.jobs["a"].state == JobState.CANCELLED
    assert world.state.jobs["b"].attempt == 0 or world.state.jobs["b"].token
    world.engine.close()
