"""The helper process of a simulated machine: the real work, on the simulated disk.

Each request is done whole, at a time of its own, in a process of its own.  A fault may end
it in the middle, and it may outlive its server for a moment, as the real one may.  The
index in SQLite stays outside: what it has applied is a number here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from beaver.errors import BeaverError, HelperFailed, SnapshotDiffers
from beaver.helper import work
from beaver.journal.wal.layout import Layout
from beaver.ports import Disk
from beaver.structs.messages import SnapshotWritten
from beaver.structs.questions import Ending, Known, Listed, Search, Told, Wanted
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.store_disk import ProcessDisk
from beaver_model.contents import Glance

T = TypeVar("T")
_MS = 1_000_000


class SimHelperProcess:
    """One process."""

    def __init__(self, world: Machine, server: Process) -> None:
        self.world, self.server = world, server
        self.process = Process(f"helper {world.next_pid()}")
        self.disk = ProcessDisk(
            world.disk, self.process, on_stop=self.die, on_sync=_takes_no_time_of_the_server
        )
        self.asked: dict[asyncio.Future[Any], str] = {}
        """Its work in progress, by the waiting future."""
        world.helpers.append(self)

    def die(self) -> None:
        """It ends; whoever waits for it hears so."""
        world = self.world
        if not self.process.alive:
            return
        world.note("the helper dies")
        world.loop.kill(self.process)
        world.helpers.remove(self)
        for future, what in self.asked.items():
            if what in ("snapshot", "projection"):
                world.reach(f"the helper is killed during a {what}")
            world.answer_in(self.server, future, HelperFailed("the helper process died"))
        self.asked.clear()


class SimHelper:
    """`ports.Helper` as a server sees it."""

    def __init__(self, world: Machine, process: Process, layout: Layout) -> None:
        self._world, self._process, self._layout = world, process, layout
        self._helper: SimHelperProcess | None = None

    async def prepare(self, path: str, size: int) -> None:
        await self._ask("preparation", 10, lambda disk: _prepare(disk, path, size))

    async def snapshot(
        self,
        last_seq: int,
        keep_archive_bytes: int,
        keep_archive_ms: int,
        live: Glance | None = None,
    ) -> SnapshotWritten:
        world = self._world

        def do(disk: Disk) -> SnapshotWritten:
            taken = work.take_snapshot(disk, self._layout, last_seq, world.clock, live)
            world.reach("a snapshot is taken")
            first_seq = work.prune_archive(
                disk,
                self._layout,
                keep_bytes=keep_archive_bytes,
                keep_ms=keep_archive_ms,
                now_ms=world.clock.wall_ms(),
                applied_seq=world.applied_seq,
            )
            if first_seq > 1:
                world.reach("a segment is pruned")
            return taken

        return await self._ask("snapshot", 30, do)

    async def project(self, last_seq: int) -> int:
        world = self._world

        def do(disk: Disk) -> int:
            world.applied_seq = max(world.applied_seq, last_seq)
            world.reach("the log is projected")
            return last_seq

        return await self._ask("projection", 5, do)

    async def tell(self, known: Sequence[Known], until_seq: int) -> bytes:
        raise HelperFailed("nobody asks: see SimPast")

    async def endings(self, tokens: Sequence[int], until_seq: int) -> bytes:
        raise HelperFailed("nobody asks: see SimPast")

    async def walk(self, after_seq: int, until_seq: int, bytes_max: int) -> bytes:
        raise HelperFailed("nobody asks: see SimPast")

    async def enqueued(
        self, wanted: Wanted, after_seq: int, until_seq: int, jobs_max: int
    ) -> bytes:
        raise HelperFailed("nobody asks: see SimPast")

    async def find(self, search: Search, until_seq: int) -> bytes:
        raise HelperFailed("nobody asks: see SimPast")

    async def stop(self) -> None:
        if self._helper is not None:
            self._helper.die()

    async def _ask(self, what: str, longest_ms: int, do: Callable[[Disk], T]) -> T:
        world, loop = self._world, asyncio.get_running_loop()
        helper = self._helper
        if helper is None or not helper.process.alive:
            helper = self._helper = SimHelperProcess(world, self._process)
        future: asyncio.Future[T] = loop.create_future()
        helper.asked[future] = what
        owner = helper

        def run() -> None:
            answer: Any
            try:
                answer = do(owner.disk)
            except BeaverError as error:
                if isinstance(error, SnapshotDiffers):
                    world.watch.wrong(str(error))  # A server goes on, with its log as it is.
                answer = error
            except Exception as error:  # noqa: BLE001 - as the real one does
                answer = HelperFailed(f"{what}: {type(error).__name__}: {error}")
            owner.asked.pop(future, None)
            world.note("the helper ends a", what)
            if not self._process.alive:
                world.reach("the helper outlives its server")
            world.answer_in(self._process, future, answer)

        world.after(helper.process, world.chance.between(1, longest_ms * 1_000) * 1_000, run)
        return await future


def _prepare(disk: Disk, path: str, size: int) -> None:
    work.prepare_segment(disk, path, size)


def _takes_no_time_of_the_server() -> None:
    """The helper's waits do not hold up the server."""


class SimPast:
    """An `answers.PastTeller` that knows nothing beyond the state."""

    async def tell(self, known: Known, until_seq: int) -> Told:
        return Told([], until_seq, 1)

    async def ending(self, token: int, until_seq: int) -> Ending | None:
        return None

    async def find(self, search: Search, until_seq: int) -> Listed:
        return Listed(msgspec.Raw(b"[]"), 0, 0, until_seq, damaged=False)

    async def close(self) -> None:
        """Nothing is asked of anybody."""
