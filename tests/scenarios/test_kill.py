"""`kill -9` of server and workers: nothing acknowledged is lost, nothing completes twice."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.program import (
    Server,
    beaver,
    enqueue,
    events,
    events_of,
    eventually,
    processes_of,
    serving,
    status,
)

RECOVERY_MS_FLOOR = 3_000
"""The original plan's floor for a restart."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_hundred_jobs_survive_kill_9_in_the_middle_and_none_finishes_twice(data: Path) -> None:
    """The original plan's crash recovery: 100 jobs, stop in the middle, restart, all finish."""
    jobs = [{"id": f"job-{n}", "payload": {"sleep_ms": 20}} for n in range(100)]
    server = Server(data, "--workers", "4")
    server.ready()
    enqueue(data, *jobs)
    eventually(lambda: 20 <= status(data)["completed"] < 90, "it is in the middle")
    server.kill()
    middle = status(data)
    assert not middle["running"]
    with serving(data, "--workers", "4") as again:
        assert again.status()["recovery_ms"] < RECOVERY_MS_FLOOR
        again.drained(100)
    log = events(data)
    acked = Counter(event["job"] for event in log if event["event"] == "ACK")
    enqueued = Counter(event["job"] for event in log if event["event"] == "ENQUEUE")
    assert acked == enqueued == {job["id"]: 1 for job in jobs}
    beaver("verify", "--data", str(data))


def test_a_started_attempt_is_charged_and_a_waiting_one_is_not(data: Path) -> None:
    server = Server(data, "--workers", "1")
    server.ready()
    enqueue(data, {"id": "runs", "payload": {"sleep_ms": 60_000}}, {"id": "waits"})
    eventually(lambda: server.status()["workers"][0]["job"] == "runs", "it runs")
    server.kill()
    with serving(data, "--workers", "1", "--grace", "0s"):
        eventually(lambda: len(events_of(data, "runs")) >= 4, "it runs again")
    log = [event for event in events(data) if event["job"] == "runs"]
    assert [event["event"] for event in log[:4]] == ["ENQUEUE", "DISPATCH", "TIMEOUT", "DISPATCH"]
    assert log[2]["cause"] == "node_lost"
    assert log[3]["attempt"] == 2
    assert "TIMEOUT" not in events_of(data, "waits")


def test_a_token_that_the_log_never_came_to_charges_nothing_of_a_later_server(data: Path) -> None:
    """A job of a queue that has opted out of a durable DISPATCH started, and then all died."""
    server = Server(data, "--workers", "1")
    server.ready()
    server.kill()
    with (data / "slots").open("r+b") as slots:
        slots.seek(64 + 8)  # token and time of worker 1, and their check word
        slots.write(struct.pack("=QQQ", 10_000, 1, 10_000 ^ 1))
    server = Server(data, "--workers", "1")
    server.ready()
    worker = eventually(lambda: server.status()["workers"][0]["pid"], "its worker is ready")
    os.kill(worker, signal.SIGSTOP)
    enqueue(data, {"id": "waits"})
    eventually(lambda: server.status()["in_flight"] == 1, "the worker holds it")
    server.kill()
    with serving(data, "--workers", "1") as again:
        again.drained(1)
    assert events_of(data, "waits") == ["ENQUEUE", "DISPATCH", "RELEASE", "DISPATCH", "ACK"]


def test_kill_9_of_the_server_leaves_no_process_behind(data: Path) -> None:
    """Also not one that is busy, nor the children of a job."""
    server = Server(data, "--workers", "2", "--allow-exec")
    server.ready()
    enqueue(
        data,
        {"id": "shell", "task": "exec", "payload": {"argv": ["sh", "-c", "sleep 600 & sleep 600"]}},
        {"id": "busy", "payload": {"sleep_ms": 600_000}},
    )
    eventually(lambda: server.status()["in_flight"] == 2, "both run")
    eventually(lambda: len(processes_of(data)) >= 5, "zygote, workers and the job's children")
    server.kill()
    eventually(lambda: not processes_of(data), "every process of the store is gone", 5.0)


