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
import contextlib
import gc
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from beaver.access.tokens import ensure_admin
from beaver.client.blocking import socket_of_url
from beaver.config.layers import Config
from beaver.config.setting import DEFAULT
from beaver.config.settings import NEEDS_RESTART, SETTINGS
from beaver.engine.engine import Engine
from beaver.engine.stamps import BEHIND_WARN_MS
from beaver.errors import (
    BeaverError,
    LogLost,
    LostLeadership,
    StorageFailed,
    StoreUnavailable,
)
from beaver.helper.process import HelperProcess
from beaver.holder import starting
from beaver.holder.owning import own_log
from beaver.holder.takeover import take_over
from beaver.holder.turn import Turn
from beaver.inspect.queries import status
from beaver.journal.wal.format import STORE_ID_BYTES, crc_is_fast
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import acquire, prepare_directory
from beaver.journal.wal.opening import OwnedWal
from beaver.server import log_output, queue_counters, readiness
from beaver.server.assembly import Assembly, PoolSink, Ports
from beaver.server.http.listener import HttpServer, check_address
from beaver.server.http.served import Served
from beaver.server.loop_stalls import LoopStalls
from beaver.server.metrics import Collector, registry_of
from beaver.server.past import Past
from beaver.server.reachable import stay_reachable
from beaver.server.unix_socket import SocketServer
from beaver.snapshot.files import FileSnapshots
from beaver.store.rebuild import Replica
from beaver.store.recovery import read_ahead
from beaver.structs.views import ReloadView, StatusView, WorkerView
from beaver.system import descriptors
from beaver.system.clock import SystemClock, SystemEntropy
from beaver.system.disk import SystemDisk
from beaver.system.kinship import UNMARKED
from beaver.task import output
from beaver.text.foreign import counted
from beaver.transport import endpoint
from beaver.workers.pool import ProcessPool
from beaver.workers.pool_options import PoolOptions
from beaver.workers.slots import read_previous
from beaver_model import JobState, State

log = logging.getLogger("beaver")

EXIT_STORAGE: Final = 7
HOST_BYTES_MAX: Final = 64
"""So much of the host's name stands in a BOOT."""
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
    stalls = LoopStalls()
    with (
        log_output.queued(output.notice_of(config.log_format)),
        asyncio.Runner(loop_factory=stalls.new_loop) as runner,
    ):
        return runner.run(Server(config, reread or (lambda: config), stalls).run())


