"""The command line against a running server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Serving, serving

END_S = 30


def end(server: Serving, number: int = signal.SIGTERM) -> tuple[int, str, str]:
    server.send_signal(number)
    out, err = server.communicate(timeout=END_S)
    return server.returncode, out, err


def test_a_server_says_when_it_is_ready_and_where_it_listens(beaver: Command) -> None:
    with serving("--http", "127.0.0.1:0") as server:
        info = json.loads(Path("data/server.json").read_bytes())
        assert info["pid"] == server.pid
        assert {"pid", "socket", "http", "started_ms", "epoch", "store"} <= set(info)
        assert info["socket"] in server.ready
        view = beaver("status", "--json").one
        assert (view["running"], view["epoch"], len(view["workers"])) == (True, 1, 1)
        assert "a server runs on data" in beaver("status").out
        assert end(server)[0] == 0
    assert not Path("data/server.json").exists()
    assert beaver("status", "--json").one["running"] is False


def test_waiting_gives_the_results_and_the_exit_code_of_failure(beaver: Command) -> None:
    with serving():
        told = beaver("enqueue", "echo", '{"value": 42}', "--id", "a", "--wait")
        assert told.code == 0
        assert told.out == 'enqueued a (seq 2)\na completed: {"value": 42}\n'
        told = beaver("enqueue", "echo", '{"fail": 9}', "--max-attempts", 1, "--id", "b", "--wait")
        assert told.code == 1
        assert "b dead: " in told.out
        file = Path("jobs.jsonl")
        again = {"id": "b", "payload": {"fail": 9}, "max_attempts": 1}
        file.write_text(json.dumps({"id": "c", "payload": 1}) + "\n" + json.dumps(again))
        told = beaver("enqueue", "--file", file, "--wait", "--json")
        assert told.code == 1
        assert [line.get("state") for line in told.json] == [None, None, "completed", "dead"]
        assert told.json[2]["result"] == 1


def test_a_wait_that_takes_too_long_ends_with_5_and_the_job_goes_on(beaver: Command) -> None:
    with serving():
        told = beaver(
            "enqueue", "echo", '{"sleep_ms": 60000}', "--id", "a", "--wait-timeout", "100ms"
        )
        assert told.code == 5
        assert told.err == "beaver: job a has not ended after 0.1 s; it goes on\n"
        assert beaver("show", "a", "--json").one["state"] in ("pending", "in_flight")


def test_operators_change_a_running_queue(beaver: Command) -> None:
    with serving():
        assert beaver("pause", "work").out == "work paused, 0 jobs pending\n"
        beaver("enqueue", "echo", "--id", "a", "--queue", "work")
        assert "Its queue work is paused" in beaver("explain", "a").out
        assert beaver("list", "--queue", "work", "--json").one["waiting"] == "paused"
        assert beaver("cancel", "a").out == "a cancelled\n"
        assert beaver("retry", "a").out == "a pending\n"
        assert beaver("discard", "a").code == 0
        assert beaver("resume", "work").out == "work resumed, 0 jobs pending\n"
        assert beaver("cancel", "nobody").code == 6
        events = [e["event"] for e in beaver("explain", "a", "--json").one["events"]]
        assert events == ["ENQUEUE", "CANCEL", "REQUEUE", "DISCARD"]


def test_a_file_in_chunks_goes_through_the_server(beaver: Command) -> None:
    lines = "\n".join(f'{{"id": "job-{n}"}}' for n in range(4_500))
    with serving():
        told = beaver("enqueue", "--file", "-", "--chunked", "--wait", stdin=lines)
        assert told.code == 0
        assert told.out.startswith("4500 jobs enqueued (seq ")
        assert beaver("status", "--json").one["completed"] == 4_500


def test_of_a_file_in_chunks_that_ends_badly_what_is_in_is_counted(beaver: Command) -> None:
    lines = [f'{{"id": "job-{n}"}}' for n in range(4_500)]
    with serving():
        told = beaver("enqueue", "--file", "-", "--chunked", stdin="\n".join([*lines, "{"]))
        assert told.code == 2
        assert "Before it 4000 jobs came in" in told.err
        told = beaver("enqueue", "--file", "-", "--chunked", stdin="\n".join(lines))
        assert told.out.startswith("500 jobs enqueued")


def test_a_job_of_a_task_that_no_worker_knows_is_explained_with_near_names(beaver: Command) -> None:
    with serving():
        beaver("enqueue", "ecoh", "--id", "a")
        told = beaver("explain", "a").out
        assert "No worker knows its task ecoh. Similar tasks: echo." in told


def test_a_burst_names_what_it_leaves_and_ends_with_0_though_a_job_died(beaver: Command) -> None:
    beaver("enqueue", "nobody", "--id", "a")
    beaver("enqueue", "echo", '{"fail": 9}', "--id", "b", "--max-attempts", 1)
    beaver("enqueue", "echo", "--id", "c", "--in", "200ms")
    with serving("--burst") as server:
        out, _ = server.communicate(timeout=END_S)
    assert server.returncode == 0
    assert "nobody" in out
    view = beaver("status", "--json").one
    assert (view["completed"], view["dead"], view["pending"]) == (1, 1, 1)


def test_an_application_that_cannot_be_imported_ends_with_2_and_touches_nothing(
    beaver: Command,
) -> None:
    with serving("-A", "no_such_module:app") as server:
        _, err = server.communicate(timeout=END_S)
    assert server.returncode == 2, err
    assert err.lower().count("no module named 'no_such_module'") == 1
    assert not Path("data").exists()


def test_an_explicit_address_that_is_taken_ends_with_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with serving("--http", address) as server:
            _, err = server.communicate(timeout=END_S)
    assert server.returncode == 2, err
    assert address in err


SLOW_TO_END = """
import asyncio, sys
from beaver.cli.main import main
from beaver.workers.pool import ProcessPool

