"""The real program under test: starting it, finding its processes, killing them.

A `Program` is a `beaver run` on one directory, started anew as often as it is killed.  What
it prints goes to a file, which is shown when something is wrong.  Linux only: processes are
found in `/proc`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from beaver.journal.wal.layout import Layout
from beaver.journal.wal.opening import peek_store
from beaver.journal.wal.reader import read_commits
from beaver.replay.verifying import verify
from beaver.store.recovery import read_store
from beaver.system.disk import SystemDisk
from beaver.system.kinship import store_mark
from beaver.transport import endpoint
from beaver.workers.leftovers import find_leftovers
from beaver_chaos.checker.attempts import RunLine
from beaver_chaos.checker.client_record import ClientRecord
from beaver_chaos.checker.history import HistoryCheck
from beaver_chaos.checker.stories import compare_stories
from beaver_chaos.program import jobs
from beaver_chaos.program.jobs import RUNS_VARIABLE, read_runs
from beaver_model import violations

DEADLINE_S: Final = 60.0
"""Deadline of everything that is waited for."""
LEFTOVERS_GONE_S: Final = 10.0
WORKERS: Final = 2
EXIT_STORAGE: Final = 7
"""How a server ends when a write or a sync of its log failed."""
SEGMENT_BYTES: Final = 16 << 20
"""The least that is allowed, so that segments are sealed as often as can be."""
_POLL_S: Final = 0.003
_READS_MAX: Final = 5
_TRACEBACK: Final = re.compile(r"Traceback \(most recent call last\).*\n(?:[ \t].*\n)*")
_TAIL_BYTES: Final = 64_000

T = TypeVar("T")


class ChaosFailure(AssertionError):
    """A promise was broken, or the program did not come to where it had to."""


class PromiseBroken(ChaosFailure):
    """A checker found it: what is on disk is not what was promised."""

    def __init__(self, message: str, lost: int = 0) -> None:
        super().__init__(message)
        self.lost = lost
        """Acknowledged jobs that are gone."""


def eventually(ask: Callable[[], T], what: str, within_s: float = DEADLINE_S) -> T:
    """Asks until the answer is true, and returns it.

    Raises:
        ChaosFailure: It did not become true in time.
    """
    deadline_s = time.monotonic() + within_s
    while not (answer := ask()):
        if time.monotonic() > deadline_s:
            raise ChaosFailure(f"not within {within_s:g} s: {what}")
        time.sleep(_POLL_S)
    return answer


def own_environment(**more: str) -> dict[str, str]:
    """Returns our environment without settings of Beaver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BEAVER_")}
    return {**kept, **more}


def peek_mark(data: Path) -> str | None:
    """Returns the mark of the store in a directory; `None` where there is none to read."""
    disk = SystemDisk()
    store = peek_store(disk, str(data))
    return store_mark(store.hex(), disk.identity(str(data))) if store is not None else None


