"""Measurements of programs as a whole: what an idle server costs, how long commands take."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from beaver.bench.processes import processor_s, proportional_bytes, resident_bytes, tree
from beaver.bench.served import serving
from beaver.bench.subject import WORKERS
from beaver.client.blocking import connect
from beaver.errors import BeaverError
from beaver.request.requests import make_request
from beaver.transport import endpoint

REPEATS: Final = 9
KILLS: Final = 9
IDLE_S: Final = 5.0
QUIET_S: Final = 45.0
"""Before an idle server is measured its helper ends, which takes no longer."""

_WAIT_S: Final = 10.0

IDLE_ROWS: Final = ("idle_cpu", "idle_server_mb", "idle_all_mb", "idle_scraped_mb")
COMMAND_ROWS: Final = ("help", "enqueue_command")


def measure_commands(directory: str) -> dict[str, float]:
    """How long `beaver --help` and `beaver enqueue` of one job take, medians of a few."""
    data = str(Path(directory, "commands"))
    enqueue = ["enqueue", "echo", '{"to": "x"}', "--data", data]
    with serving(data):
        return {
            "help": _wall_ms(["--help"]),
            "enqueue_command": _wall_ms(enqueue),
        }


def _wall_ms(arguments: Sequence[str]) -> float:
    beside = Path(sys.executable).with_name("beaver")
    program = [str(beside)] if beside.exists() else [sys.executable, "-m", "beaver"]
    times = []
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        subprocess.run([*program, *arguments], stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - started_s) * 1000)
    return statistics.median(times)


def measure_kill(directory: str) -> float:
    """Returns the ms from `kill -9` of a busy worker until its replacement is ready."""
    data = str(Path(directory, "kill"))
    times = []
    with serving(data, workers=1) as server, connect(data) as client:
        for _ in range(KILLS):
            # An attempt that ended makes the worker's death an accident, not a crash loop.
            done = make_request("bench.nothing")
            client.enqueue([done])
            client.wait(done.id, _WAIT_S)
            before = client.status().workers[0].pid
            started_s = time.perf_counter()
            os.kill(before, 9)
            while client.status().workers[0].pid == before:
                if time.perf_counter() - started_s > _WAIT_S:
                    raise BeaverError("a killed worker was not replaced")
            times.append((time.perf_counter() - started_s) * 1000)
        assert server.process.poll() is None, "the server lives on"
    return statistics.median(times)


def measure_idle(directory: str) -> dict[str, float]:
    """Measures an idle server with two workers and HTTP (Linux only)."""
    data = str(Path(directory, "idle"))
    with serving(data, http="127.0.0.1:0") as server:
        pids = _without_helper(server.pid)
        before = sum(map(processor_s, pids))
        time.sleep(IDLE_S)
        used_s = sum(map(processor_s, pids)) - before
        values = {
            "idle_cpu": 100 * used_s / IDLE_S,
            "idle_server_mb": resident_bytes(server.pid) / 1e6,
            "idle_all_mb": sum(map(proportional_bytes, pids)) / 1e6,
        }
        info = endpoint.read(data)
        assert info is not None, "the server listens"
        with urllib.request.urlopen(f"{info.http}/metrics", timeout=_WAIT_S) as answer:  # noqa: S310
            answer.read()
        values["idle_scraped_mb"] = sum(map(proportional_bytes, pids)) / 1e6
        return values


def _without_helper(server: int) -> list[int]:
    """Returns the server's processes once only zygote and workers are left beside it."""
    deadline_s = time.monotonic() + QUIET_S
    while len(pids := tree(server)) > 2 + WORKERS and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return pids