def test_a_killed_worker_costs_its_job_one_attempt_and_is_replaced(data: Path) -> None:
    with serving(data, "--workers", "2") as server:
        enqueue(
            data,
            {"id": "victim", "payload": {"sleep_ms": 1500}, "backoff": 1},
            {"id": "other", "payload": {"sleep_ms": 1500}},
        )
        eventually(lambda: server.status()["in_flight"] == 2, "both run")
        (pid,) = [w["pid"] for w in server.status()["workers"] if w["job"] == "victim"]
        os.kill(pid, signal.SIGKILL)
        server.drained(2)
    assert events_of(data, "victim") == ["ENQUEUE", "DISPATCH", "RETRY", "DISPATCH", "ACK"]
    assert events_of(data, "other") == ["ENQUEUE", "DISPATCH", "ACK"]
    (retry,) = [event for event in events(data) if event["event"] == "RETRY"]
    assert retry["cause"] == "worker_lost"
    assert "signal 9" in retry["error"]


def test_a_job_that_kills_its_worker_ends_in_dead(data: Path, tmp_path: Path) -> None:
    tmp_path.joinpath("poison.py").write_text(
        "import os, signal\n"
        "from beaver import Beaver\n"
        "app = Beaver('data')\n"
        "@app.job()\n"
        "def poison():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    enqueue(data, {"id": "p", "task": "poison", "max_attempts": 3, "backoff": 1})
    with serving(data, "-A", "poison:app", "--workers", "1", "--burst", cwd=tmp_path) as server:
        assert server.wait() == 0
    names = events_of(data, "p")
    assert names.count("DISPATCH") == 3
    assert names[-1] == "DEAD"


def test_a_restart_while_a_server_runs_names_the_holder(data: Path) -> None:
    with serving(data) as server:
        started = time.monotonic()
        second = Server(data)
        assert second.wait() == 3
        assert time.monotonic() - started >= 5.0, "it waits for the lock before it gives up"
        assert str(server.process.pid) in "".join(second.stderr)


def test_a_second_signal_ends_it_at_once_and_nothing_acknowledged_is_lost(data: Path) -> None:
    server = Server(data, "--workers", "1", "--grace", "10m")
    server.ready()
    enqueue(data, {"id": "long", "payload": {"sleep_ms": 600_000}})
    eventually(lambda: server.status()["in_flight"] == 1, "it runs")
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: any("stopping" in line for line in server.stderr), "it drains")
    server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 128 + signal.SIGTERM
    assert status(data)["in_flight"] == 1
    eventually(lambda: not processes_of(data), "every process is gone", 5.0)


def test_sigterm_gives_running_jobs_their_grace_and_releases_the_rest(data: Path) -> None:
    server = Server(data, "--workers", "1", "--grace", "30s")
    server.ready()
    enqueue(data, {"id": "short", "payload": {"sleep_ms": 300}}, {"id": "next"})
    eventually(lambda: server.status()["in_flight"] >= 1, "it runs")
    assert server.stop() == 0
    after = status(data)
    assert (after["completed"], after["pending"], after["in_flight"]) == (1, 1, 0)
    assert not (data / "server.json").exists()


def test_a_job_that_outlives_the_grace_is_released_without_spending_an_attempt(data: Path) -> None:
    server = Server(data, "--workers", "1", "--grace", "100ms")
    server.ready()
    enqueue(data, {"id": "long", "payload": {"sleep_ms": 600_000}})
    eventually(lambda: server.status()["workers"][0]["job"] == "long", "it runs")
    assert server.stop() == 0
    assert events_of(data, "long") == ["ENQUEUE", "DISPATCH", "RELEASE"]
    with serving(data, "--workers", "1", "--grace", "0s"):
        eventually(lambda: status(data)["in_flight"] == 1, "it runs again")
    last = [event for event in events(data) if event["event"] == "DISPATCH"][-1]
    assert last["attempt"] == 1
