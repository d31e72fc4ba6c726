"""Whose a data directory is, and whose the processes are that were started for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.program import (
    BEAVER,
    Server,
    beaver,
    enqueue,
    environment,
    events,
    events_of,
    eventually,
    processes_of,
    serving,
    status,
)
from tests.worlds.workers import alive

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def copy_of(data: Path) -> Path:
    """A copy as a user makes it; of a running store, so that a file may vanish meanwhile."""
    copy = data.with_name("copy")
    subprocess.run(["cp", "-a", str(data), str(copy)], check=False)
    assert (copy / "wal.log").exists()
    return copy


# -- processes ----------------------------------------------------------------------------------


@linux_only
def test_a_server_of_a_copy_kills_nothing_of_the_original(data: Path) -> None:
    """Both hold the same store id, and the copy holds the original's slots and `server.json`."""
    with serving(data, "--workers", "1") as original:
        enqueue(data, {"id": "long", "payload": {"sleep_ms": 4_000}})
        eventually(lambda: original.status()["workers"][0]["job"] == "long", "it runs")
        worker, marked = original.status()["workers"][0]["pid"], processes_of(data)
        copy = copy_of(data)
        with serving(copy, "--workers", "1", "--grace", "0s") as other:
            eventually(lambda: other.status()["workers"][0]["pid"], "the copy has its worker")
            assert worker in processes_of(data)
            assert not set(processes_of(copy)) & set(marked)
        original.drained(1)
    assert events_of(data, "long") == ["ENQUEUE", "DISPATCH", "ACK"]


@linux_only
def test_processes_of_a_store_that_its_server_has_made_carry_its_mark(data: Path) -> None:
    """When the zygote started, there was no store, and nothing to mark it with."""
    with serving(data, "--workers", "2", "--allow-exec") as server:
        enqueue(data, {"task": "exec", "payload": {"argv": ["sleep", "600"]}})
        eventually(lambda: server.status()["in_flight"], "it runs")
        eventually(lambda: len(processes_of(data)) >= 4, "zygote, workers and the job's program")
        server.kill()
        eventually(lambda: not processes_of(data), "all are gone", 5.0)


@linux_only
def test_leftovers_are_killed_by_the_store_itself_also_under_a_new_name(data: Path) -> None:
    """Nobody was left to kill a job's program; a copy spares it, the renamed store does not."""
    server = Server(data, "--workers", "1", "--allow-exec")
    server.ready()
    enqueue(data, {"task": "exec", "payload": {"argv": ["setsid", "sleep", "600"]}})
    eventually(lambda: len(processes_of(data)) == 3, "zygote, worker and the job's program")
    with Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").open() as file:
        zygote = next(pid for pid in map(int, file.read().split()) if pid in processes_of(data))
    os.kill(zygote, signal.SIGSTOP)
    server.kill()
    os.kill(zygote, signal.SIGKILL)
    (left,) = eventually(
        lambda: pids if len(pids := processes_of(data)) == 1 else [], "one is left"
    )
    copy = copy_of(data)
    with serving(copy, "--workers", "1", "--grace", "0s", "--allow-exec"):
        assert alive(left)
    moved = data.with_name("moved")
    data.rename(moved)
    with serving(moved, "--workers", "1", "--grace", "0s", "--allow-exec") as server:
        assert not alive(left)
        assert any("left behind" in line for line in server.stderr)


@linux_only
def test_a_server_that_waits_for_the_store_is_no_leftover_of_it(data: Path) -> None:
    """Two wait: the one that comes first must leave the other's application as it is."""
    holder = Server(data, "--workers", "1")
    holder.ready()
    enqueue(data, {"id": "long", "payload": {"sleep_ms": 3_000}})
    eventually(lambda: holder.status()["in_flight"], "it runs")
    waiting = [Server(data, "--workers", "1", "--takeover") for _ in range(2)]
    for server in waiting:
        told = lambda server=server: any("taking over" in line for line in server.stderr)  # noqa: E731
        eventually(told, "both wait, their applications imported")
    assert holder.wait() == 0
    for server in waiting:
        server.ready()
        assert not any("zygote" in line for line in server.stderr), server.stderr
    left = [server for server in waiting if server.process.poll() is None]
    for server in left:
        assert server.stop() == 0
    assert events_of(data, "long") == ["ENQUEUE", "DISPATCH", "ACK"]


# -- the first minute ---------------------------------------------------------------------------


def test_a_server_adopts_the_store_that_was_made_while_it_imported(
    data: Path, tmp_path: Path
) -> None:
    """Its workers were started for a store of another id, or for none."""
    tmp_path.joinpath("shop.py").write_text(
        "import os, subprocess, sys\n"
        "from beaver import Beaver\n"
        "app = Beaver('data')\n"
        "@app.job()\n"
        "def hello():\n"
        "    return os.environ['BEAVER_STORE']\n"
        "if not os.path.exists('data'):\n"
        "    command = [sys.executable, '-m', 'beaver', 'enqueue', 'hello', '--id', 'early']\n"
        "    subprocess.run(command, check=True)\n"
    )
    with serving(data, "-A", "shop:app", "--workers", "1", cwd=tmp_path) as server:
        server.drained(1)
        (mark,) = [event["result"] for event in events(data) if event["event"] == "ACK"]
        assert mark.startswith(server.status()["store"])
        assert server.process.poll() is None


@pytest.mark.parametrize("wait_ms", range(0, 400, 80))
def test_a_server_and_producers_may_start_at_once_on_a_fresh_directory(
    data: Path, wait_ms: int
) -> None:
    """Also in parents that are not there yet; whoever comes first makes the store for all."""
    data = data / "below" / "it"
    server = Server(data, "--workers", "1")
    answers: list[int] = []

    def produce(number: int) -> None:
        pause = threading.Event()
        pause.wait(wait_ms / 1000)
        command = [*BEAVER, "enqueue", "echo", "--id", f"j{number}", "--data", str(data)]
        done = subprocess.run(command, env=environment(), capture_output=True, check=False)
        answers.append(done.returncode)

    producers = [threading.Thread(target=produce, args=(number,)) for number in range(3)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    try:
        assert answers == [0, 0, 0]
        server.ready()
        server.drained(3)
    finally:
        assert server.stop() == 0, "".join(server.stderr)
    assert status(data)["completed"] == 3
    beaver("verify", "--data", str(data))
    shutil.rmtree(data)
