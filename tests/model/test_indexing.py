"""Indexes built at once, for recovery, against the same built row by row."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from beaver_model import (
    IllegalEvent,
    State,
    apply,
    build_indexes,
    bulk,
    fingerprint,
    freeze,
    replay,
    select,
    thaw,
    violations,
)
from beaver_model.bulk import Gathered, gather
from beaver_model.commands import Boot, Cancel, Fail, Release, SetQueue
from beaver_model.events import Cause, Dispatched, Enqueued
from beaver_model.policy import Offer
from beaver_model.rows import Row, Spec, encode_spec
from tests.worlds.model import World, job

pytestmark = pytest.mark.invariants


def varied_world(seed: int) -> World:
    """Two hundred jobs of several queues, tasks and priorities, in every state."""
    draw, world = random.Random(seed), World()
    world.do(Boot())
    world.do(SetQueue("other", paused=False, weight=3))
    for n in range(200):
        at_ms = draw.choice([0, 0, 0, 1_000 + draw.randrange(100), 90_000])
        world.enqueue(
            job(
                f"j{n}",
                run_at_ms=at_ms,
                queue=draw.choice(["default", "other", "third"]),
                task=draw.choice(["a", "b"]),
                priority=draw.randrange(3, 6),
                max_attempts=draw.choice([1, 2, 5]),
            )
        )
        world.now_ms += draw.randrange(3)
    for n in draw.sample(range(200), 80):
        if world.state.jobs[f"j{n}"].ready_ms > world.now_ms:
            world.do(Cancel(f"j{n}"))
            continue
        token = world.dispatch(f"j{n}")
        end = draw.randrange(4)
        if end == 0:
            world.do(Release(f"j{n}", token, Cause.DRAIN))
        elif end < 3:
            world.do(Fail(f"j{n}", token, "broken", retry=end == 1))
    world.do(Boot(power_cut=True))
    return world


def order(state: State, now_ms: int) -> list[str]:
    """Returns the jobs in the order in which idle workers would get them."""
    state.set_known_tasks(None)
    state.advance(now_ms)
    found = []
    while (row := select(state, Offer(idle=True), now_ms)) is not None:
        found.append(row.id)
        apply(state, Dispatched(row.id, 1), now_ms)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_indexes_built_at_once_are_those_built_row_by_row(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = varied_world(seed)
    frozen, late_ms = freeze(world.state), world.now_ms + 10_000
    one_by_one = thaw(*frozen)
    monkeypatch.setattr(bulk, "ROWS_MIN", 0)
    at_once = thaw(*frozen)
    assert violations(at_once) == violations(one_by_one) == []
    assert (at_once.ledger, at_once.bytes) == (one_by_one.ledger, one_by_one.bytes)
    assert (at_once.ready, at_once.scheduled_live) == (one_by_one.ready, one_by_one.scheduled_live)
    assert list(at_once.in_flight) == sorted(world.state.in_flight)
    assert fingerprint(at_once) == fingerprint(world.state)
    assert order(at_once, late_ms) == order(one_by_one, late_ms)


def shuffled(gathered: Gathered) -> Gathered:
    for lane in gathered.ready:
        lane.reverse()
    return gathered


def one_lost(gathered: Gathered) -> Gathered:
    next(lane for lane in gathered.ready if lane).pop()
    return gathered


def scheduled_too_soon(gathered: Gathered) -> Gathered:
    rows = next(rows for rows in gathered.scheduled.values() if rows)
    return gathered._replace(ready=[*gathered.ready, [rows.pop()]])


@pytest.mark.parametrize("bug", [shuffled, one_lost, scheduled_too_soon])
def test_a_bug_in_the_gathering_is_seen_by_the_invariants(
    bug: Callable[[Gathered], Gathered], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the comparison above rests on; a row that may not run yet shows in the order only."""
    frozen = freeze(varied_world(1).state)
    monkeypatch.setattr(bulk, "ROWS_MIN", 0)
    monkeypatch.setattr(bulk, "gather", lambda rows, now_ms: bug(gather(rows, now_ms)))
    state = thaw(*frozen)
    seen = violations(state)
    if bug is scheduled_too_soon:
        late_ms = varied_world(1).now_ms + 10_000
        monkeypatch.undo()
        assert order(state, late_ms) != order(thaw(*frozen), late_ms)
    else:
        assert seen != []


def test_a_state_that_defers_its_indexes_replays_to_the_same_rows() -> None:
    """ENQUEUE has a way of its own there; what needs a closer look takes the common one."""
    world = varied_world(3)
    deferred = State()
    deferred.defer_indexes()
    for first_seq, time_ms, events in world.frames:
        replay(deferred, first_seq, time_ms, events)
    build_indexes(deferred)
    assert violations(deferred) == []
    assert fingerprint(deferred) == fingerprint(world.state)


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"job": "a"}, "job a exists"),
        ({"digest": b"short"}, "a digest of 5 bytes"),
        ({"spec": b"\x91"}, "unreadable spec"),
    ],
)
def test_an_illegal_enqueue_is_refused_either_way(
    change: dict[str, object], complaint: str, *, deferred: bool
) -> None:
    state = State()
    if deferred:
        state.defer_indexes()
    good = {"job": "a", "spec": encode_spec(Spec("t")), "payload": b"1", "digest": b"d" * 12}
    replay(state, 1, 5, [Enqueued(**good)])  # type: ignore[arg-type]
    bad = Enqueued(**{**good, "job": "b", **change})  # type: ignore[arg-type]
    with pytest.raises(IllegalEvent, match=complaint):
        replay(state, 2, 5, [bad])
    assert list(state.jobs) == ["a"]
    assert state.last_seq == 1


def test_a_row_keeps_digest_and_payload_apart() -> None:
    row = Row(1, "a", 5, Spec("t"), b"d" * 12 + b"null")
    assert (row.digest, row.payload) == (b"d" * 12, b"null")
    row.payload = b"[1]"
    assert (row.digest, row.payload) == (b"d" * 12, b"[1]")
