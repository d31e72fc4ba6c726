"""Two crews side by side: who is given jobs when, and what a handing over gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from beaver.dispatch import crews
from beaver.dispatch.slots_view import Concurrency, Crew
from beaver.errors import Conflict, CrewFailed, StoreUnavailable
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.writer import WriterProcess
from beaver.structs.messages import Attempt
from beaver_model import JobState
from beaver_model.commands import Enqueue
from beaver_model.events import AnyEvent, Cause, Released
from tests.runtime.test_controller import ControllerWorld, PlayedPool
from tests.worlds.model import job
from tests.worlds.runtime import on_loop, turns

BOUND_S = 5.0
"""What does not come within this will not come."""


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, within `BOUND_S`."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


class CrewPool(PlayedPool):
    """A pool of which workers are told to end."""

    def __init__(self, clock: object, told: list[tuple[str, int]]) -> None:
        super().__init__(clock)
        self._told = told

    def retire(self, worker: int) -> None:
        self._told.append(("retire", worker))

    def recall(self, worker: int) -> list[int]:
        self._told.append(("recall", worker))
        return super().recall(worker)

    def dispatch(self, worker: int, attempts: Sequence[Attempt]) -> None:
        self._told.append(("send", worker))
        super().dispatch(worker, attempts)


class CrewWorld(ControllerWorld):
    """A controller, its pool, and crews to come."""

    def __init__(self, path: Path, workers: int = 1, **options: Any) -> None:
        self.told: list[tuple[str, int]] = []
        self.gone: list[Crew] = []
        super().__init__(path, workers, on_crew_gone=self.gone.append, **options)
        self.first = self.controller.crew
        self.first.pool = self.pool = CrewPool(self.clock, self.told)
        self.events: list[AnyEvent] = []
        self.engine.observers.append(lambda seq, now, events: self.events.extend(events))

    async def recruit(self, count: int = 1) -> tuple[Crew, asyncio.Task[None], list[int]]:
        """Begins to bring in a new crew; returns it, the wait for it, and its numbers."""
        crew = Crew(CrewPool(self.clock, self.told), Concurrency.ONE, 1)
        known = set(self.controller.workers)
        task = asyncio.get_running_loop().create_task(self.controller.recruit(crew, count))
        await turns()
        return crew, task, sorted(set(self.controller.workers) - known)

    async def arrive(self, count: int = 1) -> tuple[Crew, list[int]]:
        """A new crew is ready."""
        crew, task, numbers = await self.recruit(count)
        for number in numbers:
            self.controller.worker_ready(number, 200 + number)
        await task
        return crew, numbers

    def end_of(self, crew: Crew, worker: int) -> None:
        """A worker of that crew reports on what it has begun."""
        self.pool = crew.pool  # type: ignore[assignment]
        self.end(worker)


@on_loop
async def test_a_new_crew_is_given_nothing_before_it_takes_over(tmp_path: Path) -> None:
    """Not even what no other worker is free for: until then the former tasks are known."""
    world = CrewWorld(tmp_path / "data")
    crew, numbers = await world.arrive()
    assert numbers == [2]
    await world.enqueue("a", "b")
    assert not crew.pool.sent  # type: ignore[attr-defined]
    world.controller.hand_over(crew)
    await turns()
    assert [a.job for a in crew.pool.sent[2]] == ["a"]  # type: ignore[attr-defined]


@on_loop
async def test_a_handing_over_gives_back_what_has_not_started_and_leaves_what_runs(
    tmp_path: Path,
) -> None:
    world = CrewWorld(tmp_path / "data", prefetch=3)
    await world.enqueue("runs", "waits", "waits too")
    token = world.begin()
    crew, _ = await world.arrive()
    world.controller.hand_over(crew)
    await turns()
    given_back = [e for e in world.events if type(e) is Released]
    assert {(e.job, e.cause) for e in given_back} == {
        ("waits", Cause.DRAIN),
        ("waits too", Cause.DRAIN),
    }
    assert world.state.jobs["runs"].token == token
    assert ("retire", 1) in world.told
    assert {a.job for a in crew.pool.sent[2]} == {"waits", "waits too"}  # type: ignore[attr-defined]
    assert world.state.jobs["waits"].attempt == 1
    world.end_of(world.first, 1)
    await turns()
    assert "runs" not in world.state.jobs, "its outcome stands"


@on_loop
async def test_what_is_on_its_way_to_the_disk_goes_out_before_the_rest_is_taken_back(
    tmp_path: Path,
) -> None:
    """Else it could start before the log gives back what was taken back ahead of it."""
    path = tmp_path / "data"
    commits = CommitPath(WriterProcess, "writer")
    world = CrewWorld(path, prefetch=2, engine_options={"commits": commits})
    crew, _ = await world.arrive()
    world.engine.submit(Enqueue([job("a")]), lambda _: None)
    while not world.pool.sent.get(1):
        await turns(1)
    world.engine.submit(Enqueue([job("b")]), lambda _: None)
    await turns(2)
    assert world.engine.durable_seq < world.state.jobs["b"].token, "the writer has its DISPATCH"
    world.told.clear()
    world.controller.hand_over(crew)
    assert world.told[:2] == [("send", 1), ("recall", 1)]
    assert world.state.jobs["b"].state == JobState.PENDING
    world.engine.close()


@on_loop
async def test_a_former_worker_is_not_replaced_and_the_last_one_is_told(tmp_path: Path) -> None:
    world = CrewWorld(tmp_path / "data", workers=2)
    await world.enqueue("a", "b")
    tokens = [world.begin(1), world.begin(2)]
    crew, numbers = await world.arrive(2)
    assert numbers == [3, 4]
    world.controller.hand_over(crew)
    for worker, token in enumerate(tokens, 1):
        assert world.gone == []
        world.end_of(world.first, worker)
        world.controller.worker_exited(worker, token, "exited with 0")
        await turns()
    assert world.gone == [world.first]
    assert world.first.pool.added == []  # type: ignore[attr-defined]
    assert sorted(world.controller.workers) == [3, 4]


@on_loop
async def test_a_former_worker_that_dies_charges_what_it_ran(tmp_path: Path) -> None:
    world = CrewWorld(tmp_path / "data")
    await world.enqueue("a")
    token = world.begin()
    crew, _ = await world.arrive()
    world.controller.hand_over(crew)
    world.controller.worker_exited(1, token, "killed by signal 11")
    await turns()
    row = world.state.jobs["a"]
    assert (row.state, row.attempt) == (JobState.PENDING, 1), "it is tried again, after a while"
    assert 1 not in world.controller.workers


@on_loop
async def test_a_former_worker_that_does_not_end_is_killed_once_it_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it runs a job it has that job's time, however long that is."""
    monkeypatch.setattr(crews, "LEAVE_S", 0.02)
    world = CrewWorld(tmp_path / "data", workers=2)
    await world.enqueue("a")
    world.begin(1)
    crew, _ = await world.arrive()
    world.controller.hand_over(crew)
    await until(lambda: bool(world.pool.killed))
    await asyncio.sleep(0.1)
    assert world.pool.killed == [2]
    world.end_of(world.first, 1)
    await until(lambda: 1 in world.pool.killed)


