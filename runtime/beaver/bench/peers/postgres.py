"""Procrastinate on PostgreSQL with `fsync=on` and `synchronous_commit=on`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from beaver.bench.peers.base import AwaitedPeer, find_program, load
from beaver.bench.peers.jobs import record_async
from beaver.bench.records import NOTE
from beaver.bench.subject import AsyncSender

USER: Final = "postgres"
_CONCURRENCY: Final = 10
_INIT_S: Final = 60.0


def _app(address: str, connections: int) -> tuple[Any, Any]:
    """Returns an application on the database, and its task."""
    procrastinate = load("procrastinate")
    connector = procrastinate.PsycopgConnector(
        conninfo=f"host={address} user={USER} dbname=postgres",
        min_size=min(connections, 4),
        max_size=connections,
    )
    app = procrastinate.App(connector=connector)
    return app, app.task(name="record")(record_async)


class _Sender:
    """One client of a pool with a connection for each."""

    def __init__(self, task: Any, queue: str, close: Any) -> None:
        self._task, self._queue, self._close = task, queue, close

    async def send(self, numbers: Sequence[int]) -> None:
        deferrer = self._task.configure(queue=self._queue)
        if len(numbers) == 1:
            await deferrer.defer_async(n=numbers[0], note=NOTE)
            return
        await deferrer.batch_defer_async(*({"n": number, "note": NOTE} for number in numbers))

    async def close(self) -> None:
        await self._close()


class Procrastinate(AwaitedPeer):
    name = "procrastinate"
    packages = ("procrastinate", "psycopg")
    batches = True
    setup = "PostgreSQL, `fsync=on`, `synchronous_commit=on`; 2 processes of 10 coroutines"

    def start(self) -> None:
        """See `Peer`."""
        self.preload()
        versions = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
        initdb, server = (find_program(name, *versions) for name in ("initdb", "postgres"))
        # PostgreSQL refuses to run as root, and its user must be able to enter.
        user = USER if os.geteuid() == 0 else None
        self.address = tempfile.mkdtemp(prefix="bench-pg-", dir=self._directory)
        if user is not None:
            shutil.chown(self.address, user)
            self._let_enter()
        data = f"{self.address}/data"
        command = [initdb, "--auth", "trust", "--username", USER, "--no-sync", data]
        subprocess.run(
            command, user=user, check=True, capture_output=True, timeout=_INIT_S, cwd="/"
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.address,
            "fsync": "on",
            "synchronous_commit": "on",
            "max_connections": "200",
            "shared_buffers": "256MB",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        daemon = self.daemon(server, "-D", data, *flags, user=user)
        daemon.wait_for(self._answers)
        self._make_schema()

    def _let_enter(self) -> None:
        """Opens the benchmark's own directories, which hold nothing secret, for passage."""
        for directory in (self._directory, self._directory.parent):
            directory.chmod(0o711)

    def _answers(self) -> bool:
        psycopg = load("psycopg")
        try:
            psycopg.connect(f"host={self.address} user={USER} dbname=postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_schema(self) -> None:
        async def make() -> None:
            app, _ = _app(self.address, 1)
            async with app.open_async():
                await app.schema_manager.apply_schema_async()

        asyncio.run(make())

    @classmethod
    def preload(cls) -> None:
        """See `Peer`."""
        load("procrastinate")

    async def connect(self, queue: str, clients: int) -> AsyncSender:
        """See `AwaitedPeer`."""
        app, task = _app(self.address, 1)
        await app.open_async()
        return _Sender(task, queue, app.close_async)

    @staticmethod
    def work(address: str, queue: str) -> None:
        """See `Peer`."""

        async def run() -> None:
            app, _ = _app(address, _CONCURRENCY + 2)
            async with app.open_async():
                await app.run_worker_async(queues=[queue], concurrency=_CONCURRENCY, wait=True)

        asyncio.run(run())