class Server:
    """One run of a server."""

    def __init__(self, config: Config, reread: Callable[[], Config], stalls: LoopStalls) -> None:
        self._config, self._reread, self._stalls = config, reread, stalls
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._disk = SystemDisk()
        self._stop: asyncio.Event | None = None
        self._failure: str | None = None
        self._ending = False
        self._deposed = False
        """Another server leads by now."""
        self._staying: asyncio.Task[None] | None = None
        self._signals = 0
        self._reloads: set[asyncio.Task[None]] = set()
        self._parts: Assembly | None = None
        """Once they are ready."""
        self._turn = Turn(-1)
        self._info = endpoint.ServerInfo(os.getpid(), "", "")

    async def run(self) -> int:
        """Runs until a signal, an empty queue with `burst`, or a failure.

        A server that was deposed is none: it discards everything, recovers, and goes on.
        """
        self._stop = asyncio.Event()
        # From the beginning: a signal during a long start ends it cleanly once it is ready.
        self._catch_signals()
        while True:
            self._deposed = self._ending = False
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
        ahead = self._read_ahead()
        tasks = await pool.start(sink)
        try:
            expected = config.data
            config = self._config = _at_home(config, pool.app_store)
            prepare_directory(self._disk, config.data)
            self._turn = starting.take_turn(config.data)
            owned = await self._own()
            if owned is None:
                return 0
            try:
                descriptors.say_in_one_line(asyncio.get_running_loop())
                endpoint.tell_phase(config.data, "starting")
                ports = self._ports(pool)
                parts = Assembly(config, ports, on_failure=self._fail, writer=_writer())
                found = await ahead if config.data == expected else None
                snapshots = FileSnapshots(self._disk, Layout(config.data))
                await parts.recover(owned, snapshots, tasks, found)
                self._keep_directories()
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

    def _read_ahead(self) -> asyncio.Future[Replica | None]:
        """Reads the store while the zygote imports the application, on another core.

        Nothing is written and no lock is held, so an import that fails leaves no trace, and what
        was read is used only if it still holds under the lock.
        """
        config, loop = self._config, asyncio.get_running_loop()
        found: asyncio.Future[Replica | None] = loop.create_future()
        if config.takeover or (config.app and config.origins["data"] == DEFAULT):
            # Another server writes on, or the application says where its store is.
            found.set_result(None)
            return found

        def tell(reading: Replica | None) -> None:
            if not found.done():
                found.set_result(reading)

        def read() -> None:
            reading = read_ahead(self._disk, config.data, clock=self._clock)
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(tell, reading)

        threading.Thread(target=read, name="read ahead", daemon=True).start()
        return found

    def _keep_directories(self) -> None:
        layout = Layout(self._config.data)
        try:
            self._disk.keep(layout.path, layout.archive)
        except OSError as error:
            raise StorageFailed(f"cannot open {error.filename}: {error.strerror}") from error

    async def _own(self) -> OwnedWal | None:
        """Returns the log, owned; `None` where a signal came while it was waited for."""
        assert self._stop is not None
        config = self._config
        store = self._entropy.token_bytes(STORE_ID_BYTES)
        attempt = partial(own_log, config, self._disk, self._clock, store)
        if not config.takeover:
            ask_keeper = partial(starting.ask_to_leave, config.data)
            return acquire(attempt, config.data, between=ask_keeper)
        if config.http_address is not None and config.http_is_explicit:
            # Before anybody leaves for a server that then ends.
            former = endpoint.read(config.data)
            await check_address(*config.http_address, former=former.http if former else "")
        return await take_over(attempt, config.data, self._stop)

    def _ports(self, pool: ProcessPool) -> Ports:
        config = self._config
        return Ports(
            clock=self._clock,
            entropy=self._entropy,
            disk=self._disk,
            pool=pool,
            make_pool=lambda config, mark: ProcessPool(_pool_options(config, mark)),
            read_slots=read_previous,
            make_helper=partial(HelperProcess, config.data),
            make_past=partial(Past, Layout(config.data)),
        )

    async def _serve(self, parts: Assembly, sink: PoolSink) -> int:
        config, engine, store = self._config, parts.engine, parts.store.hex()
        status = partial(self._status, parts)
        parts.build(
            sink,
            status=status,
            on_pool_failure=self._pool_failed,
            on_quiet=partial(self._stop_if_done, engine) if config.burst else None,
            on_violation=self._pool_failed if config.burst else None,
            reload=partial(self._reload, parts),
            leave=self._leave,
        )
        shares = descriptors.shares(
            descriptors.raise_limit(), descriptors.open_now(), config.workers
        )
        socket = SocketServer(parts.service, store, shares.sockets)
        http: HttpServer | None = None

        async def close_doors() -> None:
            await socket.close()
            if http is not None:
                await http.close()

        try:
            address = ""
            if config.http_address is not None:
                collector = Collector(
                    parts.metrics,
                    engine.counters,
                    lambda: status(engine.state, with_queues=False),
                    lambda: queue_counters.take(engine.state, engine.now_ms()),
                    lambda: parts.results.bytes,
                    self._stalls,
                )
                http = HttpServer(
                    partial(registry_of, collector),
                    partial(self._not_ready, parts),
                    self._served(parts),
                    shares.http,
                    collector.prepare,
                )
                host, port = config.http_address
                address = await http.start(host, port, explicit=config.http_is_explicit)
            socket_path = endpoint.socket_path(config.data)
            await socket.start(socket_path)
            parts.start()
            self._tell_of(
                socket=socket_path,
                store=store,
                http=address,
                started_ms=self._clock.wall_ms(),
                epoch=engine.state.epoch,
            )
            endpoint.tell_phase(config.data, "")
            self._turn.release()
            stay = stay_reachable(config.data, socket, self._tell_of)
            self._staying = asyncio.get_running_loop().create_task(stay)
            self._stalls.watch()
            self._say_ready(parts, socket_path, address)
            self._parts = parts
            if config.burst:
                self._stop_if_done(engine)
            assert self._stop is not None
            await self._stop.wait()
            self._ending, self._parts = True, None
            for reload in self._reloads:
                reload.cancel()
            await self._wind_up(parts)
        finally:
            self._ending, self._parts = True, None
            self._stalls.end()
            if self._staying is not None:
                self._staying.cancel()
            endpoint.tell_phase(config.data, "ending")
            await (parts.discard if self._deposed else parts.halt)(close_doors)
        endpoint.withdraw(config.data)  # While the store is ours.
        await parts.finish()
        if self._failure is not None:
            said = readiness.line(f"beaver: {self._failure}", as_json=self._as_json, level="error")
            print(said, file=sys.stderr)  # noqa: T201 - the last word
            return EXIT_APP
        return 0

    def _served(self, parts: Assembly) -> Served:
        """Returns what HTTP asks, whose owner finds a token in the data directory from now on."""
        try:
            ensure_admin(self._config.data, self._clock.wall_ms(), self._entropy)
        except StoreUnavailable as error:
            log.warning("no token for HTTP can be made: %s", error)
        return Served(
            parts.engine,
            parts.service,
            self._config.data,
            self._clock,
            parts.queue_of,
            parts.take_snapshot,
        )

    async def _wind_up(self, parts: Assembly) -> None:
        """No new work: what runs gets its grace, and files are brought up to date."""
        if self._deposed:
            return
        if self._config.burst and self._failure is None:
            _name_what_is_left(parts.engine.state, as_json=self._as_json)
        await parts.drain(0 if self._failure else self._config.grace_ms)
        await parts.settle()

    def _tell_of(self, **changes: Any) -> None:
        """Writes where this server listens, or that it is about to, or does so no longer."""
        self._info = msgspec.structs.replace(self._info, **changes)
        endpoint.write(self._config.data, self._info)

    # -- while it runs -----------------------------------------------------------------------

    def _status(self, parts: Assembly, state: State, *, with_queues: bool = True) -> StatusView:
        report, engine = parts.report, parts.engine
        now_ns = self._clock.monotonic_ns()
        workers = []
        for worker in parts.controller.workers.values():
            pool = worker.crew.pool
            token, since_ns = pool.started(worker.number) if worker.ready else (0, 0)
            held = worker.held.get(token)
            workers.append(
                WorkerView(
                    id=worker.number,
                    pid=worker.pid if worker.ready else 0,
                    ready=worker.ready,
                    job=held.attempt.job if held is not None else None,
                    since_ms=(now_ns - since_ns) // 1_000_000 if held is not None else 0,
                    leaving=worker.leaving,
                )
            )
        return status(
            state,
            engine.now_ms(),
            running=True,
            with_queues=with_queues,
            store=parts.store.hex(),
            recovery_ms=report.total_ms,
            recovery=msgspec.to_builtins(report),
            workers=workers,
            starts_overdue=parts.controller.starts_overdue,
            halted=parts.controller.halted,
            disk_full=engine.disk_full,
            commit_path=parts.journal.commit_path,
            longest_stretch_ms=self._stalls.longest_s * 1000,
            longest_stretch_in=self._stalls.longest_in,
        )

    def _not_ready(self, parts: Assembly) -> str | None:
        if self._ending:
            return "shutting down"
        if parts.controller.halted:
            return f"nothing is dispatched until a restart; {parts.controller.halted}"
        return "the disk is full: new jobs are refused" if parts.engine.disk_full else None

    def _stop_if_done(self, engine: Engine) -> None:
        """Ends a burst once nothing is left that could run by itself."""
        state = engine.state
        if not state.in_flight and parked(state) == state.count(JobState.PENDING):
            assert self._stop is not None
            self._stop.set()

    def _say_ready(self, parts: Assembly, socket: str, http: str) -> None:
        engine, report = parts.engine, parts.report
        state = engine.state
        if not crc_is_fast():
            log.warning("crcmod has no C extension here: checksums are about 20 times slower")
        if engine.clock_behind_ms > BEHIND_WARN_MS:
            log.warning(
                "the clock is %d s behind the log; stamps go on from the log's last one",
                engine.clock_behind_ms // 1000,
            )
        if report.torn_tail_bytes:
            log.warning(
                "the log ended with %s of no frame, of a write that was never acknowledged; "
                "kept in %s",
                counted(report.torn_tail_bytes, "byte"),
                report.broken or "no file, for want of room",
            )
        names = readiness.names_of(parts.tasks)
        if self._config.app and not readiness.own_tasks(names):
            log.warning("%s has no tasks: no job but the built-in ones can run", self._config.app)
        ready = readiness.Ready(
            last_seq=state.last_seq,
            pending=state.count(JobState.PENDING),
            recovery_ms=report.total_ms,
            workers=self._config.workers,
            tasks=names,
            socket=socket,
            http=http,
        )
        print(ready.json() if self._as_json else ready.text(), flush=True)  # noqa: T201 - CONTRACT

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

    # -- new code and settings -----------------------------------------------------------------

    def _hung_up(self) -> None:
        """SIGHUP: a reload that answers to nobody but the log."""
        if self._parts is None:
            log.warning("SIGHUP: the server starts or ends; nothing is reloaded")
            return
        task = asyncio.get_running_loop().create_task(self._reload_and_tell(self._parts))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_and_tell(self, parts: Assembly) -> None:
        try:
            await self._reload(parts)
        except BeaverError:
            pass  # It is logged.
        except Exception:
            # A bug of ours: the former workers serve on all the same.
            log.exception("reload failed")

    async def _reload(self, parts: Assembly) -> ReloadView:
        """Starts workers with code and settings as they are now.

        Raises:
            BeaverError: It did not work; the former ones serve on.
        """
        try:
            if self._ending:
                raise StoreUnavailable("the server is shutting down; nothing was reloaded")
            config = self._reread()
            if config.origins["data"] == DEFAULT:
                config = msgspec.structs.replace(
                    config, data=self._config.data, origins=self._config.origins
                )
            renewed = await parts.renew(config)
        except BeaverError as error:
            log.error(  # noqa: TRY400 - what failed is in the message
                "reload failed, and the former workers serve on: %s", error
            )
            raise
        output.configure_server(config.log_level, config.log_format)
        self._config = config
        fixed = [setting.name for setting in SETTINGS.values() if setting.name in NEEDS_RESTART]
        fields = {name: SETTINGS[name].field for name in fixed}
        before = renewed.before
        _at_home(config, renewed.app_store)
        restart = [n for n, f in fields.items() if getattr(config, f) != getattr(before, f)]
        log.warning(
            "reloaded: %s; %s still at work",
            counted(config.workers, "new worker"),
            counted(renewed.leaving, "former one"),
        )
        for name in restart:
            log.warning("reload: %s was changed; that takes a restart", name)
        return ReloadView(config.workers, renewed.tasks, renewed.leaving, tuple(restart))

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