@on_loop
async def test_a_worker_that_does_not_come_up_fails_the_crew_and_nobody_else(
    tmp_path: Path,
) -> None:
    world = CrewWorld(tmp_path / "data")
    crew, task, (first, second) = await world.recruit(2)
    world.controller.worker_ready(first, 200)
    world.controller.worker_exited(second, 0, "exited with 71")
    with pytest.raises(CrewFailed, match=f"worker {second} exited with 71"):
        await asyncio.wait_for(task, BOUND_S)
    world.controller.dismiss(crew)
    world.controller.worker_exited(first, 0, "ended with the pool")
    assert sorted(world.controller.workers) == [1]
    await world.enqueue("a")
    assert [a.job for a in world.pool.sent[1]] == ["a"]


@on_loop
async def test_crews_side_by_side_are_bounded(tmp_path: Path) -> None:
    world = CrewWorld(tmp_path / "data")
    for number in range(1, crews.CREWS_MAX):
        await world.enqueue(f"job-{number}")
        world.pool = world.controller.crew.pool  # type: ignore[assignment]
        world.begin(number)
        crew, _ = await world.arrive()
        world.controller.hand_over(crew)
    _, task, _ = await world.recruit()
    with pytest.raises(Conflict, match="still have"):
        await asyncio.wait_for(task, BOUND_S)


@on_loop
async def test_a_drain_ends_a_reload_that_waits_and_refuses_another(tmp_path: Path) -> None:
    world = CrewWorld(tmp_path / "data")
    crew, task, _ = await world.recruit()
    await asyncio.wait_for(world.controller.drain(50), 5)
    with pytest.raises(CrewFailed, match="shutting down"):
        await asyncio.wait_for(task, BOUND_S)
    world.controller.dismiss(crew)
    _, task, _ = await world.recruit()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(task, BOUND_S)
