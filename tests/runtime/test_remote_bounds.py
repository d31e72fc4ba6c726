"""The bounds of what a server keeps of remote workers, each driven on both sides."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from beaver.dispatch import remote_workers, reports
from beaver.dispatch.remote_workers import (
    CAPACITY_MAX,
    PULL_BYTES,
    TAKEN_BACK_MAX,
    WORKERS_MAX,
    WORKERS_OF_TOKEN_MAX,
    RemoteWorker,
)
from beaver.errors import TooManyWorkers
from beaver_model.commands import Enqueue
from tests.runtime.test_leases import LEASE_MS, RemoteWorld
from tests.worlds.model import job
from tests.worlds.runtime import on_loop, turns

MIB = 1 << 20


async def enqueue(world: RemoteWorld, name: str, payload_bytes: int) -> None:
    new = msgspec.structs.replace(job(name), payload=b"x" * payload_bytes)
    await world.engine.execute(Enqueue([new]))


@on_loop
async def test_so_many_workers_are_registered_at_once_and_no_more(tmp_path: Path) -> None:
    """Whoever they belong to; and each that leaves makes room for one."""
    world = RemoteWorld(tmp_path / "data")

    def come(owner: int) -> RemoteWorker:
        return world.leases.register("w", frozenset({"echo"}), None, 1, f"owner {owner}")

    workers = [come(number // WORKERS_OF_TOKEN_MAX) for number in range(WORKERS_MAX)]
    assert len(world.leases.workers) == WORKERS_MAX
    with pytest.raises(TooManyWorkers, match=f"at most {WORKERS_MAX} may be"):
        come(-1)
    world.leases.remove(workers[0].number)
    last = come(-1)
    with pytest.raises(TooManyWorkers):
        come(-1)
    assert last.number not in {worker.number for worker in workers}


@pytest.mark.parametrize(
    ("first_bytes", "given"),
    [(MIB, PULL_BYTES // MIB), (MIB - 1, PULL_BYTES // MIB + 1)],
    ids=["at the bound", "one byte below it"],
)
@on_loop
async def test_a_pull_is_given_payloads_up_to_a_size_and_the_next_pull_goes_on(
    tmp_path: Path, first_bytes: int, given: int
) -> None:
    """The payload that reaches the bound is the last; the worker has room for all."""
    world = RemoteWorld(tmp_path / "data")
    names = [f"j{number}" for number in range(PULL_BYTES // MIB + 3)]
    for name in names:
        await enqueue(world, name, MIB if name != names[0] else first_bytes)
    worker = world.come(len(names))
    assert (await world.pull(worker, len(names))).jobs == names[:given]
    assert (await world.pull(worker, len(names))).jobs == names[given:]


@on_loop
async def test_a_payload_larger_than_a_pull_is_given_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = RemoteWorld(tmp_path / "data")
    monkeypatch.setattr(remote_workers, "PULL_BYTES", 10)
    await enqueue(world, "large", 11)
    await enqueue(world, "small", 1)
    worker = world.come(2)
    assert (await world.pull(worker, 2)).jobs == ["large"]
    assert (await world.pull(worker, 2)).jobs == ["small"]


@on_loop
async def test_a_worker_is_told_of_so_many_that_were_taken_back_and_the_oldest_go(
    tmp_path: Path,
) -> None:
    """All that one may hold at once are told; one more, and the oldest is told no longer."""
    world = RemoteWorld(tmp_path / "data")
    worker = world.come(CAPACITY_MAX)
    names = [f"j{number}" for number in range(TAKEN_BACK_MAX + 1)]
    await world.enqueue(*names, timeout_ms=10, max_attempts=1)
    tokens: list[int] = []
    for count in (TAKEN_BACK_MAX, 1):
        pulled = await world.pull(worker, count)
        assert pulled.attempts is not None
        tokens += [attempt.token for attempt in pulled.attempts]
        world.pass_ms(11)
        await turns()
        assert not world.state.in_flight, "all are over their limit"
        told = world.leases.heartbeat(worker.number, None).cancel
        assert told == tokens[-TAKEN_BACK_MAX:]
    assert len(tokens) == TAKEN_BACK_MAX + 1
    assert LEASE_MS > 2 * 11, "its lease had not ended"


@on_loop
async def test_so_many_answers_are_remembered_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = RemoteWorld(tmp_path / "data")
    monkeypatch.setattr(reports, "ANSWERS_MAX", 3)
    worker = world.come(4)
    await world.enqueue(*"abcd")
    attempts = (await world.pull(worker, 4)).attempts
    assert attempts is not None
    tokens = [attempt.token for attempt in attempts]
    for token in tokens[:3]:
        assert world.report(token)
    await turns()
    known = [world.reports.answered(token) for token in tokens[:3]]
    assert known == world.told
    assert all(answer is not None for answer in known)
    assert world.report(tokens[3])
    await turns()
    assert [world.reports.answered(token) for token in tokens] == [None, *world.told[1:]]
