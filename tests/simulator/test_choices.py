"""Hypothesis draws the order in which things happen, and a race shrinks to a few choices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from beaver.engine.engine import Engine
from beaver_chaos.sim.choosing import Delay, Delays
from beaver_chaos.sim.loop import SimLoop
from beaver_chaos.sim.plan import draw_plan
from beaver_chaos.sim.simulator import run_plan
from beaver_chaos.sim.text import plan_of

pytestmark = pytest.mark.invariants

DELAYS = st.lists(st.builds(Delay, st.integers(0, 40), st.integers(1, 8)), max_size=6)

RACY = plan_of(
    """
    {"seed": 1,
     "setup": {"latency_us": 0, "sync_us": 0, "commit": "writer"},
     "acts": [[20, "enqueue", [0, [{"id": "j1"}]]], [20, "status", [1, "j1", 0]],
              [20, "enqueue", [0, [{"id": "j2"}]]], [20, "status", [1, "j1", 0]],
              [20, "enqueue", [0, [{"id": "j3"}]]], [20, "status", [1, "j1", 0]]]}
    """
)
"""No time goes by: all of it is ready at once, and the order alone decides."""

FINDING = settings(max_examples=1_000, derandomize=True, database=None)
"""The same search under every profile: how small a find gets depends on where it began."""


def test_no_delays_are_the_order_of_asyncio_and_each_lets_others_go_first() -> None:
    assert [Delays([])(count) for count in (2, 3, 4)] == [0, 0, 0]
    delays = Delays([Delay(1, 2), Delay(0, 1), Delay(2, 1)])
    assert [delays(3) for _ in range(8)] == [0, 1, 1, 1, 0, 0, 1, 0]
    assert delays.made == 4


def test_a_check_and_an_act_with_an_await_between_them_shrink_to_one_delay() -> None:
    def balance(delays: Sequence[Delay]) -> int:
        async def main() -> int:
            left = 10

            async def take(cost: int) -> None:
                nonlocal left
                for _ in range(cost):
                    await asyncio.sleep(0)
                if left >= 10:
                    await asyncio.sleep(0)
                    left -= 10

            loop = asyncio.get_running_loop()
            tasks = [loop.create_task(take(cost)) for cost in (1, 6)]
            for task in tasks:
                await task
            return left

        loop = SimLoop(Delays(delays), steps_max=1_000)  # type: ignore[abstract]
        result = loop.run(main())
        assert result is not None
        return result

    assert balance([]) == 0
    smallest = find(
        DELAYS,
        lambda delays: balance(delays) < 0,
        settings=FINDING,
    )
    assert len(smallest) == 1


def test_a_race_in_the_engine_is_found_and_shrinks_to_a_few_choices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sown: a read that comes while a frame is under way is answered from memory at once."""
    read = Engine.read

    def early(self: Engine, question: Any, done: Any) -> None:
        if self.under_way is not None:
            done(question(self.state))
        else:
            read(self, question, done)

    monkeypatch.setattr(Engine, "read", early)
    assert run_plan(RACY, Delays([])).ok, "in asyncio's own order nobody would ever see it"
    smallest = find(
        DELAYS,
        lambda delays: not run_plan(RACY, Delays(delays)).ok,
        settings=FINDING,
    )
    report = run_plan(RACY, Delays(smallest))
    assert "was told, and only" in report.violations[0]
    assert len(smallest) <= 3
    assert sum(delay.choices for delay in smallest) <= 12
    monkeypatch.undo()
    assert run_plan(RACY, Delays(smallest)).ok, "without the bug that order is as good as any"


@settings(max_examples=60)
@given(DELAYS)
def test_no_order_of_simultaneous_requests_breaks_a_promise(delays: list[Delay]) -> None:
    for commit in ("inline", "writer"):
        plan = RACY._replace(setup=RACY.setup._replace(commit=commit, workers=2, prefetch=3))
        report = run_plan(plan, Delays(delays))
        assert report.ok, report.violations


@settings(max_examples=60)
@given(st.integers(0, 1_000), DELAYS)
def test_no_order_breaks_a_promise_when_faults_strike(seed: int, delays: list[Delay]) -> None:
    plan = draw_plan(seed, 12)
    setup = plan.setup._replace(latency_us=0, sync_us=0, in_order=True)
    report = run_plan(plan._replace(setup=setup), Delays(delays))
    assert report.ok, report.violations
