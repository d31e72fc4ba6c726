"""Housekeeping: when the log is projected into the history of a server that is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from beaver.engine.admission import Admission
from beaver.engine.counters import CommitCounters
from beaver.engine.group_commit import Observer
from beaver.errors import DiskFull, HelperFailed
from beaver.server import housekeeping
from beaver.server.housekeeping import BUSY_EVENTS_S, LAG_EVENTS_MAX, LAG_S_MAX, PIECE_EVENTS
from beaver.server.metrics import Metrics
from beaver.server.results import RESULT_BYTES, Results
from beaver.structs.messages import SnapshotWritten
from beaver_model import State
from beaver_model.contents import Glance
from beaver_model.events import Acked
from tests.worlds.runtime import ManualClock, make_housekeeping, on_loop


class Projects:
    """A helper that projects; what it was asked for is noted."""

    def __init__(self, step: int = 1) -> None:
        self.asked: list[int] = []
        self.step = step
        """Commits have so many events: what is asked for inside of one ends before it."""
        self.applied = 0
        self.meanwhile: Callable[[], object] = lambda: None

    async def prepare(self, path: str, size: int) -> None:
        raise AssertionError("there is room")

    async def snapshot(
        self, last_seq: int, keep_bytes: int, keep_ms: int, live: Glance | None = None
    ) -> SnapshotWritten:
        raise AssertionError("nobody asked for a snapshot")

    async def project(self, last_seq: int) -> int:
        self.asked.append(last_seq)
        assert last_seq >= self.applied, "a helper takes that for a log that has lost events"
        self.applied = max(self.applied, last_seq - last_seq % self.step)
        self.meanwhile()
        return self.applied

    async def stop(self) -> None: ...


class Writes:
    """What housekeeping looks at of an engine."""

    def __init__(self) -> None:
        self.state = State()
        self.counters = CommitCounters()
        self.late_observers: list[Observer] = []
        self.durable_seq = 0
        self.admission = Admission(self.state, 0, 0, 0)

    def flush(self) -> None:
        """All is durable."""


class World:
    """Housekeeping, beat by beat, beside an engine that only counts."""

    def __init__(self, helper: Projects) -> None:
        self.clock = ManualClock()
        self.engine = Writes()
        self.helper = helper
        self.metrics, self.results = Metrics(), Results()
        self.keeping = make_housekeeping(
            self.engine, helper, self.clock, results=self.results, metrics=self.metrics
        )

    def write(self, events: int, ms: int = 0) -> None:
        """So many events become durable, within so many ms."""
        self.engine.durable_seq += events
        self.engine.counters.events += events
        self.clock.pass_ms(ms)

    async def beat(self) -> list[int]:
        """One beat; returns what the helper was asked for."""
        before = len(self.helper.asked)
        await self.keeping._project()
        return self.helper.asked[before:]


@on_loop
async def test_a_calm_server_s_history_is_brought_up_at_each_beat() -> None:
    world = World(Projects())
    for _ in range(3):
        world.write(BUSY_EVENTS_S, ms=1_000)
        assert await world.beat() == [world.engine.durable_seq]
        assert world.metrics.history_seq == world.engine.durable_seq
    assert await world.beat() == [], "there is nothing new"


@on_loop
async def test_a_busy_server_s_history_is_put_off_until_it_is_calm() -> None:
    world = World(Projects())
    for _ in range(3):
        world.write(BUSY_EVENTS_S + 1, ms=1_000)
        assert await world.beat() == []
    world.write(BUSY_EVENTS_S, ms=1_000)
    assert await world.beat() == [world.engine.durable_seq]


@on_loop
async def test_it_is_put_off_for_no_more_than_so_many_events() -> None:
    world = World(Projects())
    world.write(100, ms=1_000)
    await world.beat()
    world.write(LAG_EVENTS_MAX, ms=1_000)
    assert await world.beat() == []
    world.write(1)
    assert await world.beat() == [world.engine.durable_seq], "in one go: it is late"
    world.write(LAG_EVENTS_MAX, ms=1_000)
    assert await world.beat() == [], "and put off again"


@on_loop
async def test_it_is_put_off_for_no_longer_than_so_many_seconds() -> None:
    world = World(Projects())
    for _ in range(2):
        for _ in range(round(LAG_S_MAX)):
            world.write(2 * BUSY_EVENTS_S, ms=1_000)
            assert await world.beat() == []
        world.write(2, ms=1)
        assert await world.beat() == [world.engine.durable_seq]


@on_loop
async def test_who_asks_gets_all_at_once_however_busy_the_server_is() -> None:
    world = World(Projects())
    world.write(LAG_EVENTS_MAX, ms=10)
    asked_for = world.engine.durable_seq - 7
    await world.keeping.project(asked_for)
    assert world.helper.asked == [world.engine.durable_seq]
    assert world.keeping.history_seq >= asked_for
    await world.keeping.project(asked_for)
    assert len(world.helper.asked) == 1


@on_loop
async def test_between_two_pieces_a_server_may_have_become_busy() -> None:
    world = World(Projects())
    world.write(100, ms=1_000)
    await world.beat()
    start = world.keeping.history_seq
    world.write(3 * PIECE_EVENTS, ms=1_000)
    assert await world.beat() == []
    world.clock.pass_ms(1_000)
    world.helper.meanwhile = lambda: world.write(500, ms=100)
    assert await world.beat() == [start + PIECE_EVENTS]
    world.clock.pass_ms(1_000)
    world.helper.meanwhile = lambda: world.write(5, ms=100)
    goal = world.engine.durable_seq
    assert await world.beat() == [start + 2 * PIECE_EVENTS, start + 3 * PIECE_EVENTS, goal + 10]


@on_loop
async def test_what_comes_in_meanwhile_waits_for_the_next_beat() -> None:
    world = World(Projects())
    world.helper.meanwhile = lambda: world.write(1, ms=10)
    for _ in range(5):
        world.write(10, ms=1_000)
        assert len(await world.beat()) == 1


@on_loop
async def test_a_rush_is_put_off_however_long_the_server_was_idle_before() -> None:
    world = World(Projects())
    world.write(10, ms=1_000)
    await world.beat()
    for _ in range(100):
        world.clock.pass_ms(1_000)
        assert await world.beat() == []
    for _ in range(5):
        world.write(60_000, ms=1_000)
        assert await world.beat() == []


@on_loop
async def test_results_that_fill_the_memory_bring_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "RESULTS_BYTES_MAX", 4 * RESULT_BYTES + 2)
    world = World(Projects())
    for job, asks in (("a", 0), ("b", 1)):
        world.results.observe(1, 0, [Acked(job, 1, b"1")])
        world.write(2 * BUSY_EVENTS_S, ms=1_000)
        assert len(await world.beat()) == asks


@on_loop
async def test_after_a_projection_that_failed_no_less_is_asked_for() -> None:
    """It may have got far before it failed."""
    world = World(Projects())
    world.write(100, ms=1_000)
    await world.beat()
    world.write(4 * PIECE_EVENTS, ms=1_000)

    def fail() -> None:
        raise HelperFailed("the helper process died")

    world.helper.meanwhile = fail
    with pytest.raises(HelperFailed):
        await world.keeping.project(world.engine.durable_seq)
    world.helper.meanwhile = lambda: None
    world.clock.pass_ms(1_000)
    await world.beat()
    assert await world.beat() == [world.engine.durable_seq]


@on_loop
async def test_what_a_history_holds_already_is_never_asked_for_in_part() -> None:
    """A start: the file is ahead of a first piece, which would read as a log that lost events."""
    helper = Projects()
    helper.applied = 5 * PIECE_EVENTS
    world = World(helper)
    world.write(6 * PIECE_EVENTS)
    world.clock.pass_ms(1_000_000)
    assert await world.beat() == [world.engine.durable_seq]


@on_loop
async def test_a_commit_that_is_larger_than_a_piece_is_projected_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(housekeeping, "PIECE_EVENTS", 10)
    world = World(Projects(step=100))
    world.write(100, ms=1_000)
    await world.beat()
    world.write(100, ms=1_000)
    async with asyncio.timeout(10):
        assert await world.beat() == [110, 200]


@on_loop
async def test_a_full_disk_has_the_history_brought_up_before_the_archive_is_pruned() -> None:
    """What the history does not hold yet is kept, and takes the room that is wanted."""

    class Full(Projects):
        async def prepare(self, path: str, size: int) -> None:
            raise DiskFull("no room")

        async def snapshot(
            self, last_seq: int, keep_bytes: int, keep_ms: int, live: Glance | None = None
        ) -> SnapshotWritten:
            pruned_below.append(self.applied)
            raise HelperFailed("no room for that either")

    pruned_below: list[int] = []
    world = World(Full())
    world.write(3 * PIECE_EVENTS, ms=1)
    assert not await world.keeping.prepare_next()
    assert world.engine.admission.disk_full
    assert pruned_below == [3 * PIECE_EVENTS]
