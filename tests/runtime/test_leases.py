"""Remote workers beside an engine, with a clock that the test moves: leases, pulls, reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from beaver.dispatch.remote_workers import Progress, Pull, RemoteWorker
from beaver.dispatch.reports import Answer, Report
from beaver.dispatch.slots_view import Concurrency
from beaver.errors import BeaverError, NotFound
from beaver.structs.messages import Attempt, Outcome, OutcomeKind
from beaver_model.rows import Row
from beaver_model.states import JobState
from tests.runtime.test_controller import ControllerWorld
from tests.worlds.runtime import on_loop, turns

LEASE_MS = 15_000


class RemoteWorld(ControllerWorld):
    """A controller whose jobs all go to remote workers: no local one is ready."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, workers=0, boot=True, **options)
        self.leases, self.reports = self.controller.leases, self.controller.reports
        self.told: list[Answer | BeaverError] = []

    def come(self, capacity: int = 1, *tasks: str) -> RemoteWorker:
        return self.leases.register("w", frozenset(tasks or ("echo",)), None, capacity, "o")

    async def pull(self, worker: RemoteWorker, count: int = 1, *, waits: bool = False) -> Pulled:
        pulled = Pulled()
        pulled.pull = self.leases.pull(worker.number, count, pulled.given, waits=waits)
        await turns()
        return pulled

    def report(self, token: int, kind: OutcomeKind = OutcomeKind.OK) -> bool:
        return self.reports.take(Report(Outcome(token, "", kind)), self.told.append)

    def row(self, name: str) -> Row:
        return self.state.jobs[name]

    def pass_ms(self, passed_ms: int) -> None:
        self.clock.pass_ms(passed_ms)
        self.leases.look()


class Pulled:
    """What a pull has come to."""

    pull: Pull

    def __init__(self) -> None:
        self.attempts: Sequence[Attempt] | None = None

    def given(self, attempts: Sequence[Attempt]) -> None:
        assert self.attempts is None, "it is answered once"
        self.attempts = attempts

    @property
    def jobs(self) -> list[str] | None:
        return None if self.attempts is None else [attempt.job for attempt in self.attempts]


@on_loop
async def test_a_pull_is_answered_once_its_dispatch_is_durable_and_not_before(
    tmp_path: Path,
) -> None:
    world = RemoteWorld(tmp_path / "data")
    worker = world.come(2)
    durable: list[bool] = []

    def given(attempts: Sequence[Attempt]) -> None:
        durable.extend(a.token <= world.wal.last_seq for a in attempts)

    world.leases.pull(worker.number, 2, given, waits=True)
    await world.enqueue("a", "b")
    assert durable == [True, True]


@on_loop
async def test_pulls_take_turns_and_none_gets_more_than_its_worker_has_room_for(
    tmp_path: Path,
) -> None:
    world = RemoteWorld(tmp_path / "data")
    one, other = world.come(4), world.come(3)
    first, second = await world.pull(one, 4, waits=True), await world.pull(other, 4, waits=True)
    third = await world.pull(other, 4, waits=True)
    await world.enqueue(*"abcdefghij")
    assert len(first.jobs or ()) == 4
    assert len(second.jobs or ()) + len(third.jobs or ()) == 3
    assert (len(one.held), len(other.held)) == (4, 3)
    assert world.state.in_flight.keys() == {*one.held, *other.held}


@on_loop
async def test_two_that_pull_at_once_get_a_half_each(tmp_path: Path) -> None:
    world = RemoteWorld(tmp_path / "data")
    pulls = [await world.pull(world.come(9), 9, waits=True) for _ in range(2)]
    await world.enqueue(*"abcdef")
    assert [len(pulled.jobs or ()) for pulled in pulls] == [3, 3]


@on_loop
async def test_who_does_not_wait_is_told_at_once_that_there_is_nothing(tmp_path: Path) -> None:
    world = RemoteWorld(tmp_path / "data")
    worker = world.come()
    assert (await world.pull(worker)).jobs == []
    waiting = await world.pull(worker, waits=True)
    assert waiting.jobs is None
    world.leases.drop(waiting.pull)
    await world.enqueue("a")
    assert waiting.jobs is None
    assert world.state_of("a") == JobState.PENDING, "nobody waits for it"


@on_loop
async def test_what_a_dropped_pull_had_got_is_given_back_for_nothing(tmp_path: Path) -> None:
    world = RemoteWorld(tmp_path / "data")
    worker = world.come()
    pulled = await world.pull(worker, waits=True)
    await world.enqueue("a")
    world.leases.drop(pulled.pull)
    await turns()
    assert (world.state_of("a"), world.row("a").attempt) == (JobState.PENDING, 0)
    assert (await world.pull(worker)).jobs == ["a"]


