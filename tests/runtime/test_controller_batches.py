"""The controller asks for many at once: what a worker reports, and what waits at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from beaver.dispatch.controller import ROOM_BYTES
from beaver.dispatch.outcome_handler import DONE_BYTES
from beaver.dispatch.task_times import PREFETCH_LEARN, PREFETCH_SPAN_MS
from beaver.structs.messages import Outcome, OutcomeKind, Request
from beaver_model import violations
from beaver_model.events import AnyEvent
from tests.runtime.test_controller import ControllerWorld
from tests.worlds.runtime import on_loop, turns


class ReportingWorld(ControllerWorld):
    """One worker that reports on several attempts in one message, and the log of it."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, **options)
        self.logged: list[AnyEvent] = []
        self.engine.observers.append(lambda seq, now_ms, events: self.logged.extend(events))

    async def report(self, *outcomes: Outcome) -> list[tuple[str, str]]:
        """Returns what it led to: names of events, and their jobs."""
        self.logged.clear()
        sent = self.pool.sent[1]
        answered = {outcome.token for outcome in outcomes}
        self.pool.sent[1] = [each for each in sent if each.token not in answered]
        self.controller.outcomes(1, outcomes)
        await turns()
        assert violations(self.state) == []
        return [(event.NAME, getattr(event, "job", "")) for event in self.logged]

    def outcomes(self, kinds: Sequence[OutcomeKind], ms: float = 0.1) -> list[Outcome]:
        """Returns how the first attempts end that were sent."""
        return [
            Outcome(attempt.token, attempt.job, kind, elapsed_ms=ms)
            for attempt, kind in zip(self.pool.sent[1], kinds, strict=False)
        ]


@on_loop
async def test_outcomes_are_logged_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    world = ReportingWorld(tmp_path / "data", prefetch=6)
    await world.enqueue(*"abcdef")
    ok, failed = OutcomeKind.OK, OutcomeKind.FAILED
    led = await world.report(*world.outcomes([ok, ok, failed, ok, failed, ok]))
    names = ["ACK", "ACK", "RETRY", "ACK", "RETRY", "ACK"]
    assert led == list(zip(names, "abcdef", strict=True))
    assert world.controller.workers[1].held == {}


@on_loop
async def test_a_success_with_children_among_others_enqueues_them(tmp_path: Path) -> None:
    world = ReportingWorld(tmp_path / "data", prefetch=3)
    await world.enqueue(*"abc")
    first, second, third = world.outcomes([OutcomeKind.OK] * 3)
    second.children = (Request("child", b"", b"1", b"child-digest"),)
    led = await world.report(first, second, third)
    assert led[:4] == [("ACK", "a"), ("ACK", "b"), ("ENQUEUE", "child"), ("ACK", "c")]
    assert world.state.jobs["child"].extra is not None
    assert world.state.jobs["child"].extra.parent == "b"


@on_loop
async def test_a_stale_success_among_others_is_left_out(tmp_path: Path) -> None:
    world = ReportingWorld(tmp_path / "data", prefetch=3)
    await world.enqueue(*"abc")
    first, second, third = world.outcomes([OutcomeKind.OK] * 3)
    second.token += 1_000
    assert await world.report(first, second, third) == [("ACK", "a"), ("ACK", "c")]


@on_loop
async def test_large_results_are_told_a_few_at_a_time(tmp_path: Path) -> None:
    """One command with all of them could be larger than a commit may be."""
    world = ReportingWorld(tmp_path / "data", prefetch=6)
    await world.enqueue(*"abcdef")
    outcomes = world.outcomes([OutcomeKind.OK] * 6)
    for outcome in outcomes:
        outcome.result = b'"%b"' % (b"x" * (DONE_BYTES // 2))
    worker = world.controller.workers[1]
    held = dict(worker.held)
    asked = list(world.controller._outcomes._commands(worker, outcomes))
    assert [len(command.done) for command in asked] == [2, 2, 2]  # type: ignore[union-attr]
    worker.held.update(held)
    assert await world.report(*outcomes) == [("ACK", job) for job in "abcdef"]


@on_loop
async def test_several_outcomes_wait_for_room_in_the_log_and_are_written_later(
    tmp_path: Path,
) -> None:
    world = ReportingWorld(tmp_path / "data", prefetch=4)
    await world.enqueue(*"abcd")
    world.limit_room(lambda size: 0)
    ok, failed = OutcomeKind.OK, OutcomeKind.FAILED
    assert await world.report(*world.outcomes([ok, ok, failed, ok])) == []
    world.limit_room(None)
    world.controller.retry_unwritten()
    await turns()
    assert [event.NAME for event in world.logged] == ["ACK", "ACK", "RETRY", "ACK"]
    assert world.state.completed == 3


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
@on_loop
async def test_a_worker_is_given_no_more_than_its_task_is_due(depth: int, tmp_path: Path) -> None:
    """Jobs of a task are many, and their run is cut where the worker holds enough."""
    world = ReportingWorld(tmp_path / "data")
    for number in range(PREFETCH_LEARN):
        await world.enqueue(f"learn-{number}")
        await world.report(*world.outcomes([OutcomeKind.OK], ms=PREFETCH_SPAN_MS / (depth + 0.5)))
    await world.enqueue(*(f"job-{number}" for number in range(20)))
    assert [each.job for each in world.pool.sent[1]] == [f"job-{n}" for n in range(depth)]
    assert len(world.controller.workers[1].held) == depth
    await world.report(*world.outcomes([OutcomeKind.OK], ms=PREFETCH_SPAN_MS / (depth + 0.5)))
    assert [each.job for each in world.pool.sent[1]] == [f"job-{n + 1}" for n in range(depth)]


@pytest.mark.parametrize(("beside", "sent"), [(-1, 1), (0, 2), (1, 2)])
@on_loop
async def test_with_less_room_than_is_kept_one_job_runs_at_a_time(
    tmp_path: Path, beside: int, sent: int
) -> None:
    """The log keeps room for what the attempts that run may still write."""
    world = ControllerWorld(tmp_path / "data", workers=2)
    room = ROOM_BYTES + beside
    world.engine.has_room = lambda size: size <= room  # type: ignore[method-assign]
    await world.enqueue("a", "b")
    assert sum(map(len, world.pool.sent.values())) == sent
    world.begin(worker := next(iter(world.pool.sent)))
    world.end(worker)
    await turns()
    assert world.state.completed == 1
    assert sum(map(len, world.pool.sent.values())) == 1, "the next one, or the other one"
