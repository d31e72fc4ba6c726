"""The order of ready jobs, where jobs come back to a lane that they left a husk in."""

from __future__ import annotations

import pytest

from beaver_model import Row, Spec, State, fingerprint, replay, violations
from beaver_model.commands import Release
from beaver_model.events import Cause
from beaver_model.index import Lane
from tests.worlds.model import World, job

pytestmark = pytest.mark.invariants


def give_back(world: World, name: str) -> None:
    world.do(Release(name, world.dispatch(name), Cause.DRAIN))


def test_a_job_may_come_back_beside_its_own_husk_at_the_same_place_in_the_order() -> None:
    """Found by chaos rounds: the heap then compared the rows themselves, and replay failed."""
    world = World()
    world.enqueue(*(job(name) for name in "abc"))
    for name in "abbb":
        give_back(world, name)
    assert violations(world.state) == []
    assert [world.start_next() for _ in range(3)] == ["a", "b", "c"]
    again = State()
    for seq, (time_ms, event) in enumerate(world.log, 1):
        replay(again, seq, time_ms, [event])
    assert fingerprint(again) == fingerprint(world.state)


def test_rows_that_go_before_what_has_arrived_are_put_in_their_place() -> None:
    lane = Lane()
    spec = Spec("echo")
    lane.push(Row(1, "a", 2_000, spec, b"d" * 12))
    lane.extend([Row(seq, f"b{seq}", 1_000, spec, b"d" * 12) for seq in (2, 3)])
    order = []
    while (row := lane.head()) is not None:
        order.append(row.seq)
        lane.take(row)
    assert order == [2, 3, 1]
    assert lane.live == 0
