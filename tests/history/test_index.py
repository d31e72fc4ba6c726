"""The index follows the log, is pruned with it, and is made anew where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from beaver.errors import HelperFailed
from beaver.helper.work import prune_archive
from beaver.history import runs as history_runs
from beaver.history import stories
from beaver.history.blocks import BLOCK_EVENTS
from beaver.history.database import LogIndex
from beaver.history.rows import HistoryUnusable
from beaver.inspect import queries
from beaver.journal.wal.following import Follower, FramedCommit
from beaver.snapshot.files import write_snapshot
from beaver_model.commands import Discard
from tests.history.lives import (
    as_json,
    events_of,
    find,
    index,
    known,
    prune,
    tiny,
    told_by_the_model,
)
from tests.worlds.model import job
from tests.worlds.stores import STORE, LoggedWorld, flip


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
