"""Queues that have opted out of a durable DISPATCH: what starts before its sync, and what not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beaver.dispatch.slots_view import Concurrency
from beaver.errors import StorageFailed
from beaver.journal.port import Done, Failed, Position
from beaver.server.booting import boot_command
from beaver.structs.messages import Attempt
from beaver.workers.slots import PreviousSlots
from beaver_model import JobState
from beaver_model.commands import Boot, Cancel, Enqueue, SetQueue
from beaver_model.events import AnyEvent, CancelRequested
from tests.runtime.test_controller import ControllerWorld
from tests.worlds.model import job
from tests.worlds.runtime import on_loop, turns

STORE = bytes(range(16))


class EagerWorld(ControllerWorld):
    """Notes of each job that is sent whether its DISPATCH was durable then."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self.was_durable: dict[str, bool] = {}
        self.order: list[int] = []
        send = self.pool.dispatch

        def dispatch(worker: int, attempts: Sequence[Attempt]) -> None:
            for attempt in attempts:
                self.was_durable[attempt.job] = attempt.token <= self.wal.last_seq
                self.order.append(attempt.token)
            send(worker, attempts)

        self.pool.dispatch = dispatch  # type: ignore[method-assign]

    async def opt_out(self, queue: str = "default", *, durable: bool = False) -> None:
        await self.engine.execute(SetQueue(queue, durable_dispatch=durable))


@on_loop
async def test_an_attempt_of_such_a_queue_is_sent_before_its_sync_and_others_are_not(
    tmp_path: Path,
) -> None:
    world = EagerWorld(tmp_path / "data", workers=2)
    await world.opt_out("mail")
    await world.engine.execute(Enqueue([job("waits"), job("early", queue="mail")]))
    await turns()
    assert world.was_durable == {"waits": True, "early": False}
    assert all(world.state.jobs[name].token <= world.wal.last_seq for name in world.was_durable)
    world.begin()
    world.end(1)
    await turns()
    assert world.state.completed == 1


@on_loop
async def test_it_waits_behind_what_the_same_worker_has_to_wait_for(tmp_path: Path) -> None:
    """Attempts start in the order of their tokens at a worker."""
    world = EagerWorld(tmp_path / "data", mode=Concurrency.MANY, concurrency=8)
    await world.opt_out("mail")
    jobs = [job(f"{queue}{n}", queue=queue) for n in range(3) for queue in ("default", "mail")]
    await world.engine.execute(Enqueue(jobs))
    await turns()
    assert len(world.order) == 6
    assert world.order == sorted(world.order)
    tokens = {name: world.state.jobs[name].token for name in world.was_durable}
    first_waiting = min(tokens[f"default{n}"] for n in range(3))
    assert max(tokens[f"mail{n}"] for n in range(3)) > first_waiting, "some come behind it"
    assert all(
        durable is (tokens[name] >= first_waiting) for name, durable in world.was_durable.items()
    )


@on_loop
async def test_two_of_such_a_queue_need_not_wait_for_each_other(tmp_path: Path) -> None:
    world = EagerWorld(tmp_path / "data", prefetch=3)
    await world.opt_out()
    await world.enqueue("a", "b", "c")
    assert world.was_durable == {"a": False, "b": False, "c": False}
    assert world.order == sorted(world.order)


@on_loop
async def test_it_waits_until_it_is_durable_that_an_earlier_one_was_given_back(
    tmp_path: Path,
) -> None:
    """Else a crash in between leaves a slot that says that both had started."""
    world = EagerWorld(tmp_path / "data", prefetch=2)
    await world.opt_out()
    await world.enqueue("a", "b")
    token = world.begin()
    world.pool.sent.clear()
    world.controller.worker_exited(1, token, "was killed by signal 9")
    world.controller.worker_ready(1, 102)
    world.was_durable.clear()
    await turns()
    assert world.was_durable == {"b": True}, "given back, and sent again by the same commit"
    world.begin()
    world.end(1)
    await turns()
    await world.enqueue("c")
    assert world.was_durable["c"] is False


