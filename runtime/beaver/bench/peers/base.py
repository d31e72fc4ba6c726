"""The common part of the peers: their servers, worker processes and addresses."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from beaver.bench import subject
from beaver.bench.records import RECORDS_VARIABLE, Records
from beaver.bench.senders import send_with_processes
from beaver.bench.subject import WORKERS, AsyncSender, LoopBudget, Sender, Sent
from beaver.errors import BeaverError

START_S: Final = 30.0
STOP_S: Final = 10.0
ADDRESS_VARIABLE: Final = "BENCH_ADDRESS"
QUEUE_VARIABLE: Final = "BENCH_QUEUE"
GO_VARIABLE: Final = "BENCH_GO"
"""Path of the file that workers wait for once they are loaded."""


class PeerMissing(BeaverError):
    """A peer, or a part of it, is not installed."""


def load(module: str) -> Any:
    """Imports a peer's package.  Untyped: the packages need not be there for type checks.

    Raises:
        PeerMissing: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PeerMissing(f"the Python package {module} is not installed ({error})") from error


def find_program(name: str, *directories: str) -> str:
    """Returns the path of a program.  Raises `PeerMissing`."""
    for directory in (None, *directories):
        found = shutil.which(name, path=directory)
        if found is not None:
            return found
    raise PeerMissing(f"the program {name} is not installed")


class Daemon:
    """A program that runs until it is stopped, in a process group of its own."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        user: str | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=user,
                cwd=log.parent,
                env={**os.environ, **(environment or {})},
            )
        self._log = log

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Waits until it answers; raises with the end of its log where it does not."""
        deadline_s = time.monotonic() + START_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                tail = self._log.read_text(errors="replace")[-500:]
                raise BeaverError(f"{self._process.args!r} did not start: {tail}")
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it: gently first, then its whole group at once."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Peer:
    """Base of the peers: a `subject.Subject` that can be started and stopped."""

    name: str
    packages: tuple[str, ...] = ()
    """Distributions whose versions are reported."""
    batches = False
    setup = ""
    """How it was set up to sync, and what else the reader should know."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self.records = str(self._directory / "records")
        self._daemons: list[Daemon] = []
        self.address = ""

    # -- what each peer says ---------------------------------------------------------------

    def start(self) -> None:
        """Starts its server.  Raises `PeerMissing` where a part of it is not installed."""
        raise NotImplementedError

    @classmethod
    def preload(cls) -> None:
        """Imports what the peer needs.  Raises `PeerMissing`."""
        raise NotImplementedError

    @staticmethod
    def work(address: str, queue: str) -> None:
        """Runs jobs of a queue until the process is ended; called in a worker process."""
        raise NotImplementedError

    def worker_commands(self, queue: str) -> list[list[str]]:
        """Returns the command of each process that is to be started for two workers."""
        return [self._work_command(queue)] * WORKERS

    def _work_command(self, queue: str) -> list[str]:
        return [sys.executable, "-m", "beaver.bench.peers.work", self.name, self.address, queue]

    def send_loop(self, queue: str, clients: int, batch: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`."""
        raise NotImplementedError

    def send_paced(self, queue: str, budget: LoopBudget, rate: int) -> Sent:
        """See `subject.Subject`."""
        raise NotImplementedError

    def send_processes(self, queue: str, clients: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`."""
        return send_with_processes(self.name, self.address, queue, clients, budget)

    # -- the same for all --------------------------------------------------------------------

    def versions(self) -> str:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in self.packages)

    def daemon(self, *command: str, user: str | None = None) -> Daemon:
        """Starts a program that `stop` ends."""
        daemon = Daemon(command, self._directory / "server.log", user=user)
        self._daemons.append(daemon)
        return daemon

    def stop(self) -> None:
        """Ends its server."""
        while self._daemons:
            self._daemons.pop().stop()

    @contextmanager
    def workers(self, queue: str) -> Iterator[None]:
        """See `subject.Subject`.  Workers load everything, then start together."""
        go = self._directory / f"go-{queue}"
        environment = {
            RECORDS_VARIABLE: self.records,
            ADDRESS_VARIABLE: self.address,
            QUEUE_VARIABLE: queue,
            GO_VARIABLE: str(go),
            "PYTHONWARNINGS": "ignore",
        }
        log = self._directory / "workers.log"
        started: list[Daemon] = []
        try:
            for command in self.worker_commands(queue):
                started.append(Daemon(command, log, environment=environment))  # noqa: PERF401
            time.sleep(1.0)
            go.touch()
            yield
        finally:
            for daemon in started:
                daemon.stop()

    def finished(self, queue: str, count: int, seconds: float) -> bool:
        """See `subject.Subject`: of a peer, the records are all that is looked at."""
        return Records(self.records).count() >= 0


class BlockingPeer(Peer):
    """A peer whose client blocks: clients are threads."""

    def connect(self, queue: str) -> Sender:
        """Opens one client's connection."""
        raise NotImplementedError

    def connect_for_batches(self, queue: str) -> Sender:
        """Opens a connection for batches, where that is another way."""
        return self.connect(queue)

    def send_loop(self, queue: str, clients: int, batch: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`."""
        if clients > 1:
            return subject.send_with_threads(lambda: self.connect(queue), clients, batch, budget)
        sender = self.connect(queue) if batch == 1 else self.connect_for_batches(queue)
        try:
            numbers = subject.draw_numbers(budget.jobs)
            return subject.send_one_by_one(sender, numbers, batch, budget.seconds)
        finally:
            sender.close()

    def send_paced(self, queue: str, budget: LoopBudget, rate: int) -> Sent:
        """See `subject.Subject`."""
        sender = self.connect(queue)
        try:
            return subject.send_paced(sender, budget, rate)
        finally:
            sender.close()


class AwaitedPeer(Peer):
    """A peer whose client is awaited: clients are tasks of one loop."""

    async def connect(self, queue: str, clients: int) -> AsyncSender:
        """Opens one client's connection."""
        raise NotImplementedError

    def send_loop(self, queue: str, clients: int, batch: int, budget: LoopBudget) -> Sent:
        """See `subject.Subject`."""

        async def work() -> Sent:
            return await subject.send_with_tasks(
                lambda: self.connect(queue, clients), clients, batch, budget
            )

        return subject.run_on_loop(work())

    def send_paced(self, queue: str, budget: LoopBudget, rate: int) -> Sent:
        """See `subject.Subject`."""

        async def work() -> Sent:
            sender = await self.connect(queue, 1)
            try:
                return await subject.send_paced_async(sender, budget, rate)
            finally:
                await sender.close()

        return subject.run_on_loop(work())
