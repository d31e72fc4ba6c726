"""The scheduling policy: order, priorities, ageing, weights, parking."""

from __future__ import annotations

from collections import Counter

import pytest

from beaver_model import violations, why
from beaver_model.bounds import AGEING_MS
from beaver_model.commands import Cancel, Complete, Fail, Requeue, SetQueue
from tests.model.world import World, job

pytestmark = pytest.mark.invariants


@pytest.fixture
def world() -> World:
    return World()


def drain(world: World, count: int) -> list[str]:
    """Starts and completes jobs as the policy picks them; returns their ids."""
    order = []
    for _ in range(count):
        name = world.start_next()
        world.do(Complete(name, world.row(name).token, b"null"))
        order.append(name)
    return order


def test_jobs_of_one_priority_run_in_the_order_of_their_seqs(world: World) -> None:
    world.enqueue(*(job(str(n)) for n in range(5)))
    assert drain(world, 5) == ["0", "1", "2", "3", "4"]


def test_a_lower_priority_number_runs_first(world: World) -> None:
    world.enqueue(job("late", priority=9), job("mid"), job("first", priority=0))
    assert drain(world, 3) == ["first", "mid", "late"]


def test_order_holds_across_tasks_of_one_queue(world: World) -> None:
    world.enqueue(*(job(str(n), task=f"task{n % 3}") for n in range(9)))
    assert drain(world, 9) == [str(n) for n in range(9)]


def test_a_job_scheduled_for_earlier_runs_before_one_that_came_later(world: World) -> None:
    world.enqueue(job("scheduled", run_at_ms=1_500))
    world.now_ms = 2_000
    world.enqueue(job("fresh"))
    assert drain(world, 2) == ["scheduled", "fresh"]


def test_waiting_improves_the_priority_so_that_nothing_starves(world: World) -> None:
    world.enqueue(job("old", priority=9))
    world.now_ms += 9 * AGEING_MS - 1
    world.enqueue(job("urgent", priority=0))
    assert world.select().id == "urgent"  # type: ignore[union-attr]
    world.now_ms += 1
    assert world.select().id == "old"  # type: ignore[union-attr]


def test_queues_share_the_slots_by_their_weights(world: World) -> None:
    world.do(SetQueue("heavy", weight=30))
    world.do(SetQueue("light", weight=10))
    world.enqueue(*(job(f"h{n}", queue="heavy") for n in range(100)))
    world.enqueue(*(job(f"l{n}", queue="light") for n in range(100)))
    taken = Counter(name[0] for name in drain(world, 80))
    assert taken == {"h": 60, "l": 20}


def test_a_queue_that_was_idle_does_not_catch_up(world: World) -> None:
    world.enqueue(*(job(f"a{n}", queue="a") for n in range(200)))
    drain(world, 100)
    world.enqueue(*(job(f"b{n}", queue="b") for n in range(100)))
    taken = Counter(name[0] for name in drain(world, 20))
    assert abs(taken["a"] - taken["b"]) <= 1


def test_a_paused_queue_is_parked_whole_and_why_says_so(world: World) -> None:
    world.enqueue(*(job(str(n), queue="q") for n in range(3)))
    world.do(SetQueue("q", paused=True))
    assert world.select() is None
    assert why(world.state, world.row("1")).reason == "paused"
    world.do(SetQueue("q", paused=False))
    assert drain(world, 3) == ["0", "1", "2"]


def test_jobs_of_a_task_that_no_worker_knows_are_parked(world: World) -> None:
    world.enqueue(job("strange", task="sennd"), job("fine"))
    world.state.set_known_tasks(frozenset({"echo"}))
    assert why(world.state, world.row("strange")).reason == "unknown_task"
    assert drain(world, 1) == ["fine"]
    assert world.select() is None
    world.enqueue(job("strange2", task="sennd"))
    assert world.select() is None
    world.state.set_known_tasks(frozenset({"echo", "sennd"}))
    assert drain(world, 2) == ["strange", "strange2"]
    assert violations(world.state) == []


def test_an_offer_takes_only_its_tasks_and_queues(world: World) -> None:
    world.enqueue(job("a", task="x", queue="p"), job("b", task="y", queue="q"))
    assert world.select(tasks=frozenset({"y"})).id == "b"  # type: ignore[union-attr]
    assert world.select(queues=frozenset({"q"})).id == "b"  # type: ignore[union-attr]
    assert world.select(queues=frozenset({"r"})) is None


def test_a_busy_worker_is_offered_no_last_attempt(world: World) -> None:
    world.enqueue(job("last", max_attempts=1), job("normal"))
    assert world.select(idle=False).id == "normal"  # type: ignore[union-attr]
    assert world.select(idle=True).id == "last"  # type: ignore[union-attr]


def test_a_requeued_job_takes_its_new_place_and_not_its_old_one(world: World) -> None:
    world.enqueue(job("a"), job("b"), job("c"))
    world.do(Cancel("b"))
    world.now_ms += 1
    world.enqueue(job("d"))
    world.do(Requeue("b"))
    world.now_ms += 1
    assert drain(world, 4) == ["a", "c", "b", "d"], "same ready time: the older seq first"
    assert violations(world.state) == []


def test_a_retried_job_waits_for_its_time_and_why_says_until_when(world: World) -> None:
    world.enqueue(job("a", backoff_jitter=0.0))
    world.do(Fail("a", world.dispatch("a"), ""))
    waiting = why(world.state, world.row("a"))
    assert (waiting.reason, waiting.until_ms) == ("time", 2_000)
    assert world.state.next_ready_ms() == 2_000
    world.now_ms = 2_000
    assert world.select().id == "a"  # type: ignore[union-attr]
    assert why(world.state, world.row("a")).reason == "slot"
    world.dispatch("a", worker=3)
    assert why(world.state, world.row("a"))[::2] == ("running", 3)


def test_many_cancelled_jobs_leave_no_husks_behind(world: World) -> None:
    world.enqueue(*(job(str(n)) for n in range(5_000)))
    for n in range(1, 5_000):
        world.do(Cancel(str(n)))
    lane = next(iter(world.state.queues["default"].buckets.values())).lanes[5]
    assert lane is not None
    assert len(lane.arrivals) < 2_100
    assert drain(world, 1) == ["0"]
    assert violations(world.state) == []
