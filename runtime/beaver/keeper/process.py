"""The keeper's process: it opens the store, listens, and ends when nobody needs it.

1. It takes the log, or finds that somebody else serves the store by now, and ends.
2. It recovers, listens, writes `server.json`, and tells its starter.
3. It ends when nobody has asked for anything for a while, when a server wants the lock, on a
   signal, and when its directory is no longer where it was.  First it is no longer to be
   found; then all that has come in is carried out, synced and answered; then connections get
   their farewell.  So a client knows of each request whether it was carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from beaver.config.layers import Config
from beaver.errors import BeaverError
from beaver.helper.process import HelperProcess
from beaver.holder.owning import own_log
from beaver.journal.wal.format import STORE_ID_BYTES
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import Patience
from beaver.journal.wal.opening import OwnedWal
from beaver.keeper.parts import KeeperParts
from beaver.server.bulk.carrying_out import Bulks
from beaver.server.bulk.choosing import Choosing
from beaver.server.past import Past
from beaver.server.unix_socket import SocketServer
from beaver.system import descriptors
from beaver.system.clock import SystemClock, SystemEntropy
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint
from beaver.transport.framing import encode_error, encode_frame

CHEAP_RECOVERY_MS: Final = 100
"""A recovery that takes no longer than this is cheap to repeat."""
IDLE_PER_RECOVERY: Final = 200
"""A keeper stays idle this many times as long as its recovery took beyond that."""
IDLE_MS_MAX: Final = 600_000
"""It waits no longer than this for the sake of its recovery."""
BEAT_S: Final = 1.0
HANG_UP_S: Final = 1.0
"""How long sending the last answers may take."""
_EXIT_STORAGE: Final = 7


def main() -> None:
    """Keeps the store of the configuration on standard input; never returns."""
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=Config)
    starter = _Starter()
    code = 0
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(Keeper(config, starter).run())
    except BeaverError as error:
        starter.tell(encode_error(0, error))
        code = error.exit_code
    except Exception as error:  # noqa: BLE001 - the starter has to learn of any error
        starter.tell(encode_error(0, BeaverError(f"{type(error).__name__}: {error}")))
        code = 1
    os._exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


class _Starter:
    """The process that waits at the other end of standard output, answered once."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)

    def tell(self, frame: bytes) -> None:
        """Writes one frame and hangs up; the second time does nothing."""
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):  # A starter that is gone need not know.
            os.write(self._descriptor, frame)
        os.close(self._descriptor)
        self._descriptor = -1


class Keeper:
    """One run of a keeper."""

    def __init__(self, config: Config, starter: _Starter) -> None:
        self._config, self._starter = config, starter
        self._layout = Layout(config.data)
        self._clock, self._disk = SystemClock(), SystemDisk()
        self._leave: asyncio.Event | None = None

    async def run(self) -> None:
        """Runs until it is not needed.

        Raises:
            BeaverError: It could not start.
        """
        self._leave = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            loop.add_signal_handler(number, self._leave.set)
        owned = await self._own()
        if owned is None:
            self._starter.tell(encode_frame([0, 0, []]))
            return
        try:
            await self._keep(owned)
        finally:
            # Before it is given up: from then on the file is another one's.
            endpoint.withdraw(self._config.data)
            owned.abandon()

    async def _own(self) -> OwnedWal | None:
        """Returns the log, owned; `None` where somebody serves the store by now."""
        patience = Patience(self._config.data)
        store = SystemEntropy().token_bytes(STORE_ID_BYTES)
        while (owned := own_log(self._config, self._disk, self._clock, store)) is None:
            reached = endpoint.reach(self._config.data)
            if reached is not None:
                reached[0].close()
                return None
            patience.wait()  # This loop serves no other client yet.
        return owned

    async def _keep(self, owned: OwnedWal) -> None:
        config = self._config
        assert self._leave is not None, "made by run"
        mark = endpoint.directory_mark(config.data)
        endpoint.tell_phase(config.data, "starting")
        parts = KeeperParts(
            config,
            owned,
            clock=self._clock,
            disk=self._disk,
            on_failure=self._fail,
            make_helper=partial(HelperProcess, config.data),
            make_past=partial(Past, Layout(config.data)),
        )
        self._disk.keep(self._layout.path, self._layout.archive)
        parts.service.on_leave = self._leave.set
        parts.service.pid = os.getpid()
        bulks = Bulks(parts.engine, config.data, self._clock, SystemEntropy())
        parts.service.choosing = Choosing(parts.engine, bulks, parts.helper.enqueued)
        descriptors.say_in_one_line(asyncio.get_running_loop())
        shares = descriptors.shares(descriptors.raise_limit(), descriptors.open_now(), 0)
        socket = SocketServer(parts.service, parts.store.hex(), shares.sockets)
        path = endpoint.socket_path(config.data)
        await socket.start(path)
        parts.start()
        bulks.resume()
        self._tell_of(path, parts.store.hex(), parts.engine.state.epoch)
        self._starter.tell(encode_frame([0, 0, []]))
        await self._until_unneeded(parts, bulks, mark)

        async def close_doors() -> None:
            await bulks.close()
            await socket.close()
            deadline_s = time.monotonic() + HANG_UP_S
            while socket.connections and time.monotonic() < deadline_s:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

        if self._is_there(mark):
            endpoint.withdraw(config.data)
        await parts.halt(close_doors)
        await parts.finish()

    def _tell_of(self, path: str, store: str, epoch: int) -> None:
        """Writes where this keeper listens."""
        info = endpoint.ServerInfo(
            pid=os.getpid(),
            socket=path,
            store=store,
            started_ms=self._clock.wall_ms(),
            epoch=epoch,
            keeper=True,
        )
        endpoint.write(self._config.data, info)
        endpoint.tell_phase(self._config.data, "")

    async def _until_unneeded(self, parts: KeeperParts, bulks: Bulks, mark: str) -> None:
        """Returns when another process needs the lock, or no client needs this keeper."""
        assert self._leave is not None, "made by run"
        costly_ms = parts.report.total_ms - CHEAP_RECOVERY_MS
        patience_ms = min(costly_ms * IDLE_PER_RECOVERY, IDLE_MS_MAX)
        idle_s = max(self._config.keeper_idle_ms, patience_ms) / 1000
        done, since_s = (-1, -1), time.monotonic()
        while not self._leave.is_set():
            now_s = time.monotonic()
            # Also what was answered: a commit on a slow disk may take as long as that.
            if (now := (parts.service.asked, parts.engine.counters.commits)) != done:
                done, since_s = now, now_s
            idle = now_s - since_s >= idle_s and not bulks.running
            if idle or not self._is_there(mark):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(BEAT_S, since_s + idle_s - now_s)):
                    await self._leave.wait()

    def _is_there(self, mark: str) -> bool:
        """True where directory and log are still at their path."""
        try:
            return endpoint.directory_mark(self._config.data) == mark and self._disk.exists(
                self._layout.log
            )
        except OSError:
            return False

    def _fail(self, error: BaseException) -> None:
        """The log failed: nothing more may be said, so the process ends at once."""
        os._exit(_EXIT_STORAGE)