class Program:
    """One store, and the server that runs on it now."""

    def __init__(self, directory: Path, *, flags: Sequence[str] = ()) -> None:
        """Notes where the program runs; nothing is started.

        Args:
            directory: Where data, output and the workers' account go; made if need be.
            flags: More flags of `beaver run`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.data = directory / "data"
        self.output = directory / "output.txt"
        self.runs = directory / "runs.txt"
        self._flags = list(flags)
        self.commit = "auto"
        """How the next server writes its log: a value of `beaver run`'s setting."""
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        """Pid of the server itself, even if it runs below another program."""
        self.started_s = 0.0
        """When the server was started, on the monotonic clock."""

    # -- its life ----------------------------------------------------------------------------

    def start(
        self, below: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts the server; does not wait for it.

        Args:
            below: A command and its arguments that runs the server, such as a tracer.
            environment: More variables for it.
        """
        assert not self.running, "one server at a time"
        command = [sys.executable, "-m", "beaver", "run", "--data", str(self.data)]
        command += ["-A", "beaver_chaos.program.jobs:app", "--http", "off", "--grace", "2s"]
        command += ["--workers", str(WORKERS), *self._flags]
        self.started_s = time.monotonic()
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*below, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={
                    **own_environment(),
                    "BEAVER_SEGMENT_SIZE": str(SEGMENT_BYTES),
                    "BEAVER_COMMIT": self.commit,
                    RUNS_VARIABLE: str(self.runs),
                    **(environment or {}),
                },
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the server ended; negative for a signal."""
        return self._process.poll() if self._process is not None else None

    @property
    def listening(self) -> bool:
        """True once clients can find this very server."""
        info = endpoint.read(str(self.data))
        if info is None or not self.running:
            return False
        assert self._process is not None
        if info.pid == self._process.pid or info.pid in children_of(self._process.pid):
            self.pid = info.pid
            return True
        return False

    def ready(self) -> None:
        """Waits until the server listens.

        Raises:
            ChaosFailure: It ended instead, or took too long.
        """
        eventually(lambda: self.listening or not self.running, "the server is ready")
        if not self.running:
            raise ChaosFailure(f"the server ended with {self.exit_code} before it was ready")

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """Waits for the server's end and returns its exit code."""
        eventually(lambda: not self.running, "the server ends", within_s)
        assert self._process is not None
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the server itself."""
        if self.running:
            os.kill(self.pid, number)

    def stop(self) -> None:
        """Ends the server gently.

        Raises:
            ChaosFailure: It did not end with 0.
        """
        self.signal(signal.SIGTERM)
        code = self.wait()
        if code != 0:
            raise ChaosFailure(f"SIGTERM: the server ended with {code}, not with 0")

    def clear_away(self) -> None:
        """Kills whatever is left; for the end of a test, however it went."""
        if self.running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            with contextlib.suppress(ChaosFailure):
                self.wait(5.0)
        if self.running and self._process is not None:
            self._process.kill()
            self._process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- its processes -----------------------------------------------------------------------

    def zygotes(self) -> list[int]:
        return [pid for pid in children_of(self.pid) if _runs(pid, "beaver.workers.zygote")]

    def workers(self) -> list[int]:
        return [pid for zygote in self.zygotes() for pid in children_of(zygote)]

    def helpers(self) -> list[int]:
        return [pid for pid in children_of(self.pid) if _runs(pid, "beaver.helper")]

    def writers(self) -> list[int]:
        return [
            pid for pid in children_of(self.pid) if _runs(pid, "beaver.journal.wal.writer_child")
        ]

    def processes(self) -> list[int]:
        """Returns whatever carries the store's mark; the server itself does not."""
        mark = peek_mark(self.data)
        return [] if mark is None else find_leftovers(mark)

    def refuse_leftovers(self) -> None:
        """Checks that no process and no lock of the store is left once the server is gone.

        Raises:
            ChaosFailure: Some are.
        """
        try:
            eventually(lambda: not self.processes(), "", LEFTOVERS_GONE_S)
        except ChaosFailure:
            names = [f"{pid} ({_command(pid)})" for pid in self.processes()]
            raise ChaosFailure(f"processes are left: {', '.join(names)}") from None
        path = Layout(str(self.data)).lock
        lock = eventually(lambda: SystemDisk().lock(path), "the lock is free", LEFTOVERS_GONE_S)
        assert lock is not None
        lock.release()

    # -- its files ---------------------------------------------------------------------------

    def history(self, witness: ClientRecord, *, quiet: bool = False) -> HistoryCheck:
        """Compares the log so far with what was answered and run; a server may run on.

        Call it without giving way to producers: what they are answered meanwhile may be
        younger than what is read of the log.
        """
        before = read_runs(self.runs)
        for _ in range(_READS_MAX):
            history = HistoryCheck()
            try:
                history.read(read_commits(SystemDisk(), Layout(str(self.data)), 0))
                break
            except FileNotFoundError:
                continue  # A segment was sealed between its listing and its reading.
        history.compare(witness)
        told = compare_stories(SystemDisk(), Layout(str(self.data)), at_rest=not self.running)
        history.violations += told
        history.attempts.compare(before, closed=quiet)
        history.attempts.compare_charges(read_runs(self.runs))
        if quiet:
            history.settle(witness)
        return history

    def refuse_damage(self) -> None:
        """Checks the files of a store without a server: invariants, snapshots, fingerprints.

        Raises:
            PromiseBroken: Something does not fit.
        """
        state, _ = read_store(SystemDisk(), str(self.data))
        wrong = violations(state)
        report = verify(SystemDisk(), str(self.data))
        if not report.ok:
            wrong.append(f"verify: {report}")
        if wrong:
            raise PromiseBroken("; ".join(wrong))

    def refuse_tracebacks(self) -> None:
        """Checks that nothing that was printed shows a bug that was survived.

        Raises:
            ChaosFailure: There is a traceback that is not told of a dead job.
        """
        output = self.output.read_text(encoding="utf-8", errors="replace")
        for found in _TRACEBACK.finditer(output):
            if jobs.__file__ not in found[0]:
                told = output[found.start() : found.start() + _TAIL_BYTES]
                raise ChaosFailure(f"a traceback was printed:\n{told}")

    def account(self) -> list[RunLine]:
        """Returns what workers have run so far."""
        return read_runs(self.runs)

    def output_tail(self) -> str:
        """Returns the end of what the server has printed."""
        try:
            return self.output.read_bytes()[-_TAIL_BYTES:].decode("utf-8", "replace")
        except FileNotFoundError:
            return ""


def children_of(pid: int) -> list[int]:
    """Returns the pids of a process's children; empty where it is gone."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - only names are wanted
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
            found += [int(child) for child in children.split()]
    return found


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone"
    return b" ".join(words).decode("utf-8", "replace").strip()


def _runs(pid: int, module: str) -> bool:
    return module in _command(pid).split(" ")
