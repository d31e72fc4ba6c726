"""A server that holds the store and does not answer is not told as one that is not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.program import (
    BEAVER,
    DEADLINE_S,
    Server,
    beaver,
    enqueue,
    environment,
    eventually,
    run_beaver,
    serving,
)

ASKING_S = 3.0
"""More than a command takes that waits for nobody."""


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stops a server, as Ctrl-Z does, while the block runs."""
    pid = server.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: f"{pid} (" in stat(pid) and ") T " in stat(pid), "it is stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def stat(pid: int) -> str:
    return Path("/proc", str(pid), "stat").read_text()


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BEAVER, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def test_whoever_cannot_reach_a_frozen_server_is_told_its_pid(tmp_path: Path) -> None:
    """Reads go on from the files, and say so; what needs a server says who does not answer."""
    data = tmp_path / "data"
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "later", "delay": "1h"})
        holds = f"a server (process {server.process.pid}) holds {data} but does not answer"
        commands = {
            "status": ("status",),
            "reload": ("reload",),
            "explain": ("explain", "later"),
            "json": ("status", "--json"),
            "wait": ("enqueue", "echo", "--wait"),
        }
        with frozen(server):
            asking = {name: start(*each, "--data", str(data)) for name, each in commands.items()}
            told = {name: each.communicate(timeout=DEADLINE_S) for name, each in asking.items()}
        codes = {name: each.returncode for name, each in asking.items()}
        assert codes == {"status": 0, "reload": 3, "explain": 0, "json": 0, "wait": 3}
        assert told["status"][0].startswith(f"{holds}; these figures are from the files")
        assert f"{holds}\nWhere it was stopped, `kill -CONT" in told["reload"][1]
        assert told["explain"][0].endswith(f"A{holds[1:]}.\n")
        view = json.loads(told["json"][0])
        assert (view["running"], view["silent"]) == (False, server.process.pid)
        assert (
            f"--wait: {holds}, so nothing would ever end; nothing was enqueued" in told["wait"][1]
        )
        assert beaver("status", "--data", str(data)).startswith("a server runs on ")


def test_without_a_server_nobody_is_said_to_hold_the_store(tmp_path: Path) -> None:
    """Neither after its clean end, nor after its death, which leaves `server.json` behind."""
    data = tmp_path / "data"
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "later", "delay": "1h"})
        server.kill()
        told = run_beaver("reload", "--data", str(data))
        assert (told.returncode, told.stdout) == (3, "")
        assert f"no server runs on {data}" in told.stderr
        assert beaver("status", "--data", str(data)).startswith("no server runs; ")


def test_a_server_that_starts_is_waited_for(tmp_path: Path) -> None:
    """`beaver reload` in the moment of a start reaches that server once it listens."""
    data = tmp_path / "data"
    phase = data / "phase"
    for _ in range(20):
        server = Server(data, "--workers", "1")
        try:
            while not phase.exists() and not server.stdout:
                assert server.process.poll() is None, server.stderr
            with frozen(server):
                if not (phase.exists() and "starting" in phase.read_text()):
                    continue  # It was faster.
                asking = start("reload", "--data", str(data))
                with pytest.raises(subprocess.TimeoutExpired):
                    asking.wait(ASKING_S)
            told, said = asking.communicate(timeout=DEADLINE_S)
            assert asking.returncode == 0, said
            assert told.startswith("reloaded: 1 new worker for echo")
            return
        finally:
            server.stop()
    pytest.fail("no start was slow enough to be met")
