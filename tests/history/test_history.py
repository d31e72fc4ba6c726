"""`history.db`: it tells what the log tells, and is never trusted further than that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from beaver.errors import HelperFailed
from beaver.helper.work import project
from beaver.history import (
    CHAPTERS,
    PRUNE_CHAPTERS,
    Commit,
    History,
    HistoryReader,
    HistoryUnusable,
)
from beaver.listing import attempt_of, event_view
from beaver.views import EventView
from beaver_model import State, apply
from beaver_model.commands import Boot, Cancel, Discard, Release, Requeue, SetBounds, SetQueue
from beaver_model.events import JobEvent
from tests.model.world import job
from tests.stores import STORE, LivelyWorld, LoggedWorld, flip


class LoggingWorld(LivelyWorld):
    """A world whose log can be had as commits of one event."""

    def commits(self) -> list[Commit]:
        return [(seq, time_ms, [event]) for seq, (time_ms, event) in enumerate(self.log, 1)]


@pytest.fixture
def world() -> LoggingWorld:
    return LoggingWorld()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "history.db")


@pytest.fixture
def history(path: str) -> Iterator[History]:
    with History.create(path, STORE) as history:
        yield history


def busy_world() -> LoggingWorld:
    """A world with every event of the lifecycle."""
    world = LoggingWorld()
    world.do(Boot())
    world.do(SetBounds(500))
    world.do(SetQueue("default", weight=3))
    world.run("done", b'{"answer": 42}')
    world.fail_and_wait("retried")
    world.now_ms += 100_000
    world.dispatch("retried", worker=2)
    world.complete("retried")
    world.enqueue(job("dead"))
    world.dispatch("dead")
    world.fail("dead", "no way", retry=False)
    world.enqueue(job("revived"))
    world.dispatch("revived")
    world.fail("revived", retry=False)
    world.do(Requeue("revived", b'{"edited": true}'))
    world.dispatch("revived")
    world.complete("revived")
    world.enqueue(job("cancelled"), job("discarded"), job("released"), job("waiting"))
    world.do(Cancel("cancelled"))
    world.do(Discard("discarded"))
    token = world.dispatch("released")
    world.do(Release("released", token, "drain"))
    world.dispatch("released")
    return world


def told_by_the_model(world: LoggingWorld, name: str) -> list[EventView]:
    """The events of a job with attempts and workers as the real state has them."""
    state, views = State(), []
    for seq, (time_ms, event) in enumerate(world.log, 1):
        if isinstance(event, JobEvent) and event.job == name:
            attempt, worker = attempt_of(state, event)
            views.append(event_view(seq, time_ms, event, attempt=attempt, worker=worker))
        apply(state, event, time_ms)
    return views


def as_json(views: object) -> str:
    return msgspec.json.format(msgspec.json.encode(views)).decode()


def test_every_job_has_the_story_that_the_model_tells(history: History) -> None:
    world = busy_world()
    assert history.apply(world.commits()) == world.state.last_seq
    names = {event.job for _, event in world.log if isinstance(event, JobEvent)}
    assert len(names) == 8
    for name in names:
        assert as_json(history.events_of(name)) == as_json(told_by_the_model(world, name))


@pytest.mark.parametrize(
    ("name", "state", "result", "cause", "error"),
    [
        ("done", "completed", b'{"answer": 42}', "", ""),
        ("retried", "completed", b"null", "", ""),
        ("dead", "dead", b"null", "failed", "no way"),
        ("revived", "completed", b"null", "", ""),
        ("cancelled", "cancelled", b"null", "operator", ""),
        ("discarded", "discarded", b"null", "", ""),
    ],
)
def test_it_tells_how_each_job_ended(
    history: History, name: str, state: str, result: bytes, cause: str, error: str
) -> None:
    history.apply(busy_world().commits())
    view = history.result_of(name)
    assert view is not None
    assert (view.id, view.state, bytes(view.result)) == (name, state, result)
    assert (view.cause, view.error) == (cause, error)


@pytest.mark.parametrize("name", ["released", "waiting", "unknown"])
def test_a_job_that_has_not_ended_has_no_result(history: History, name: str) -> None:
    history.apply(busy_world().commits())
    assert history.result_of(name) is None


def test_a_job_that_is_requeued_has_no_result_any_more(
    history: History, world: LoggingWorld
) -> None:
    world.enqueue(job("a"))
    world.dispatch("a")
    world.fail("a", retry=False)
    history.apply(world.commits())
    assert history.result_of("a") is not None
    world.do(Requeue("a"))
    history.apply(world.commits())
    assert history.result_of("a") is None


def test_a_summary_counts_attempts_and_times(history: History, world: LoggingWorld) -> None:
    world.fail_and_wait("a")
    world.now_ms += 50_000
    world.dispatch("a")
    world.complete("a")
    history.apply(world.commits())
    summary = history.summary_of("a")
    assert summary is not None
    assert (summary.state, summary.attempts, summary.task) == ("completed", 2, "echo")
    assert (summary.enqueued_ms, summary.finished_ms) == (1_000, 51_000)


def test_projecting_twice_changes_nothing(history: History) -> None:
    commits = busy_world().commits()
    for end in (3, 10, 7, len(commits), len(commits)):
        history.apply(commits[:end])
    assert as_json(history.events_of("dead")) == as_json(told_by_the_model(busy_world(), "dead"))
    names = {e.job for _, _, events in commits for e in events if isinstance(e, JobEvent)}
    told = [event.seq for name in names for event in history.events_of(name)]
    assert sorted(told) == [
        seq
        for first_seq, _, events in commits
        for seq, e in enumerate(events, first_seq)
        if isinstance(e, JobEvent)
    ]


def test_many_small_transactions_give_what_one_gives(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beaver.history._TRANSACTION_EVENTS", 2)
    monkeypatch.setattr("beaver.history._CACHED_JOBS_MAX", 0)
    world = busy_world()
    history.apply(world.commits())
    for name in ("done", "retried", "dead", "revived", "released"):
        assert as_json(history.events_of(name)) == as_json(told_by_the_model(world, name))


def test_an_id_means_the_newest_job_that_bears_it(history: History, world: LoggingWorld) -> None:
    world.do(SetBounds(0))
    world.run("a", b"1")
    # Without tombstones the id is free again.
    world.run("a", b"2")
    history.apply(world.commits())
    view = history.result_of("a")
    assert view is not None
    assert bytes(view.result) == b"2"
    assert [event.seq for event in history.events_of("a")] == [5, 6, 7]


def test_a_failed_transaction_leaves_no_trace(history: History, world: LoggingWorld) -> None:
    world.enqueue(job("a"))
    world.dispatch("a")
    history.apply(world.commits())
    world.complete("a", b'"%s"' % (b"x" * 100_000))
    # The database may not grow: as on a full disk.
    (pages,) = history._db.execute("PRAGMA page_count").fetchone()
    history._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match="full"):
        history.apply(world.commits())
    assert history.applied_seq == 2
    assert history.result_of("a") is None
    # What the failed transaction had changed in memory must not leak into the next one.
    history._db.execute("PRAGMA max_page_count = 1000000")
    history.apply(world.commits())
    assert as_json(history.events_of("a")) == as_json(told_by_the_model(world, "a"))


def test_a_reading_that_breaks_off_projects_nothing_of_its_batch(
    history: History, world: LoggingWorld
) -> None:
    world.run("a")
    commits = world.commits()

    def breaking() -> Iterator[Commit]:
        yield from commits[:2]
        raise EOFError

    with pytest.raises(EOFError):
        history.apply(breaking())
    assert history.applied_seq == 0
    assert history.events_of("a") == []


def test_what_lies_before_missing_events_is_forgotten(
    history: History, world: LoggingWorld
) -> None:
    for name in ("a", "b", "c"):
        world.run(name)
    commits = world.commits()
    history.apply(commits[:4])
    assert history.first_seq == 1
    history.apply(commits[6:])
    assert (history.first_seq, history.applied_seq) == (7, 9)
    assert history.events_of("a") == history.events_of("b") == []
    assert len(history.events_of("c")) == 3


def test_a_job_from_before_the_log_is_known_by_what_is_left(
    history: History, world: LoggingWorld
) -> None:
    world.run("a", b'"kept"')
    history.apply(world.commits()[1:])
    events = history.events_of("a")
    assert [event.event for event in events] == ["DISPATCH", "ACK"]
    # Which attempt it was stands in the events that are gone.
    assert [event.attempt for event in events] == [None, None]
    view = history.result_of("a")
    assert view is not None
    assert bytes(view.result) == b'"kept"'


def test_pruning_forgets_what_ended_before_and_nothing_else(
    history: History, world: LoggingWorld
) -> None:
    world.run("old")
    world.enqueue(job("dead"), job("waiting"))
    world.dispatch("dead")
    world.fail("dead", retry=False)
    world.run("new")
    history.apply(world.commits())
    assert history.prune(8) == 1
    assert history.first_seq == 8
    assert history.events_of("old") == []
    for name in ("dead", "waiting", "new"):
        assert as_json(history.events_of(name)) == as_json(told_by_the_model(world, name))
    (orphans,) = history._db.execute(
        "SELECT count(*) FROM chapters WHERE job NOT IN (SELECT seq FROM jobs)"
    ).fetchone()
    assert orphans == 0


@pytest.mark.parametrize("statement", [CHAPTERS, *PRUNE_CHAPTERS])
def test_no_question_reads_all_chapters(history: History, statement: str) -> None:
    plan = history._db.execute(
        f"EXPLAIN QUERY PLAN {statement}", (1,) if statement is CHAPTERS else (1, 2, 3)
    )
    steps = [str(step[3]) for step in plan]
    assert any("chapters USING" in step for step in steps)
    assert not any(step.startswith("SCAN") for step in steps), steps


def test_a_story_of_many_chapters_is_told_in_order_and_pruned_whole(
    history: History, world: LoggingWorld
) -> None:
    world.enqueue(job("a"), job("b"))
    history.apply(world.commits())
    for name in ("a", "b"):
        world.dispatch(name)
        history.apply(world.commits())
    for name in ("b", "a"):
        world.complete(name)
        history.apply(world.commits())
    for name in ("a", "b"):
        assert as_json(history.events_of(name)) == as_json(told_by_the_model(world, name))
    (count,) = history._db.execute("SELECT count(*) FROM chapters").fetchone()
    assert count == 6
    assert history.prune(world.state.last_seq) == 1, "a ended with the last event"
    (count,) = history._db.execute("SELECT count(*) FROM chapters").fetchone()
    assert count == 3
    assert as_json(history.events_of("a")) == as_json(told_by_the_model(world, "a"))


# -- files ------------------------------------------------------------------------------------


def test_another_store_s_history_is_refused(history: History, path: str) -> None:
    with pytest.raises(HistoryUnusable, match="another store"):
        History(path, b"x" * 16)


def test_another_schema_is_refused(history: History, path: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(HistoryUnusable, match="schema"):
        History(path, STORE)


@pytest.mark.parametrize("content", [b"", b"no database", b"x" * 10_000])
def test_a_file_that_is_no_database_is_made_anew(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(HistoryUnusable):
        History(path, STORE)
    with History.open_or_create(path, STORE) as history:
        assert history.applied_seq == 0


def test_a_missing_history_is_not_made_by_reading(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        History(path, STORE)
    with HistoryReader(path, STORE) as reader:
        assert reader.events_of("a") == []
        assert reader.result_of("a") is None
        assert (reader.applied_seq, reader.first_seq) == (0, 1)
    assert not Path(path).exists()


def test_nobody_else_may_read_it(history: History, world: LoggingWorld, path: str) -> None:
    world.run("a")
    history.apply(world.commits())
    files = list(Path(path).parent.iterdir())
    assert len(files) >= 2
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_reader_sees_what_the_writer_writes_and_what_replaces_it(
    history: History, world: LoggingWorld, path: str
) -> None:
    world.run("a", b"1")
    with HistoryReader(path, STORE) as reader:
        assert reader.result_of("a") is None
        history.apply(world.commits())
        view = reader.result_of("a")
        assert view is not None
        assert bytes(view.result) == b"1"
        assert reader.applied_seq == 3
        with History.create(path, STORE) as other:
            assert reader.result_of("a") is None
            other.apply(world.commits()[:2])
            assert reader.applied_seq == 2


def test_a_reader_waits_for_no_writer(history: History, world: LoggingWorld, path: str) -> None:
    world.run("a")
    history.apply(world.commits())
    with HistoryReader(path, STORE) as reader:
        history._db.execute("BEGIN IMMEDIATE")
        history._set_meta(1, 77)
        assert reader.applied_seq == 3
        history._db.execute("COMMIT")
        assert reader.applied_seq == 77


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE chapters SET job = job + 1",
        "UPDATE chapters SET body = replace(body, '1', '2')",
        "UPDATE chapters SET seq = seq + 100",
        "DELETE FROM chapters",
        "DELETE FROM chapters WHERE seq = job",
        "DELETE FROM chapters WHERE seq != job",
        "UPDATE jobs SET state = state + 1",
        "UPDATE jobs SET end_seq = 1 WHERE end_seq",
        "UPDATE meta SET first_seq = 2",
    ],
)
def test_a_row_that_has_rotted_is_seen_and_not_told(
    history: History, world: LoggingWorld, path: str, change: str
) -> None:
    """SQLite takes such a row for good, and one whose key has rotted for none."""
    world.enqueue(job("a"))
    history.apply(world.commits())
    world.dispatch("a")
    world.complete("a", b"1")
    history.apply(world.commits())
    with HistoryReader(path, STORE) as reader:
        questions = (reader.result_of, reader.events_of)
        before = [as_json(question("a")) for question in questions]
        assert not reader.damaged
        history._db.execute(change)
        for question, intact in zip(questions, before, strict=True):
            assert as_json(question("a")) in (intact, as_json(None), as_json([]))
        assert reader.first_seq == 1
        assert reader.damaged


def test_two_that_project_at_once_take_nothing_for_damage(
    history: History, world: LoggingWorld, path: str
) -> None:
    world.run("a")
    world.run("b")
    commits = world.commits()

    def others() -> Iterator[Commit]:
        yield from commits[:4]
        with History(path, STORE, write=True) as other:
            other.apply(world.commits())
        yield from commits[4:]

    with pytest.raises(HelperFailed, match="try again") as told:
        history.apply(others())
    assert not isinstance(told.value, HistoryUnusable)
    assert history.apply(world.commits()) == 6
    assert as_json(history.events_of("b")) == as_json(told_by_the_model(world, "b"))


# -- projecting a store -------------------------------------------------------------------------


def test_a_history_ahead_of_the_log_is_made_anew(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path / "data")
    world.run("a")
    with History.create(world.layout.history, STORE) as history:
        history._db.execute("UPDATE meta SET applied_seq = 50")
    assert project(world.disk, world.layout, 3)[0] == 3
    with History(world.layout.history, STORE) as history:
        assert history.result_of("a") is not None


def test_damage_inside_the_database_ends_with_a_new_one(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path / "data")
    for number in range(300):
        world.run(f"job-{number}", b'"%s"' % (b"x" * 100))
    project(world.disk, world.layout, world.state.last_seq)
    size = Path(world.layout.history).stat().st_size
    assert size > 20 * 4096
    for page in range(1, size // 4096):
        for offset in range(0, 100, 7):
            flip(world.layout.history, page * 4096 + offset, 0xFF)
    world.run("more")
    applied, _ = project(world.disk, world.layout, world.state.last_seq)
    assert applied == world.state.last_seq
    with History(world.layout.history, STORE) as history:
        for name in ("job-0", "job-150", "job-299", "more"):
            assert len(history.events_of(name)) == 3


def test_what_the_archive_no_longer_holds_is_missing_and_said_so(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path / "data")
    world.run("a")
    world.seal()
    world.run("b")
    world.disk.unlink(world.layout.archived(1))
    assert project(world.disk, world.layout, 6)[0] == 6
    with History(world.layout.history, STORE) as history:
        assert history.first_seq == 4
        assert history.events_of("a") == []
        assert history.result_of("b") is not None
