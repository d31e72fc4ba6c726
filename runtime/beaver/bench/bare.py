"""The upper bound: a server and clients that do only what is indispensable.

The server reads what came, writes it with one sync and answers: no queue, no checks, no state.
It runs on the same loop as Beaver's and in Python; its clients send bytes that were made before
and look at nothing but the length of the answers.  What Beaver takes beyond that is its own;
what is beyond the bare server's reach is not to be had this way.

`python -m beaver.bench.bare SOCKET FILE` runs the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, cast

from beaver.bench import subject
from beaver.bench.records import NOTE
from beaver.bench.senders import BARE, send_with_processes
from beaver.bench.subject import LoopBudget, Sent, Sizes
from beaver.errors import BeaverError
from beaver.system.disk import SystemDisk
from beaver.system.spinning import Looking

ROWS: Final = ("bare_serial", "bare_procs_8", "bare_tasks_64")

_REQUEST: Final = (b'{"n":1000000,"note":"%s"}' % NOTE.encode()).ljust(160, b" ")
"""As long as the frame of a request for a job."""
_ANSWER: Final = b"a" * 56
"""As long as the answer to it."""
_ROOM: Final = 1 << 20
_READY_S: Final = 10.0


class _Server(asyncio.Protocol):
    """One connection; all share a file, and a list of who waits for its next write."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._rest = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        count, self._rest = divmod(self._rest + len(data), len(_REQUEST))
        if count:
            self._file.add(self, count)


class _File:
    """Writes what came in a turn of the loop with one sync, then has it answered."""

    def __init__(self, path: str) -> None:
        self._file = SystemDisk().open(path, write=True, create=True)
        self._file.pwrite(bytes(_ROOM), 0)
        self._file.sync()
        self._at = 0
        self._waiting: list[tuple[_Server, int]] = []

    def add(self, connection: _Server, count: int) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._commit)
        self._waiting.append((connection, count))

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        size = len(_REQUEST) * sum(count for _, count in waiting)
        self._at = 0 if self._at + size > _ROOM else self._at
        self._file.pwrite_durable(bytes(size), self._at)
        self._at += size
        for connection, count in waiting:
            if connection.transport is not None:
                connection.transport.write(_ANSWER * count)


def serve(path: str, file: str) -> None:
    """Runs the server until it is killed."""

    async def run() -> None:
        shared = _File(file)
        await asyncio.get_running_loop().create_unix_server(lambda: _Server(shared), path)
        await asyncio.Event().wait()

    subject.run_on_loop(run())


# -- clients ------------------------------------------------------------------------------------


def send_bare(path: str, budget: LoopBudget) -> Sent:
    """Lets one client ask and wait, looking for the answer as Beaver's does."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    readable, looking = select.poll(), Looking()
    readable.register(connection, select.POLLIN)

    class BareSender:
        def send(self, numbers: Sequence[int]) -> None:
            connection.send(_REQUEST)
            looking.sees(readable.poll)
            connection.recv(1 << 16)

        def close(self) -> None: ...

    try:
        numbers = range(budget.jobs)
        return subject.send_one_by_one(BareSender(), numbers, 1, budget.seconds)
    finally:
        connection.close()


class _Client(asyncio.Protocol):
    """A connection that tasks share: they wait for their answers in the order of asking."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: list[asyncio.Future[None]] = []
        self._unsent = self._rest = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> asyncio.Future[None]:
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent += 1
        future = self._loop.create_future()
        self._asked.append(future)
        return future

    def _send(self) -> None:
        assert self.transport is not None
        self.transport.write(_REQUEST * self._unsent)
        self._unsent = 0

    def data_received(self, data: bytes) -> None:
        count, self._rest = divmod(self._rest + len(data), len(_ANSWER))
        for future in self._asked[:count]:
            future.set_result(None)
        del self._asked[:count]


def _send_tasks(path: str, tasks: int, budget: LoopBudget) -> float:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_unix_connection(_Client, path)
        numbers, started_s = itertools.count(), time.perf_counter()
        limit_s = started_s + budget.seconds

        async def one() -> None:
            while next(numbers) < budget.jobs and time.perf_counter() < limit_s:
                await client.ask()

        await asyncio.gather(*(one() for _ in range(tasks)))
        done = min(next(numbers), budget.jobs)
        rate = done / (time.perf_counter() - started_s)
        transport.close()
        await asyncio.sleep(0)
        return rate

    return subject.run_on_loop(work())


@contextmanager
def serving(directory: str) -> Iterator[str]:
    """Runs a bare server while the block runs; yields the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="bare-", dir=directory) as home:
        path = str(Path(home, "socket"))
        command = [sys.executable, "-m", __name__, path, str(Path(home, "file"))]
        process = subprocess.Popen(command)
        try:
            deadline_s = time.monotonic() + _READY_S
            while not Path(path).exists():
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise BeaverError("the bare server did not start")
                time.sleep(0.01)
            yield path
        finally:
            process.kill()
            process.wait()


def measure_bare(directory: str, sizes: Sizes) -> dict[str, float]:
    """Measures the bare server with one client, eight processes, and 64 tasks."""
    with serving(directory) as path:
        return {
            "bare_serial": send_with_processes(BARE, path, "", 1, sizes.serial).rate,
            "bare_procs_8": send_with_processes(BARE, path, "", 8, sizes.many).rate,
            "bare_tasks_64": _send_tasks(path, 64, sizes.many),
        }


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve(*sys.argv[1:])
