"""huey on SQLite, with `synchronous=FULL`: each commit is synced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from beaver.bench.peers.base import BlockingPeer, load
from beaver.bench.peers.jobs import record
from beaver.bench.records import NOTE
from beaver.bench.subject import WORKERS, Sender

_BUSY_S = 30


def _huey(address: str, queue: str) -> tuple[Any, Any]:
    """Returns a huey on the file, and its task."""
    huey = load("huey").SqliteHuey(name=queue, filename=address, fsync=True, timeout=_BUSY_S)
    return huey, huey.task(name="record")(record)


class _Sender:
    def __init__(self, address: str, queue: str) -> None:
        self._huey, self._task = _huey(address, queue)

    def send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._task(number, NOTE)

    def close(self) -> None:
        self._huey.storage.close()


class Huey(BlockingPeer):
    name = "huey"
    packages = ("huey",)
    setup = "SQLite in WAL mode, `fsync=True`; 2 worker processes that poll every 1 to 10 ms"

    def start(self) -> None:
        """See `Peer`: there is no server, only a file."""
        self.preload()
        self.address = str(self._directory / "huey.db")
        _huey(self.address, "default")[0].storage.close()

    @classmethod
    def preload(cls) -> None:
        """See `Peer`."""
        load("huey")

    def connect(self, queue: str) -> Sender:
        """See `BlockingPeer`."""
        return _Sender(self.address, queue)

    def worker_commands(self, queue: str) -> list[list[str]]:
        """See `Peer`: one consumer forks both workers."""
        return [self._work_command(queue)]

    @staticmethod
    def work(address: str, queue: str) -> None:
        """See `Peer`."""
        huey, _ = _huey(address, queue)
        huey.create_consumer(
            workers=WORKERS,
            worker_type="process",
            periodic=False,
            initial_delay=0.001,
            max_delay=0.01,
            check_worker_health=False,
        ).run()