@pytest.mark.parametrize("how", ["heartbeat", "pull", "wait", "outcome", "progress"])
@on_loop
async def test_every_request_renews_the_lease_and_silence_ends_it(tmp_path: Path, how: str) -> None:
    world = RemoteWorld(tmp_path / "data")
    worker = world.come(3)
    await world.enqueue("a", "b")
    attempts = (await world.pull(worker, 2)).attempts
    assert attempts is not None
    held, other = (attempt.token for attempt in attempts)
    waiting = await world.pull(worker, waits=True) if how == "wait" else None
    world.pass_ms(LEASE_MS - 1)
    if how == "heartbeat":
        world.leases.heartbeat(worker.number, [held, other])
    elif how == "pull":
        await world.pull(worker)
    elif how == "outcome":
        assert world.report(other)
    elif how == "progress":
        assert world.leases.progress(other, Progress()) is not None
    world.pass_ms(LEASE_MS - 1)
    assert world.row("a").token == held
    if waiting is not None:
        world.pass_ms(LEASE_MS)
        assert world.row("a").token == held, "it is heard of as long as it waits"
        world.leases.drop(waiting.pull)
        world.pass_ms(LEASE_MS - 1)
        assert world.row("a").token == held
    world.pass_ms(1)
    assert world.state_of("a") == JobState.PENDING
    assert (world.row("a").attempt, world.row("a").ready_ms) == (1, world.state.time_ms)
    with pytest.raises(NotFound):
        world.leases.heartbeat(worker.number, [held])
    assert not world.report(held), "its token answers nothing any more"


@on_loop
async def test_a_time_limit_ends_an_attempt_of_a_worker_that_lives(tmp_path: Path) -> None:
    world = RemoteWorld(tmp_path / "data")
    worker = world.come()
    await world.enqueue("a", timeout_ms=1_000)
    attempts = (await world.pull(worker)).attempts
    assert attempts
    token = attempts[0].token
    world.pass_ms(999)
    assert world.leases.heartbeat(worker.number, [token]).cancel == []
    world.pass_ms(1)
    assert world.leases.heartbeat(worker.number, [token]).cancel == [token]
    assert world.state_of("a") == JobState.PENDING
    assert worker.room == 1, "it may take another one"


@on_loop
async def test_what_heartbeats_leave_out_for_a_lease_is_taken_back_and_no_sooner(
    tmp_path: Path,
) -> None:
    world = RemoteWorld(tmp_path / "data")
    worker = world.come(2)
    await world.enqueue("a", "b")
    attempts = (await world.pull(worker, 2)).attempts
    assert attempts
    named = attempts[0].token
    world.pass_ms(LEASE_MS - 1)
    world.leases.heartbeat(worker.number, None)  # Where it does not say, it has both.
    for passed_ms, left in ((LEASE_MS - 1, 2), (1, 2), (1, 1)):
        world.pass_ms(passed_ms)
        world.leases.heartbeat(worker.number, [named])
        assert len(worker.held) == left
    await turns()
    assert list(worker.held) == [named]
    assert world.state_of("b") == JobState.PENDING


@on_loop
async def test_a_start_gives_what_is_in_flight_a_new_lease_and_no_more(tmp_path: Path) -> None:
    world = RemoteWorld(tmp_path / "data")
    worker = world.come(2)
    await world.enqueue("a", "b")
    attempts = (await world.pull(worker, 2)).attempts
    assert attempts
    tokens = [attempt.token for attempt in attempts]
    world.engine.close()
    again = RemoteWorld(tmp_path / "data")
    leases = again.leases
    again.pass_ms(LEASE_MS - 1)
    other = again.come()
    assert other.number != worker.number, "another epoch, another number"
    assert leases.heartbeat(other.number, tokens[:1]).lost == []
    again.pass_ms(1)
    await turns()
    assert again.row("a").token == tokens[0]
    assert again.state_of("b") == JobState.PENDING
    assert leases.heartbeat(other.number, tokens).lost == tokens[1:]


@on_loop
async def test_what_waits_behind_a_long_local_attempt_goes_to_a_remote_worker(
    tmp_path: Path,
) -> None:
    """P5: no slot is idle while a job that it could run waits."""
    world = ControllerWorld(tmp_path / "data", prefetch=2, mode=Concurrency.ONE, boot=True)
    await world.enqueue("a", "b")
    assert len(world.pool.sent[1]) == 2
    world.begin()
    world.clock.pass_ms(1_000)
    given: list[Attempt] = []
    worker = world.controller.leases.register("w", frozenset({"echo"}), None, 1, "o")
    world.controller.leases.pull(worker.number, 1, given.extend, waits=True)
    await turns()
    assert [attempt.job for attempt in given] == ["b"]
