"""`history.db` and stories: what is told of a job is what the log holds, index or none."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from beaver.errors import Corruption, HelperFailed
from beaver.helper.work import project, prune_archive, snapshot_and_prune
from beaver.history import blocks, stories
from beaver.history import database as history_module
from beaver.history import runs as history_runs
from beaver.history.blocks import BLOCK_EVENTS
from beaver.history.database import LogIndex
from beaver.history.rows import HistoryUnusable
from beaver.inspect import queries
from beaver.inspect.listing import attempt_of, event_view
from beaver.journal.wal.following import Follower, FramedCommit
from beaver.snapshot.files import write_snapshot
from beaver.structs.questions import Known, Search
from beaver.structs.views import EventView, JobView
from beaver_model import State, apply
from beaver_model.commands import Boot, Cancel, Discard, Release, Requeue, SetBounds, SetQueue
from beaver_model.events import JobEvent
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock
from tests.worlds.stores import STORE, LoggedWorld, flip

NAMES = ("done", "retried", "dead", "revived", "cancelled", "discarded", "released", "waiting")


@pytest.fixture
def world(tmp_path: Path) -> LoggedWorld:
    return LoggedWorld(tmp_path / "data")


def live(world: LoggedWorld) -> LoggedWorld:
    """Every event of the lifecycle, over three segments."""
    world.do(Boot())
    world.do(SetBounds(500))
    world.do(SetQueue("default", weight=3))
    world.run("done", b'{"answer": 42}')
    world.fail_and_wait("retried")
    world.now_ms += 100_000
    world.seal()
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
    world.seal()
    world.complete("revived")
    world.enqueue(job("cancelled"), job("discarded"), job("released"), job("waiting"))
    world.do(Cancel("cancelled"))
    world.do(Discard("discarded"))
    token = world.dispatch("released")
    world.do(Release("released", token, "drain"))
    world.dispatch("released")
    return world


def index(world: LoggedWorld, seq: int | None = None) -> int:
    return project(world.disk, world.layout, world.state.last_seq if seq is None else seq)


def known(world: LoggedWorld, name: str) -> Known:
    state = world.state
    return Known(name, state.seq_of(name) or 0, name in state.tombstones)


def events_of(world: LoggedWorld, name: str) -> list[EventView]:
    told = stories.tell(world.disk, world.layout, [known(world, name)])
    assert not told.damaged
    return told.by_job[name]


def told_by_the_model(world: LoggedWorld, name: str) -> list[EventView]:
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


def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bound of the index so small that a few events pass it."""
    monkeypatch.setattr(history_module, "_TRANSACTION_EVENTS", 3)
    monkeypatch.setattr(history_runs, "CHUNK_KEYS", 1)
    monkeypatch.setattr(history_runs, "MERGE_RUNS", 2)
    monkeypatch.setattr(blocks, "BLOCK_EVENTS", 2)


# -- stories ------------------------------------------------------------------------------------


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


# -- finished jobs ------------------------------------------------------------------------------


def find(world: LoggedWorld, word: str = "completed", **asked: object) -> list[JobView]:
    search = msgspec.convert(Search(word), Search)
    for name, value in asked.items():
        setattr(search, name, value)
    found: list[JobView] = []
    for _ in range(100):
        views, listed = stories.find_finished(world.disk, world.layout, search)
        assert len(views) == listed.count
        found += views
        search.after_seq = listed.next_seq
        if not listed.next_seq:
            return found
    raise AssertionError("a search without an end")


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


# -- following the log ----------------------------------------------------------------------------


def test_a_failed_transaction_leaves_no_trace(world: LoggedWorld) -> None:
    world.enqueue(job("a"))
    index(world)
    for number in range(2 * BLOCK_EVENTS):
        world.run(f"job-{number}")
    follower = Follower(world.disk, world.layout)
    with LogIndex(world.layout.history, STORE, write=True) as history:
        (pages,) = history._db.execute("PRAGMA page_count").fetchone()
        # The database may not grow: as on a full disk.
        history._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match="full"):
            history.apply(follower.commits(1, 1 << 62), lambda: follower.cursor)
        assert history.applied_seq == 1
    index(world)
    assert len(events_of(world, "job-3")) == 3


