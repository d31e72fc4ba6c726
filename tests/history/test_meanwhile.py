"""Stories while the helper works: the index grows and segments go, and nothing is told twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from beaver.helper.work import project, snapshot_and_prune
from beaver.history import blocks, stories
from beaver.history.database import LogIndex
from beaver.journal.wal.layout import Layout
from beaver.snapshot.files import write_snapshot
from beaver.structs.questions import Known, Search
from beaver.system.disk import SystemDisk
from beaver_model.commands import Discard
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock
from tests.worlds.stores import STORE, LoggedWorld

DISK = SystemDisk()
LAST_SEQ = 17
JOBS = ("first", "open", "second", "later", "dropped", "last")


def lived(path: Path) -> LoggedWorld:
    """Jobs over three segments and more blocks than one, indexed half-way through a block."""
    world = LoggedWorld(path)
    world.run("first")
    world.enqueue(job("open"))
    world.seal()
    world.run("second")
    world.enqueue(job("later"), job("dropped"))
    world.do(Discard("dropped"))
    world.seal()
    world.run("last")
    project(world.disk, world.layout, world.state.last_seq - 4)
    world.dispatch("later")
    world.complete("later")
    world.dispatch("open")
    world.complete("open")
    for _ in range(2):
        write_snapshot(world.disk, world.layout, world.state, STORE, keep_previous=True)
    return world


def index(layout: Layout) -> None:
    project(DISK, layout, LAST_SEQ)


def index_and_prune(layout: Layout) -> None:
    index(layout)
    snapshot_and_prune(DISK, layout, LAST_SEQ, 0, 0, ManualClock(1 << 40))


def told(layout: Layout) -> dict[str, list[int]]:
    told = stories.tell(DISK, layout, [Known(name) for name in JOBS])
    assert not told.damaged
    return {name: [view.seq for view in views] for name, views in told.by_job.items()}


def listed(layout: Layout) -> dict[str, list[int]]:
    views, _ = stories.find_finished(DISK, layout, Search("completed"))
    return {"completed": [view.end_seq or 0 for view in views]}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_EVENTS", 3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ask", [told, listed])
@pytest.mark.parametrize("work", [index, index_and_prune])
def test_whenever_the_helper_is_at_work_a_story_is_whole_and_told_once(
    work: Callable[[Layout], None],
    ask: Callable[[Layout], dict[str, list[int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The helper strikes before each look of the reader into the index, one after the other.

    What ended in a segment that went may be forgotten as a whole, and in no other way.
    """
    moments, strike_at = 0, -1
    world = lived(tmp_path / "lived")
    assert world.state.last_seq == LAST_SEQ
    layout = world.layout
    wanted = ask(layout)

    def struck(look: str) -> None:
        inner = getattr(LogIndex, look)

        def strike(self: LogIndex, *args: object) -> object:
            nonlocal moments, strike_at
            moments += 1
            if moments == strike_at:
                strike_at = -1
                work(layout)
            return inner(self, *args)

        monkeypatch.setattr(LogIndex, look, strike)

    for look in ("kept_of", "blocks_of", "block", "number_at"):
        struck(look)
    assert ask(layout) == wanted
    count = moments
    assert count > 5
    for moment in range(1, count + 1):
        layout = Layout(str(tmp_path / str(moment)))
        shutil.copytree(world.path, layout.path)
        moments, strike_at = 0, moment
        found = ask(layout)
        assert strike_at == -1, "the helper was at work"
        for name, seqs in found.items():
            gone = set(wanted[name]) - set(seqs)
            assert seqs == sorted(set(seqs) & set(wanted[name])), f"moment {moment}: {name}"
            assert work is index_and_prune or not gone, f"moment {moment}: {name}"
            assert ask is listed or not seqs or not gone, f"moment {moment}: {name} has a gap"
