"""The scheduling policy: order, priorities, ageing, weights, parking."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from beaver_model import Offer, Row, State, select, violations, why
from beaver_model.bounds import AGEING_MS
from beaver_model.commands import (
    Cancel,
    Complete,
    Dispatch,
    Fail,
    Release,
    Requeue,
    SetQueue,
)
from beaver_model.events import Cause
from beaver_model.index import QueueIndex
from beaver_model.invariants import turns_are_listed
from tests.worlds.model import World, job

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


def test_a_job_that_comes_back_stands_once_in_the_order(world: World) -> None:
    world.enqueue(job("a"), job("b"), job("c"))
    world.now_ms += 1
    world.do(Cancel("b"))
    world.do(Requeue("b"))
    assert violations(world.state) == []
    assert drain(world, 3) == ["a", "c", "b"]


def test_turns_give_what_a_look_at_every_queue_would_give() -> None:
    """Against the plain rule: of the queues that have a job for the slot, the least far one."""
    draw = Random(7)
    world = World()
    names = [f"q{number}" for number in range(12)]
    for number in range(200):
        queue = draw.choice(names)
        task, attempts = f"t{draw.randrange(3)}", draw.choice((1, 3))
        world.enqueue(job(f"j{number}", task=task, queue=queue, max_attempts=attempts))
    for _ in range(600):
        act = draw.randrange(8)
        if act == 0:
            world.do(SetQueue(draw.choice(names), paused=draw.random() < 0.5))
        elif act == 1:
            world.do(SetQueue(draw.choice(names), weight=draw.choice((1, 10, 100))))
        elif act == 2:
            known = [f"t{number}" for number in range(3) if draw.random() < 0.7]
            world.state.set_known_tasks(frozenset(known))
        offer = Offer(idle=draw.random() < 0.5)
        row = select(world.state, offer, world.now_ms)
        assert (row and row.spec.queue) == least_far(world.state, offer)
        assert turns_are_listed(world.state) is None
        if row is not None:
            world.do(Dispatch(row.id, 1, prefetched=not offer.idle))
            if draw.random() < 0.3:
                world.do(Release(row.id, world.state.jobs[row.id].token, Cause.NEVER_STARTED))


def least_far(state: State, offer: Offer) -> str | None:
    """Returns the queue that has its turn, by looking at all of them."""
    with_work = (q for q in state.queues.values() if q.has_work(prefetched=not offer.idle))
    first = min(with_work, key=lambda queue: (queue.stride_pass, queue.number), default=None)
    return None if first is None else first.row.name


def test_queues_that_have_nothing_to_take_cost_nothing() -> None:
    """A thousand paused queues are looked at once, not at each turn."""
    world = World()
    for number in range(1_000):
        world.do(SetQueue(f"q{number}", paused=True))
        world.enqueue(job(f"p{number}", queue=f"q{number}"))
    for number in range(10):
        world.enqueue(job(f"r{number}", queue="open"))
    looked_at = Counter[str]()

    def look(queue: QueueIndex) -> Row | None:
        looked_at[queue.row.name] += 1
        return None if queue.row.paused else next(iter(world.state.jobs.values()))

    for _ in range(5):
        assert world.state.stride_order.first(look) is not None
    assert looked_at["open"] == 5
    assert looked_at.total() == 1_005
    world.do(SetQueue("q7", paused=False))
    assert select(world.state, Offer(), world.now_ms) is not None
