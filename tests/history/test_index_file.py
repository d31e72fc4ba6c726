"""`history.db` as a file: whose it is, who may read it, and what its damage comes to."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from beaver.errors import Corruption
from beaver.history import stories
from beaver.history.database import LogIndex
from beaver.history.rows import HistoryUnusable
from tests.history.lives import (
    as_json,
    events_of,
    index,
    known,
    prune,
    told_by_the_model,
)
from tests.worlds.model import job
from tests.worlds.stores import STORE, LoggedWorld, flip


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
