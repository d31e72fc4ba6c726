"""Queues are labels of the metrics, and the number of labels is bounded."""

from __future__ import annotations

import pytest

from beaver.server import queue_counters
from beaver.server.queue_counters import LABELS_MAX, OTHER, QueueCounts, at_once, take
from beaver_model.commands import SetQueue
from beaver_model.state import State
from tests.worlds.model import World, job


def figures(state: State) -> QueueCounts:
    return at_once(take(state, state.time_ms + 5_000))


@pytest.mark.parametrize("count", [0, 1, LABELS_MAX])
def test_up_to_the_bound_each_queue_has_its_label(count: int) -> None:
    world = World()
    if count:
        world.enqueue(*(job(str(n), queue=f"q{n}") for n in range(count)))
    found = figures(world.state)
    assert found.pending == {f"q{n}": 1 for n in range(count)}
    assert set(found.oldest_s) == set(found.paused) == set(found.dead) == set(found.pending)


def test_beyond_it_the_largest_keep_theirs_and_nothing_is_lost() -> None:
    world = World()
    jobs = [job(str(n), queue=f"q{n}") for n in range(LABELS_MAX + 50)]
    jobs += [job(f"more-{n}", queue=f"q{n + 50}") for n in range(LABELS_MAX)]
    world.enqueue(*jobs)
    for n in range(50):
        world.ask(SetQueue(f"q{n}", paused=True))
    found = figures(world.state)
    assert len(found.pending) == LABELS_MAX + 1
    assert found.pending == {OTHER: 50, **{f"q{n + 50}": 2 for n in range(LABELS_MAX)}}
    assert found.paused[OTHER] == 50
    assert sum(found.paused.values()) == 50
    assert found.oldest_s[OTHER] == 5.0


def test_a_queue_called_as_the_rest_is_part_of_it() -> None:
    """Two series of one label would make the whole page unreadable."""
    world = World()
    jobs = [job(f"other-{n}", queue=OTHER) for n in range(20)]
    jobs += [job(str(n), queue=f"q{n}") for n in range(LABELS_MAX + 1)]
    world.enqueue(*jobs)
    found = figures(world.state)
    assert found.pending[OTHER] == 21
    assert len(found.pending) == LABELS_MAX + 1, "a label more than there would be without it"


def test_ten_thousand_queues_are_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_counters, "SLICE", 10)
    world = World()
    world.enqueue(*(job(str(n), queue=f"q{n}") for n in range(1_000)))
    taking = take(world.state, world.state.time_ms)
    assert sum(1 for _ in taking) >= 1_000 // 10
