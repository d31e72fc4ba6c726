"""`app.testing()`: the model's decisions, in memory, on the test's clock."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from beaver import Beaver, Cancel, Dead, JobContext, Retry, Snooze, current
from beaver.api.testing import STARTS_AT
from beaver.errors import Endless, JobFailed, WaitTimeout


@pytest.fixture
def app(tmp_path: Path) -> Beaver:
    return Beaver(tmp_path / "data")


def test_jobs_run_when_the_test_says_so_and_nothing_is_written(app: Beaver, tmp_path: Path) -> None:
    ran = []

    @app.job
    def note(n: int) -> int:
        ran.append(n)
        return n + 1

    with app.testing() as testing:
        handle = note.enqueue(1)
        assert (ran, handle.status().state) == ([], "pending")
        with pytest.raises(WaitTimeout):
            handle.result(timeout=60)
        assert testing.drain() == 1
        assert (ran, handle.result()) == ([1], 2)
        assert testing.results() == [2]
        assert [e.event for e in handle.history()] == ["ENQUEUE", "DISPATCH", "ACK"]
        assert app.status().completed == 1
    assert os.listdir(tmp_path) == []
    assert app.connection.instead is None


def test_failures_are_retried_after_their_backoff(app: Beaver) -> None:
    attempts = []

    @app.job(max_attempts=3, backoff="10s")
    def flaky() -> str:
        attempts.append(current().attempt)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return "done"

    with app.testing() as testing:
        handle = flaky.enqueue()
        assert testing.drain() == 1
        assert "not yet" in (handle.status().error or "")
        testing.advance(9.9)
        assert testing.drain() == 0
        testing.advance(0.1)
        assert testing.drain() == 1
        assert testing.drain(scheduled=True) == 1
        assert handle.result() == "done"
        assert testing.now == STARTS_AT + timedelta(seconds=20)
    assert attempts == [1, 2, 3]


def test_the_last_failure_ends_in_dead(app: Beaver) -> None:
    @app.job(max_attempts=2)
    def bad() -> None:
        raise ValueError("never")

    with app.testing() as testing:
        handle = bad.enqueue()
        assert testing.drain(scheduled=True) == 2
        with pytest.raises(JobFailed, match="never") as error:
            handle.result()
        assert (error.value.state, error.value.cause) == ("dead", "failed")
        assert [job.id for job in testing.jobs("dead")] == [handle.id]


@pytest.mark.parametrize(
    ("steer", "state", "events", "said"),
    [
        (Cancel("no longer"), "cancelled", ["CANCEL"], "no longer"),
        (Cancel(), "cancelled", ["CANCEL"], ""),
        (Dead("pointless"), "dead", ["DEAD"], "pointless"),
        (Retry(5), "completed", ["RETRY", "DISPATCH", "ACK"], None),
        (Snooze(5), "completed", ["RELEASE", "DISPATCH", "ACK"], None),
    ],
)
@pytest.mark.parametrize("how", ["raise", "return"])
def test_steering_works_raised_and_returned(
    app: Beaver, steer: Exception, state: str, events: list[str], said: str | None, how: str
) -> None:
    @app.job
    def steered(ctx: JobContext) -> object:
        if [e.event for e in app.handle(ctx.job_id).history()].count("DISPATCH") > 1:
            return "in the end"
        if how == "raise":
            raise steer
        return steer

    with app.testing(raise_errors=True) as testing:
        handle = steered.enqueue()
        testing.drain(scheduled=True)
        assert [e.event for e in handle.history()][2:] == events
        if state == "completed":
            assert handle.result() == "in the end"
        else:
            shown = handle.status()
            assert (shown.state, shown.error) == (state, said)
            assert (handle.history()[-1].error or "") == said
            with pytest.raises(JobFailed) as failed:
                handle.result()
            assert failed.value.error == said


def test_children_come_with_the_success_of_their_parent_only(app: Beaver) -> None:
    @app.job
    def child(n: int) -> int:
        return n

    @app.job(max_attempts=2, backoff="1s")
    def parent(ctx: JobContext) -> None:
        for n in range(3):
            ctx.enqueue(child, n)
        if ctx.attempt == 1:
            raise ValueError("leaves no children")

    with app.testing() as testing:
        handle = parent.enqueue()
        testing.drain()
        assert testing.jobs(task="child") == []
        testing.drain(scheduled=True)
        assert testing.results("child") == [0, 1, 2]
        assert [a.task for a in testing.attempts] == ["parent", "parent", *["child"] * 3]
        assert handle.status().state == "completed"


def test_the_context_finds_its_place_among_the_arguments(app: Beaver) -> None:
    @app.job
    def first(ctx: JobContext, a: int, b: int = 0) -> list[int]:
        return [ctx.attempt, a, b]

    @app.job
    def middle(a: int, ctx: JobContext, b: int) -> list[int]:
        return [a, ctx.attempt, b]

    @app.job
    def last(a: int, *rest: int, ctx: JobContext) -> list[int]:
        return [a, *rest, ctx.attempt]

    @app.job
    def spread(ctx: JobContext, *rest: int, **named: int) -> list[int]:
        return [ctx.attempt, *rest, *named.values()]

    # mypy takes a context out of the first place only, and there not before `*rest`.
    elsewhere: tuple[Any, Any, Any] = (middle, last, spread)
    mid, end, wide = elsewhere
    requests = [
        first.request(7),
        first.request(7, 8),
        first.request(a=7, b=8),
        first.request(7, b=8),
        mid.request(7, 8),
        mid.request(7, b=8),
        mid.request(a=7, b=8),
        end.request(7, 8, 9),
        end.request(7),
        wide.request(7, x=8),
        wide.request(),
        wide.request({"args": 1}),
    ]
    with app.testing() as testing:
        app.enqueue_many(requests)
        testing.drain()
        assert [e.error for e in testing.jobs() if e.error] == []
        assert testing.results() == [
            [1, 7, 0],
            [1, 7, 8],
            [1, 7, 8],
            [1, 7, 8],
            [7, 1, 8],
            [7, 1, 8],
            [7, 1, 8],
            [7, 8, 9, 1],
            [7, 1],
            [1, 7, 8],
            [1],
            [1, {"args": 1}],
        ]


def test_errors_are_raised_where_that_is_asked_for(app: Beaver) -> None:
    @app.job
    def bad() -> None:
        raise KeyError("here")

    with app.testing(raise_errors=True) as testing:
        handle = bad.enqueue()
        with pytest.raises(KeyError, match="here"):
            testing.drain()
        assert handle.status().state == "pending"


def test_order_is_that_of_the_queue(app: Beaver) -> None:
    order = []

    @app.job
    def note(name: str) -> None:
        order.append(name)

    with app.testing() as testing:
        note.options(priority=9).enqueue("late")
        note.enqueue("first")
        note.enqueue("second")
        note.options(priority=0).enqueue("urgent")
        testing.drain()
    assert order == ["urgent", "first", "second", "late"]


def test_paused_queues_and_scheduled_jobs_wait(app: Beaver) -> None:
    @app.job
    def note() -> None: ...

    with app.testing() as testing:
        note.options(queue="paused").enqueue()
        note.options(queue="paused", delay=60).enqueue()
        note.options(delay="1h").enqueue()
        app.client.set_queue("paused", paused=True)
        assert testing.drain() == 0
        assert testing.drain(scheduled=True) == 1
        assert testing.now == STARTS_AT + timedelta(hours=1)
        assert not app.client.set_queue("paused", durable_dispatch=False).durable_dispatch
        app.client.set_queue("paused", paused=False)
        assert testing.drain() == 2


def test_drain_leaves_scheduled_jobs_of_a_paused_queue(app: Beaver) -> None:
    with app.testing() as testing:
        app.enqueue("echo", 1, queue="q", delay=60)
        app.client.set_queue("q", paused=True)
        assert testing.drain(scheduled=True) == 0
        assert testing.jobs(queue="q")[0].waiting == "paused"
        assert testing.now == STARTS_AT, "the clock does not run ahead for what cannot run"


def test_async_jobs_run_from_a_plain_test_and_from_inside_a_loop(app: Beaver) -> None:
    @app.job
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def main() -> int:
        handle = await double.aenqueue(4)
        testing.drain()
        return await handle.aresult()

    with app.testing() as testing:
        handle = double.enqueue(3)
        testing.drain()
        assert handle.result() == 6
        assert asyncio.run(main()) == 8


def test_an_unknown_task_waits_and_says_so(app: Beaver) -> None:
    @app.job
    def send_mail() -> None: ...

    with app.testing() as testing:
        handle = app.enqueue("send_mial")
        assert testing.drain(scheduled=True) == 0
        explained = handle.explain()
        assert (explained.waiting, explained.near_tasks) == ("unknown_task", ("send_mail",))


def test_a_job_that_enqueues_itself_for_ever_is_stopped(
    app: Beaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.job
    def again(ctx: JobContext) -> None:
        ctx.enqueue(again)

    monkeypatch.setattr("beaver.api.testing.ATTEMPTS_MAX", 50)
    with app.testing() as testing:
        again.enqueue()
        with pytest.raises(Endless, match="50 attempts"):
            testing.drain()


def test_duplicates_and_requeues_behave_as_in_production(app: Beaver) -> None:
    @app.job
    def note(n: int) -> int:
        return n

    with app.testing() as testing:
        first = note.options(id="a").enqueue(1)
        assert not note.options(id="a").enqueue(1).created
        testing.drain()
        assert not note.options(id="a").enqueue(1).created
        assert first.status().state == "completed"
        second = note.enqueue(2)
        second.cancel()
        app.client.requeue(second.id, b"7")
        testing.drain()
        assert second.result() == 7


def test_two_stores_of_a_test_know_nothing_of_each_other(app: Beaver) -> None:
    with app.testing() as outer:
        app.enqueue("echo", 1)
        with app.testing() as inner:
            assert inner.jobs() == []
        assert len(outer.jobs()) == 1
        outer.drain()
        assert outer.results() == [1]
