"""`beaver run`: puts a server together, runs it, and takes it apart again.

The order matters; the parts behind ports, and theirs, stand in `assembly`:

1. The zygote starts and imports the application, before lock, log and sockets are opened,
   so that no worker can inherit them; an import failure touches nothing.  Meanwhile the
   store is read ahead.
2. The log is owned.  Workers that a killed server left behind are killed.
3. Recovery turns journal and snapshots into the state; BOOT is logged with what the slots say.
4. Workers start, then socket and HTTP listen, then `server.json` says where.
5. At the end: no new work, running jobs get their grace, the rest is released; the log is
   closed, a snapshot taken, and the log given up.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from beaver.access.tokens import ensure_admin
from beaver.config.exposure import check_exposure
from beaver.config.layers import Config
from beaver.engine.engine import Engine
from beaver.errors import (
    BeaverError,
    LogLost,
    LostLeadership,
    StorageFailed,
    StoreUnavailable,
)
from beaver.holder import starting
from beaver.holder.turn import Turn
from beaver.journal.wal.lock import prepare_directory
from beaver.server import log_output, queue_counters, readiness
from beaver.server.assembly import Assembly, Ports
from beaver.server.bulk.carrying_out import Bulks
from beaver.server.bulk.choosing import Choosing
from beaver.server.http.listener import HttpServer
from beaver.server.http.served import Served
from beaver.server.local_pool import PoolSink
from beaver.server.loop_stalls import LoopStalls
from beaver.server.metrics import Collector, registry_of
from beaver.server.reachable import stay_reachable
from beaver.server.reloading import Reloading
from beaver.server.status import SelfStatus, is_done
from beaver.server.storage import Files, Storage, at_home
from beaver.server.supervisor import Supervisor
from beaver.server.unix_socket import SocketServer
from beaver.system import descriptors
from beaver.system.clock import SystemClock, SystemEntropy
from beaver.system.disk import SystemDisk
from beaver.system.kinship import UNMARKED
from beaver.task import output
from beaver.task.programs import Programs
from beaver.transport import endpoint
from beaver.workers.pool import ProcessPool
from beaver.workers.pool_options import PoolOptions
from beaver.workers.slots import read_previous

if TYPE_CHECKING:
    from beaver.server.http.tls import Certificate

log = logging.getLogger("beaver")

EXIT_STORAGE: Final = 7
HOST_BYTES_MAX: Final = 64
"""Bytes of the host's name that a BOOT keeps."""
SECOND_SIGNAL_S: Final = 0.2
"""How long the second signal waits for whoever reads the log."""
EXIT_APP: Final = 2
"""Workers of this application cannot be kept alive."""


