"""A store in which every event of the lifecycle has happened, and its index."""

from __future__ import annotations

import msgspec
import pytest

from beaver.helper.work import project, snapshot_and_prune
from beaver.history import blocks, stories
from beaver.history import database as history_module
from beaver.history import runs as history_runs
from beaver.inspect.listing import attempt_of, event_view
from beaver.snapshot.files import write_snapshot
from beaver.structs.questions import Known, Search
from beaver.structs.views import EventView, JobView
from beaver_model import State, apply
from beaver_model.commands import Boot, Cancel, Discard, Release, Requeue, SetBounds, SetQueue
from beaver_model.events import JobEvent
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock
from tests.worlds.stores import STORE, LoggedWorld

NAMES = ("done", "retried", "dead", "revived", "cancelled", "discarded", "released", "waiting")


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


def prune(world: LoggedWorld) -> None:
    """Deletes whatever may be deleted of the archive, as a helper does."""
    for _ in range(2):
        write_snapshot(world.disk, world.layout, world.state, STORE, keep_previous=True)
    snapshot_and_prune(
        world.disk, world.layout, world.state.last_seq, 0, 0, ManualClock(world.now_ms)
    )
