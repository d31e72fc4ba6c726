"""What jobs print and log carries their id; the built-in tasks."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest

from beaver.structs.messages import OutcomeKind
from beaver.task.programs import Programs
from tests.worlds.workers import World, alive, in_world, until

EXECUTORS = ["process", "thread", "async"]
ANY = Programs(any_of_ours=True)
LOCAL, HTTP, JOB = 0, 1, 2
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_line_of_a_job_carries_its_id(
    tmp_path: Path, executor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(world: World) -> None:
        await world.call(1, "say", {"text": "hello"}, job="order-17")

    in_world(tmp_path, test, executor=executor)
    out, err = capfd.readouterr()
    assert "[order-17] out hello\n" in out
    assert "[order-17] err hello\n" in err
    assert any(
        re.fullmatch(rf"{TIME} say \[order-17\] [A-Z]+ shop: log hello", line)
        for line in err.splitlines()
    )
    assert "[order-17] unended\n" in out
    assert "[order-17] begun" in out
    assert "bytes" in out
    if executor == "process":
        assert "[order-17] begun by a thread\n" in out, "one job at a time: its threads are known"


def test_output_of_jobs_at_once_does_not_mix_within_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(world: World) -> None:
        tokens = [world.send(1, "say_slowly", letter, job=letter) for letter in "abcd"]
        for token in tokens:
            await world.outcome(token)

    in_world(tmp_path, test, executor="thread", concurrency=4)
    lines = capfd.readouterr().out.splitlines()
    told = sorted(line.split(" ", 2)[2] for line in lines)
    assert told == [f"say_slowly [{letter}] {letter * 50}" for letter in "abcd"]


def test_output_as_json_names_job_and_stream(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(world: World) -> None:
        await world.call(1, "say", {"text": "hello"}, job="order-17")

    in_world(tmp_path, test, log_format="json")
    out, err = capfd.readouterr()
    first = json.loads(out.splitlines()[0])
    assert abs(first.pop("time_ms") - time.time() * 1000) < 60_000
    assert first == {
        "task": "say",
        "job": "order-17",
        "attempt": 1,
        "stream": "stdout",
        "line": "out hello",
    }
    records = [json.loads(line) for line in err.splitlines()]
    assert "stderr" in [record.get("stream") for record in records]
    (logged,) = [record for record in records if record.get("logger") == "shop"]
    assert (logged["message"], logged["job"], logged["task"]) == ("log hello", "order-17", "say")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_cannot_be_seen_in_the_output_of_a_job_is_escaped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], log_format: str
) -> None:
    """Colours, bidirectional overrides, zero-width characters and separators steer no terminal."""

    async def test(world: World) -> None:
        await world.call(
            1, "say", {"text": "a\x1b[31m\u202eb\u200bc\u2028d\te\r\x85"}, job="x\u2066y"
        )

    in_world(tmp_path, test, log_format=log_format)
    out, err = capfd.readouterr()
    for shown in (out, err):
        assert not set(shown) & set("\x1b\u202e\u200b\u2028\u2066\r\x85")
    if log_format == "text":
        assert "[x\\u2066y] out a\\x1b[31m\\u202eb\\u200bc\\u2028d\te\\x0d\\x85\n" in out


@pytest.mark.parametrize("executor", EXECUTORS)
def test_echo_returns_its_payload_sleeps_and_fails_as_told(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        for raw in (b"null", b"[1, 2.50]", b'{"value": 42}', b'"text"'):
            assert (await world.call(1, "echo", raw)).result == raw
        slow = await world.call(1, "echo", {"sleep_ms": 60})
        assert slow.elapsed_ms >= 60
        failing = {"fail": 2}
        for number, kind in ((1, OutcomeKind.FAILED), (2, OutcomeKind.FAILED), (3, OutcomeKind.OK)):
            assert (await world.call(1, "echo", failing, attempt=number)).kind == kind
        for wrong in ({"sleep_ms": -1}, {"sleep_ms": "1"}, {"fail": True}, {"fail": None}):
            assert (await world.call(1, "echo", wrong)).kind == OutcomeKind.DEAD

    in_world(tmp_path, test, executor=executor, app="")


@pytest.mark.parametrize("executor", ["thread", "async"])
def test_a_sleeping_echo_can_be_stopped_softly(tmp_path: Path, executor: str) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "echo", {"sleep_ms": 60_000}, timeout_ms=100)
        assert outcome.kind == OutcomeKind.TIMED_OUT

    in_world(tmp_path, test, executor=executor, app="")


def test_exec_exists_only_where_it_is_allowed(tmp_path: Path) -> None:
    async def forbidden(world: World) -> None:
        assert [task.options.task for task in world.tasks] == ["echo"]
        outcome = await world.call(1, "exec", {"argv": ["true"]})
        assert outcome.kind == OutcomeKind.FAILED

    async def allowed(world: World) -> None:
        assert [task.options.task for task in world.tasks] == ["echo", "exec"]

    in_world(tmp_path, forbidden, app="")
    in_world(tmp_path, allowed, app="", programs=ANY)


def test_exec_runs_a_program_and_shows_its_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(world: World) -> None:
        script = "import os, sys; print('to out'); print(os.getcwd(), os.environ['EXTRA']);"
        script += "print('to err', file=sys.stderr); print('end', end='')"
        payload = {
            "argv": [sys.executable, "-c", script],
            "cwd": str(tmp_path),
            "env": {"EXTRA": "more", "BEAVER_STORE": "hidden"},
        }
        result = await world.result(1, "exec", payload, job="x")
        assert result["exit"] == 0
        assert result["seconds"] > 0
        assert "to out" in result["output_tail"]
        assert f"{tmp_path} more" in result["output_tail"]

    in_world(tmp_path, test, app="", programs=ANY)
    out = capfd.readouterr().out
    assert "[x] to out\n" in out
    assert "[x] to err\n" in out
    assert "[x] end\n" in out


def test_exec_keeps_the_tail_of_a_long_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(world: World) -> None:
        script = "for n in range(100000): print('line', n)"
        result = await world.result(1, "exec", {"argv": [sys.executable, "-c", script]})
        assert len(result["output_tail"]) <= 4096
        assert result["output_tail"].endswith("line 99999\n")

    in_world(tmp_path, test, app="", programs=ANY)
    assert capfd.readouterr().out.count("\n") == 100_000


@pytest.mark.parametrize(
    ("payload", "fields", "kind", "text"),
    [
        (
            {"argv": ["sh", "-c", "echo oops; exit 3"]},
            {},
            OutcomeKind.FAILED,
            "exited with 3\noops",
        ),
        ({"argv": ["sh", "-c", "kill -9 $$"]}, {}, OutcomeKind.FAILED, "killed by signal 9"),
        ({"argv": ["/no/such/program"]}, {}, OutcomeKind.FAILED, "cannot be started"),
        ({"argv": ["true"]}, {"origin": 1}, OutcomeKind.DEAD, "local socket"),
        ({"argv": ["true"]}, {"origin": 2}, OutcomeKind.DEAD, "local socket"),
        ({"argv": []}, {}, OutcomeKind.DEAD, "argv"),
        ({"argv": "true"}, {}, OutcomeKind.DEAD, "argv"),
        ({"argv": ["true"], "shell": True}, {}, OutcomeKind.DEAD, "shell"),
        (None, {}, OutcomeKind.DEAD, "wrong"),
    ],
)
def test_exec_that_cannot_succeed_says_why(
    tmp_path: Path, payload: object, fields: dict[str, int], kind: OutcomeKind, text: str
) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "exec", payload, **fields)
        assert outcome.kind == kind
        assert text in outcome.error

    in_world(tmp_path, test, app="", programs=ANY)


@pytest.mark.parametrize(
    ("programs", "origin", "payload", "said"),
    [
        (Programs(True, ("/bin/sh",)), LOCAL, {"argv": ["true"]}, ""),
        (Programs(True, ("/bin/sh",)), HTTP, {"argv": ["/bin/sh", "-c", "true"]}, ""),
        (Programs(True, ("/bin/sh",)), HTTP, {"argv": ["sh", "-c", "true"]}, "letter by letter"),
        (Programs(True, ("/bin/sh",)), HTTP, {"argv": ["/bin//sh"]}, "letter by letter"),
        (Programs(True, ("/bin/sh",)), HTTP, {"argv": ["/bin/sh"], "cwd": "/"}, "no `cwd`"),
        (Programs(True, ("/bin/sh",)), HTTP, {"argv": ["/bin/sh"], "env": {"A": "1"}}, "no `env`"),
        (Programs(True, ("/bin/sh",)), JOB, {"argv": ["/bin/sh"]}, "another job"),
        (Programs(False, ("/bin/sh",)), LOCAL, {"argv": ["/bin/sh", "-c", "true"]}, ""),
        (Programs(False, ("/bin/sh",)), LOCAL, {"argv": ["true"]}, "without allow_exec"),
        (Programs(True), HTTP, {"argv": ["/bin/sh"]}, "local socket only"),
    ],
)
def test_exec_runs_what_is_listed_for_others_and_nothing_else(
    tmp_path: Path, programs: Programs, origin: int, payload: object, said: str
) -> None:
    async def test(world: World) -> None:
        outcome = await world.call(1, "exec", payload, origin=origin)
        assert outcome.kind == (OutcomeKind.DEAD if said else OutcomeKind.OK)
        assert said in outcome.error

    in_world(tmp_path, test, app="", programs=programs)


def test_exec_does_not_wait_for_what_its_program_left_in_the_background(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        result = await world.result(1, "exec", {"argv": ["sh", "-c", "sleep 1000 & echo done"]})
        assert result["output_tail"] == "done\n"

    in_world(tmp_path, test, app="", programs=ANY)


def test_the_program_of_a_killed_exec_dies_with_the_worker(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        pid = tmp_path / "pid"
        script = f"echo $$ > {pid}; sleep 1000; true"
        world.send(1, "exec", {"argv": ["sh", "-c", script]})
        await until(lambda: pid.exists() and pid.read_text().strip())
        program = int(pid.read_text())
        world.pool.kill(1)
        await until(lambda: world.events.exits)
        assert not alive(program)

    in_world(tmp_path, test, app="", programs=ANY)
