"""What becomes of one attempt: binding, results, failures, steering, children."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from beaver.structs.messages import OutcomeKind
from beaver_model.bounds import ERROR_BYTES_MAX, RESULT_BYTES_MAX
from tests.worlds.workers import World, in_world, until

EXECUTORS = ["process", "thread", "async"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_executor_runs_plain_and_async_tasks(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        assert await world.result(1, "add", {"a": 1}) == 11
        assert await world.result(1, "add", {"a": 1, "b": 2}) == 3
        assert await world.result(1, "add", 5) == 15
        assert await world.result(1, "add", {"args": [1], "kwargs": {"b": 3}}) == 4
        token = world.send(1, "later", {"value": 7, "seconds": 0.01})
        outcome = await world.outcome(token)
        assert msgspec.json.decode(outcome.result) == {"value": 7, "job": f"job-{token}"}
        assert outcome.elapsed_ms >= 10

    in_world(tmp_path, test, executor=executor, concurrency=3)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_context_tells_a_job_who_it_is(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        fields = {"attempt": 2, "queue": "mail", "tags": ("a", "b"), "timeout_ms": 60_000}
        about = await world.result(1, "about", **fields)
        assert about["job"] == "job-1"
        assert (about["attempt"], about["max_attempts"]) == (2, 5)
        assert (about["queue"], about["task"], about["tags"]) == ("mail", "about", ["a", "b"])
        assert about["key"] == "key-1"
        assert 50 < about["remaining"] <= 60
        assert about["deadline"] is not None
        assert about["same"]

    in_world(tmp_path, test, executor=executor)


def test_big_integers_and_unicode_survive_both_ways(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        value = {"big": 2**200, "text": "Grüße \u2028 \U0001f9ab", "deep": [[[{}]]]}
        assert await world.result(1, "first", value) == value
        raw = b'{"n": 100000000000000000000000000000000000000000000001, "x": 1.10}'
        assert (await world.call(1, "echo", raw)).result == raw

    in_world(tmp_path, test)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_exception_is_a_failure_with_the_jobs_own_traceback(
    tmp_path: Path, executor: str
) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "boom", "what went wrong")
        assert outcome.kind == OutcomeKind.FAILED
        assert outcome.error.startswith("ValueError: what went wrong")
        assert "in boom" in outcome.error
        assert "beaver/workers" not in outcome.error

    in_world(tmp_path, test, executor=executor)


def test_a_long_error_keeps_its_head_and_tail(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "boom", "start " + "ä" * 50_000 + " end")
        assert len(outcome.error.encode()) <= ERROR_BYTES_MAX
        assert outcome.error.startswith("ValueError: start")
        assert outcome.error.endswith(" end")
        assert "left out" in outcome.error

    in_world(tmp_path, test)


def test_what_a_job_raises_or_returns_steers_its_outcome(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        retry = await world.call(1, "steer", "retry")
        assert (retry.kind, retry.delay_ms, retry.error) == (OutcomeKind.FAILED, 2500, "not yet")
        caused = await world.call(1, "steer", "retry_from")
        assert (caused.kind, caused.delay_ms) == (OutcomeKind.FAILED, None)
        assert "the cause" in caused.error
        snooze = await world.call(1, "steer", "return_snooze")
        assert (snooze.kind, snooze.delay_ms) == (OutcomeKind.SNOOZE, 3000)
        cancel = await world.call(1, "steer", "cancel")
        assert (cancel.kind, cancel.error) == (OutcomeKind.CANCELLED, "unwanted")
        dead = await world.call(1, "steer", "dead")
        assert (dead.kind, dead.error) == (OutcomeKind.DEAD, "hopeless")
        left = await world.call(1, "steer", "exit")
        assert left.kind == OutcomeKind.FAILED
        assert "sys.exit(4)" in left.error
        bad = await world.call(1, "steer", "bad_delay")
        assert bad.kind == OutcomeKind.FAILED
        assert "delay" in bad.error
        assert await world.result(1, "steer", "plain") == "plain"
        assert len(world.events.pids) == 1, "all of it ran in one worker"

    in_world(tmp_path, test)


@pytest.mark.parametrize("how", ["object", "surrogate", "large", "deep"])
def test_a_result_that_cannot_be_kept_is_dead_and_says_why(tmp_path: Path, how: str) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "unwritable", how)
        assert outcome.kind == OutcomeKind.DEAD
        wanted = str(RESULT_BYTES_MAX) if how == "large" else "cannot be written as JSON"
        assert wanted in outcome.error

    in_world(tmp_path, test)


def test_a_payload_that_fits_no_call_is_dead_and_names_the_parameters(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "add", {"x": 1, "y": 2})
        assert outcome.kind == OutcomeKind.DEAD, "an object is no `int`, the first argument"
        outcome = await world.call(1, "have_children", [1, 2])
        assert outcome.kind == OutcomeKind.DEAD
        assert "have_children" in outcome.error
        assert "count, fail" in outcome.error

    in_world(tmp_path, test)


def test_an_unknown_task_fails_the_attempt_and_not_the_worker(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "no_such_task")
        assert outcome.kind == OutcomeKind.FAILED
        assert "no_such_task" in outcome.error
        assert await world.result(1, "add", 1) == 11

    in_world(tmp_path, test)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_children_travel_with_the_success_and_only_with_it(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "have_children", {"count": 3, "fail": False})
        assert outcome.kind == OutcomeKind.OK
        assert [child.id for child in outcome.children] == msgspec.json.decode(outcome.result)
        assert outcome.children[-1].id == "a-child"
        assert msgspec.json.decode(outcome.children[1].payload) == {"args": [1], "kwargs": {"b": 1}}
        failed = await world.call(1, "have_children", {"count": 3, "fail": True})
        assert failed.kind == OutcomeKind.FAILED
        assert failed.children == ()

    in_world(tmp_path, test, executor=executor)


def test_more_children_than_an_ack_carries_fail_the_attempt(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "have_children", {"count": 1000, "fail": False})
        assert outcome.kind == OutcomeKind.FAILED
        assert "1000" in outcome.error

    in_world(tmp_path, test)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_payloads_and_results_of_a_mebibyte_pass(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        text = "x" * ((1 << 20) - 2)
        tokens = [world.send(1, "first", text) for _ in range(8)]
        for token in tokens:
            assert len((await world.outcome(token)).result) == 1 << 20
        assert await world.result(1, "add", 1) == 11

    in_world(tmp_path, test, executor=executor, concurrency=2)


def test_more_attempts_than_the_socket_takes_arrive_in_order(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        body = {"args": ["y" * 10_000], "kwargs": {}}
        attempts = [world.attempt("first", body) for _ in range(500)]
        world.pool.dispatch(1, attempts)
        await until(lambda: len(world.events.order) == 500)
        assert world.events.order == [attempt.token for attempt in attempts]

    in_world(tmp_path, test)
