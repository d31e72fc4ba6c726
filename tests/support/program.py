"""The real program, run as a user runs it, and questions to its log.

Nothing here is a fake: servers are processes, `kill -9` is a signal, and what happened is
read from the log with `beaver replay --json`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from beaver.client.opening import open_client
from beaver.journal.wal.layout import Layout
from beaver.system.disk import SystemDisk
from beaver.workers.leftovers import find_leftovers
from beaver_chaos.checker.stories import compare_stories
from beaver_chaos.program.process import peek_mark
from beaver_spec.traces.following import validate_store

BEAVER = [sys.executable, "-m", "beaver"]
DEADLINE_S = float(os.environ.get("TESTS_WAIT_S", "60"))
"""How long anything may take that has to happen; shorter where a mutant is tried."""

T = TypeVar("T")


def eventually(question: Callable[[], T], what: str, within_s: float = DEADLINE_S) -> T:
    """Asks until the answer is true, and returns it; fails by name after the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.01)


def beaver(*arguments: str, stdin: str | None = None, code: int | None = 0) -> str:
    """Runs a command; returns its standard output, and checks its exit code."""
    done = run_beaver(*arguments, stdin=stdin)
    if code is not None:
        assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def run_beaver(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, whatever that is."""
    return subprocess.run(
        [*BEAVER, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env=environment(),
    )


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of a command: ours, without settings of Beaver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEAVER_")}
    return {**kept, **more}


def in_shell(first: str, *command: str) -> list[str]:
    """Returns a command that a shell becomes, after what it does `first` (`ulimit -f 8`)."""
    return ["/bin/bash", "-c", f'{first}; exec "$0" "$@"', *command]


class Server:
    """A running `beaver run`."""

    def __init__(
        self,
        data: Path,
        *arguments: str,
        cwd: Path | None = None,
        first: str = ":",
        with_data: bool = True,
        **env: str,
    ) -> None:
        self.data = data
        where = ("--data", str(data)) if with_data else ()
        self.process = subprocess.Popen(
            in_shell(first, *BEAVER, "run", *where, "--http", "off", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(**env),
        )
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._readers = [
            threading.Thread(target=self._collect, args=(stream, lines), daemon=True)
            for stream, lines in (
                (self.process.stdout, self.stdout),
                (self.process.stderr, self.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _collect(stream: Any, lines: list[str]) -> None:
        lines.extend(iter(stream.readline, ""))
        stream.close()

    def ready(self) -> str:
        """Waits for the ready line and returns it."""
        eventually(lambda: self.stdout or self.process.poll() is not None, "the server is ready")
        assert self.stdout, f"it ended with {self.process.poll()}: {''.join(self.stderr)}"
        return self.stdout[0]

    def kill(self) -> None:
        """`kill -9`, and waits until the process is gone."""
        self.process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self, within_s: float = DEADLINE_S) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._end(within_s)

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """Waits until it ends by itself; returns the exit code."""
        return self._end(within_s)

    def _end(self, within_s: float = DEADLINE_S) -> int:
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for reader in self._readers:
            reader.join(5.0)
        return code

    def status(self) -> dict[str, Any]:
        """See `status`."""
        return status(self.data)

    def drained(self, count: int, within_s: float = DEADLINE_S) -> None:
        """Waits until so many jobs have completed over the life of the store."""
        eventually(lambda: self.status()["completed"] >= count, f"{count} jobs completed", within_s)


@contextmanager
def serving(
    data: Path, *arguments: str, cwd: Path | None = None, with_data: bool = True, **env: str
) -> Iterator[Server]:
    """Runs a server while the block runs; ends it gently, or at once where the block failed."""
    server = Server(data, *arguments, cwd=cwd, with_data=with_data, **env)
    try:
        server.ready()
        yield server
        if server.process.poll() is None:
            assert server.stop() == 0, "".join(server.stderr)
        verdict = validate_store(str(data))
        assert verdict.ok, f"the specification rejects the log at seq {verdict.seq}: {verdict}"
        assert compare_stories(SystemDisk(), Layout(str(data))) == []
    finally:
        if server.process.poll() is None:
            server.kill()


def status(data: Path) -> dict[str, Any]:
    """The status of a directory, from its server or its files: as `beaver status --json`."""
    with closing(open_client(str(data))) as client:
        answer: dict[str, Any] = msgspec.to_builtins(client.status())
    return answer


def events(path: Path) -> list[dict[str, Any]]:
    """The events of a log or data directory, from `beaver replay --json`."""
    lines = beaver("replay", str(path), "--json").splitlines()
    return [json.loads(line) for line in lines]


def events_of(path: Path, job: str) -> list[str]:
    """The names of one job's events, in order."""
    return [event["event"] for event in events(path) if event["job"] == job]


def enqueue(data: Path, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
    """Enqueues jobs as a file from standard input; returns what `--json` says of each."""
    text = "\n".join(json.dumps(job) for job in jobs)
    out = beaver("enqueue", "--file", "-", "--data", str(data), "--json", stdin=text)
    return [json.loads(line) for line in out.splitlines()]


def processes_of(data: Path) -> list[int]:
    """Pids of processes that carry the store's mark in their environment, zombies excluded."""
    mark = peek_mark(data)
    return [] if mark is None else find_leftovers(mark)
