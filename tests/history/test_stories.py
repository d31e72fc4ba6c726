"""Stories and finished jobs: what is told of a job is what the log holds, index or none."""

from __future__ import annotations

import zlib
from hashlib import sha256

import msgspec
import pytest

from beaver.history import database as history_module
from beaver.history import stories
from beaver.history.database import LogIndex
from beaver.inspect import queries
from beaver.structs.questions import Search
from beaver_model.commands import Discard, Requeue, SetBounds
from tests.history.lives import (
    NAMES,
    as_json,
    events_of,
    find,
    index,
    known,
    live,
    prune,
    tiny,
    told_by_the_model,
)
from tests.worlds.model import job
from tests.worlds.stores import STORE, LoggedWorld


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1])
def test_every_job_has_the_story_that_the_model_tells(
    world: LoggedWorld, share: float, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of the log is in the index: the rest is read."""
    if small:
        tiny(monkeypatch)
    live(world)
    if share:
        index(world, round(world.state.last_seq * share))
    told = stories.tell(world.disk, world.layout, [known(world, name) for name in NAMES])
    assert (told.as_of_seq, told.first_seq, told.damaged) == (world.state.last_seq, 1, False)
    for name in NAMES:
        assert as_json(told.by_job[name]) == as_json(told_by_the_model(world, name))
    assert events_of(world, "unknown") == []


@pytest.mark.parametrize(
    ("name", "state", "result"),
    [
        ("done", "completed", b'{"answer": 42}'),
        ("retried", "completed", b"null"),
        ("revived", "completed", b"null"),
        ("discarded", "discarded", b"null"),
    ],
)
def test_it_tells_how_each_job_ended(
    world: LoggedWorld, name: str, state: str, result: bytes
) -> None:
    live(world)
    index(world)
    view = queries.result_told(name, events_of(world, name))
    assert view is not None
    assert (view.id, view.state, bytes(view.result)) == (name, state, result)


@pytest.mark.parametrize("name", ["released", "waiting", "dead", "cancelled", "unknown"])
def test_what_has_not_ended_for_good_has_no_result_there(world: LoggedWorld, name: str) -> None:
    live(world)
    index(world)
    assert queries.result_told(name, events_of(world, name)) is None


def test_a_finished_job_is_shown_as_it_was(world: LoggedWorld) -> None:
    live(world)
    index(world)
    events = events_of(world, "revived")
    view = queries.show_finished(world.state, "revived", events, world.state.last_seq)
    assert (view.state, view.task, view.queue, view.attempt) == ("completed", "echo", "default", 1)
    assert (view.generation, bytes(view.payload), bytes(view.result)) == (
        1, b'{"edited": true}', b"null",
    )  # fmt: skip
    assert (view.end_seq, view.as_of_seq) == (events[-1].seq, world.state.last_seq)
    assert view.finished_ms == events[-1].time_ms


def test_of_a_finished_job_without_its_events_nothing_false_is_told(world: LoggedWorld) -> None:
    live(world)
    view = queries.show_finished(world.state, "done", [])
    shown = msgspec.to_builtins(view)
    assert shown == {
        "id": "done", "seq": world.state.seq_of("done"), "state": "completed",
        "waiting": "finished",
    }  # fmt: skip


def test_indexing_twice_changes_nothing(world: LoggedWorld) -> None:
    live(world)
    last_seq = world.state.last_seq
    for end in (3, 10, last_seq, last_seq):
        assert index(world, end) == end
    for name in NAMES:
        assert as_json(events_of(world, name)) == as_json(told_by_the_model(world, name))


def test_an_id_means_the_newest_job_that_bears_it(world: LoggedWorld) -> None:
    world.do(SetBounds(0))
    world.run("a", b"1")
    # Without tombstones the id is free again.
    world.run("a", b"2")
    for seq in (0, 4, 5, 7):
        if seq:
            index(world, seq)
        assert [event.seq for event in events_of(world, "a")] == [5, 6, 7]


def test_two_ids_of_one_hash_have_a_story_each(world: LoggedWorld) -> None:
    seen: dict[int, str] = {}
    for number in range(1_000_000):
        name = sha256(b"%d" % number).hexdigest()
        other = seen.setdefault(zlib.crc32(name.encode()), name)
        if other != name:
            break
    else:
        raise AssertionError("no two of a million have one hash")
    for each in (name, other):
        world.run(each)
    index(world)
    world.seal()
    for each in (name, other):
        assert as_json(events_of(world, each)) == as_json(told_by_the_model(world, each))


def test_kept_events_of_one_hash_are_told_apart(
    world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "hash_of", lambda _: 7)
    world.enqueue(job("a"), job("b"))
    world.seal()
    world.run("c")
    index(world)
    prune(world)
    with LogIndex(world.layout.history, STORE) as history:
        assert [[seq for seq, *_ in history.kept_of(name)] for name in "abc"] == [[1], [2], []]


def test_what_lies_behind_the_bound_is_said_to_be_missing(world: LoggedWorld) -> None:
    """And not waited for."""
    world.run("a")
    for number in range(20):
        world.run(f"job-{number}", b'"%s"' % (b"x" * 100))
    world.enqueue(job("late"))
    asked = [known(world, "a"), known(world, "late")]
    told = stories.tell(world.disk, world.layout, asked, tail_bytes=500)
    assert 3 <= told.as_of_seq < world.state.last_seq
    assert (len(told.by_job["a"]), told.by_job["late"]) == (3, [])
    told = stories.tell(world.disk, world.layout, asked)
    assert (told.as_of_seq, len(told.by_job["late"])) == (world.state.last_seq, 1)


def test_attempts_and_workers_are_those_of_the_newest_job(world: LoggedWorld) -> None:
    world.do(SetBounds(0))
    world.run("a", b"1")
    world.seal()
    world.enqueue(job("a"), job("ab"))
    world.dispatch("a", worker=4)
    world.fail("a", "no", retry=False)
    world.do(Requeue("a"))
    world.dispatch("a", worker=5)
    world.complete("a")
    for seq in (0, 6, world.state.last_seq):
        if seq:
            index(world, seq)
        assert [(v.event, v.attempt, v.worker) for v in events_of(world, "a")] == [
            ("ENQUEUE", None, None),
            ("DISPATCH", 1, 4),
            ("DEAD", 1, 4),
            ("REQUEUE", None, None),
            ("DISPATCH", 1, 5),
            ("ACK", 1, 5),
        ]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_finished_jobs_are_found_in_the_order_of_their_ends(
    world: LoggedWorld, share: float, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small:
        tiny(monkeypatch)
        monkeypatch.setattr(stories, "SEARCHED_ENDS", 1)
    for number in range(12):
        world.enqueue(
            msgspec.structs.replace(
                job(f"job-{number}", task=f"task-{number % 2}", queue=f"queue-{number % 3}"),
                tags=("eu",) if number % 4 == 0 else (),
            )
        )
    ended = [7, 0, 3, 4, 8, 11, 1]
    for number in ended:
        world.now_ms += 1_000
        world.dispatch(f"job-{number}")
        world.complete(f"job-{number}", b"%d" % number)
    world.do(Discard("job-2"))
    if share:
        index(world, round(world.state.last_seq * share))

    def numbers(word: str = "completed", **asked: object) -> list[int]:
        return [int(view.id[4:]) for view in find(world, word, **asked)]

    assert numbers() == ended
    assert numbers("discarded") == [2]
    assert numbers(task="task-1") == [7, 3, 11, 1]
    assert numbers(queue="queue-1") == [7, 4, 1]
    assert numbers(tag="eu") == [0, 4, 8]
    assert numbers(tag="eu", queue="queue-2") == [8]
    assert numbers(since_ms=4_000, until_ms=7_000) == [3, 4, 8]
    ends = {int(view.id[4:]): view for view in find(world)}
    assert numbers(after_seq=ends[4].end_seq, limit=2) == [8, 11, 1]
    views, listed = stories.find_finished(world.disk, world.layout, Search("completed", limit=1))
    assert [view.id for view in views] == ["job-7"]
    assert listed.next_seq == views[0].end_seq
    for number, view in ends.items():
        assert (view.task, view.queue) == (f"task-{number % 2}", f"queue-{number % 3}")
        assert (view.state, view.attempt, bytes(view.result)) == ("completed", 1, b"%d" % number)
        assert view.as_of_seq is not None
        assert view.end_seq is not None
        assert view.end_seq <= view.as_of_seq <= world.state.last_seq


def test_each_life_of_an_id_is_found_as_it_was(world: LoggedWorld) -> None:
    world.do(SetBounds(0))
    world.run("a", b"1")
    world.run("a", b"2")
    index(world, 4)
    assert [(view.seq, bytes(view.result)) for view in find(world)] == [(2, b"1"), (5, b"2")]


def test_a_page_of_finished_jobs_ends_with_its_bytes(
    world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stories, "LIST_BYTES_MAX", 250)
    for number in range(5):
        world.run(f"job-{number}", b'"%s"' % (b"x" * 100))
    index(world)
    views, listed = stories.find_finished(world.disk, world.layout, Search("completed"))
    assert len(views) == listed.count == 2
    assert len(find(world)) == 5