def _writer() -> str:
    """Returns who this server is, for its BOOT."""
    return f"{platform.node()[:HOST_BYTES_MAX]}:{os.getpid()}"


def _at_home(config: Config, app_store: str) -> Config:
    """Returns the configuration with the application's own data directory, unless told another.

    What is told wins, and that the two differ is said: what the application enqueues goes to
    the one, and this server serves the other.
    """
    if not app_store or socket_of_url(app_store) is not None:
        return config
    if config.origins["data"] == DEFAULT:
        origins = {**config.origins, "data": "the application"}
        return msgspec.structs.replace(config, data=str(Path(app_store)), origins=origins)
    if os.path.realpath(app_store) != os.path.realpath(config.data):
        log.warning(
            "this server serves %s (%s), and the application says %s: what it enqueues by itself "
            "goes there, and is not run here",
            config.data,
            config.origins["data"],
            app_store,
        )
    return config


def _pool_options(config: Config, mark: str) -> PoolOptions:
    return PoolOptions(
        workers=config.workers,
        mark=mark,
        app=config.app,
        executor=config.executor,
        concurrency=config.concurrency,
        max_jobs=config.max_jobs,
        max_rss_bytes=config.max_rss_bytes,
        allow_exec=config.allow_exec,
        start_limit_ms=config.start_timeout_ms,
        log_level=config.log_level,
        log_format=config.log_format,
    )


def parked(state: State) -> int:
    """Returns how many pending jobs cannot run by themselves: paused, or of an unknown task."""
    total = 0
    for queue in state.queues.values():
        if queue.row.paused:
            total += queue.counts[JobState.PENDING]
        else:
            total += sum(b.live for b in queue.buckets.values() if not b.known)
    return total


def _name_what_is_left(state: State, *, as_json: bool) -> None:
    """Says which jobs a burst leaves behind, and why."""

    def say(text: str, count: int, queue: str) -> None:
        left = f"left: {counted(count, 'job')} in {text}"
        print(  # noqa: T201 - what burst was asked for
            readiness.line(left, as_json=as_json, event="LEFT", count=count, queue=queue)
        )

    for name, queue in state.queues.items():
        if queue.row.paused and queue.counts[JobState.PENDING]:
            say(f"the paused queue {name}", queue.counts[JobState.PENDING], name)
            continue
        for bucket in queue.buckets.values():
            if bucket.live and not bucket.known:
                say(f"{name}: no worker for task {bucket.task}", bucket.live, name)
