"""The comparison of what is told of jobs with the log: each difference is found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.helper.work import project
from beaver.history import indexed_log, stories
from beaver.history.block_reader import BlockReader
from beaver.history.database import LogIndex
from beaver.history.indexed_log import Story
from beaver.journal.wal.reader import segments
from beaver_chaos.checker.stories import compare_stories
from beaver_model.commands import Cancel, Discard, NewJob, Release, Requeue
from beaver_model.commands import Enqueue as EnqueueJobs
from beaver_model.rows import Spec, encode_spec
from tests.worlds.model import job
from tests.worlds.stores import STORE, LoggedWorld

EVENTS = [
    "ENQUEUE",
    "DISPATCH",
    "ACK",
    "RETRY",
    "RELEASE",
    "DEAD",
    "CANCEL_REQUESTED",
    "CANCEL",
    "REQUEUE",
    "DISCARD",
]


@pytest.fixture(params=["no index", "half an index", "all indexed"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> LoggedWorld:
    """Every way of a job, over two segments."""
    world = LoggedWorld(tmp_path / "data")
    world.run("done")
    world.enqueue(job("dead"), job("cancelled"), job("dropped"), job("stopped"), job("given-back"))
    world.fail_and_wait("retried")
    world.seal()
    tagged = NewJob("tagged", encode_spec(Spec("t")), b"[1]", b"x" * 12, 0, ("a",))
    world.do(EnqueueJobs((tagged,)))
    for name in ("dead", "stopped", "given-back"):
        world.dispatch(name, worker=2)
    world.fail("dead", "broken", retry=False)
    world.do(Requeue("dead"))
    world.do(Cancel("cancelled"))
    world.do(Discard("dropped"))
    world.do(Cancel("stopped"))
    world.complete("stopped")
    world.do(Release("given-back", world.state.jobs["given-back"].token, "drain"))
    share = {"no index": 0, "half an index": 2, "all indexed": 1}[request.param]
    if share:
        project(world.disk, world.layout, world.state.last_seq // share)
    return world


def compare(world: LoggedWorld) -> list[str]:
    return compare_stories(world.disk, world.layout)


def spoil(patch: pytest.MonkeyPatch, change: Callable[[list[Any]], list[Any]]) -> None:
    last_life = indexed_log.last_life

    def told(name: str, entries: Any) -> Story:
        story = last_life(name, entries)
        return story._replace(events=change(story.events))

    patch.setattr(stories, "last_life", told)


def test_a_log_that_is_told_as_it_is_agrees(world: LoggedWorld) -> None:
    assert compare(world) == []


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_that_is_dropped_is_missed(
    name: str, world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda events: [event for event in events if event.event != name])
    assert any("missing [" in wrong for wrong in compare(world))


@pytest.mark.parametrize("at", range(4))
def test_a_gap_of_one_event_is_missed(
    at: int, world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever event it is, and whosever."""
    spoil(monkeypatch, lambda events: events[:at] + events[at + 1 :])
    assert any("missing [" in wrong for wrong in compare(world))


def test_an_event_that_is_told_twice_is_found(
    world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda events: [*events, events[-1]])
    assert "told are" in compare(world)[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event", "RETRY"),
        ("job", "else"),
        ("time_ms", 1),
        ("token", 99),
        ("attempt", 7),
        ("worker", 9),
        ("cause", "time_limit"),
        ("error", "else"),
        ("parent", "else"),
        ("payload", msgspec.Raw(b"2")),
        ("tags", ("z",)),
    ],
)
def test_an_event_that_says_something_else_is_found(
    field: str, value: object, world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(events: list[Any]) -> list[Any]:
        return [msgspec.structs.replace(event, **{field: value}) for event in events]

    spoil(monkeypatch, change)
    assert any("told is" in wrong for wrong in compare(world))


def test_an_end_that_is_not_listed_is_missed(
    world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = stories.find_finished
    monkeypatch.setattr(
        "beaver_chaos.checker.stories.find_finished",
        lambda *args: (find(*args)[0][1:], find(*args)[1]),
    )
    wrong = compare(world)
    assert any("listed" in line for line in wrong)


def test_of_a_long_log_the_events_of_some_jobs_are_compared_and_all_ends(
    world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beaver_chaos.checker.stories.EVENTS_MAX", 5)
    asked: list[int] = []
    tell = stories.tell

    def noted(disk: Any, layout: Any, known: Any, last_seq: int) -> Any:
        asked.append(len(known))
        return tell(disk, layout, known, last_seq)

    monkeypatch.setattr("beaver_chaos.checker.stories.tell", noted)
    assert compare(world) == []
    assert 0 < asked[0] < 8


def three_segments(path: Path) -> LoggedWorld:
    """Jobs that ended in each of them, one that waits from the first on, and an index of all."""
    world = LoggedWorld(path / "data")
    world.enqueue(job("waits"))
    for name in ("first", "second", "third"):
        world.run(name)
        if name != "third":
            world.seal()
    project(world.disk, world.layout, world.state.last_seq)
    return world


def take_over(world: LoggedWorld, before_seq: int) -> None:
    """The index takes over what it has to know of segments that are about to be deleted."""
    with (
        LogIndex(world.layout.history, STORE, write=True) as history,
        contextlib.closing(BlockReader(world.disk, world.layout)) as reader,
    ):
        history.keep(before_seq, reader.read)


def test_a_segment_that_was_about_to_be_deleted_may_be_there_once_more(tmp_path: Path) -> None:
    """The index takes it over first; then a crash, or a power cut that undoes the deletion."""
    world = three_segments(tmp_path)
    take_over(world, segments(world.disk, world.layout)[1].first_seq)
    assert compare(world) == []


def test_an_index_that_has_taken_over_more_than_the_oldest_segment_is_told(tmp_path: Path) -> None:
    """Segments are deleted one by one, each for good before the next."""
    world = three_segments(tmp_path)
    take_over(world, segments(world.disk, world.layout)[2].first_seq)
    assert any("of job second the log has events" in wrong for wrong in compare(world))
