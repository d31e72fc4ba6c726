"""Where a real server keeps its journal and its snapshots, when that is not in files."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from beaver.client import blocking
from beaver.config.layers import Config, load_config
from beaver.errors import BeaverError
from beaver.holder.takeover import ask_to_leave
from beaver.journal.memory import MemoryJournal, MemoryLog
from beaver.journal.port import Journal, Log, Owned
from beaver.ports import Helper
from beaver.request.requests import make_request
from beaver.server.housekeeping import Housekeeping
from beaver.server.loop_stalls import LoopStalls
from beaver.server.serve import Server
from beaver.snapshot.port import MemorySnapshots, Snapshots
from beaver.store.rebuild import Replica, rebuild
from beaver.structs.messages import SnapshotWritten
from beaver.structs.questions import Known, Search, Wanted
from beaver.structs.views import JobView
from beaver_model import fingerprint
from tests.journal.remote import Network, RemoteJournal, Stream
from tests.worlds.service import NoPast

DEADLINE_S = 30.0
SEED, LOST = 7, 1 / 3
"""Which messages are lost, and how many of them."""


class NearHelper:
    """`ports.Helper` of a journal that it can read by itself."""

    def __init__(self, journal: Log, snapshots: Snapshots) -> None:
        self._journal, self._snapshots = journal, snapshots

    async def prepare(self, path: str, size: int) -> None:
        raise AssertionError("there are no segments")

    async def snapshot(self, last_seq: int, *_: Any) -> SnapshotWritten:
        replica = rebuild(self._journal, self._snapshots)
        self._snapshots.save(self._journal.store, replica.snapshot())
        state = replica.state
        return SnapshotWritten(state.last_seq, fingerprint(state), state.ledger, 0)

    async def project(self, last_seq: int) -> int:
        return last_seq

    async def tell(self, known: Sequence[Known], until_seq: int) -> bytes:
        raise AssertionError("nobody asks")

    async def endings(self, tokens: Sequence[int], until_seq: int) -> bytes:
        raise AssertionError("nobody asks")

    async def walk(self, after_seq: int, until_seq: int, bytes_max: int) -> bytes:
        raise AssertionError("nobody asks")

    async def enqueued(
        self, wanted: Wanted, after_seq: int, until_seq: int, jobs_max: int
    ) -> bytes:
        raise AssertionError("nobody asks")

    async def find(self, search: Search, until_seq: int) -> bytes:
        raise AssertionError("nobody asks")

    async def stop(self) -> None:
        """It is no process."""


class InMemory:
    """`storage.Storage` over one log in memory, which outlives its servers."""

    def __init__(self) -> None:
        self.log, self.kept = MemoryLog(), MemorySnapshots()

    def journal(self) -> MemoryJournal | RemoteJournal:
        return MemoryJournal(self.log)

    def read_ahead(self, config: Config) -> asyncio.Future[Replica | None]:
        found: asyncio.Future[Replica | None] = asyncio.get_running_loop().create_future()
        found.set_result(rebuild(self.journal(), self.kept))
        return found

    async def own(self, config: Config, stop: asyncio.Event) -> Owned[Journal] | None:
        return self.journal()

    def snapshots(self, config: Config) -> Snapshots:
        return self.kept

    def keep_open(self, config: Config) -> None:
        """Nothing is in files."""

    def make_helper(self, config: Config, mark: str) -> Helper:
        return NearHelper(self.journal(), self.kept)

    def make_past(self, config: Config, helper: Helper, keeping: Housekeeping) -> NoPast:
        return NoPast()


class Remote(InMemory):
    """The same over a cluster: a third of the messages is lost, and the newest overtakes."""

    def __init__(self) -> None:
        super().__init__()
        self.stream, self.network = Stream(), Network()
        self.owners: list[RemoteJournal] = []
        self.chance, self.lost = random.Random(SEED), 0

    def journal(self) -> RemoteJournal:
        return RemoteJournal(self.stream, self.network)

    async def own(self, config: Config, stop: asyncio.Event) -> Owned[Journal] | None:
        self.owners.append(self.journal())
        return self.owners[-1]

    async def carry(self) -> None:
        """Lets messages arrive for as long as it is not cancelled."""
        while True:
            await asyncio.sleep(0.001)
            for _ in range(len(self.network.under_way)):
                if self.chance.random() < LOST:
                    self.network.lose(0)
                    self.lost += 1
                else:
                    self.network.deliver(-1)
            while self.stream.tail:
                self.stream.commit()
            for journal in self.owners:
                if not self.network.under_way:
                    journal.ask()  # It has heard nothing for a while.


class Client:
    """Asks a server of this process, in threads of its own."""

    def __init__(self, data: Path) -> None:
        self._data = str(data)

    async def enqueue(self, name: str) -> None:
        """Enqueues a job, again and again until it is taken in."""

        def send() -> bool:
            try:
                with blocking.connect(self._data) as client:
                    client.enqueue([make_request("echo", name, id=name)])
            except BeaverError:
                return False
            return True

        await self._until(send, f"{name} is taken in")

    async def ended(self, name: str) -> JobView:
        """Returns a job that has ended, as the server shows it."""
        found: list[JobView] = []

        def look() -> bool:
            with contextlib.suppress(BeaverError), blocking.connect(self._data) as client:
                found[:] = [client.show(name)]
            return bool(found) and found[0].state not in {"pending", "in_flight"}

        await self._until(look, f"{name} has ended")
        return found[0]

    async def _until(self, holds: Any, what: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - it is asked
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Asks the server to end."""
        await asyncio.to_thread(ask_to_leave, self._data, "the server")


@contextlib.asynccontextmanager
async def running(data: Path, storage: InMemory) -> Any:
    """Runs a real server over a storage: workers, socket and all; yields a client of it."""
    config = load_config(
        {"data": str(data), "workers": 1, "http": "off", "grace": "1s"}, environ={}
    )
    server = Server(config, lambda: config, LoopStalls(), storage)
    task = asyncio.get_running_loop().create_task(server.run())
    client = Client(data)
    try:
        yield client
        assert not task.done(), "it serves on"
        await client.stop()
        async with asyncio.timeout(DEADLINE_S):
            assert await task == 0
    finally:
        task.cancel()
        with contextlib.suppress(BaseException):
            await task


def names(commits: Iterator[Any]) -> list[str]:
    """Returns what commits hold, in words."""
    return [
        f"{event.NAME} {getattr(event, 'job', None) or getattr(event, 'writer', '')}".strip()
        for commit in commits
        for event in commit.events
    ]
