"""The explorer looks at everything within its bounds, and nothing is wrong there."""

from __future__ import annotations

import msgspec
import pytest

from beaver_spec.checking import check_scope
from beaver_spec.explorer.concrete import Broken, agreement, replay
from beaver_spec.explorer.explorer import Explorer
from beaver_spec.explorer.rows import JobRow
from beaver_spec.explorer.scopes import SCOPES, Scope, scope_named
from beaver_spec.explorer.space import Space
from beaver_spec.explorer.ways import successors
from beaver_spec.report.report import counts_of, load_counts
from beaver_spec.results import Verdict

pytestmark = pytest.mark.invariants

FAST = (
    "core",
    "pause",
    "two-queues",
    "cancel",
    "cancel-power-cut",
    "shared",
    "discard",
    "tombstones",
    "drain",
)
"""Explored by whoever runs these tests; CI has `beaver check` explore them, and the others."""

SMALL = Scope(name="small", claim="", jobs=2, workers=2, attempts=2, crashes=1, prefetch=2)


@pytest.mark.spec
@pytest.mark.parametrize("name", FAST)
def test_nothing_is_wrong_within_the_bounds_and_the_counts_are_those_pinned(name: str) -> None:
    row = check_scope(scope_named(name))
    assert row.story is None, "\n".join(row.story.steps)
    assert row.difference == ""
    assert counts_of(row) == load_counts()[name], "if it is meant: beaver check --pin"
    assert row.verdict == Verdict.HOLDS
    assert row.complete
    assert row.ends > 0


def test_every_scope_has_pinned_counts() -> None:
    assert set(load_counts()) == {scope.name for scope in SCOPES}


def test_scopes_name_what_the_issue_asks_for() -> None:
    core = scope_named("core")
    assert (core.jobs, core.workers, core.attempts, core.crashes, core.batch) >= (3, 2, 2, 2, 2)
    assert len({scope.name for scope in SCOPES}) == len(SCOPES)
    with pytest.raises(KeyError, match="there are core, pause"):
        scope_named("nothing")


def test_symmetry_reduction_merges_worlds_and_loses_none() -> None:
    """Every world that is found without it is one that is found with it, renamed."""
    plain = msgspec.structs.replace(SMALL, prefetch=1, timeouts=False)
    reduced = Explorer(plain)
    reduced.run()
    seen = {reduced.rules.start()}
    waiting = list(seen)
    while waiting:
        for way in successors(reduced.rules, waiting.pop()):
            if way.world not in seen:
                seen.add(way.world)
                waiting.append(way.world)
    found = {reduced.world(number) for number in range(len(reduced.keys))}
    assert {reduced.symmetry.canonical(world) for world in seen} == found
    assert 3 * len(found) < len(seen)


class _WakesNobody(Space):
    """A compression that is wrong: the time of a job never comes."""

    def wake(self, mid: int, job: int) -> int:
        return mid


class _ForgetsCancels(Space):
    """A compression that is wrong: it drops what decisions depend on."""

    def intern(self, model):  # type: ignore[no-untyped-def]
        rows = tuple(row._replace(cancel=False) for row in model.rows)
        return super().intern(model._replace(rows=rows))


@pytest.mark.parametrize("space", [_WakesNobody, _ForgetsCancels])
def test_a_wrong_compression_is_seen_by_replaying_samples(space: type[Space]) -> None:
    scope = msgspec.structs.replace(SMALL, cancels=1)
    ignore = frozenset({"cancel_is_kept", "nothing_acknowledged_is_lost", "no_job_stuck"})
    explorer = Explorer(scope, space=space(scope), ignore=ignore)
    explorer.run()
    assert agreement(explorer, 40)[1] != ""


def test_the_right_compression_agrees_with_whole_states() -> None:
    explorer = Explorer(msgspec.structs.replace(SMALL, cancels=1, losses=1))
    explorer.run()
    compared, difference = agreement(explorer, 40, seed=7)
    assert difference == ""
    assert compared > 500


def test_early_starts_are_for_local_workers_whose_tokens_die_with_them() -> None:
    """The seq of a lost DISPATCH is given again, so no attempt may outlive its server."""
    remote = Scope(
        name="early-remote",
        claim="",
        jobs=2,
        workers=1,
        attempts=2,
        crashes=1,
        early=True,
        stale=True,
    )
    lost = [
        ("enqueue", 0, "same"),
        ("sync", 1),
        ("enqueue", 1, "same"),
        ("dispatch", 0, 0),
        ("start", 0),
        ("crash", 0, "forgets"),
        ("boot",),
        ("sync", 1),
        ("dispatch", 0, 0),
    ]
    run = replay(remote, lost)
    first, again = (run.happened[n].first_seq for n in (3, 8))
    assert first == again == 3, "both DISPATCH have one token"
    with pytest.raises(Broken, match="fenced: an attempt of a that a dead server gave"):
        replay(remote, [*lost, ("late", 0, "ok")])
    local = msgspec.structs.replace(remote, stale=False)
    assert len(replay(local, [*lost, ("late", 0, "ok")]).happened) == len(lost), "nobody is left"


def test_no_world_is_explored_twice_and_paths_are_shortest() -> None:
    explorer = Explorer(SMALL)
    found = explorer.run()
    assert len(set(explorer.keys)) == len(explorer.keys) == found.states
    lengths = [len(explorer.path(n)[0]) for n in range(0, found.states, 97)]
    assert lengths == sorted(lengths)
    assert len(explorer.path(found.states - 1)[0]) == found.diameter


def test_rows_that_the_model_tells_apart_are_told_apart_here() -> None:
    """A field that the compression dropped would make two rows of the model one."""
    fields = {"state", "attempt", "label", "waiting", "cancel", "suspect", "generation", "snoozes"}
    fields |= {"second"}
    assert set(JobRow._fields) == fields
