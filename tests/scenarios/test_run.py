"""`beaver run` beyond kills: limits, cancels, parking, bursts, metrics, failures to start."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from beaver.client.blocking import connect
from beaver.server.metrics import METRICS
from tests.support.program import (
    Server,
    beaver,
    enqueue,
    events,
    events_of,
    eventually,
    run_beaver,
    serving,
    status,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def app(path: Path, body: str) -> None:
    """Writes `jobs.py` with an application `app`."""
    path.joinpath("jobs.py").write_text(
        f"from beaver import Beaver, Cancel, Dead, Retry, Snooze\napp = Beaver('data')\n{body}"
    )


# -- limits ---------------------------------------------------------------------------------


def test_an_attempt_over_its_limit_is_killed_and_the_last_one_ends_in_dead(data: Path) -> None:
    slow = {"sleep_ms": 600_000}
    enqueue(
        data, {"id": "slow", "payload": slow, "timeout_ms": 150, "max_attempts": 2, "backoff": 10}
    )
    with serving(data, "--workers", "1", "--burst") as server:
        assert server.wait() == 0
    assert events_of(data, "slow") == ["ENQUEUE", "DISPATCH", "TIMEOUT", "DISPATCH", "DEAD"]
    timeout, dead = (e for e in events(data) if e["event"] in ("TIMEOUT", "DEAD"))
    assert timeout["cause"] == dead["cause"] == "time_limit"


def test_neighbours_of_a_killed_attempt_are_released_without_a_charge(data: Path) -> None:
    """Quick jobs teach the server to prefetch; then one of them hangs."""
    enqueue(data, *({"id": f"quick-{n}"} for n in range(50)))
    enqueue(data, {"id": "hangs", "payload": {"sleep_ms": 600_000}, "timeout_ms": 300},
            *({"id": f"behind-{n}"} for n in range(20)))  # fmt: skip
    with serving(data, "--workers", "1", "--grace", "0s") as server:
        server.drained(70)
    log = events(data)
    assert any(e["event"] == "TIMEOUT" and e["job"] == "hangs" for e in log)
    for n in range(20):
        names = [e["event"] for e in log if e["job"] == f"behind-{n}"]
        assert names[-1] == "ACK"
        assert set(names) <= {"ENQUEUE", "DISPATCH", "RELEASE", "ACK"}


def test_no_job_waits_behind_a_long_one_while_a_worker_is_idle(data: Path) -> None:
    """P5: what a busy worker holds goes to an idle one."""
    enqueue(data, *({"id": f"quick-{n}"} for n in range(50)))
    with serving(data, "--workers", "2", "--grace", "0s") as server:
        server.drained(50)
        enqueue(data, {"id": "long", "payload": {"sleep_ms": 600_000}},
                *({"id": f"short-{n}"} for n in range(40)))  # fmt: skip
        server.drained(90, within_s=20)
        assert server.status()["in_flight"] == 1


# -- operators -------------------------------------------------------------------------------


def test_a_running_job_is_cancelled_by_killing_it_and_an_idle_one_at_once(data: Path) -> None:
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "runs", "payload": {"sleep_ms": 600_000}}, {"id": "waits"})
        eventually(lambda: server.status()["workers"][0]["job"] == "runs", "it runs")
        beaver("pause", "default", "--data", str(data))
        beaver("cancel", "waits", "runs", "--data", str(data))
        eventually(lambda: server.status()["cancelled"] == 2, "both are cancelled")
        assert events_of(data, "runs")[-2:] == ["CANCEL_REQUESTED", "CANCEL"]
        assert events_of(data, "waits")[-1] == "CANCEL"
        beaver("retry", "waits", "--data", str(data))
        beaver("resume", "default", "--data", str(data))
        server.drained(1)
        beaver("discard", "runs", "--data", str(data))
    assert events_of(data, "waits")[-3:] == ["REQUEUE", "DISPATCH", "ACK"]
    assert events_of(data, "runs")[-1] == "DISCARD"


def test_an_unknown_task_parks_its_jobs_and_explain_suggests_a_near_name(
    data: Path, tmp_path: Path
) -> None:
    app(tmp_path, "@app.job()\ndef send_mail():\n    return 'sent'\n")
    with serving(data, "-A", "jobs:app", cwd=tmp_path):
        enqueue(data, {"id": "typo", "task": "send_mial"}, {"id": "fine", "task": "send_mail"})
        eventually(lambda: status(data)["completed"] == 1, "the known task ran")
        text = beaver("explain", "typo", "--data", str(data))
        assert "No worker knows" in text
        assert "send_mail" in text
        view = json.loads(beaver("explain", "typo", "--data", str(data), "--json"))
        assert (view["waiting"], view["near_tasks"]) == ("unknown_task", ["send_mail"])


def test_a_burst_waits_for_retries_and_schedules_and_names_what_it_leaves(
    data: Path, tmp_path: Path
) -> None:
    enqueue(data, {"id": "fails", "payload": {"fail": 2}, "backoff": 50},
            {"id": "later", "delay": 0.4}, {"id": "dies", "payload": {"fail": 9}, "backoff": 1,
            "max_attempts": 2}, {"id": "strange", "task": "nobody_knows"},
            {"id": "paused", "queue": "off"})  # fmt: skip
    beaver("pause", "off", "--data", str(data))
    with serving(data, "--burst") as server:
        assert server.wait() == 0
    after = status(data)
    assert (after["completed"], after["dead"], after["pending"]) == (2, 1, 2)
    said = "".join(server.stdout)
    assert "paused queue off" in said
    assert "no worker for task nobody_knows" in said


def test_steering_from_a_job(data: Path, tmp_path: Path) -> None:
    app(
        tmp_path,
        "@app.job()\ndef dead():\n    raise Dead('no use')\n"
        "@app.job()\ndef cancel():\n    return Cancel('not needed')\n"
        "@app.job()\ndef children(ctx: 'JobContext'):\n"
        "    ctx.enqueue(leaf, 1)\n    ctx.enqueue(leaf, 2)\n    return 'done'\n"
        "@app.job()\ndef leaf(n):\n    return n\n"
        "from beaver import JobContext\n",
    )
    with serving(data, "-A", "jobs:app", cwd=tmp_path) as server:
        enqueue(data, *({"id": name, "task": name} for name in ("dead", "cancel", "children")))
        eventually(lambda: server.status()["dead"] == 1, "dead")
        eventually(lambda: server.status()["cancelled"] == 1, "cancelled")
        server.drained(3)
    log = events(data)
    ack = next(e for e in log if e["event"] == "ACK" and e["job"] == "children")
    leaves = [e for e in log if e["event"] == "ENQUEUE" and e.get("parent") == "children"]
    assert [leaf["seq"] for leaf in leaves] == [ack["seq"] + 1, ack["seq"] + 2]


def test_show_tells_all_of_a_completed_job_with_and_without_a_server(data: Path) -> None:
    def shown() -> dict[str, object]:
        view = json.loads(beaver("show", "a", "--data", str(data), "--json"))
        return {name: view[name] for name in ("state", "task", "queue", "attempt", "payload")} | {
            "result": view["result"]
        }

    expected = {"state": "completed", "task": "echo", "queue": "q", "attempt": 2}
    expected |= {"payload": {"fail": 1}, "result": {"fail": 1}}
    enqueue(data, {"id": "a", "queue": "q", "payload": {"fail": 1}, "backoff": 1})
    with serving(data) as server:
        server.drained(1)
        assert shown() == expected
    assert shown() == expected


# -- what it listens on ----------------------------------------------------------------------


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_health_and_readiness_over_http(data: Path) -> None:
    with serving(data, "--http", "127.0.0.1:0") as server:
        enqueue(data, *({"id": str(n)} for n in range(5)), {"id": "d", "payload": {"fail": 1},
                "max_attempts": 1})  # fmt: skip
        server.drained(5)
        address = json.loads((data / "server.json").read_text())["http"]
        assert fetch(f"{address}/healthz") == (200, "ok\n")
        assert fetch(f"{address}/readyz") == (200, "ready\n")
        assert fetch(f"{address}/v1/status")[0] == 401
        code, text = fetch(f"{address}/metrics")
    assert code == 200
    for name in METRICS:
        assert f"# HELP {name.removesuffix('_total')}" in text, name
    assert "queue_jobs_enqueued_total 6.0" in text
    assert "queue_jobs_completed_total 5.0" in text
    assert "queue_jobs_dead_total 1.0" in text
    assert 'queue_jobs_pending{queue="default"} 0.0' in text
    assert "queue_job_latency_seconds_count 5.0" in text


def test_an_address_that_was_asked_for_and_is_taken_is_refused(data: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        server = Server(data, "--http", f"127.0.0.1:{port}")
        assert server.wait() == 2
        assert str(port) in "".join(server.stderr)


def test_files_are_private(data: Path) -> None:
    with serving(data) as server:
        enqueue(data, {"id": "a"})
        server.drained(1)
        modes = {path.name: path.stat().st_mode & 0o777 for path in data.rglob("*")}
        assert data.stat().st_mode & 0o777 == 0o700
    for name, mode in modes.items():
        assert mode == (0o700 if name == "archive" else 0o600), name


def test_a_data_path_of_200_bytes_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    data = Path(str(deep).ljust(210, "x")[:210])
    assert len(os.fsencode(data)) >= 200
    with serving(data) as server:
        enqueue(data, {"id": "a"})
        server.drained(1)


# -- failures to start ----------------------------------------------------------------------


def test_an_import_failure_is_shown_once_and_touches_nothing(data: Path, tmp_path: Path) -> None:
    app(tmp_path, "raise RuntimeError('broken on purpose')\n")
    server = Server(data, "-A", "jobs:app", cwd=tmp_path)
    assert server.wait() == 2
    assert "".join(server.stderr).count("broken on purpose") <= 2, "the line and the message"
    assert not data.exists()


def test_a_data_directory_that_is_a_file_is_refused(data: Path) -> None:
    data.write_text("not a directory")
    server = Server(data)
    assert server.wait() == 3
    assert "not a directory" in "".join(server.stderr)
    assert data.read_text() == "not a directory"


def test_a_reading_command_creates_nothing(data: Path) -> None:
    for command in (["status"], ["list"], ["show", "x"], ["explain", "x"]):
        assert run_beaver(*command, "--data", str(data)).returncode == 6
    assert not data.exists()


# -- the original floors --------------------------------------------------------------------


@pytest.mark.bench
def test_a_thousand_jobs_run_at_well_over_200_a_second(data: Path) -> None:
    enqueue(data, *({"id": str(n)} for n in range(1_000)))
    with serving(data, "--workers", "4"), closing(connect(str(data))) as client:
        started = time.monotonic()
        eventually(lambda: client.status().completed >= 1_000, "all have completed")
        assert 1_000 / (time.monotonic() - started) >= 200