def test_a_reading_that_breaks_off_indexes_nothing_of_its_batch(world: LoggedWorld) -> None:
    world.run("a")
    commits = list(Follower(world.disk, world.layout).commits(0, 3))

    def breaking() -> Iterator[FramedCommit]:
        yield from commits[:2]
        raise EOFError

    with LogIndex.create(world.layout.history, STORE) as history:
        with pytest.raises(EOFError):
            history.apply(breaking(), lambda: None)
        assert history.applied_seq == 0


def test_a_job_from_before_the_log_is_known_by_what_is_left(world: LoggedWorld) -> None:
    world.enqueue(job("a"))
    world.seal()
    world.dispatch("a")
    world.complete("a", b'"kept"')
    index(world, 1)
    world.disk.unlink(world.layout.archived(1))
    index(world)
    told = stories.tell(world.disk, world.layout, [known(world, "a")])
    events = told.by_job["a"]
    assert told.first_seq == 2
    assert [event.event for event in events] == ["DISPATCH", "ACK"]
    # Which attempt it was stands in the events that are gone.
    assert [event.attempt for event in events] == [None, None]
    view = queries.show_finished(world.state, "a", events)
    assert (view.state, view.task, bytes(view.result)) == ("completed", None, b'"kept"')


def test_a_calm_store_has_no_block_for_each_commit(world: LoggedWorld) -> None:
    for number in range(BLOCK_EVENTS):
        world.run(f"job-{number}")
        if number % 7 == 0:
            index(world)
    index(world)
    with LogIndex(world.layout.history, STORE) as history:
        assert history.next_block - 1 == 3
        (runs,) = history._db.execute("SELECT count(*) FROM runs").fetchone()
        assert runs < 2 * history_runs.MERGE_RUNS
    for number in range(0, BLOCK_EVENTS, 50):
        assert len(events_of(world, f"job-{number}")) == 3


def test_two_that_index_at_once_take_nothing_for_damage(world: LoggedWorld) -> None:
    world.run("a")
    world.run("b")
    commits = list(Follower(world.disk, world.layout).commits(0, 6))

    def others() -> Iterator[FramedCommit]:
        yield from commits[:4]
        index(world)
        yield from commits[4:]

    with LogIndex.create(world.layout.history, STORE) as history:
        with pytest.raises(HelperFailed, match="try again") as told:
            history.apply(others(), lambda: None)
        assert not isinstance(told.value, HistoryUnusable)
    assert index(world) == 6
    assert as_json(events_of(world, "b")) == as_json(told_by_the_model(world, "b"))


# -- pruning --------------------------------------------------------------------------------------


def prune(world: LoggedWorld) -> None:
    """Deletes whatever may be deleted of the archive, as a helper does."""
    for _ in range(2):
        write_snapshot(world.disk, world.layout, world.state, STORE, keep_previous=True)
    snapshot_and_prune(
        world.disk, world.layout, world.state.last_seq, 0, 0, ManualClock(world.now_ms)
    )


