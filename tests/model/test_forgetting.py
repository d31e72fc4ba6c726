"""Queues: their names never run out, and only what says nothing is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from beaver_model import (
    Rejection,
    apply,
    build_indexes,
    decide,
    fingerprint,
    forgetting,
    freeze,
    legal,
    replay,
    thaw,
    violations,
)
from beaver_model.bounds import QUEUES_FORGOTTEN_AT_ONCE, QUEUES_MAX
from beaver_model.commands import (
    AnyCommand,
    Cancel,
    Complete,
    Discard,
    Enqueue,
    SetQueue,
)
from beaver_model.events import Acked, AnyEvent, Enqueued, QueueForgotten, QueueSet
from beaver_model.forgetting import why_kept
from beaver_model.freezing import Frozen
from beaver_model.index import QueueIndex
from beaver_model.legality import JudgedFrame
from beaver_model.state import State
from tests.worlds.model import World, job


def small(queues_max: int = 2) -> World:
    world = World()
    world.state.queues_max = queues_max
    return world


def finish(world: World, name: str) -> None:
    world.do(Complete(name, world.dispatch(name), b"null"))


def names(events: Sequence[AnyEvent]) -> list[str]:
    return [event.queue for event in events if isinstance(event, QueueForgotten)]


def test_a_queue_that_is_idle_makes_room_for_a_new_one_and_for_that_only() -> None:
    world = small()
    world.enqueue(job("a", queue="one"), job("b", queue="two"))
    finish(world, "a")
    assert "one" in world.state.queues, "as long as there is room, nothing is forgotten"
    forgot, came = world.do(Enqueue([job("c", queue="three")]))
    assert forgot == QueueForgotten("one")
    assert isinstance(came, Enqueued)
    assert set(world.state.queues) == {"two", "three"}


@pytest.mark.parametrize(
    "kept",
    [
        [],
        [SetQueue("one", paused=True)],
        [SetQueue("one", weight=3)],
        [SetQueue("one", bytes_max=5)],
        [SetQueue("one", durable_dispatch=False)],
    ],
)
def test_a_queue_with_jobs_or_settings_is_never_forgotten(kept: list[AnyCommand]) -> None:
    world = small(1)
    world.enqueue(job("a", queue="one"))
    for command in kept:
        world.do(command)
    if kept:
        world.do(Cancel("a"))
        world.do(Discard("a"))
    refused = world.ask(Enqueue([job("b", queue="two")]))
    assert isinstance(refused, Rejection)
    assert (refused.code, refused.facts) == ("too_many_queues", {"queue": "two", "max": 1})
    assert world.ask(SetQueue("two", paused=True)) == refused
    if kept:
        world.do(SetQueue("one", False, 10, 0, True))
        assert names(world.do(Enqueue([job("b", queue="two")]))) == ["one"]


def test_dead_and_cancelled_jobs_keep_their_queue() -> None:
    """They can be asked for, and requeued."""
    world = small(1)
    world.enqueue(job("a", queue="one"))
    world.do(Cancel("a"))
    assert isinstance(world.ask(Enqueue([job("b", queue="two")])), Rejection)
    world.do(Discard("a"))
    assert names(world.do(Enqueue([job("b", queue="two")]))) == ["one"]


def test_the_default_queue_has_room_beside_the_bound_and_is_never_forgotten() -> None:
    world = small(1)
    world.enqueue(job("a", queue="one"))
    world.enqueue(job("b"))
    finish(world, "b")
    assert isinstance(world.ask(Enqueue([job("c", queue="two")])), Rejection)
    assert world.legal(QueueForgotten("default")) is not None
    world.enqueue(job("d"))
    assert violations(world.state) == []


def test_a_setting_makes_room_too() -> None:
    world = small(1)
    world.enqueue(job("a", queue="one"))
    finish(world, "a")
    assert world.do(SetQueue("two", paused=True)) == [
        QueueForgotten("one"), QueueSet("two", True, 10, 0, True),
    ]  # fmt: skip


def test_children_make_room_and_follow_the_ack_of_their_parent() -> None:
    world = small()
    world.enqueue(job("idle", queue="one"), job("parent", queue="two"))
    finish(world, "idle")
    token = world.dispatch("parent")
    events = world.do(Complete("parent", token, b"1", (job("child", queue="three"),)))
    assert [type(event) for event in events] == [QueueForgotten, Acked, Enqueued]


def test_a_batch_that_uses_an_idle_queue_does_not_forget_it() -> None:
    world = small()
    world.enqueue(job("a", queue="one"), job("b", queue="two"))
    finish(world, "a")
    finish(world, "b")
    batch = [job("c", queue="one"), job("d", queue="three")]
    assert names(world.do(Enqueue(batch))) == ["two"]
    refused = world.ask(Enqueue([job("e", queue="three"), job("f", queue="four")]))
    assert isinstance(refused, Rejection), "one is in use by this very batch, the other has a job"


def test_the_count_of_completed_jobs_outlives_the_queue() -> None:
    world = small(1)
    for number in range(5):
        world.enqueue(job(f"j{number}", queue=f"q{number}"))
        finish(world, f"j{number}")
        assert world.state.completed == number + 1
    assert len(world.state.queues) == 1


def test_the_queue_that_had_the_fewest_jobs_goes_first() -> None:
    """And so it does after a restart: all that the choice rests on is in the snapshot."""
    world = small(3)
    for name, queue in (("a", "one"), ("b", "two"), ("c", "three"), ("d", "one"), ("e", "three")):
        world.enqueue(job(name, queue=queue))
        finish(world, name)
    thawed = thaw(*freeze(world.state))
    thawed.queues_max = 3
    command = Enqueue([job("x", queue="four")])
    assert decide(thawed, command, 1_000) == decide(world.state, command, 1_000)
    assert names(world.do(command)) == ["two"]


def test_replay_gives_the_same_from_the_log_and_from_any_snapshot() -> None:
    """P4, with queues that are forgotten and come again."""
    world = small(2)
    snapshots: list[tuple[int, Frozen]] = []
    for number in range(20):
        world.enqueue(job(f"j{number}", queue=f"q{number % 5}"))
        finish(world, f"j{number}")
        snapshots.append((len(world.log), freeze(world.state)))
    for at, frozen in [(0, freeze(State())), *snapshots]:
        for indexed in (True, False):
            state = thaw(*frozen)
            if not indexed and not at:
                state = State()
                state.defer_indexes()
            for seq, (time_ms, event) in enumerate(world.log[at:], at + 1):
                replay(state, seq, time_ms, [event])
            build_indexes(state)
            assert fingerprint(state) == fingerprint(world.state)
            assert violations(state) == []


def test_a_state_that_forgot_nothing_has_the_fingerprint_that_it_always_had() -> None:
    """Pinned: logs of releases that know nothing of it replay to what they did."""
    world = World()
    world.enqueue(job("a", queue="one"), job("b"))
    finish(world, "a")
    assert fingerprint(world.state) == PINNED


PINNED = "3f48426c6a1c48cb5d334eceb3fa502e"


def test_ten_thousand_names_come_and_go() -> None:
    """The bound itself, at, below and above; and what is forgotten at once."""
    world = World()
    world.enqueue(*(job(str(n), queue=f"q{n}") for n in range(QUEUES_MAX - 1)))
    world.enqueue(job("last", queue="last"), job("default"))
    assert len(world.state.queues) == QUEUES_MAX + 1
    assert isinstance(world.ask(Enqueue([job("more", queue="more")])), Rejection)
    for n in range(2 * QUEUES_FORGOTTEN_AT_ONCE):
        world.do(Cancel(str(n)))
        world.do(Discard(str(n)))
    assert len(names(world.do(Enqueue([job("more", queue="more")])))) == QUEUES_FORGOTTEN_AT_ONCE
    assert names(world.do(Enqueue([job("next", queue="next")]))) == [], "there is room for a while"


def test_refusals_in_a_row_look_at_the_queues_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And after any event they look again."""
    looked = 0

    def counted(queue: QueueIndex) -> str | None:
        nonlocal looked
        looked += 1
        return why_kept(queue)

    monkeypatch.setattr(forgetting, "why_kept", counted)
    world = small(3)
    world.enqueue(*(job(name, queue=name) for name in ("one", "two", "three")))
    for name in ("one", "two"):
        finish(world, name)
    batch = Enqueue([job(f"new-{n}", queue=f"new-{n}") for n in range(3)])
    for _ in range(100):
        assert isinstance(world.ask(batch), Rejection)
    assert looked == 2, "those with jobs are not even looked at"
    finish(world, "three")
    assert len(names(world.do(batch))) == 3
    assert looked == 5


