"""Outcomes are checked as if user code had written them: it may have."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from beaver.dispatch.outcome_checks import fault_of, running_ms
from beaver.dispatch.outcome_handler import REFUSED_MAX
from beaver.dispatch.outcomes import command_of
from beaver.errors import InvalidInput
from beaver.request.resolving import OPTIONS_BYTES_MAX, Resolver
from beaver.structs.messages import Options, Outcome, OutcomeKind, Request
from beaver.workers import wire
from beaver_model import JobState
from beaver_model.bounds import (
    BACKOFF_MS_MAX,
    CHILDREN_MAX,
    ERROR_BYTES_MAX,
    RESULT_BYTES_MAX,
)
from beaver_model.commands import Complete, Expire, Fail, NewJob
from tests.runtime.test_controller import ControllerWorld
from tests.worlds.runtime import on_loop, turns

OK, FAILED, SNOOZE = OutcomeKind.OK, OutcomeKind.FAILED, OutcomeKind.SNOOZE
CHILD = Request("c", wire.encode(Options("t")), b"1", b"d" * 12)


def child_of(request: Request) -> NewJob:
    return Resolver().job(request, 0)


def string_of(size: int) -> bytes:
    return b'"%b"' % (b"x" * (size - 2))


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(1, "a", OK), ""),
        (Outcome(1, "a", OK, string_of(RESULT_BYTES_MAX)), ""),
        (Outcome(1, "a", OK, string_of(RESULT_BYTES_MAX + 1)), "bytes"),
        (Outcome(1, "a", OK, b""), "not JSON"),
        (Outcome(1, "a", OK, b"{} {}"), "not JSON"),
        (Outcome(1, "a", OK, b'"\xff"'), "not JSON"),
        (Outcome(1, "a", OK, b"[" * 200 + b"]" * 200), ""),
        (Outcome(1, "a", OK, b"[" * 5000 + b"]" * 5000), "too deep"),
        (Outcome(1, "a", OK, children=(CHILD,) * CHILDREN_MAX), ""),
        (Outcome(1, "a", OK, children=(CHILD,) * (CHILDREN_MAX + 1)), "at most"),
        (Outcome(1, "a", 6), "kind 6"),
        (Outcome(1, "a", -1), "kind -1"),
        (Outcome(1, "a", FAILED, b"not looked at"), ""),
        (Outcome(1, "a", FAILED, delay_ms=0), ""),
        (Outcome(1, "a", SNOOZE, delay_ms=BACKOFF_MS_MAX), ""),
        (Outcome(1, "a", SNOOZE, delay_ms=BACKOFF_MS_MAX + 1), "delay"),
        (Outcome(1, "a", FAILED, delay_ms=-1), "delay"),
    ],
)
def test_each_bound_of_an_outcome_is_checked_on_both_sides(outcome: Outcome, fault: str) -> None:
    assert bool(fault_of(outcome)) == bool(fault)
    assert fault in fault_of(outcome)
    command = command_of(outcome, child_of, lambda: 0.5)
    if fault:
        assert isinstance(command, Fail)
        assert not command.retry
        assert fault in command.error


def test_a_result_that_can_be_kept_can_be_shown_inside_of_other_objects() -> None:
    """The deepest result that is taken is still read where it stands in somebody's answer."""
    import json

    deepest = 0
    for depth in range(100, 2000, 25):
        text = b"[" * depth + b"]" * depth
        if not fault_of(Outcome(1, "a", OK, text)):
            deepest = depth
            msgspec.json.decode(b'{"job": {"events": [%b]}}' % text)
    assert 500 < deepest < 1975
    assert json.loads(b"[" * deepest + b"]" * deepest)


@pytest.mark.parametrize("kind", [FAILED, OutcomeKind.DEAD, OutcomeKind.TIMED_OUT])
def test_an_error_of_many_megabytes_is_cut_and_says_so(kind: int) -> None:
    """More than the room that is reserved for it would end the server."""
    command = command_of(Outcome(1, "a", kind, error="ä" * (30 << 20)), child_of, lambda: 0.5)
    assert isinstance(command, Fail | Expire)
    assert "left out" in command.error
    assert len(command.error.encode()) <= ERROR_BYTES_MAX


def test_a_child_out_of_bounds_fails_the_attempt_for_good() -> None:
    wrong = Request("x" * 300, CHILD.options, b"1", b"d" * 12)
    command = command_of(Outcome(1, "a", OK, children=(wrong,)), child_of, lambda: 0.5)
    assert isinstance(command, Fail)
    assert not command.retry
    good = command_of(Outcome(1, "a", OK, children=(CHILD,)), child_of, lambda: 0.5)
    assert isinstance(good, Complete)


def test_options_with_bytes_that_nobody_reads_are_refused() -> None:
    """They are remembered, ten thousand of them: 1 MB of each would be 10 GB."""
    padded = bytearray(wire.encode([*(["t"] + [None] * 5), "x" * OPTIONS_BYTES_MAX]))
    with pytest.raises(InvalidInput, match="options"):
        Resolver().spec(bytes(padded))


@pytest.mark.parametrize("elapsed_ms", [math.nan, math.inf, -math.inf, -1.0])
def test_a_running_time_that_is_none_is_not_learned(elapsed_ms: float) -> None:
    assert running_ms(Outcome(1, "a", OK, elapsed_ms=elapsed_ms)) is None
    assert running_ms(Outcome(1, "a", OK, elapsed_ms=0.0)) == 0.0


@on_loop
async def test_the_outcome_of_an_attempt_of_another_worker_is_refused(tmp_path: Path) -> None:
    world = ControllerWorld(tmp_path / "data", workers=2)
    await world.enqueue("a", "b")
    mine, other = world.pool.sent[1][0], world.pool.sent[2][0]
    for token, job in ((other.token, other.job), (mine.token, other.job), (99, mine.job)):
        world.controller.outcomes(1, [Outcome(token, job, OK, b'"stolen"')])
    await turns()
    assert [world.state.jobs[job].state for job in "ab"] == [JobState.IN_FLIGHT] * 2
    world.begin(2)
    world.end(2)
    await turns()
    assert other.job not in world.state.jobs, "its own worker's outcome counts"


@on_loop
async def test_a_worker_that_goes_on_answering_for_others_is_killed_and_pays(
    tmp_path: Path,
) -> None:
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a")
    token = world.begin()
    for number in range(REFUSED_MAX):
        assert world.pool.killed == [], number
        world.controller.outcomes(1, [Outcome(99, "a", OK)])
    assert world.pool.killed == [1]
    world.controller.worker_exited(1, token, "killed by signal 9")
    await turns()
    row = world.state.jobs["a"]
    assert row.extra is not None
    assert (row.attempt, row.extra.cause) == (1, "worker_lost")
    assert "does not hold" in row.extra.error


@on_loop
async def test_a_start_that_is_said_to_be_later_and_later_is_limited_all_the_same(
    tmp_path: Path,
) -> None:
    """The slot belongs to the worker: what it says of the time counts once."""
    world = ControllerWorld(tmp_path / "data")
    await world.enqueue("a", timeout_ms=500)
    for _ in range(3):
        world.begin()
        await world.tick()
        world.clock.pass_ms(300)
    await world.tick()
    assert world.pool.killed == [1]