stop = ProcessPool.stop

async def stop_later(self):
    await asyncio.sleep(0.3)
    await stop(self)

ProcessPool.stop = stop_later
sys.exit(main())
"""


def test_a_start_that_fails_says_why_however_long_its_end_takes(tmp_path: Path) -> None:
    """An engine that outlived its log found that closed, and ended the process with 7."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = ["run", "--data", str(tmp_path / "data"), "--http", address]
        ended = subprocess.run(
            [sys.executable, "-c", SLOW_TO_END, *command],
            capture_output=True,
            text=True,
            timeout=END_S,
            check=False,
        )
    assert (ended.returncode, "is closed" in ended.stderr) == (2, False), ended.stderr
    assert address in ended.stderr


def test_a_second_signal_ends_a_server_at_once_and_nothing_is_lost(beaver: Command) -> None:
    with serving("--grace", "10m") as server:
        beaver("enqueue", "echo", '{"sleep_ms": 600000}', "--id", "a")
        deadline = time.monotonic() + END_S
        while beaver("show", "a", "--json").one["state"] != "in_flight":
            assert time.monotonic() < deadline
        os.kill(server.pid, signal.SIGTERM)
        assert server.stderr is not None
        while (line := server.stderr.readline()) and "stopping" not in line:
            pass
        assert end(server, signal.SIGINT)[0] == 128 + signal.SIGINT
    assert beaver("show", "a", "--json").one["state"] in ("in_flight", "pending")


@pytest.mark.parametrize("length", [200])
def test_long_data_paths_work(beaver: Command, tmp_path: Path, length: int) -> None:
    data = tmp_path / ("d" * max(1, length - len(str(tmp_path)) - 1))
    with serving(data=data):
        told = beaver("enqueue", "echo", "7", "--id", "a", "--wait", "--data", data)
        assert (told.code, told.out) == (0, "enqueued a (seq 2)\na completed: 7\n")
