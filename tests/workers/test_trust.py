"""What lies in a worker's channels is believed only where the server has written it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from beaver.structs.messages import Options, Outcome, TaskInfo
from beaver.workers import wire
from beaver.workers.permits import Permits
from beaver.workers.slots import Slots, SlotsCut, SlotWriter
from tests.workers.interleavings import attempt
from tests.workers.test_mailbox import Listener, connected
from tests.worlds.workers import World, in_world, until

STORE = b"s" * 16


def with_permits(*tokens: int) -> tuple[Permits, list[str], tuple[int, int]]:
    """Permits of a worker that was given attempts, what they say, and the worker's ends."""
    said: list[str] = []
    permits = Permits(asyncio.get_running_loop(), said.append)
    ends = permits.hand_over()
    permits.give([attempt(token) for token in tokens])
    return permits, said, ends


def close(permits: Permits, ends: tuple[int, int]) -> None:
    permits.close()
    for fd in ends:
        os.close(fd)


def test_a_pipe_that_the_worker_makes_blocking_does_not_block_the_server() -> None:
    async def main() -> None:
        permits, said, ends = with_permits(1, 2)
        os.set_blocking(ends[1], True)
        assert not os.get_blocking(permits._reader), "the next read would wait for ever"
        assert permits.take_back() == [1, 2]
        assert permits.take_back() == []
        assert said == []
        close(permits, ends)

    asyncio.run(main())


@pytest.mark.parametrize(
    "junk",
    [b"abc", struct.pack("=Q", 7), struct.pack("=Q", 1), struct.pack("=Q", 0), b"\1" * 65536],
)
def test_permits_that_were_not_written_by_the_server_are_not_taken_back(junk: bytes) -> None:
    async def main() -> None:
        permits, said, ends = with_permits(1, 2, 3)
        assert os.read(ends[1], 8) == struct.pack("=Q", 1)
        other = os.open(f"/proc/self/fd/{ends[1]}", os.O_WRONLY | os.O_NONBLOCK)
        os.write(other, junk)
        os.close(other)
        assert permits.take_back() == []
        assert said == ["its permits are not those that it was given"]
        permits.give([attempt(4)])
        assert permits.take_back() == [], "nothing is taken back from a worker that was given up"
        close(permits, ends)

    asyncio.run(main())


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_RDWR])
def test_a_jobs_socket_that_was_shut_down_is_told_and_raises_nothing(how: int) -> None:
    """An exception here would end the engine, in whose commit attempts are handed out."""

    async def main() -> None:
        permits, said, ends = with_permits(1)
        with socket.socket(fileno=os.dup(ends[0])) as jobs:
            jobs.shutdown(how)
        permits.give([attempt(2)])
        permits.take_back()
        assert len(said) == 1
        assert "cannot be sent to" in said[0]
        close(permits, ends)

    asyncio.run(main())


def test_slots_that_were_cut_are_an_error_and_no_signal(tmp_path: Path) -> None:
    path = tmp_path / "slots"
    slots = Slots.open(str(path), 2, STORE, 0)
    SlotWriter(slots.fd, 2).start(5, 50)
    os.truncate(path, 130)
    assert slots.read(1).started == 0
    with pytest.raises(SlotsCut):
        slots.read(2)
    told: list[int] = []
    slots.users.append(lambda: told.append(slots.last.setdefault(2, 5)))
    slots.restore()
    assert told == [5], "who reads it says what it knows first"
    assert [slots.read(worker).started for worker in (1, 2)] == [0, 5]
    slots.users.clear()
    slots.close()


@pytest.mark.parametrize("cut", [0, 64, None])
def test_a_worker_whose_slot_is_cut_or_overwritten_is_replaced_and_pays(
    tmp_path: Path, cut: int | None
) -> None:
    """What it has taken counts as started, what it has not taken does not."""

    async def test(world: World) -> None:
        running = world.send(1, "sleep", 60.0)
        await until(lambda: world.pool.started(1)[0] == running)
        waiting = world.send(1, "add", 1)
        path = tmp_path / "slots"
        if cut is None:
            with path.open("r+b") as file:
                file.seek(64 + 8)
                file.write(struct.pack("=3Q", 2**64 - 1, 0, 2**64 - 1))
        else:
            os.truncate(path, cut)
        world.pool.started(1)
        await until(lambda: world.events.exits)
        worker, started, detail = world.events.exits.pop()
        assert (worker, started) == (1, running) < (1, waiting)
        assert "slot" in detail
        assert not world.events.failures
        await world.add(1)
        assert await world.result(1, "add", 1) == 11
        assert path.stat().st_size == 64 * 5, "the file is whole again"

    in_world(tmp_path, test)


def test_what_runs_is_not_recalled_though_its_permit_lies_in_the_pipe_again(
    tmp_path: Path,
) -> None:
    """P10: it would run at two workers at once."""

    async def test(world: World) -> None:
        running = world.send(1, "sleep", 60.0)
        await until(lambda: world.pool.started(1)[0] == running)
        permits = world.pool._by_number[1]._permits
        os.write(permits._pipe, struct.pack("=Q", running))
        assert world.pool.recall(1) == []
        await until(lambda: world.events.exits)
        assert world.events.exits[0][1] == running

    in_world(tmp_path, test)


def test_an_outcome_of_an_attempt_that_has_not_started_is_dropped(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        running = world.send(1, "sleep", 60.0)
        await until(lambda: world.pool.started(1)[0] == running)
        waiting = world.send(1, "add", 1)
        mailbox = world.pool._by_number[1]
        world.pool.received(mailbox, [Outcome(waiting, f"job-{waiting}", 0)])
        await until(lambda: world.events.exits)
        assert waiting not in world.events.by_token
        assert "has not started" in world.events.exits[0][2]

    in_world(tmp_path, test)


@pytest.mark.parametrize("pid", [0, 1, -1, 1 << 31, "self", None])
def test_a_worker_introduces_itself_by_a_process_id(pid: Any) -> None:
    async def main() -> None:
        listener = Listener()
        with connected(listener, pid) as (mailbox, _):
            pass
        mailbox.close()
        assert "ready" not in listener.said
        assert "no outcome" in str(listener.said[0])

    asyncio.run(main())


@pytest.mark.parametrize(
    "tasks", [[TaskInfo(Options("a" * 300))], [TaskInfo(Options("a", priority=99))]]
)
def test_a_zygote_whose_tasks_are_out_of_bounds_is_given_up(
    tmp_path: Path, tasks: list[TaskInfo]
) -> None:
    """Threads that the application started at its import reach the zygote's socket."""

    async def test(world: World) -> None:
        zygote = world.pool._zygote
        assert zygote is not None
        zygote._on_message = lambda message: world.pool._on_message(wire.ZygoteReady(tuple(tasks)))
        world.pool.kill(1)  # the zygote answers
        await until(lambda: world.pool._zygote is not zygote)
        assert "no message" in zygote.fault

    in_world(tmp_path, test)
