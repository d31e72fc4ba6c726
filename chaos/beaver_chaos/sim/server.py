"""One life of a simulated server: `serve`'s order, over the simulated ports.

The parts and their order are `assembly`'s, which `serve` uses as well; what stands here is
what `serve` does with sockets and signals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import msgspec

from beaver.config.layers import Config
from beaver.errors import BeaverError, DiskFull, StorageFailed, StoreUnavailable
from beaver.holder.owning import own_log
from beaver.inspect.queries import status
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.opening import OwnedWal
from beaver.ports import DirectoryLock
from beaver.server.assembly import Assembly, Ports
from beaver.server.connection import Connection
from beaver.server.local_pool import PoolSink
from beaver.server.outbox import Outbox
from beaver.snapshot.files import FileSnapshots
from beaver.structs.views import StatusView
from beaver.workers.slots import PreviousSlots
from beaver_chaos.sim.disk import Fault
from beaver_chaos.sim.helper import SimHelper, SimPast
from beaver_chaos.sim.loop import Process, ProcessEnded
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.plan import QUEUES_MAX
from beaver_chaos.sim.pool import SimPool
from beaver_chaos.sim.store_disk import ProcessDisk
from beaver_chaos.sim.writer import SimWriter
from beaver_model import State

_LOCK_POLL_S: Final = 0.02


class ServerLife:
    """One server process, from its start to its end."""

    kind = "server"
    runs_jobs = True

    def __init__(self, world: Machine, number: int) -> None:
        self.world, self.number = world, number
        self.process = Process(f"{self.kind} {number}")
        self.disk = ProcessDisk(
            world.disk,
            self.process,
            on_stop=self.stopped_in_operation,
            on_sync=world.sync_takes_time,
            on_relock=lambda: world.reach("a lock file that was removed is made again"),
        )
        self.pools = [SimPool(world, self.process)]
        self._next_pool = "ok"
        self.reloading = 0
        self.parts = Assembly(world.config, self._ports(), on_failure=self._failed)
        self.power_goes = False
        """Whether a planned stop is a power cut."""
        self._busy_ms: int | None = None
        """Set where it is to be killed behind its next dispatch: see `arm_kill_behind_dispatch`."""
        self.listening = False
        self.ending = False
        self.writer: SimWriter | None = None
        self.log_is_replaced = False
        """Somebody has put a copy in the place of the log: this server must end."""
        self._stop: asyncio.Event | None = None
        self._connections: set[Connection] = set()
        self._outbox: Outbox | None = None
        """The outbox of all connections; made in the server's process with the first one."""

    def _ports(self) -> Ports:
        world = self.world
        layout = Layout(world.config.data)
        return Ports(
            clock=world.clock,
            entropy=world.entropy,
            disk=self.disk,
            pool=self.pools[0],
            make_pool=self._make_pool,
            read_slots=self._read_slots,
            make_helper=lambda _: SimHelper(world, self.process, layout),
            make_past=lambda *_: SimPast(),
        )

    def _make_pool(self, config: Config, mark: str) -> SimPool:
        pool = SimPool(self.world, self.process, self._next_pool, mark)
        self.pools.append(pool)
        return pool

    def _make_writer(self, hold: DirectoryLock) -> SimWriter:
        self.writer = SimWriter(self.world, self.process, self.disk, self.stopped_in_operation)
        return self.writer

    @property
    def writing(self) -> bool:
        """A frame is under way in the writer, or its end was not heard of."""
        return self.writer is not None and self.writer.busy

    def _read_slots(self, path: str) -> PreviousSlots | None:
        return self.world.slots.read()

    # -- its course --------------------------------------------------------------------------

    async def main(self) -> None:
        """As `serve.Server.run`."""
        world = self.world
        try:
            await self._run()
        except (StorageFailed, StoreUnavailable) as error:
            world.reach("a server refuses to start for a while")
            world.server_ended(self, f"does not start: {_first_line(error)}")
            return
        except BeaverError as error:
            world.watch.wrong(f"server {self.number} refuses to start: {_first_line(error)}")
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a bug
            world.watch.wrong(f"server {self.number} breaks: {_first_line(error)}")
            return
        world.server_ended(self, "has ended")

    async def _run(self) -> None:
        world, config, parts = self.world, self.world.config, self.parts
        sink = PoolSink()
        tasks = await self.pools[0].start(sink)
        owned = await self._own()
        await parts.recover(owned, FileSnapshots(self.disk, owned.layout), tasks)
        if world.plan.setup.passing:
            parts.engine.state.queues_max = QUEUES_MAX
        parts.build(
            sink,
            status=self._status,
            on_pool_failure=lambda message: world.watch.wrong(f"the pool failed: {message}"),
        )
        self._stop = asyncio.Event()
        world.watch.attach(self)
        self.listening = True
        parts.start()
        world.note("server", self.number, "is ready at seq", parts.engine.durable_seq)
        await self._stop.wait()
        self.ending = True
        await parts.drain(config.grace_ms)
        await parts.settle()
        await parts.halt(self._close_doors)
        await parts.finish()

    async def _own(self) -> OwnedWal:
        """As `lock.acquire`: the writer of a killed server may hold it for a moment."""
        world = self.world
        attempt = partial(
            own_log,
            world.config,
            self.disk,
            world.clock,
            world.store,
            make_writer=self._make_writer,
        )
        while (owned := attempt()) is None:  # noqa: ASYNC110 - it can only be tried
            await asyncio.sleep(_LOCK_POLL_S)
        return owned

    async def _close_doors(self) -> None:
        self.listening = False
        for connection in sorted(self._connections, key=_order):
            connection.say_farewell()

    def accept(self) -> Connection:
        """Returns the server's side of a new connection."""
        self._outbox = self._outbox or Outbox(self.parts.service.once_told)
        connection = Connection(
            self.parts.service, self.world.store.hex(), self._connections, outbox=self._outbox
        )
        connection.order = self.world.next_pid()  # type: ignore[attr-defined]
        return connection

    def stop(self) -> None:
        """SIGTERM."""
        if self._stop is not None:
            self.world.after(self.process, 0, self._stop.set)

    def reload(self, how: str, workers: int) -> None:
        """`beaver reload`: new workers with the code as it is now."""
        if self._is_up and self.runs_jobs:
            self._begin(partial(self._reload, how, workers))

    async def _reload(self, how: str, workers: int) -> None:
        world, before = self.world, self.parts.controller.crew
        self.reloading += 1
        self._next_pool = how
        try:
            await self.parts.renew(msgspec.structs.replace(world.config, workers=workers))
        except BeaverError:
            if self.parts.controller.crew is before:
                world.reach("a reload fails, and the former workers serve on")
            raise
        finally:
            self.reloading -= 1
        world.reach("a reload takes over")
        if len({worker.crew for worker in self.parts.controller.workers.values()}) > 1:
            world.reach("two crews are side by side")

    def take_snapshot(self) -> None:
        """Takes a snapshot now, as if the log had grown enough."""
        if self._is_up:
            self._begin(self.parts.keeping.snapshot)

    def prepare(self) -> None:
        """Goes on in a next segment now, as if the active one were full."""
        if self._is_up:
            self._begin(self._prepare)

    async def _prepare(self) -> None:
        segments = self.parts.journal.segments
        assert segments is not None, "a log of files"
        if not segments.has_next:
            await self.parts.keeping.prepare_next()
        # No commit of these small runs is large enough to seal a segment.
        if not self.writing:
            segments.seal()
            self.world.reach("a segment is sealed")

    @property
    def _is_up(self) -> bool:
        return self.listening and not self.ending

    def _begin(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Begins what housekeeping would begin by itself at some time."""

        async def guarded() -> None:
            try:
                await work()
            except BeaverError as error:
                self.world.note("housekeeping:", _first_line(error))

        def begin() -> None:
            asyncio.get_running_loop().create_task(guarded())

        self.world.after(self.process, 0, begin)

    def _status(self, state: State) -> StatusView:
        return status(state, self.parts.engine.now_ms(), running=True)

    # -- its end -----------------------------------------------------------------------------------

    def lose(self) -> None:
        """The process is gone.  A writer in the middle of a frame keeps the lock."""
        self.world.loop.kill(self.process)
        self.listening = False
        writer = self.writer
        if writer is None or not writer.writes:
            self.disk.end()
        else:
            self.world.reach("a writer outlives its server")
        for pool in self.pools:
            pool.lose_server()
        self.world.busy_ms = 0

    def arm_stop(self, ahead: int, fault: Fault, *, power_goes: bool) -> None:
        """Ends the process in the middle of a later disk operation."""
        self.power_goes = power_goes
        self.disk.plan(ahead, fault)

    def arm_kill_behind_dispatch(self, busy_ms: int) -> None:
        """Kills the process as soon as it has sent a job to a worker."""
        self._busy_ms = busy_ms

    def dispatched(self) -> None:
        """A job was sent: a worker may have it before anybody hears of the server's end."""
        if self._busy_ms is not None and self.process.alive:
            world = self.world
            world.reach("a server is killed right behind a dispatch")
            world.busy_ms = self._busy_ms
            world.loop.kill(self.process)
            world.after(world.loop.machine, 0, partial(world.crash, self, power=False))

    def stopped_in_operation(self) -> None:
        """A planned fault ends it inside a disk operation."""
        world = self.world
        world.loop.kill(self.process)
        world.after(world.loop.machine, 0, partial(world.crash, self, power=self.power_goes))

    def _failed(self, error: BaseException) -> None:
        """The log failed: the real process ends here, at once."""
        world = self.world
        if not isinstance(error, StorageFailed) or isinstance(error, DiskFull):
            world.watch.wrong(f"the engine fails by itself: {error!r}")
        world.loop.kill(self.process)
        world.after(world.loop.machine, 0, partial(world.server_died, self, _first_line(error)))
        raise ProcessEnded


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _order(connection: Any) -> int:
    order: int = connection.order
    return order