@pytest.mark.parametrize("forged", ["unknown", "has a job", "is paused", "default"])
def test_a_log_that_forgets_what_it_may_not_is_illegal(forged: str) -> None:
    world = small()
    world.enqueue(job("a", queue="has a job"), job("b"))
    world.do(SetQueue("is paused", paused=True))
    assert world.legal(QueueForgotten(forged)) is not None


# -- everything within small bounds ---------------------------------------------------------

QUEUES = ("p", "q", "r")


def commands() -> list[AnyCommand]:
    """One job of each queue, and all that fills and empties it, or gives it settings."""
    every: list[AnyCommand] = [
        Enqueue([job("pq0", queue="p"), job("pq1", queue="q")]),
        Enqueue([job("d")]),
        Cancel("d"), Discard("d"),
    ]  # fmt: skip
    for name in QUEUES:
        every += [Enqueue([job(name, queue=name)]), Cancel(name), Discard(name)]
        every += [SetQueue(name, paused=paused) for paused in (True, False)]
    every += [Cancel(name) for name in ("pq0", "pq1")]
    every += [Discard(name) for name in ("pq0", "pq1")]
    return every


class Shape(NamedTuple):
    """A state without its numbers: what any decision may depend on."""

    rows: tuple[tuple[str, int], ...]
    queues: tuple[tuple[str, bool], ...]


