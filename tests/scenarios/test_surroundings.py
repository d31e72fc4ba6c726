"""How a program is started, and what a system sends it: descriptors, limits, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.program import (
    BEAVER,
    Server,
    beaver,
    enqueue,
    environment,
    events_of,
    eventually,
    in_shell,
    run_beaver,
    serving,
    status,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


ALL = {"0": "<&-", "1": ">&-", "2": "2>&-", "0 1": "<&- >&-", "0 1 2": "<&- >&- 2>&-"}
"""Which descriptors are closed, and how a shell says so."""


@pytest.mark.parametrize("fds", ALL)
def test_a_server_runs_jobs_with_standard_descriptors_closed(data: Path, fds: str) -> None:
    """`<&-`, `>&-`, `2>&-`: nothing that is opened later is taken for one of the three."""
    enqueue(data, {"id": "a"})
    done = subprocess.run(
        in_shell(f"exec {ALL[fds]}", *BEAVER, "run", "--data", str(data), "--burst"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("beaver ready" in done.stdout) == ("1" not in fds)
    assert status(data)["completed"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the descriptors are looked up in /proc")
def test_a_job_has_standard_descriptors_where_the_server_has_none(
    data: Path, tmp_path: Path
) -> None:
    """What it prints goes nowhere, and into nothing that was opened by chance."""
    tmp_path.joinpath("jobs.py").write_text(
        "import os\nfrom beaver import Beaver\napp = Beaver('data')\n"
        "@app.job()\ndef where():\n    print('lost')\n"
        "    return [os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)]\n"
    )
    enqueue(data, {"id": "a", "task": "where"})
    subprocess.run(
        in_shell(f"exec {ALL['0 1 2']}", *BEAVER, "run", "-A", "jobs:app",
                 "--data", str(data), "--burst", "--http", "off"),
        timeout=60, check=True, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    view = json.loads(beaver("show", "a", "--data", str(data), "--json"))
    assert view["result"] == [os.devnull] * 3


@pytest.mark.parametrize("fds", ALL)
@pytest.mark.parametrize(
    ("command", "code"),
    [(["enqueue", "echo", "--id", "a"], 0), (["status"], 6), (["--help"], 0), (["nonsense"], 2)],
    ids=lambda value: str(value[0] if isinstance(value, list) else value),
)
def test_every_command_works_with_standard_descriptors_closed(
    tmp_path: Path, fds: str, command: list[str], code: int
) -> None:
    """It ends with its own exit code, and says what it has to say where somebody listens."""
    done = subprocess.run(
        in_shell(f"exec {ALL[fds]}", *BEAVER, *command),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=environment(),
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = done.stdout if code == 0 else done.stderr
    assert bool(said) == (("1" if code == 0 else "2") not in fds)


def test_a_limit_on_file_sizes_is_a_full_disk_to_a_server(data: Path) -> None:
    """`ulimit -f`: jobs are refused, those that were taken run."""
    enqueue(data, {"id": "before"})
    server = Server(data, "--workers", "1", first="ulimit -f 4096")
    try:
        server.ready()
        eventually(lambda: server.status()["disk_full"], "the server sees that no file fits")
        refused = run_beaver("enqueue", "echo", "--data", str(data))
        assert refused.returncode == 7
        assert "the disk is full" in refused.stderr
        server.drained(1)
        assert server.stop() == 0
        assert any("File too large" in line for line in server.stderr)
    finally:
        if server.process.poll() is None:
            server.kill()
    with serving(data) as again:
        enqueue(data, {"id": "after"})
        again.drained(2)


def test_a_limit_below_what_the_log_has_reached_is_named_and_loses_nothing(data: Path) -> None:
    """Not even BOOT could be logged: the start is refused, and says which limit it is."""
    text = json.dumps([{"id": f"job-{n}", "payload": "x" * 1_000} for n in range(1_000)])
    beaver("enqueue", "--file", "-", "--data", str(data), stdin=text)
    server = Server(data, "--workers", "1", first="ulimit -f 1024")
    assert server.wait() == 7
    assert "ulimit -f" in "".join(server.stderr)
    with serving(data) as again:
        again.drained(1_000)


@pytest.mark.parametrize("number", [signal.SIGQUIT])
def test_a_quit_is_a_gentle_end(data: Path, number: signal.Signals) -> None:
    """SIGQUIT is SIGTERM: a running job ends first, and is charged nothing."""
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "a", "payload": {"sleep_ms": 800}})
        eventually(lambda: server.status()["workers"][0]["job"] == "a", "it runs")
        server.process.send_signal(number)
        assert server.wait() == 0
    assert events_of(data, "a") == ["ENQUEUE", "DISPATCH", "ACK"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_for_the_server_ends_no_process_beside_it(
    data: Path, number: signal.Signals
) -> None:
    """A supervisor may send it to all of its service, workers and zygote included."""
    with serving(data, "--workers", "1", "--executor", "process") as server:
        enqueue(data, {"id": "a", "payload": {"sleep_ms": 800}})
        eventually(lambda: server.status()["workers"][0]["job"] == "a", "it runs")
        family = _below(server.process.pid)
        assert len(family) >= 2, "zygote and worker"
        for pid in family:
            os.kill(pid, number)
        server.drained(1)
    assert events_of(data, "a") == ["ENQUEUE", "DISPATCH", "ACK"]


def _below(pid: int) -> list[int]:
    """Pids of the processes below one, children before their own."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [pid for child in map(int, text.split()) for pid in (child, *_below(child))]


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
"""Runs a command while the directory `$0` is mounted read-only, for that command alone."""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts in a namespace of their own")
@pytest.mark.parametrize("killed", [False, True])
def test_a_read_only_directory_tells_everything(data: Path, killed: bool) -> None:
    """A backup that is mounted read-only tells of finished jobs what it told before."""
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "a", "payload": 7})
        eventually(lambda: server.status()["completed"] == 1, "it has run")
        eventually((data / "history.db").exists, "the index is there")
        if killed:
            server.kill()
    for beside in ("history.db-shm", "history.db-wal"):
        (data / beside).unlink(missing_ok=True)
    # Root needs no user namespace for it, which a container may not have.
    outside = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", READ_ONLY, str(data)]
    if subprocess.run([*outside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts may be made here")
    before = set(data.glob("history.db-*"))  # A kill may leave the journal of SQLite.
    for command in (["list", "--state", "completed"], ["show", "a"], ["explain", "a"]):
        done = subprocess.run(
            [*outside, *BEAVER, *command, "--data", str(data), "--json"],
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), command
        assert '"result":7' in done.stdout
    assert set(data.glob("history.db-*")) == before
