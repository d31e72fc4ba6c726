"""Requests for new jobs that come together: decided as if each had come alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.engine.intake import BYTES_MAX, JOBS_MAX, Asked, Intake
from beaver.engine.replies import Applied, Reply
from beaver.errors import QueueFull, StorageFailed
from beaver.journal.port import Done, Failed, Position
from beaver_model import Rejection, fingerprint
from beaver_model.bounds import BATCH_BYTES_MAX, BATCH_JOBS_MAX
from beaver_model.commands import Cancel, NewJob, SetQueue
from beaver_model.events import Enqueued
from beaver_model.rows import ROW_BYTES
from tests.worlds.model import job
from tests.worlds.runtime import EngineWorld, applied, on_loop, turns


class Clients:
    """Clients that ask an engine for jobs, and note what they are told."""

    def __init__(self, world: EngineWorld) -> None:
        self.world = world
        self.replies: list[Reply] = []
        self.durable: list[int] = []
        """How far the log had got with each reply."""

    def ask(self, *jobs: NewJob) -> None:
        self.world.engine.enqueue(list(jobs), lambda _, reply: reply, self._told)

    def _told(self, reply: Reply) -> None:
        self.replies.append(reply)
        self.durable.append(self.world.wal.last_seq)

    @property
    def seqs(self) -> list[list[int]]:
        return [
            list(range(reply.first_seq, reply.first_seq + len(reply.events)))
            for reply in self.replies
            if isinstance(reply, Applied)
        ]


@on_loop
async def test_requests_of_one_turn_get_their_own_events_in_the_order_they_came(
    tmp_path: Path,
) -> None:
    world = EngineWorld(tmp_path / "data")
    clients = Clients(world)
    clients.ask(job("a"))
    clients.ask(job("b"), job("c"))
    clients.ask(job("d"))
    assert (world.state.last_seq, clients.replies) == (0, [])
    await turns()
    assert clients.seqs == [[1], [2, 3], [4]]
    told = [event for reply in applied(clients.replies) for event in reply.events]
    assert [event.job for event in told if isinstance(event, Enqueued)] == list("abcd")
    assert clients.durable == [4, 4, 4], "no answer before its events are in the log"
    assert world.engine.counters.commits == 1


@on_loop
async def test_who_asks_for_what_is_there_or_conflicts_is_answered_as_if_alone(
    tmp_path: Path,
) -> None:
    world = EngineWorld(tmp_path / "data")
    clients = Clients(world)
    clients.ask(job("a"))
    clients.ask(job("a"))  # sent twice
    clients.ask(job("a", digest=b"x" * 12))
    clients.ask(job("b"))
    await turns()
    first, again, conflict, other = clients.replies
    assert isinstance(first, Applied)
    assert (first.first_seq, len(first.events)) == (1, 1)
    assert isinstance(again, Applied)
    assert again.events == []
    assert isinstance(conflict, Rejection)
    assert conflict.code == "conflict"
    assert isinstance(other, Applied)
    assert other.first_seq == 2


@on_loop
async def test_one_whose_queue_is_full_does_not_keep_the_others_out(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    await world.engine.execute(SetQueue("default", bytes_max=2 * ROW_BYTES + 100))
    clients = Clients(world)
    for name in "abc":
        clients.ask(job(name))
    await turns()
    assert [type(reply) for reply in clients.replies] == [Applied, Applied, QueueFull]
    assert set(world.state.jobs) == {"a", "b"}


@pytest.mark.parametrize("what", ["command", "read", "each", "flush"])
@on_loop
async def test_whatever_comes_after_a_request_sees_its_jobs(tmp_path: Path, what: str) -> None:
    world = EngineWorld(tmp_path / "data")
    seen: list[object] = []
    clients = Clients(world)
    clients.ask(job("a"))
    clients.ask(job("b"))
    if what == "command":
        world.engine.submit(Cancel("a"), seen.append)
    elif what == "read":
        world.engine.read(lambda state: seen.append(list(state.jobs)), lambda _: None)
        assert seen == [["a", "b"]]
    elif what == "each":
        world.engine.submit_each([Cancel("b")], lambda command, error: None)
    else:
        world.engine.flush()
        assert world.wal.last_seq == 2
    assert list(world.state.jobs) == ["a", "b"]
    await turns()
    assert clients.seqs == [[1], [2]]
    assert not any(isinstance(reply, Rejection) for reply in seen)


@on_loop
async def test_a_log_that_fails_answers_nobody_and_takes_in_nothing_more(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    clients = Clients(world)

    def broken(after: Position, payload: bytes, count: int, done: Done) -> None:
        done(Failed(StorageFailed("Input/output error")))

    world.wal.append = broken  # type: ignore[method-assign]
    clients.ask(job("a"))
    clients.ask(job("b"))
    await turns()
    clients.ask(job("c"))
    await turns()
    assert clients.replies == []
    assert len(world.failures) == 1
    assert "c" not in world.state.jobs


@on_loop
async def test_together_and_one_by_one_lead_to_the_same_state(tmp_path: Path) -> None:
    states = []
    for name, together in (("one", False), ("all", True)):
        world = EngineWorld(tmp_path / name)
        clients = Clients(world)
        for n in range(50):
            clients.ask(job(str(n), priority=n % 3), job(f"{n}-2"))
            if not together:
                world.engine.flush()
        await turns()
        states.append((fingerprint(world.state), clients.seqs))
        assert world.engine.counters.commits == (1 if together else 50)
    assert states[0] == states[1]


@on_loop
async def test_a_commit_stays_within_its_bytes_whoever_comes_together(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data", segment_bytes=4 * BATCH_BYTES_MAX)
    clients = Clients(world)
    frames: list[int] = []
    append = world.wal.append

    def noted(after: Position, payload: bytes, count: int, done: Done) -> None:
        frames.append(len(payload))
        append(after, payload, count, done)

    world.wal.append = noted  # type: ignore[method-assign]
    clients.ask(job("small"))
    clients.ask(NewJob("large", job().spec, b"x" * (BATCH_BYTES_MAX - 1_200), b"d" * 12))
    await turns()
    assert [len(seqs) for seqs in clients.seqs] == [1, 1]
    assert max(frames) <= BATCH_BYTES_MAX
    assert len(frames) == 2, "together they would have been too long"


@pytest.mark.parametrize(
    ("jobs", "size", "full"),
    [
        (JOBS_MAX - 1, 0, False),
        (JOBS_MAX, 0, True),
        (JOBS_MAX + 1, 0, True),
        (1, BYTES_MAX - 1, False),
        (1, BYTES_MAX, True),
        (1, BYTES_MAX + 1, True),
    ],
)
def test_an_intake_is_full_at_its_bounds(jobs: int, size: int, full: bool) -> None:
    intake = Intake()
    one = NewJob("a", b"", b"x" * size, b"d" * 12)

    def asked(count: int) -> Asked:
        return Asked([one] * count, lambda jobs, reply: reply, lambda answer: None)

    assert intake.add(asked(jobs)) is full
    intake.take()
    assert intake.add(asked(1)) is (size >= BYTES_MAX), "it begins anew"


@on_loop
async def test_more_than_an_intake_holds_is_taken_in_at_once(tmp_path: Path) -> None:
    world = EngineWorld(tmp_path / "data")
    clients = Clients(world)
    clients.ask(job("first"))
    clients.ask(*(job(str(n)) for n in range(BATCH_JOBS_MAX)))
    assert world.state.last_seq > BATCH_JOBS_MAX
    await turns()
    assert [len(seqs) for seqs in clients.seqs] == [1, BATCH_JOBS_MAX]
