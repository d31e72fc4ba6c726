"""The order of ready jobs, where jobs come back to a lane that they left a husk in."""

from __future__ import annotations

import pytest

from beaver_model import State, fingerprint, replay, violations
from beaver_model.commands import Release
from beaver_model.events import Cause
from tests.model.world import World, job

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
