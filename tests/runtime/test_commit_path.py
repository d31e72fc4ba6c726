"""Commits beside the loop: the writer process keeps every promise that the loop keeps."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from beaver.engine.replies import Reply
from beaver.errors import StorageFailed
from beaver.journal.wal.commit_path import FAST_S, SLOW_S, WINDOW, CommitPath
from beaver.journal.wal.writer import WriterProcess
from beaver.ports import DirectoryLock, File, LogWriter, Written
from beaver.store.recovery import open_store
from beaver.system.disk import SystemDisk
from beaver_model import fingerprint
from beaver_model.commands import Dispatch, Enqueue, NewJob
from tests.support.program import enqueue, events, eventually, serving, status
from tests.worlds.model import job
from tests.worlds.runtime import EngineWorld, ManualClock, on_loop, turns


def world_beside_the_loop(path: Path) -> EngineWorld:
    """An engine whose commits a real writer process does."""
    return EngineWorld(path, commits=CommitPath(WriterProcess, "writer"))


@on_loop
async def test_a_reply_comes_after_the_writers_answer_and_the_next_batch_collects(
    tmp_path: Path,
) -> None:
    world = world_beside_the_loop(tmp_path / "data")
    told: list[tuple[str, int]] = []
    world.engine.submit(Enqueue([job("a")]), lambda _: told.append(("a", 1)))
    await turns(1)
    world.engine.submit(Enqueue([job("b")]), lambda _: told.append(("b", 2)))
    world.engine.submit(Enqueue([job("c")]), lambda _: told.append(("c", 2)))
    world.engine.read(lambda state: len(state.jobs), lambda count: told.append(("read", count)))
    assert told == [], "a frame is with the writer, and nothing is told"
    world.engine.flush()
    assert told == [("a", 1), ("b", 2), ("c", 2), ("read", 3)]
    assert world.engine.counters.commits == 2
    assert world.engine.durable_seq == 3
    world.engine.close()
    again = open_store(SystemDisk(), str(world.path), clock=ManualClock(), create=False)
    assert fingerprint(again.state) == fingerprint(world.state)
    again.journal.close()


@on_loop
async def test_many_commits_without_a_flush_all_arrive_in_order(tmp_path: Path) -> None:
    world = world_beside_the_loop(tmp_path / "data")
    for n in range(200):
        await world.engine.execute(Enqueue([job(str(n), run_at_ms=n % 5)]))
    replies = await asyncio.gather(*(world.engine.execute(Dispatch(str(n), 1)) for n in range(200)))
    assert [reply.first_seq for reply in replies] == list(range(201, 401))
    assert 201 <= world.engine.counters.commits <= 203
    world.engine.close()


def test_the_writer_works_on_a_loop_that_makes_its_sockets_non_blocking(tmp_path: Path) -> None:
    """Uvloop does; a large frame and a blocking wait must live with it."""

    async def commits() -> None:
        world = world_beside_the_loop(tmp_path / "data")
        for n in range(20):
            world.engine.submit(Enqueue([job(str(n))]), lambda _: None)
            await turns(1)
            world.engine.flush()
            big = job(f"big-{n}")
            large = NewJob(big.id, big.spec, b'"' + b"x" * 900_000 + b'"', big.digest)
            await world.engine.execute(Enqueue([large]))
        assert world.failures == []
        world.engine.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(commits())


@on_loop
async def test_segments_change_only_between_two_frames(tmp_path: Path) -> None:
    world = world_beside_the_loop(tmp_path / "data")
    payload = b'"' + b"x" * 200_000 + b'"'
    for n in range(40):
        big = job(str(n))
        large = NewJob(big.id, big.spec, payload, big.digest)
        world.engine.submit(Enqueue([large]), lambda _: None)
        await turns(1)
    world.engine.close()
    again = open_store(SystemDisk(), str(world.path), clock=ManualClock(), create=False)
    assert len(again.state.jobs) == 40
    again.journal.close()


@on_loop
async def test_a_writer_that_dies_with_a_frame_ends_the_engine(tmp_path: Path) -> None:
    """Whether the frame was written nobody knows, so nothing is told."""
    writers: list[WriterProcess] = []

    def make_writer(hold: DirectoryLock) -> WriterProcess:
        writers.append(WriterProcess(hold))
        return writers[-1]

    world = EngineWorld(tmp_path / "data", commits=CommitPath(make_writer, "writer"))
    await world.engine.execute(Enqueue([job("a")]))
    (writer,) = writers
    replies: list[Reply] = []
    os.kill(writer.pid, signal.SIGSTOP)
    world.engine.submit(Enqueue([job("b")]), replies.append)
    await turns()
    os.kill(writer.pid, signal.SIGKILL)
    writer._process.wait(10)
    assert not writer.lost, "it has a frame, so nobody may take its place"
    world.engine.flush()
    assert isinstance(world.failures[0], StorageFailed)
    assert replies == []
    writer.close()


@on_loop
async def test_a_writer_that_dies_between_two_frames_is_replaced(tmp_path: Path) -> None:
    writers: list[WriterProcess] = []

    def make_writer(hold: DirectoryLock) -> WriterProcess:
        writers.append(WriterProcess(hold))
        return writers[-1]

    world = EngineWorld(tmp_path / "data", commits=CommitPath(make_writer, "writer"))
    for name in ("a", "b", "c"):
        await world.engine.execute(Enqueue([job(name)]))
        os.kill(writers[-1].pid, signal.SIGKILL)
        writers[-1]._process.wait(10)
    assert len(writers) == 3
    assert world.failures == []
    world.engine.close()
    again = open_store(SystemDisk(), str(world.path), clock=ManualClock(), create=False)
    assert list(again.state.jobs) == ["a", "b", "c"]
    again.journal.close()


def test_the_path_follows_the_median_of_the_syncs_with_hysteresis() -> None:
    path = CommitPath(lambda _: pytest.fail("nothing is written here"))
    between = (SLOW_S + FAST_S) / 2
    for seconds, expected in (
        (between, False), (SLOW_S * 1.1, True), (between, True), (FAST_S * 0.9, False)
    ):  # fmt: skip
        for _ in range(WINDOW):
            path.observe(seconds)
        assert path.beside_the_loop is expected
    for _ in range(WINDOW):
        path.observe(1.0 if _ % 3 == 0 else FAST_S / 2)
    assert not path.beside_the_loop, "a few spikes are not a slow disk"


@pytest.mark.parametrize("choice", ["inline", "writer"])
def test_a_choice_that_was_made_is_kept(choice: str) -> None:
    path = CommitPath(lambda _: pytest.fail("nothing is written here"), choice)
    for seconds in (SLOW_S * 10, FAST_S / 10):
        for _ in range(WINDOW):
            path.observe(seconds)
        assert path.name == choice


def test_a_server_with_a_writer_process_survives_kill_9_and_the_lock_waits(tmp_path: Path) -> None:
    data = tmp_path / "data"
    jobs: list[dict[str, Any]] = [{"id": str(n), "payload": {"sleep_ms": 5}} for n in range(100)]
    with serving(data, "--workers", "2", BEAVER_COMMIT="writer") as server:
        assert server.status()["commit_path"] == "writer"
        enqueue(data, *jobs)
        eventually(lambda: status(data)["completed"] >= 10, "it is in the middle")
        server.kill()
    with serving(data, "--workers", "2", BEAVER_COMMIT="writer") as server:
        server.drained(100)
    acked = [event["job"] for event in events(data) if event["event"] == "ACK"]
    assert sorted(acked) == sorted(job["id"] for job in jobs)


class Idle:
    """A writer that is never asked for anything."""

    lost = False

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        raise AssertionError("nothing is written here")

    def wait(self) -> None:
        raise AssertionError("nothing is under way")

    def close(self) -> None:
        pass


def test_without_a_descriptor_for_a_writer_the_loop_writes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told once, tried again with each commit, and told again when it comes back."""
    none_left = True

    def make_writer(_: DirectoryLock) -> LogWriter:
        if none_left:
            raise OSError(errno.EMFILE, "Too many open files")
        return Idle()

    path, hold = CommitPath(make_writer, "writer"), cast("DirectoryLock", None)
    assert [path.is_ready(hold) for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1
    none_left = False
    assert path.is_ready(hold)
    path.close()
    none_left = True
    assert not path.is_ready(hold)
    assert len(caplog.records) == 2
