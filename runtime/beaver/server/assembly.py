"""Assembly: the parts of a server, put together over ports, and taken apart again.

`serve` hands in the real ports and the simulator its own, so the order below is the same
in both, and it matters:

1. `recover`: the pool gets the store's mark, *then* leftovers of a dead server are killed, *then*
the slots are read, *then* recovery turns the journal into the state, and BOOT is logged with what
the slots say.
   Settings that decisions depend on are logged.  Only then may workers be attached.
2. `build`: engine, controller, housekeeping and service are wired.
3. `start`, once the caller listens: workers and housekeeping.
   `renew`, at any time: new workers with code and settings as they are now.
4. `drain`, `settle`, `halt`, `finish`: no new work and the grace; history and snapshot are
   brought up to the log; clients are disconnected; the log is closed.

What may not live here: real ports, signals, sockets, what is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, cast

from beaver.config.layers import Config
from beaver.dispatch.controller import ROOM_BYTES, Controller
from beaver.dispatch.slots_view import Concurrency, Crew
from beaver.engine.engine import Engine
from beaver.errors import BeaverError, CrewFailed
from beaver.journal.port import Journal, Owned
from beaver.journal.wal.layout import Layout
from beaver.ports import Clock, Disk, Entropy, Helper
from beaver.server.answers import PastTeller
from beaver.server.booting import boot_command
from beaver.server.failure_log import FailureLog
from beaver.server.housekeeping import Housekeeping
from beaver.server.local_pool import LocalPool, PoolSink
from beaver.server.metrics import Metrics
from beaver.server.results import Results
from beaver.server.service import Service
from beaver.snapshot.port import Snapshots
from beaver.store.rebuild import Replica, recover
from beaver.structs.messages import Options, Request, TaskInfo
from beaver.structs.views import ReloadView, StatusView
from beaver.system.kinship import store_mark
from beaver.text.foreign import counted
from beaver.workers.slots import PreviousSlots
from beaver_model import State
from beaver_model.commands import SetBounds, SetQueue
from beaver_model.rows import Origin, spec_of

CONFIG: Final = "config"
"""Who sets queues at a start, for the log: the configuration."""
RESERVE_BYTES: Final = 4 << 20
"""Room in the log that new jobs leave to outcomes, also before a full disk was noticed."""

log = logging.getLogger("beaver")


class Ports(NamedTuple):
    """The world, as far as the parts need it."""

    clock: Clock
    entropy: Entropy
    disk: Disk
    pool: LocalPool
    make_pool: Callable[[Config, str], LocalPool]
    """Makes a pool with other settings, for the store with that mark."""
    read_slots: Callable[[str], PreviousSlots | None]
    """Reads the slots file at a path."""
    make_helper: Callable[[str], Helper]
    """Makes the helper of the store with that mark."""
    make_past: Callable[[Helper, Housekeeping], PastTeller]
    """Makes what tells of the past."""


class Assembly:
    """One server's parts: `recover`, `build` and `start` them in this order."""

    def __init__(
        self,
        config: Config,
        ports: Ports,
        *,
        on_failure: Callable[[BaseException], None],
        writer: str = "",
    ) -> None:
        """Notes what the server is made of; `recover` takes its journal.

        Args:
            config: Every setting.
            ports: The world.
            on_failure: Called once the log cannot be trusted; ends the process.
            writer: Who this is, as its BOOT says: host and process.
        """
        self.config, self._ports, self._on_failure = config, ports, on_failure
        self.clock, self.disk = ports.clock, ports.disk
        self._writer = writer
        self._renewing = asyncio.Lock()
        self._pools: dict[LocalPool, PoolSink] = {}
        """All that have workers; the last one is given jobs."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._layout = Layout(config.data)

    async def recover(
        self,
        owned: Owned[Journal],
        snapshots: Snapshots,
        tasks: Sequence[TaskInfo],
        ahead: Replica | None = None,
    ) -> None:
        """Recovers the state of a journal, begins to write to it, and logs BOOT.

        Args:
            owned: The journal; given up with the assembly.
            snapshots: What its state is read on from.
            tasks: What the workers know.
            ahead: What was read of the journal before it was owned.
        """
        config, ports = self.config, self._ports
        self.store = owned.store
        self.mark = store_mark(self.store.hex(), ports.disk.identity(config.data))
        killed = ports.pool.claim(self.mark)
        if killed:
            log.warning("killed %s that a dead server left behind", counted(killed, "process"))
        previous = ports.read_slots(self._layout.slots)
        recovered = recover(owned, snapshots, ports.clock.monotonic_ns, ahead)
        state, self.journal, self.report = recovered
        self.tasks = tasks
        self.engine = Engine(
            state,
            self.journal,
            ports.clock,
            on_failure=self._on_failure,
            state_bytes_max=config.state_bytes_bound,
            reserve_bytes=min(RESERVE_BYTES, config.segment_bytes // 4),
        )
        state.set_known_tasks(_names_of(tasks))
        self.failures = FailureLog(state)
        boot = boot_command(state, previous, self.store, self._writer)
        try:
            booted = await self.engine.execute(boot)
            self.failures.observe(booted.first_seq, self.engine.now_ms(), booted.events)
            await self._apply_settings(config)
        except BaseException:
            self.engine.discard()  # Its journal is about to be given up.
            raise
        ports.pool.attach(self._layout.slots, self.engine.durable_seq)

    async def _apply_settings(self, config: Config) -> None:
        """Logs the settings of the configuration that decisions depend on."""
        await self.engine.execute(SetBounds(config.tombstones_max, config.tombstones_age_ms))
        for name, queue in config.queues.items():
            await self.engine.execute(
                SetQueue(
                    name,
                    queue.paused,
                    queue.weight,
                    queue.bytes_max,
                    queue.durable_dispatch,
                    by=CONFIG,
                )
            )

    def build(
        self,
        sink: PoolSink,
        *,
        status: Callable[[State], StatusView],
        on_pool_failure: Callable[[str], None],
        on_quiet: Callable[[], None] | None = None,
        on_violation: Callable[[str], None] | None = None,
        reload: Callable[[], Awaitable[ReloadView]] | None = None,
        leave: Callable[[], None] | None = None,
    ) -> None:
        """Wires the parts.  Nothing runs yet.

        Args:
            sink: Where the pool's events go; gets its controller.
            status: Builds the status of a state, with what only the running server knows.
            on_pool_failure: Called where workers cannot be started any more.
            on_quiet: Called after a commit that leaves nothing that can run by itself.
            on_violation: Called once dispatch was stopped, since an invariant does not hold.
            reload: Reads the settings anew and calls `renew`, for a client that asks.
            leave: Ends the server, for one that wants to take its place.
        """
        config, ports, engine, report = self.config, self._ports, self.engine, self.report
        self._resolver = resolver = config.resolver(_options_of(self.tasks))
        self._pools[ports.pool] = sink
        self.results, self.metrics = Results(), Metrics()
        self.metrics.recovery = dict(report.seconds)
        engine.observers.append(self.results.observe)
        engine.late_observers += [self.metrics.observe, self.failures.observe]
        self.helper = ports.make_helper(self.mark)
        self.controller = Controller(
            engine,
            ports.pool,
            ports.clock,
            ports.entropy,
            store=self.journal.lineage.hex(),
            workers=config.workers,
            concurrency=config.concurrency,
            mode=_mode(config),
            grace_ms=config.grace_ms,
            to_job=resolver.job,
            prefetch=config.prefetch,
            room_bytes=min(ROOM_BYTES, config.segment_bytes // 8),
            start_limit_ms=config.start_timeout_ms,
            on_pool_failure=on_pool_failure,
            on_quiet=on_quiet,
            on_ended=self.failures.note,
            on_crew_gone=self._crew_gone,
        )
        self.controller.know(_names_of(self.tasks))
        self.controller.leases.adjust(config.lease_ms, config.heartbeat_ms)
        sink.controller = self.controller
        self.keeping = Housekeeping(
            engine,
            self.journal,
            self.journal.segments,
            self.helper,
            self.results,
            self.metrics,
            clock=ports.clock,
            snapshot_ms=config.snapshot_ms,
            snapshot_seq=report.snapshot_seq,
            snapshot_bytes=report.snapshot_bytes,
            retention_bytes=config.retention_bytes,
            retention_ms=config.retention_ms,
            on_room=self.controller.retry_unwritten,
            on_violation=partial(self._violated, on_violation),
        )
        self.service = Service(
            engine,
            self.results,
            ports.make_past(self.helper, self.keeping),
            to_job=resolver.job,
            status=status,
            payload_bytes_max=config.payload_bytes_max,
            reload=reload,
            leave=leave,
        )

    def _violated(self, tell: Callable[[str], None] | None, what: str) -> None:
        self.controller.halt(what)
        if tell is not None:
            tell(what)

    def queue_of(self, request: Request) -> str:
        """Returns the queue that a request of a client over HTTP goes to."""
        return spec_of(self._resolver.spec(request.options, Origin.HTTP)).queue

    async def take_snapshot(self) -> int:
        """Takes a snapshot of all that is durable; returns up to which seq."""
        seq = self.engine.durable_seq
        await self.keeping.snapshot()
        return seq

    def start(self) -> None:
        """Starts workers and housekeeping."""
        self.controller.start()
        self.keeping.start()

    # -- new code and settings -----------------------------------------------------------------

    async def renew(self, config: Config) -> Renewed:
        """Starts workers with code and settings as they are now; returns once they serve.

        The former workers end what they run and leave; what they had not started is given
        back.  Nothing is charged, and there is no moment in which nobody is given jobs.

        Raises:
            BeaverError: The application cannot be imported, its workers do not come up, or a
                setting is refused. The former workers keep serving.
        """
        async with self._renewing:
            sink = PoolSink()
            pool = self._ports.make_pool(config, self.mark)
            try:
                tasks = await pool.start(sink)
            except OSError as error:
                raise CrewFailed(f"no process can be started: {error}") from error
            crew = Crew(pool, _mode(config), config.concurrency)
            sink.controller = controller = self.controller
            sink.on_failed = lambda why: crew.arrival.fails(why) if crew.arrival else None
            former, before = controller.crew, self.config
            self._pools[pool] = sink
            try:
                pool.join(former.pool)
                await controller.recruit(crew, config.workers)
                await self._apply_settings(config)
            except BaseException as error:
                # Their ends are told while the pool stops; they hold nothing.
                controller.dismiss(crew)
                del self._pools[pool]
                await pool.stop()
                if isinstance(error, OSError):
                    raise CrewFailed(f"the new workers cannot be started: {error}") from error
                raise
            controller.hand_over(crew)
            self._adopt(config, tasks)
            sink.on_failed = None
            self._retire(former)
            leaving = [worker for worker in controller.workers.values() if worker.leaving]
            names = tuple(info.options.task for info in tasks)
            return Renewed(names, len(leaving), before, pool.app_store)

    def _adopt(self, config: Config, tasks: Sequence[TaskInfo]) -> None:
        """Takes over what the parts know of settings and tasks."""
        self.config, self.tasks = config, tasks
        self.controller.know(_names_of(tasks))
        self.controller.leases.adjust(config.lease_ms, config.heartbeat_ms)
        self.engine.admission.state_bytes_max = config.state_bytes_bound
        self._resolver.use(
            config.timeout_ms, config.max_attempts, _options_of(tasks), config.payload_bytes_max
        )
        self.service.payload_bytes_max = config.payload_bytes_max
        self.controller.adjust(
            prefetch=config.prefetch,
            grace_ms=config.grace_ms,
            start_limit_ms=config.start_timeout_ms,
        )
        self.keeping.adjust(
            snapshot_ms=config.snapshot_ms,
            retention_bytes=config.retention_bytes,
            retention_ms=config.retention_ms,
        )

    def _retire(self, crew: Crew) -> None:
        """The pool of a former crew ends with its last worker."""
        pool = cast("LocalPool", crew.pool)
        pool.leave()
        self._pools[pool].on_failed = partial(log.error, "the former workers: %s")
        if all(worker.crew is not crew for worker in self.controller.workers.values()):
            self._crew_gone(crew)

    def _crew_gone(self, crew: Crew) -> None:
        pool = cast("LocalPool", crew.pool)
        if self._pools.pop(pool, None) is not None:
            task = asyncio.get_running_loop().create_task(pool.stop())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # -- the end -----------------------------------------------------------------------------

    async def drain(self, grace_ms: int) -> None:
        """Stops dispatching; returns when no worker holds an attempt."""
        await self.controller.drain(grace_ms)

    async def settle(self) -> None:
        """Does the slow part of the end while clients are still served.

        Brings history and snapshot up to the log, as far as that works, and ends the workers. The
        next server then gets the lock soon, and finds no worker that it would kill as a leftover.
        """
        with contextlib.suppress(BeaverError):
            await self.keeping.project(self.engine.durable_seq)
        with contextlib.suppress(BeaverError):
            await self.keeping.snapshot()
        await self._stop_pools()

    async def halt(self, close_doors: Callable[[], Awaitable[None]]) -> None:
        """Ends the questions that wait, whatever listens, and housekeeping."""
        # What has been taken in is answered before anybody is shown out.
        self.engine.flush()
        await self.service.close()
        self.engine.flush()
        await close_doors()
        await self.keeping.stop()

    async def discard(self, close_doors: Callable[[], Awaitable[None]]) -> None:
        """Takes everything apart at once, with all that is in memory: another server leads.

        No client gets another answer, and workers are killed: their attempts belong to the other
        server's log.
        """
        self.engine.discard()
        self.controller.halt("another server leads")
        await self.keeping.stop()  # It would take the closed log for a lost one.
        await self._stop_pools()
        await self.service.close()
        await close_doors()

    async def finish(self) -> None:
        """Closes the journal, and gives it up."""
        self.failures.close()
        await self.helper.stop()
        self.engine.close()

    async def _stop_pools(self) -> None:
        for pool in [*self._pools]:
            await pool.stop()
        await asyncio.gather(*self._tasks)


class Renewed(NamedTuple):
    """What `renew` has brought."""

    tasks: tuple[str, ...]
    leaving: int
    """Former workers that still run something."""
    before: Config
    app_store: str
    """Where the application says that its store is."""


def _mode(config: Config) -> Concurrency:
    return Concurrency.ONE if config.executor == "process" else Concurrency.MANY


def _names_of(tasks: Sequence[TaskInfo]) -> frozenset[str]:
    return frozenset(info.options.task for info in tasks)


def _options_of(tasks: Sequence[TaskInfo]) -> dict[str, Options]:
    """Returns what each task was declared with."""
    return {info.options.task: info.options for info in tasks}
