"""What the simulator found, once more without it: each of these was a bug."""

from __future__ import annotations

import asyncio
from pathlib import Path

from beaver.dispatch.slots_view import Concurrency
from beaver.dispatch.time_limits import IDLE_NS
from beaver.journal.wal.commit_path import CommitPath
from beaver.ports import File, Written
from beaver.structs.messages import SnapshotWritten
from beaver_model.commands import Enqueue
from beaver_model.contents import Glance
from tests.runtime.test_controller import ControllerWorld
from tests.worlds.model import job
from tests.worlds.runtime import make_housekeeping, on_loop, turns


class HeldWriter:
    """A `ports.LogWriter` that writes when the test says so."""

    lost = False

    def __init__(self) -> None:
        self.frames: list[tuple[File, bytes, int, Written]] = []

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        self.frames.append((file, frame, offset, done))

    def wait(self) -> None:
        while self.frames:
            file, frame, offset, done = self.frames.pop(0)
            file.pwrite_durable(frame, offset)
            done(None, 0.01)

    def close(self) -> None:
        self.wait()


@on_loop
async def test_a_worker_that_becomes_ready_during_a_sync_gets_its_job(tmp_path: Path) -> None:
    """Seed 7 of the first campaign: nothing else was open, so nobody looked for work again."""
    writer = HeldWriter()
    world = ControllerWorld(
        tmp_path / "data", engine_options={"commits": CommitPath(lambda _: writer, "writer")}
    )
    world.controller.workers[1].ready = False
    world.engine.submit(Enqueue([job("a")]), lambda _: None)
    await turns()
    assert len(writer.frames) == 1, "the sync is under way"
    world.controller.worker_ready(1, 101)
    await turns()
    writer.wait()
    await turns()
    writer.wait()
    assert [attempt.job for attempt in world.pool.sent[1]] == ["a"]


class NeverHelps:
    """A helper that nobody needs here."""

    async def prepare(self, path: str, size: int) -> None:
        raise AssertionError("there is a next segment already")

    async def snapshot(
        self, last_seq: int, keep_bytes: int, keep_ms: int, live: Glance | None = None
    ) -> SnapshotWritten:
        raise AssertionError("nobody asked for a snapshot")

    async def project(self, last_seq: int) -> int:
        return last_seq

    async def stop(self) -> None: ...


@on_loop
async def test_an_outcome_without_room_is_tried_again_without_a_new_segment(
    tmp_path: Path,
) -> None:
    """Seed 402: the log had room again by other means, and the job stayed in flight for ever."""
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a")
    world.begin()
    world.limit_room(lambda size: 0)
    world.end(1)
    await turns()
    world.limit_room(None)

    keeping = make_housekeeping(
        world.engine,
        NeverHelps(),
        world.clock,
        on_room=world.controller.retry_unwritten,
        on_violation=world.failures.append,
    )
    world.engine.admission.disk_full = True
    keeping.start()
    async with asyncio.timeout(10):
        while not world.state.completed:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert not world.engine.admission.disk_full, "new jobs are taken again as well"
    await keeping.stop()


@on_loop
async def test_the_way_to_a_thread_does_not_count_towards_the_limit(tmp_path: Path) -> None:
    """Seed 2261: a worker that was stopped for a moment lost what it had run for 1 ms."""
    world = ControllerWorld(tmp_path / "data", mode=Concurrency.MANY, concurrency=2, grace_ms=100)
    await world.enqueue("a", timeout_ms=500)
    world.clock.pass_ms(5_000)
    await world.tick()
    world.begin()
    await world.tick()
    assert world.pool.killed == []
    world.clock.pass_ms(590)
    await world.tick()
    assert world.pool.killed == []
    world.clock.pass_ms(20)
    await world.tick()
    assert world.pool.killed == [1]


@on_loop
async def test_a_worker_that_takes_nothing_is_replaced_and_its_jobs_come_back(
    tmp_path: Path,
) -> None:
    """No limit of a job ends what never starts it (P5): a stopped process, for one."""
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a")
    await world.tick()
    world.clock.pass_ms(IDLE_NS // 1_000_000 - 1_000)
    await world.tick()
    assert world.pool.killed == []
    world.clock.pass_ms(2_000)
    await world.tick()
    assert world.pool.killed == [1]
    world.controller.worker_exited(1, 0, "was killed by signal 9")
    await turns()
    assert (world.state.jobs["a"].attempt, world.state.jobs["a"].token) == (0, 0)