def shape(state: State) -> Shape:
    rows = tuple(sorted((row.id, int(row.state)) for row in state.jobs.values()))
    queues = tuple(sorted((name, q.row.paused) for name, q in state.queues.items()))
    return Shape(rows, queues)


def test_every_way_within_small_bounds_keeps_what_is_promised() -> None:
    """All states of three queues with room for two: bounded, sound, and never stuck."""
    start = State()
    start.tombstones_max = 0
    waiting, seen, steps = [freeze(start)], {shape(start)}, 0
    refused = forgot = 0
    while waiting:
        frozen = waiting.pop()
        for command in commands():
            state = thaw(*frozen)
            state.queues_max = 2
            before = shape(state)
            decision = decide(state, command, 1)
            if isinstance(decision, Rejection):
                if decision.code == "too_many_queues":
                    refused += 1
                    idle = [q for q in state.queues.values() if not any(q.counts)]
                    used = {"p", "q"} if isinstance(command, Enqueue) else set()
                    assert all(q.row.paused or q.row.name in {"default", *used} for q in idle), (
                        "a queue could have gone"
                    )
                continue
            steps += 1
            frame = JudgedFrame(1, state.last_seq + 1, decision)
            for event in decision:
                assert legal(state, event, frame) is None
                if isinstance(event, QueueForgotten):
                    forgot += 1
                    assert (event.queue, False) in before.queues, "no setting is lost"
                    assert event.queue not in {row.spec.queue for row in state.jobs.values()}
                apply(state, event, 1)
            assert violations(state) == []
            after = freeze(state)
            assert fingerprint(thaw(*after)) == fingerprint(state)
            if shape(state) not in seen:
                seen.add(shape(state))
                waiting.append(after)
    assert refused
    assert forgot
    assert (len(seen), steps) == COUNTS, "pinned: if it is meant, say why"


COUNTS = (2236, 32884)
