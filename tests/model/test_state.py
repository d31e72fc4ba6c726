"""Freezing, thawing, fingerprints, replay; and invariants that can see."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import beaver_model
from beaver_model import (
    IllegalEvent,
    State,
    Trigger,
    fingerprint,
    freeze,
    replay,
    thaw,
    violations,
)
from beaver_model.commands import Boot, Cancel, Complete, Fail, SetQueue
from beaver_model.events import Acked, Booted, Dispatched
from beaver_model.index import Lane
from beaver_model.invariants import INVARIANTS
from beaver_model.states import JobState
from tests.worlds.model import World, job

pytestmark = pytest.mark.invariants


def busy_world() -> World:
    """Jobs in every state, two queues, a schedule, tombstones and a boot."""
    world = World()
    world.do(Boot())
    world.enqueue(*(job(name) for name in "abcdef"), job("later", run_at_ms=9_000))
    world.enqueue(job("q", queue="other", priority=1, task="x"))
    world.do(SetQueue("other", paused=True, weight=3))
    world.do(Complete("a", world.dispatch("a"), b"1"))
    world.do(Fail("b", world.dispatch("b"), "broken", retry=False))
    world.dispatch("c")
    world.do(Cancel("d"))
    world.do(Fail("e", world.dispatch("e"), "again"))
    return world


def test_thaw_undoes_freeze_and_rebuilds_the_indexes() -> None:
    state = busy_world().state
    again = thaw(*freeze(state))
    assert freeze(again) == freeze(state)
    assert fingerprint(again) == fingerprint(state)
    assert (again.ledger, again.bytes) == (state.ledger, state.bytes)
    assert violations(again) == []


def test_replay_once_twice_and_from_any_older_state_gives_the_same_fingerprint() -> None:
    world = busy_world()
    events = [event for _, event in world.log]
    for start in range(len(events) + 1):
        state = State()
        for seq, (time_ms, event) in enumerate(world.log[:start], 1):
            replay(state, seq, time_ms, [event])
        state = thaw(*freeze(state))
        for _ in range(2):
            for seq, (time_ms, event) in enumerate(world.log, 1):
                replay(state, seq, time_ms, [event])
        assert fingerprint(state) == fingerprint(world.state)
        assert violations(state) == []


def test_a_fingerprint_sees_every_field_of_a_row() -> None:
    seen = {fingerprint(busy_world().state)}
    changes: list[Callable[[State], None]] = [
        lambda s: setattr(s.jobs["f"], "payload", b"1"),
        lambda s: setattr(s.jobs["f"], "attempt", 1),
        lambda s: setattr(s.jobs["f"], "ready_ms", 5),
        lambda s: setattr(s.jobs["f"], "content", b"e" * 12 + b"null"),
        lambda s: setattr(s.jobs["c"], "worker", 9),
        lambda s: setattr(s.jobs["c"], "token", 9),
        lambda s: setattr(s.jobs["b"].extra, "error", "other"),
        lambda s: setattr(s.queues["other"].row, "weight", 4),
        lambda s: setattr(s, "epoch", 7),
        lambda s: s.tombstones.update(a=b"x" * 21),
    ]
    for change in changes:
        state = busy_world().state
        change(state)
        seen.add(fingerprint(state))
    assert len(seen) == len(changes) + 1


def test_an_illegal_event_in_a_log_is_named_with_its_seq_and_changes_nothing() -> None:
    world = World()
    world.enqueue(job())
    before = freeze(world.state)
    with pytest.raises(IllegalEvent, match="seq 2: ACK is illegal here: job a is pending"):
        replay(world.state, 2, 1_000, [Acked("a", 1, b"null")])
    assert freeze(world.state) == before
    with pytest.raises(IllegalEvent, match="the last seq applied is 1"):
        replay(world.state, 3, 1_000, [Dispatched("a", 1)])
    with pytest.raises(IllegalEvent, match="epoch 5 does not follow 0"):
        replay(world.state, 2, 1_000, [Booted(5, False)])


def test_a_dispatch_that_was_applied_already_changes_nothing() -> None:
    """The original plan's idempotence: it is skipped by its seq."""
    world = busy_world()
    before = fingerprint(world.state)
    assert replay(world.state, 1, 1_000, [e for _, e in world.log]) == 0
    assert fingerprint(world.state) == before


def lane_in_use(state: State) -> Lane:
    (lane,) = (lane for b in state.queues["default"].buckets.values() if (lane := b.lanes[5]))
    return lane


_BREAK: dict[str, Callable[[State], object]] = {
    "one_set_per_job": lambda s: s.tombstones.update(f=b"x" * 21),
    "queues_are_known_and_bounded": lambda s: setattr(s, "queues_max", 0),
    "seqs_ascend": lambda s: setattr(s.jobs["f"], "seq", s.jobs["c"].seq),
    "tokens_fence": lambda s: setattr(s.jobs["f"], "token", 3),
    "attempts_are_bounded": lambda s: setattr(s.jobs["c"], "attempt", 6),
    "one_suspect_at_a_time": lambda s: setattr(s, "suspects_in_flight", 1),
    "ready_index_matches": lambda s: s.queues["default"].buckets.clear(),
    "turns_are_listed": lambda s: s.stride_order._heap.append((1 << 60, 0, s.queues["default"])),
    "lanes_are_ordered": lambda s: lane_in_use(s).arrivals.reverse(),
    "counts_match": lambda s: setattr(s, "bytes", s.bytes + 1),
    "tombstones_match": lambda s: s.tombstone_ids.append("stranger"),
}


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_each_invariant_sees_what_it_is_there_for(check: Callable[[State], str | None]) -> None:
    world = busy_world()
    world.enqueue(job("g"))
    assert check(world.state) is None
    _BREAK[check.__name__](world.state)
    assert check(world.state) is not None


def test_the_model_imports_nothing_that_touches_the_world() -> None:
    allowed = {
        "__future__", "_blake2", "ast", "collections", "enum", "hashlib", "heapq", "importlib",
        "itertools", "msgspec", "operator", "re", "struct", "transitions", "typing",
    }  # fmt: skip
    for path in Path(beaver_model.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed | {"beaver_model"}, f"{path.name}: {name}"


def test_a_job_is_in_exactly_one_set_and_the_counts_say_which() -> None:
    state = busy_world().state
    counted = {s.name: state.count(s) for s in JobState}
    assert counted == {
        "NEW": 0,
        "PENDING": 4,
        "IN_FLIGHT": 1,
        "COMPLETED": 1,
        "DEAD": 1,
        "CANCELLED": 1,
        "FORGOTTEN": 0,
    }
    assert len(Trigger) == 11
