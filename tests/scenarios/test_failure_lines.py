"""Whoever reads only the log hears of every failure, once, with job, cause and what to do."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from beaver.client.opening import open_client
from beaver.request.requests import make_request
from beaver.server.failure_log import LINES_BY_TASK
from tests.support.program import BEAVER, Server, beaver, environment, eventually, serving

HERE = Path(__file__).parent


def send(data: Path, task: str, payload: Any = None, count: int = 1, **options: Any) -> None:
    ids = [f"{task}-{number}" for number in range(count)]
    with closing(open_client(str(data))) as client:
        client.enqueue([make_request(task, payload, id=job, **options) for job in ids])


def ended(server: Server, count: int) -> None:
    def all_ended() -> bool:
        now = server.status()
        return bool(now["dead"] + now["completed"] >= count)

    eventually(all_ended, f"{count} jobs have ended")


def run(data: Path, *arguments: str, **env: Any) -> AbstractContextManager[Server]:
    return serving(data, "-A", "failing:app", "--workers", "1", *arguments, cwd=HERE, **env)


def test_each_retry_timeout_and_death_is_one_line_with_all_that_is_needed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with run(data) as server:
        send(data, "charge", 7, max_attempts=2)
        send(data, "too_slow", max_attempts=2)
        send(data, "dies", max_attempts=1)
        ended(server, 3)
    told = "".join(server.stderr)
    lines = [line for line in server.stderr if re.search(r"RETRY|TIMEOUT|DEAD", line)]
    patterns = [
        r"WARNING .*RETRY job charge-0, task charge, queue default, attempt 1 of 2, cause failed",
        r"RETRY job charge-0, .*, again in \d+ms: ValueError: card 7 is refused\\u202e$",
        r"ERROR .*DEAD job charge-0, task charge, .*attempt 2 of 2, cause failed: ValueError",
        r"WARNING .*TIMEOUT job too_slow-0, .*attempt 1 of 2, cause time_limit, .*ran longer",
        r"ERROR .*DEAD job too_slow-0, .*attempt 2 of 2, cause time_limit: ran longer",
        r"ERROR .*DEAD job dies-0, .*attempt 1 of 1, cause worker_lost: its worker exited with 3$",
    ]
    for pattern in patterns:
        assert len([line for line in lines if re.search(pattern, line)]) == 1, (pattern, told)
    assert len(lines) == len(patterns) - 1, told
    assert told.count("in _card_is_refused") == 1, "the traceback comes with DEAD alone"
    assert "\u202e" not in told


def test_at_debug_every_failure_has_its_traceback(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with run(data, "--log-level", "debug") as server:
        send(data, "charge", 7, max_attempts=3)
        ended(server, 1)
    assert "".join(server.stderr).count("in _card_is_refused") == 3


def test_as_json_every_line_is_an_object_with_the_same_facts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with run(data, "--log-format", "json") as server:
        send(data, "charge", 7, max_attempts=2)
        send(data, "prints", "hello")
        ended(server, 2)
    objects = [json.loads(line) for line in [*server.stdout, *server.stderr]]
    ready = objects[0]
    assert ready["event"] == "READY"
    assert {"charge", "dies", "echo"} <= set(ready["tasks"])
    (retry,) = [each for each in objects if each.get("event") == "RETRY"]
    (dead,) = [each for each in objects if each.get("event") == "DEAD"]
    for failure in (retry, dead):
        assert failure["job"] == "charge-0"
        assert (failure["task"], failure["queue"], failure["cause"]) == (
            "charge",
            "default",
            "failed",
        )
        assert failure["error"].startswith("ValueError: card 7")
    assert (retry["level"], retry["attempt"], dead["level"], dead["attempt"]) == (
        "warning",
        1,
        "error",
        2,
    )
    assert "traceback" not in retry
    assert "in _card_is_refused" in dead["traceback"]
    (line,) = [each for each in objects if each.get("line") == "hello"]
    assert (line["job"], line["task"], line["stream"]) == ("prints-0", "prints", "stdout")
    assert abs(line["time_ms"] - time.time() * 1000) < 60_000


def test_what_a_burst_leaves_is_told_as_json_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    send(data, "nobody_knows")
    done = subprocess.run(
        [*BEAVER, "run", "--data", str(data), "--http", "off", "--burst", "--log-format", "json"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    told = [json.loads(line) for line in [*done.stdout.splitlines(), *done.stderr.splitlines()]]
    (left,) = [each for each in told if each.get("event") == "LEFT"]
    assert (left["count"], left["queue"]) == (1, "default")
    assert "nobody_knows" in left["message"]


def test_a_task_that_fails_in_masses_gets_a_few_lines_and_a_count(tmp_path: Path) -> None:
    """Nothing is left out in silence: lines and counts together make all."""
    data, count = tmp_path / "data", 200
    with run(data) as server:
        send(data, "charge", 7, count=count, max_attempts=1)
        ended(server, count)
    told = [line for line in server.stderr if "DEAD job" in line]
    left_out = [int(n) for n in re.findall(r"(\d+) more lines", "".join(server.stderr))]
    assert left_out
    assert len(told) + sum(left_out) == count
    assert len(told) <= LINES_BY_TASK * (len(left_out) + 1)


def test_what_a_dead_server_left_in_flight_is_told_at_the_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with run(data) as server:
        send(data, "waits", 60, max_attempts=1)
        eventually(lambda: server.status()["in_flight"], "it runs")
        eventually(lambda: server.status()["workers"][0]["job"], "it has started")
        server.kill()
    with run(data) as server:
        pass
    assert "DEAD job waits-0, task waits, queue default, attempt 1 of 1, cause node_lost" in (
        "".join(server.stderr)
    )


def test_the_traceback_of_the_last_attempt_stands_in_show_and_explain(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with run(data) as server:
        send(data, "charge", 7, max_attempts=2)
        ended(server, 1)
    for command in (["show"], ["explain"], ["show", "--json"], ["explain", "--json"]):
        shown = beaver(*command, "charge-0", "--data", str(data))
        assert "in _card_is_refused" in shown
        if "--json" not in command:
            assert "\u202e" not in shown
    with closing(open_client(str(data))) as client:
        failed = [event for event in client.history("charge-0") if event.error]
    assert [event.event for event in failed] == ["RETRY", "DEAD"]
    assert all("in _card_is_refused" in (event.error or "") for event in failed)


def test_an_application_without_tasks_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("from beaver import Beaver\napp = Beaver('data')\n")
    with serving(tmp_path / "data", "-A", "bare:app", cwd=tmp_path) as server:
        assert "tasks: echo" in server.ready()
    assert "bare:app has no tasks" in "".join(server.stderr)


@pytest.mark.parametrize("jobs", [0, 3], ids=["server alone", "with output of jobs"])
def test_a_log_reader_that_stalls_holds_nobody_up(tmp_path: Path, jobs: int) -> None:
    """Neither the server, which warns thousands of times, nor the jobs that print, nor the end."""
    data = tmp_path / "data"
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    arguments = ["-A", "failing:app", "--log-level", "debug"]
    process = subprocess.Popen(
        [*BEAVER, "run", "--data", str(data), "--http", "off", "--workers", "1", *arguments],
        stdout=write_end,
        stderr=write_end,
        cwd=HERE,
        env=environment(),
    )
    os.close(write_end)
    try:
        eventually((data / "server.json").exists, "it is ready")
        send(data, "prints_much", 500, count=jobs)
        if jobs == 0:
            send(data, "charge", 7, count=300, max_attempts=1)
        expected = jobs or 300

        def all_ended() -> bool:
            with closing(open_client(str(data))) as client:
                now = client.status()
            return now.dead + now.completed >= expected

        eventually(all_ended, "all jobs end, though nobody reads")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        with closing(open_client(str(data))) as client:
            assert client.status().completed == jobs
    finally:
        process.kill()
        process.wait()
        os.close(read_end)