@pytest.mark.parametrize("small", [False, True])
def test_pruning_forgets_what_ended_before_and_nothing_else(
    world: LoggedWorld, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits, is dead, or ended later keeps its whole story."""
    if small:
        tiny(monkeypatch)
    world.run("old", b'"gone"')
    world.enqueue(job("dead"), job("waiting"), job("later"), job("discarded"))
    world.dispatch("dead")
    world.fail("dead", retry=False)
    world.do(Discard("discarded"))
    world.dispatch("later")
    world.seal()
    world.complete("later", b'"late"')
    world.run("new")
    world.seal()
    world.enqueue(job("more"))
    index(world)
    prune(world)
    prune(world)
    begins = world.state.seq_of("more")
    assert not world.disk.listdir(world.layout.archive)
    told = stories.tell(
        world.disk, world.layout, [known(world, n) for n in ("old", "later", "new", "more")]
    )
    assert (told.first_seq, told.damaged) == (begins, False)
    assert [len(told.by_job[name]) for name in ("old", "later", "new", "more")] == [0, 0, 0, 1]
    assert find(world) == []
    for name in ("dead", "waiting"):
        assert as_json(events_of(world, name)) == as_json(told_by_the_model(world, name))
    with LogIndex(world.layout.history, STORE) as history:
        (kept,) = history._db.execute("SELECT count(*) FROM kept").fetchone()
        assert kept == 4, "three of the dead one, one of the waiting one"


def test_a_job_that_ends_after_its_beginning_was_pruned_is_told_whole(world: LoggedWorld) -> None:
    world.enqueue(job("a"), job("b"))
    world.dispatch("a")
    world.seal()
    world.run("other")
    index(world)
    prune(world)
    world.complete("a", b'"done"')
    prune(world)
    for _ in range(2):
        assert as_json(events_of(world, "a")) == as_json(told_by_the_model(world, "a"))
        assert [view.id for view in find(world)] == ["other", "a"]
        assert find(world)[1].task == "echo"
        index(world)
    world.seal()
    world.enqueue(job("c"))
    index(world)
    prune(world)
    prune(world)
    assert events_of(world, "a") == []
    assert as_json(events_of(world, "b")) == as_json(told_by_the_model(world, "b"))


def test_nothing_is_pruned_that_the_index_could_not_take_over(world: LoggedWorld) -> None:
    world.enqueue(job("a"))
    world.seal()
    world.run("b")
    index(world)
    for _ in range(2):
        write_snapshot(world.disk, world.layout, world.state, STORE, keep_previous=True)
    with LogIndex(world.layout.history, STORE, write=True) as history:
        history._db.execute("UPDATE blocks SET end = end - 1")
    prune(world)
    assert world.disk.listdir(world.layout.archive)


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "history.db")


def test_another_store_s_history_is_refused(path: str) -> None:
    LogIndex.create(path, STORE).close()
    with pytest.raises(HistoryUnusable, match="another store"):
        LogIndex(path, b"x" * 16)


def test_another_schema_is_refused(path: str) -> None:
    LogIndex.create(path, STORE).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(HistoryUnusable, match="schema"):
        LogIndex(path, STORE)


@pytest.mark.parametrize("content", [b"", b"no database", b"x" * 10_000])
def test_a_file_that_is_no_database_is_made_anew(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(HistoryUnusable):
        LogIndex(path, STORE)
    with LogIndex.open_or_create(path, STORE) as history:
        assert history.applied_seq == 0


def test_a_missing_index_is_not_made_by_reading(world: LoggedWorld) -> None:
    world.run("a")
    assert len(events_of(world, "a")) == 3
    assert not Path(world.layout.history).exists()


def test_nobody_else_may_read_it(world: LoggedWorld) -> None:
    world.run("a")
    with LogIndex.create(world.layout.history, STORE):
        index(world)
        files = list(Path(world.layout.path).glob("history.db*"))
        assert len(files) >= 2
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_reader_waits_for_no_writer(world: LoggedWorld) -> None:
    world.run("a")
    index(world)
    with LogIndex(world.layout.history, STORE, write=True) as history:
        history._db.execute("BEGIN IMMEDIATE")
        history._db.execute("DELETE FROM keys")
        assert len(events_of(world, "a")) == 3
        history._db.execute("ROLLBACK")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE blocks SET begin = begin + 8",
        "UPDATE blocks SET block = block + 100",
        "UPDATE blocks SET last_seq = last_seq - 1",
        "DELETE FROM blocks",
        "UPDATE runs SET bits = 1",
        "UPDATE runs SET run = run + 10",
        "DELETE FROM runs WHERE run = 1",
        "UPDATE keys SET chunk = chunk + 1",
        "UPDATE keys SET keys = x'0000000000000000'",
        "DELETE FROM keys",
        "UPDATE meta SET first_seq = 2",
        "DELETE FROM meta",
    ],
)
def test_a_row_that_has_rotted_is_seen_and_the_log_tells_all_the_same(
    world: LoggedWorld, change: str
) -> None:
    """SQLite takes such a row for good, and one whose key has rotted for none."""
    world.enqueue(job("a"))
    index(world)
    world.dispatch("a")
    world.complete("a", b"1")
    index(world)
    with LogIndex(world.layout.history, STORE, write=True) as history:
        history._db.execute(change)
    told = stories.tell(world.disk, world.layout, [known(world, "a")])
    assert as_json(told.by_job["a"]) == as_json(told_by_the_model(world, "a"))
    assert told.damaged
    index(world, 3)
    if not change.endswith("meta"):
        Path(world.layout.history).unlink()
        index(world)
    assert as_json(events_of(world, "a")) == as_json(told_by_the_model(world, "a"))


def test_kept_events_that_have_rotted_are_missed(world: LoggedWorld) -> None:
    world.enqueue(job("a"))
    world.seal()
    world.run("b")
    index(world)
    for _ in range(2):
        prune(world)
        world.enqueue(job(f"more-{world.state.last_seq}"))
    assert as_json(events_of(world, "a")) == as_json(told_by_the_model(world, "a"))
    with LogIndex(world.layout.history, STORE, write=True) as history:
        history._db.execute("UPDATE kept SET hash = hash + 1")
    told = stories.tell(world.disk, world.layout, [known(world, "a")])
    assert told.damaged
    assert told.by_job["a"] == []


def test_a_damaged_log_is_an_error_and_no_story(world: LoggedWorld) -> None:
    world.run("a", b'"%s"' % (b"x" * 1_000))
    world.run("b")
    index(world)
    content = Path(world.layout.log).read_bytes()
    flip(world.layout.log, content.index(b"x" * 1_000) + 500)
    with pytest.raises(Corruption):
        events_of(world, "a")


# -- indexing a store -----------------------------------------------------------------------------


def test_a_history_ahead_of_the_log_is_made_anew(world: LoggedWorld) -> None:
    world.run("a")
    index(world)
    with LogIndex(world.layout.history, STORE, write=True) as history:
        history._set_meta(history._meta()._replace(applied_seq=50))
    assert index(world) == 3
    assert len(events_of(world, "a")) == 3


def test_damage_inside_the_database_ends_with_a_new_one(world: LoggedWorld) -> None:
    for number in range(3_000):
        world.run(f"job-{number}")
    index(world)
    size = Path(world.layout.history).stat().st_size
    assert size > 8 * 4096
    for page in range(1, size // 4096):
        for offset in range(0, 100, 7):
            flip(world.layout.history, page * 4096 + offset, 0xFF)
    world.run("more")
    assert index(world) == world.state.last_seq
    for name in ("job-0", "job-150", "job-299", "more"):
        assert len(events_of(world, name)) == 3


def test_what_the_archive_no_longer_holds_is_missing_and_said_so(world: LoggedWorld) -> None:
    world.run("a")
    world.seal()
    world.run("b")
    world.disk.unlink(world.layout.archived(1))
    assert index(world) == 6
    with LogIndex(world.layout.history, STORE) as history:
        assert (history.first_seq, history.begins_seq) == (4, 4)
    told = stories.tell(world.disk, world.layout, [known(world, "a"), known(world, "b")])
    assert (told.first_seq, told.damaged) == (4, False)
    assert [len(events) for events in told.by_job.values()] == [0, 3]


def test_segments_that_somebody_else_deleted_are_missing_and_said_so(world: LoggedWorld) -> None:
    world.run("a")
    world.seal()
    world.run("b")
    index(world)
    world.disk.unlink(world.layout.archived(1))
    told = stories.tell(world.disk, world.layout, [known(world, "a"), known(world, "b")])
    assert [len(events) for events in told.by_job.values()] == [0, 3]
    assert [view.id for view in find(world)] == ["b"]
    assert prune_archive(
        world.disk, world.layout, keep_bytes=0, keep_ms=0, now_ms=1, applied_seq=6
    ) == 4  # fmt: skip
