"""Three remote workers behind a proxy with faults: one dies, one freezes, the server restarts.

The history checker goes over what producers were told, what the workers ran and the log.  The
figures are those of the original plan's Phase 2: the throughput that is lost when one worker node
of three dies, the time until its jobs are at work elsewhere, and the share of calls that succeed.
Times are stamps of the log.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import msgspec

from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import read_commits
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint
from beaver_chaos.checker.audit import audit
from beaver_chaos.faults.proxy import LinkFault, Proxy
from beaver_chaos.program.process import ChaosFailure, Program, eventually, own_environment
from beaver_chaos.program.remote_worker import TASK
from beaver_model.events import Acked, AnyEvent, Dispatched

LEASE_S: Final = 2.0
CAPACITY: Final = 4
WORKERS: Final = 3
JOB_MS: Final = 100
FAULTY_SHARE: Final = 0.1
BATCH: Final = 12
WAITING: Final = 2 * BATCH
"""So few jobs wait that one that comes back is soon at work."""
FAILS_EACH: Final = 10
"""Every so many-th job fails its first attempt."""


class Figures(msgspec.Struct):
    """What a run has come to."""

    jobs: int
    faults: dict[str, int]
    """How often each fault was met."""
    events: dict[str, int]
    """Events of the log by name."""
    calls: int
    succeeded: float
    """Share of the calls that were answered in the end."""
    sent_again: float
    """Share of the calls that were sent more than once."""
    throughput_lost: float
    """Share of the throughput that one worker of three took with it."""
    elsewhere_s: float
    """Time until all that it had was at work elsewhere."""
    moved: int
    """Jobs that it had."""

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs, {self.calls} calls: {self.succeeded:.2%} succeeded, "
            f"{self.sent_again:.1%} of them sent again; one worker of three died: "
            f"{self.throughput_lost:.0%} of the throughput lost, its {self.moved} jobs at work "
            f"elsewhere after {self.elsewhere_s:.1f} s; {self.faults}; {self.events}"
        )


class _Run:
    """One store, its server, a proxy and three workers."""

    def __init__(self, directory: Path, seed: int) -> None:
        flags = ["--http", "127.0.0.1:0", "--workers", "1", "--lease", f"{LEASE_S:g}s"]
        self.directory = directory
        self.program = Program(directory, flags=flags)
        self.start()
        self.proxy = Proxy(self.address(), seed, FAULTY_SHARE)
        self.token = (self.program.data / "token").read_text().strip()
        self.workers = [self._worker(f"w{number}") for number in range(WORKERS)]

    def start(self) -> None:
        """Starts the server."""
        self.program.start()
        self.program.ready()

    def address(self) -> tuple[str, int]:
        """Returns where the server is now."""
        info = endpoint.read(str(self.program.data))
        if info is None:
            raise ChaosFailure("the server has told nobody where it listens")
        host, _, port = info.http.removeprefix("http://").rpartition(":")
        return host, int(port)

    def _worker(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "beaver_chaos.program.remote_worker", self.proxy.url]
        environment = own_environment(BEAVER_TOKEN=self.token)
        return subprocess.Popen(
            [*command, name, str(CAPACITY), str(self.directory)], env=environment
        )

    def ask(self, path: str, body: Any = None) -> Any:
        """Asks the server itself, without the proxy."""
        host, port = self.address()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://{host}:{port}{path}", data, headers)
        with urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def feed(self, count: int) -> None:
        """Enqueues so many jobs, and keeps few waiting; notes what was answered."""
        with (self.directory / "clients").open("w") as clients:
            for first in range(0, count, BATCH):
                jobs = [_job(number) for number in range(first, min(first + BATCH, count))]
                print(json.dumps({"sent": [job["id"] for job in jobs]}), file=clients)
                for told in self.ask("/v1/jobs", jobs)["jobs"]:
                    print(json.dumps(told), file=clients)
                while self.ask("/v1/status")["pending"] > WAITING:
                    time.sleep(0.01)

    def completed(self) -> int:
        """Returns how many jobs have completed."""
        return int(self.ask("/v1/status")["completed"])

    def wait(self, count: int) -> int:
        """Waits until so many more jobs have completed; returns when, in ms."""
        wanted = self.completed() + count
        eventually(lambda: self.completed() >= wanted, f"{wanted} jobs have completed")
        return time.time_ns() // 1_000_000

    def end(self) -> None:
        """Kills what is left."""
        self.proxy.close()
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.program.clear_away()


def _job(number: int) -> dict[str, Any]:
    return {
        "id": f"j{number}",
        "task": TASK,
        "payload": {"ms": JOB_MS, "fail": int(number % FAILS_EACH == 0)},
        "backoff": "50ms",
        "max_attempts": 100,
    }


@contextmanager
def _running(directory: Path, seed: int) -> Iterator[_Run]:
    run = _Run(directory, seed)
    try:
        yield run
    finally:
        run.end()


def run_remote(directory: Path, seed: int, window: int) -> Figures:
    """Runs jobs through all faults and checks every account; returns the figures.

    Args:
        directory: An empty one.
        seed: Of the proxy's draws.
        window: Jobs by which the throughput is measured, before and after a worker dies.

    Raises:
        ChaosFailure: A promise was broken, or the jobs did not come to their ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    jobs = 3 * window
    with _running(directory, seed) as run:
        feeding = threading.Thread(target=run.feed, args=(jobs,))
        feeding.start()
        dead, frozen, _ = run.workers
        began_ms = run.wait(window // 6)
        killed_ms = run.wait(window)
        dead.kill()
        measured_ms = run.wait(window)
        feeding.join()
        frozen.send_signal(signal.SIGSTOP)
        eventually(lambda: len(run.ask("/v1/workers")["workers"]) == 2, "the lease has ended")
        frozen.send_signal(signal.SIGCONT)
        run.program.signal(signal.SIGKILL)
        run.program.wait()
        run.start()
        run.proxy.target = run.address()
        eventually(lambda: run.completed() == jobs, "all jobs have completed", 120.0)
        run.program.stop()
        met = dict(run.proxy.met)
    _check(run)
    return _figures(run, jobs, met, dead.pid, (began_ms, killed_ms, measured_ms))


def _check(run: _Run) -> None:
    directory = run.directory
    report = audit(
        str(run.program.data),
        clients=str(directory / "clients"),
        workers=str(directory / "runs"),
    )
    if not report.ok:
        raise ChaosFailure("; ".join(report.violations) or str(report.error))
    run.program.refuse_damage()
    run.program.refuse_tracebacks()


def _figures(
    run: _Run, jobs: int, met: dict[LinkFault, int], dead: int, times_ms: tuple[int, int, int]
) -> Figures:
    began_ms, killed_ms, measured_ms = times_ms
    layout = Layout(str(run.program.data))
    log: list[tuple[int, int, AnyEvent]] = [
        (seq, time_ms, event)
        for first_seq, time_ms, events in read_commits(SystemDisk(), layout, 0)
        for seq, event in enumerate(events, first_seq)
    ]
    acks = [time_ms for _, time_ms, event in log if isinstance(event, Acked)]
    before = sum(began_ms < at <= killed_ms for at in acks) / (killed_ms - began_ms)
    after = sum(killed_ms < at <= measured_ms for at in acks) / (measured_ms - killed_ms)
    moved = [
        min(
            at
            for seq, at, event in log
            if isinstance(event, Dispatched) and event.job == job and seq > token
        )
        for token, job in _left_by(run.directory / "runs", dead).items()
        if not any(isinstance(event, Acked) and event.token == token for _, _, event in log)
    ]
    calls = [json.loads(line) for line in (run.directory / "calls").read_text().splitlines()]
    return Figures(
        jobs,
        {fault.name: count for fault, count in sorted(met.items(), key=lambda met: met[0].name)},
        dict(sorted(Counter(event.NAME for _, _, event in log).items())),
        len(calls),
        sum(call["status"] > 0 for call in calls) / len(calls),
        sum(call["tries"] > 1 for call in calls) / len(calls),
        1 - after / before,
        (max(moved, default=killed_ms) - killed_ms) / 1000,
        len(moved),
    )


def _left_by(runs: Path, pid: int) -> dict[int, str]:
    """Returns token and job of what a process had begun and not ended."""
    left: dict[int, str] = {}
    for line in map(json.loads, runs.read_text().splitlines()):
        if line["pid"] != pid:
            continue
        if "began" in line:
            left[line["began"]] = line["job"]
        else:
            left.pop(line["ended"], None)
    return left