@on_loop
async def test_it_waits_until_it_is_durable_that_an_earlier_one_was_cancelled_instead(
    tmp_path: Path,
) -> None:
    world = EagerWorld(tmp_path / "data")
    await world.opt_out()
    await world.enqueue("a")

    def observe(first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        if type(events[0]) is CancelRequested:
            world.engine.submit(Enqueue([job("b")]), lambda _: None)

    world.engine.observers.append(observe)
    await world.engine.execute(Cancel("a"))
    await turns()
    assert world.state.jobs["a"].state == JobState.CANCELLED
    assert world.was_durable == {"a": False, "b": True}


@on_loop
async def test_what_is_given_back_late_for_want_of_room_counts_as_well(tmp_path: Path) -> None:
    world = EagerWorld(tmp_path / "data", prefetch=2)
    await world.opt_out()
    await world.enqueue("a", "b")
    token = world.begin()
    world.pool.sent.clear()
    world.was_durable.clear()
    world.limit_room(lambda size: 0)
    world.controller.worker_exited(1, token, "was killed by signal 9")
    await turns()
    world.limit_room(None)
    world.controller.worker_ready(1, 102)
    world.controller.retry_unwritten()
    await turns()
    assert world.was_durable == {"b": True}


@on_loop
async def test_only_a_setting_that_is_durable_counts(tmp_path: Path) -> None:
    """So after a crash the log says which queues had opted out."""
    world = EagerWorld(tmp_path / "data", workers=4)
    replies: list[object] = []
    world.engine.submit(SetQueue("default", durable_dispatch=False), replies.append)
    world.engine.submit(Enqueue([job("a")]), replies.append)
    await turns()
    assert len(replies) == 2
    await world.enqueue("b")
    await world.opt_out(durable=True)
    await world.enqueue("c")
    assert world.was_durable == {"a": True, "b": False, "c": True}


@on_loop
async def test_a_crash_before_the_sync_charges_nothing_and_the_job_runs_again(
    tmp_path: Path,
) -> None:
    """At least once still holds; the same token may be given again."""
    world = EagerWorld(tmp_path / "data")
    await world.opt_out()
    world.controller.workers[1].ready = False
    await world.enqueue("a")

    def crash(after: Position, payload: bytes, count: int, done: Done) -> None:
        done(Failed(StorageFailed("the machine goes down")))

    world.wal.append = crash  # type: ignore[method-assign]
    world.controller.worker_ready(1, 102)
    await turns()
    lost = world.begin()
    assert world.failures
    assert lost > world.wal.last_seq
    world.wal.abandon()

    world = EagerWorld(tmp_path / "data")
    row = world.state.jobs["a"]
    assert (row.state, row.attempt) == (JobState.PENDING, 0)
    previous = PreviousSlots(True, STORE, {1: lost})
    assert boot_command(world.state, previous, STORE) == Boot()
    await turns()
    assert (row.token, row.attempt) == (lost, 1), "the seq is given once more"
    again = boot_command(world.state, PreviousSlots(True, STORE, {1: lost - 1}), STORE)
    assert again == Boot(), "and only what has started now is charged"


@on_loop
async def test_a_suspect_is_counted_first(tmp_path: Path) -> None:
    """A job that took the machine down once does not do so again uncounted."""
    world = EagerWorld(tmp_path / "data")
    await world.opt_out()
    await world.enqueue("a")
    token = world.begin()
    await world.engine.execute(Boot(power_cut=True))
    assert world.was_durable == {"a": False}
    world.pool.sent.clear()
    world.controller.worker_exited(1, token, "was lost")
    await turns()  # What was in flight is resolved, so nothing else of the worker waits.
    world.controller.worker_ready(1, 102)
    await turns()
    assert world.state.jobs["a"].suspect
    assert world.state.jobs["a"].state == JobState.IN_FLIGHT
    assert world.was_durable == {"a": True}


@on_loop
async def test_a_server_that_starts_knows_which_queues_have_opted_out(tmp_path: Path) -> None:
    world = EagerWorld(tmp_path / "data")
    await world.opt_out()
    world.engine.close()
    world = EagerWorld(tmp_path / "data")
    await world.enqueue("a")
    assert world.was_durable == {"a": False}
