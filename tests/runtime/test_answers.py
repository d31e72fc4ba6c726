"""Answers of the service: none leaves before the log holds what it tells (P1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.errors import BeaverError
from beaver.request.requests import make_request
from beaver.server.connection import UNREAD_BYTES_MAX
from beaver_model.commands import Complete, Dispatch, Enqueue, Fail
from tests.runtime.test_service import served
from tests.worlds.model import job
from tests.worlds.runtime import EngineWorld, on_loop, turns
from tests.worlds.service import service_over

CHANGES = [
    ("enqueue", [[make_request("echo", id="new")]]),
    ("cancel", ["pending"]),
    ("cancel", ["running"]),
    ("requeue", ["dead", None]),
    ("requeue", ["dead", b"[1]"]),
    ("discard", ["dead"]),
    ("set_queue", ["default", True, None, None]),
    ("set_queue", ["default", None, None, None, False]),
]
NO_OPS_AND_REFUSALS = [
    ("enqueue", [[make_request("echo", id="open")]]),
    ("enqueue", [[make_request("other", id="open")]]),
    ("cancel", ["open"]),
    ("requeue", ["open", None]),
    ("set_queue", ["default", False, None, None]),
    ("show", ["open"]),
    ("list", ["", "", "", 0, 0]),
]


class ServiceWorld(EngineWorld):
    """A service over a real engine whose commits the test lets happen."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.service = service_over(self.engine)

    async def prepare(self) -> None:
        """One job in each state that operators meet."""
        names = ["pending", "running", "dead"]
        await self.engine.execute(Enqueue([job(name) for name in names]))
        for name in ("running", "dead"):
            await self.engine.execute(Dispatch(name, 1))
        token = self.state.jobs["dead"].token
        await self.engine.execute(Fail("dead", token, "broken", retry=False))

    def ask(self, op: str, body: Any, told: list[tuple[Any, int]]) -> None:
        """Asks, and notes with each answer how far the log had got."""
        self.service.handle(op, body, lambda answer: told.append((answer, self.wal.last_seq)))


@pytest.mark.parametrize(("op", "body"), CHANGES)
@on_loop
async def test_an_operators_change_is_answered_once_it_is_durable(
    tmp_path: Path, op: str, body: list[Any]
) -> None:
    world = ServiceWorld(tmp_path / "data")
    await world.prepare()
    told: list[tuple[Any, int]] = []
    before = world.wal.last_seq
    world.ask(op, body, told)
    if op != "enqueue":  # New jobs of several clients are decided together.
        assert world.state.last_seq > before, "it was decided and applied at once"
    assert told == [], "and not told: no commit has happened"
    await turns()
    ((answer, seq),) = told
    assert not isinstance(answer, BeaverError)
    assert seq == world.state.last_seq


@pytest.mark.parametrize(("op", "body"), NO_OPS_AND_REFUSALS)
@on_loop
async def test_what_changes_nothing_waits_for_what_it_rests_on(
    tmp_path: Path, op: str, body: list[Any]
) -> None:
    world = ServiceWorld(tmp_path / "data")
    await world.prepare()
    told: list[tuple[Any, int]] = []
    world.ask("enqueue", [[make_request("echo", id="open")]], [])
    world.ask(op, body, told)
    assert told == [], "the job that it speaks of is not in the log"
    await turns()
    ((_, seq),) = told
    assert seq == world.state.last_seq


@on_loop
async def test_a_client_that_does_not_read_is_held_back_and_keeps_its_connection(
    tmp_path: Path,
) -> None:
    """Its requests wait in the kernel; far more answers than it may leave unread are due."""
    async with served(tmp_path) as (_, door):
        good, lazy = await door.client(), await door.client()
        await good.ask("enqueue", [make_request("echo", "x" * 200_000, id="big")])
        for number in range(2 * UNREAD_BYTES_MAX // 200_000):
            lazy.send([number, "show", ["big"]])
            await turns(3)
        assert (await good.ask("status"))["pending"] == 1
        assert not lazy.writer.transport.is_closing()
        assert (await lazy.answer())[:2] == [0, 0]
        lazy.writer.transport.abort()
        await turns()


@pytest.mark.parametrize("together", [False, True])
@on_loop
async def test_a_queue_forgotten_for_a_new_one_is_not_taken_for_a_new_job(
    tmp_path: Path, together: bool
) -> None:
    """As many events as jobs, since one of these is known: each answer has its own job's seq."""
    world = ServiceWorld(tmp_path / "data")
    world.state.queues_max = 1
    await world.engine.execute(Enqueue([job("known", queue="idle")]))
    await world.engine.execute(Dispatch("known", 1))
    token = world.state.jobs["known"].token
    await world.engine.execute(Complete("known", token, b"1"))
    known = make_request("echo", id="known")
    digest = world.state.tombstone("known")
    assert digest is not None
    told: list[tuple[Any, int]] = []
    again = msgspec.structs.replace(known, digest=digest.digest)
    new = make_request("echo", id="new", queue="next")
    for requests in ([new], [again]) if together else ([again, new],):
        world.ask("enqueue", [requests], told)
    await turns()
    answers = [one for answer, _ in told for one in answer]
    seqs = {one.id: (one.seq, one.created) for one in answers}
    assert seqs == {"known": (1, False), "new": (world.state.jobs["new"].seq, True)}
    assert "idle" not in world.state.queues