def run(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Runs a server until it is told to stop; returns the exit code.

    Args:
        config: Every setting.
        reread: Returns them as they are at a reload, and raises `InvalidInput`; by default
            they stay.

    Raises:
        BeaverError: It could not start; nothing was changed but what recovery repairs.
    """
    if sys.platform == "win32":
        raise BeaverError("Beaver does not run on Windows; Linux and macOS work (or WSL)")
    output.configure_server(config.log_level, config.log_format)
    check_exposure(config)
    stalls = LoopStalls()
    with (
        log_output.queued(output.notice_of(config.log_format)),
        asyncio.Runner(loop_factory=stalls.new_loop) as runner,
    ):
        return runner.run(Server(config, reread or (lambda: config), stalls).run())


class Server:
    """One run of a server."""

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        stalls: LoopStalls,
        storage: Storage | None = None,
    ) -> None:
        """Notes what it is made of; `run` does the rest.

        Args:
            config: Every setting.
            reread: Returns them as they are at a reload.
            stalls: What is measured of the loop.
            storage: Where journal and snapshots are kept; by default in the files of
                `config.data`.
        """
        self._config, self._reread, self._stalls = config, reread, stalls
        self._certificate = _certificate(config)
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._disk = SystemDisk()
        self._storage = storage or Files(self._disk, self._clock, self._entropy)
        self._stop: asyncio.Event | None = None
        self._failure: str | None = None
        self._deposed = False
        """Another server leads by now."""
        self._staying: asyncio.Task[None] | None = None
        self._signals = 0
        self._reloading: Reloading | None = None
        """Once all is ready, and until the end."""
        self._turn = Turn(-1)
        # Before the zygote inherits the environment.
        self._supervisor = Supervisor()
        self._info = endpoint.ServerInfo(os.getpid(), "", "")

    async def run(self) -> int:
        """Runs until a signal, an empty queue with `burst`, or a failure.

        Being deposed is no failure: the server discards everything, recovers, and goes on.
        """
        self._stop = asyncio.Event()
        # From the beginning: a signal during a long start ends it cleanly once it is ready.
        self._catch_signals()
        while True:
            self._deposed = False
            try:
                code = await self._run_once()
            except LostLeadership:
                if not self._deposed:
                    raise
                code = 0
            if not self._deposed or self._signals:
                return code
            self._stop.clear()
            gc.unfreeze()

    async def _run_once(self) -> int:
        """Recovers the store and serves it until the end, or until it is deposed."""
        config = self._config
        sink = PoolSink()
        # What is there now is most probably what is served; `recover` makes it certain.
        # Marked under the lock: who waits for it must not pass for what a dead server left.
        pool = ProcessPool(_pool_options(config, UNMARKED))
        ahead = self._storage.read_ahead(config)
        tasks = await pool.start(sink)
        try:
            expected = config.data
            config = self._config = at_home(config, pool.app_store)
            prepare_directory(self._disk, config.data)
            self._turn = starting.take_turn(config.data)
            assert self._stop is not None, "made by run"
            owned = await self._storage.own(config, self._stop)
            if owned is None:
                return 0
            try:
                descriptors.say_in_one_line(asyncio.get_running_loop())
                endpoint.tell_phase(config.data, "starting")
                ports = self._ports(pool)
                parts = Assembly(config, ports, on_failure=self._fail, writer=_writer())
                found = await ahead if config.data == expected else None
                await parts.recover(owned, self._storage.snapshots(config), tasks, found)
                self._storage.keep_open(config)
                # What was recovered lives long: no collection need look at it again.
                gc.freeze()
                return await self._serve(parts, sink)
            finally:
                # Before it is given up: from then on the file is another one's.
                endpoint.withdraw(config.data)
                owned.abandon()
        finally:
            self._turn.release()
            await pool.stop()

    def _ports(self, pool: ProcessPool) -> Ports:
        config = self._config
        return Ports(
            clock=self._clock,
            entropy=self._entropy,
            disk=self._disk,
            pool=pool,
            make_pool=lambda config, mark: ProcessPool(_pool_options(config, mark)),
            read_slots=read_previous,
            make_helper=partial(self._storage.make_helper, config),
            make_past=partial(self._storage.make_past, config),
        )

    async def _serve(self, parts: Assembly, sink: PoolSink) -> int:
        config, engine, store = self._config, parts.engine, parts.store.hex()
        told = SelfStatus(parts, self._stalls)
        reloading = Reloading(parts, self._reread, self._adopt)
        parts.build(
            sink,
            status=told.of,
            on_pool_failure=self._pool_failed,
            on_quiet=partial(self._stop_if_done, engine) if config.burst else None,
            on_violation=self._pool_failed if config.burst else None,
            reload=reloading.reload,
            leave=self._leave,
        )
        shares = descriptors.shares(
            descriptors.raise_limit(),
            descriptors.open_now(),
            config.workers,
            config.http_connections,
        )
        socket = SocketServer(parts.service, store, shares.sockets)
        http: HttpServer | None = None
        choosing = parts.service.choosing = Choosing(
            engine,
            Bulks(engine, config.data, self._clock, self._entropy),
            parts.helper.enqueued,
        )

        async def close_doors() -> None:
            await choosing.bulks.close()
            await socket.close()
            if http is not None:
                await http.close()

        try:
            address = ""
            if config.http_address is not None:
                collector = Collector(
                    parts.metrics,
                    engine.counters,
                    lambda: told.of(engine.state, with_queues=False),
                    lambda: queue_counters.take(engine.state, engine.now_ms()),
                    lambda: parts.results.bytes,
                    self._stalls,
                )
                http = HttpServer(
                    partial(registry_of, collector),
                    told.not_ready,
                    self._served(parts, choosing),
                    shares.http,
                    collector.prepare,
                    config.http_host,
                    self._certificate,
                )
                address = await http.start(*config.http_address, explicit=config.http_is_explicit)
            socket_path = endpoint.socket_path(config.data)
            await socket.start(socket_path)
            _begin(parts, choosing.bulks)
            self._tell_of(
                socket=socket_path,
                store=store,
                http=address,
                started_ms=self._clock.wall_ms(),
                epoch=engine.state.epoch,
            )
            endpoint.tell_phase(config.data, "")
            self._turn.release()
            self._staying = asyncio.get_running_loop().create_task(
                stay_reachable(config.data, socket, self._tell_of)
            )
            self._stalls.watch()
            readiness.say_ready(parts, config, socket_path, address)
            self._supervisor.ready(f"serving {config.data}")
            self._reloading = reloading
            if config.burst:
                self._stop_if_done(engine)
            assert self._stop is not None
            await self._stop.wait()
            self._end_reloads(told, reloading)
            await self._wind_up(parts)
        finally:
            self._end_reloads(told, reloading)
            self._stalls.end()
            if self._staying is not None:
                self._staying.cancel()
            endpoint.tell_phase(config.data, "ending")
            await (parts.discard if self._deposed else parts.halt)(close_doors)
            endpoint.withdraw(config.data)  # While the store is ours.
            # Also where a start fails: an engine that lives on would miss its log.
            await parts.finish()
        self._supervisor.close()
        if self._failure is not None:
            said = readiness.line(f"beaver: {self._failure}", as_json=self._as_json, level="error")
            print(said, file=sys.stderr)  # noqa: T201 - the last word
            return EXIT_APP
        return 0

    def _served(self, parts: Assembly, choosing: Choosing) -> Served:
        """Returns what HTTP needs; makes the owner's token if there is none."""
        try:
            ensure_admin(self._config.data, self._clock.wall_ms(), self._entropy)
        except StoreUnavailable as error:
            log.warning("no token for HTTP can be made: %s", error)
        return Served(
            parts.engine,
            parts.service,
            self._config.data,
            parts.store.hex(),
            self._clock,
            self._entropy,
            parts.queue_of,
            parts.helper.walk,
            parts.helper.enqueued,
            parts.take_snapshot,
            parts.controller.leases,
            parts.controller.reports,
            choosing,
            parts.metrics.between,
            lambda: _programs(self._config),
        )

    def _adopt(self, config: Config) -> None:
        self._config = config

    def _end_reloads(self, told: SelfStatus, reloading: Reloading) -> None:
        told.ending, self._reloading = True, None
        reloading.end()

    async def _wind_up(self, parts: Assembly) -> None:
        """No new work: what runs gets its grace, and files are brought up to date."""
        if self._deposed:
            return
        self._supervisor.stopping("running jobs get their grace")
        if self._config.burst and self._failure is None:
            readiness.say_left(parts.engine.state, as_json=self._as_json)
        await parts.drain(0 if self._failure else self._config.grace_ms)
        await parts.settle()

    def _tell_of(self, **changes: Any) -> None:
        """Writes where this server listens, or that it is about to, or does so no longer."""
        self._info = msgspec.structs.replace(self._info, **changes)
        endpoint.write(self._config.data, self._info)

    # -- while it runs -----------------------------------------------------------------------

    def _stop_if_done(self, engine: Engine) -> None:
        """Ends a burst once nothing is left that could run by itself."""
        if is_done(engine.state):
            assert self._stop is not None
            self._stop.set()

    @property
    def _as_json(self) -> bool:
        return self._config.log_format == "json"

    def _pool_failed(self, message: str) -> None:
        self._failure = message
        if self._stop is not None:
            self._stop.set()

    def _fail(self, error: BaseException) -> None:
        """The log failed: nothing more may be said, so the process ends at once.

        The zygote sees its pipe close and kills every worker's group.  Only who is deposed goes
        on: the log is in order, and another server's.
        """
        if isinstance(error, LostLeadership):
            log.warning("%s: this server discards what it holds and recovers", error)
            self._deposed = True
            assert self._stop is not None
            self._stop.set()
            return
        what = error if isinstance(error, BeaverError) else f"{type(error).__name__}: {error}"
        code = error.exit_code if isinstance(error, BeaverError) else EXIT_STORAGE
        message = f"beaver: {what}\n"
        if not isinstance(error, LogLost):
            message += "Nothing acknowledged is lost; start again to recover.\n"
        said = readiness.line(message.rstrip(), as_json=self._as_json, level="critical")
        log_output.last_words(f"{said}\n")
        os._exit(code if isinstance(error, StorageFailed) else EXIT_STORAGE)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def _hung_up(self) -> None:
        if self._reloading is None:
            log.warning("SIGHUP: the server starts or ends; nothing is reloaded")
        else:
            self._reloading.begin()

    def _leave(self) -> None:
        """Another server wants the store: the end that a first signal brings."""
        assert self._stop is not None
        if not self._stop.is_set():
            grace_s = self._config.grace_ms // 1000
            log.warning("another server takes over: running jobs get %d s", grace_s)
            self._stop.set()

    def _signalled(self, number: int) -> None:
        assert self._stop is not None
        self._signals += 1
        if self._signals > 1:
            # The second signal: at once.  What is acknowledged is on disk.
            log_output.last_words("", SECOND_SIGNAL_S)
            os._exit(128 + number)
        log.warning("stopping: running jobs get %d s", self._config.grace_ms // 1000)
        self._stop.set()


def _begin(parts: Assembly, bulks: Bulks) -> None:
    """Starts what runs by itself, and goes on with what was under way."""
    parts.start()
    bulks.resume()


def _writer() -> str:
    """Returns who this server is, for its BOOT."""
    return f"{platform.node()[:HOST_BYTES_MAX]}:{os.getpid()}"


def _certificate(config: Config) -> Certificate | None:
    if not config.tls_cert:
        return None
    from beaver.server.http.tls import Certificate

    return Certificate(config.tls_cert, config.tls_key)


def _programs(config: Config) -> Programs:
    return Programs(config.allow_exec, config.exec_allow)


def _pool_options(config: Config, mark: str) -> PoolOptions:
    return PoolOptions(
        workers=config.workers,
        mark=mark,
        app=config.app,
        executor=config.executor,
        concurrency=config.concurrency,
        max_jobs=config.max_jobs,
        max_rss_bytes=config.max_rss_bytes,
        programs=_programs(config),
        start_limit_ms=config.start_timeout_ms,
        log_level=config.log_level,
        log_format=config.log_format,
    )
