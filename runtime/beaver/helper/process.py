"""The helper as the server sees it: `ports.Helper` on a process of its own.

The process is started with the first request, and ended when nothing was asked for a while:
a server that has nothing to do keeps no helper in memory.  If it dies, what was asked of it
fails with `HelperFailed` and the next request starts a new one; the server goes on either way,
since nothing acknowledged depends on the helper.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from beaver.errors import BeaverError, HelperFailed
from beaver.structs.messages import SnapshotWritten
from beaver.structs.questions import Known, Search, Wanted
from beaver.system.kinship import STORE_VARIABLE
from beaver.transport.framing import FrameReader, decode_message, encode_frame, error_named
from beaver_model.contents import Glance

IDLE_S: Final = 20.0
"""Idle seconds after which the process is ended; starting it again takes 0.1 s."""

_END_SECONDS: Final = 5.0
_KINDS: Final = ("prepare", "snapshot", "project", "tell", "endings", "walk", "enqueued", "find")


class HelperProcess:
    """Starts and asks the helper of one store.  One request of a kind at a time."""

    def __init__(self, data: str, mark: str = "", idle_s: float = IDLE_S) -> None:
        """Notes what the helper is for; the first request starts it.

        Args:
            data: The data directory.
            mark: The store's mark: goes to the helper's environment, so that the next server
                finds a helper that outlived its own and kills it.
            idle_s: How long the process stays without a request.
        """
        self._data = _absolute(data)
        self._mark = mark
        self._connection: _Connection | None = None
        self._starting = asyncio.Lock()
        self._kinds = {kind: asyncio.Lock() for kind in _KINDS}
        self._stopped = False
        self._idle_s = idle_s
        self._asking = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        """The work in progress, whether or not a caller still waits for it."""
        self._rest: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running helper's pid."""
        alive = self._connection is not None and not self._connection.lost
        return self._connection.process.pid if alive and self._connection else None

    async def prepare(self, path: str, size: int) -> None:
        """Makes a file of `size` zero bytes, synced.

        Raises:
            DiskFull: It does not fit.
            HelperFailed: The helper died.
        """
        await self._ask("prepare", [_absolute(path), size])

    async def snapshot(
        self,
        last_seq: int,
        keep_archive_bytes: int,
        keep_archive_ms: int,
        live: Glance | None = None,
    ) -> SnapshotWritten:
        """Takes a snapshot at `last_seq`, a durable seq, and prunes the archive.

        Raises:
            BeaverError: As `work.take_snapshot`.
            HelperFailed: The helper died.
        """
        args = [last_seq, keep_archive_bytes, keep_archive_ms, live]
        answer = await self._ask("snapshot", args)
        return SnapshotWritten(*answer)

    async def project(self, last_seq: int) -> int:
        """Projects the log up to `last_seq`, a durable seq; returns the history's seq.

        Raises:
            BeaverError: As `work.project`.
            HelperFailed: The helper died.
        """
        return int(await self._ask("project", [last_seq]))

    async def tell(self, known: Sequence[Known], until_seq: int) -> bytes:
        """Returns, as JSON, the events of jobs up to `until_seq`, a durable seq.

        Raises:
            BeaverError: As `stories.tell`.
            HelperFailed: The helper died.
        """
        return bytes(await self._ask("tell", [list(known), until_seq]))

    async def endings(self, tokens: Sequence[int], until_seq: int) -> bytes:
        """Returns, as JSON, what the log tells of attempts up to `until_seq`, a durable seq.

        Raises:
            BeaverError: As `endings.find_endings`.
            HelperFailed: The helper died.
        """
        return bytes(await self._ask("endings", [list(tokens), until_seq]))

    async def walk(self, after_seq: int, until_seq: int, bytes_max: int) -> bytes:
        """Returns, as JSON, the events behind a seq, up to `until_seq`, a durable seq.

        Raises:
            BeaverError: As `walking.Walker.events`.
            HelperFailed: The helper died.
        """
        return bytes(await self._ask("walk", [after_seq, until_seq, bytes_max]))

    async def enqueued(
        self, wanted: Wanted, after_seq: int, until_seq: int, jobs_max: int
    ) -> bytes:
        """Returns, as JSON, jobs that came in behind a seq.

        Raises:
            BeaverError: As `walking.Walker.enqueued`.
            HelperFailed: The helper died.
        """
        return bytes(await self._ask("enqueued", [wanted, after_seq, until_seq, jobs_max]))

    async def find(self, search: Search, until_seq: int) -> bytes:
        """Takes a step of a search for finished jobs, and returns it as JSON.

        Raises:
            BeaverError: As `stories.find_finished`.
            HelperFailed: The helper died.
        """
        return bytes(await self._ask("find", [search, until_seq]))

    async def stop(self) -> None:
        """Ends the helper; what it is doing is undone or finished.  It is not started again."""
        self._stopped = True
        if self._rest is not None:
            self._rest.cancel()
        await self._end()

    async def _end(self) -> None:
        """Ends the process, unless something is being asked and it is not to stop for good."""
        async with self._starting:
            if self._connection is not None and (self._stopped or not self._asking):
                await self._connection.end()
                self._connection = None

    def _idle(self) -> None:
        self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _ask(self, kind: str, args: list[Any]) -> Any:
        """Has something done, one of a kind at a time.

        A cancelled caller stops waiting.  The work goes on, and the next of its kind
        waits for it: two that project at once would take each other's rows for damage.
        """
        task = asyncio.get_running_loop().create_task(self._have_done(kind, args))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # The caller may be gone.

    async def _have_done(self, kind: str, args: list[Any]) -> Any:
        self._asking += 1
        if self._rest is not None:
            self._rest.cancel()
        try:
            async with self._kinds[kind]:
                connection = await self._connected()
                return await connection.ask(kind, args)
        finally:
            self._asking -= 1
            if not self._asking and not self._stopped:
                loop = asyncio.get_running_loop()
                self._rest = loop.call_later(self._idle_s, self._idle)

    async def _connected(self) -> _Connection:
        async with self._starting:
            if self._stopped:
                raise HelperFailed("the helper has been stopped")
            if self._connection is not None and self._connection.lost:
                await self._connection.end()
                self._connection = None
            if self._connection is None:
                self._connection = await _start(self._data, self._mark)
            return self._connection


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


async def _start(data: str, mark: str) -> _Connection:
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise HelperFailed(f"the helper process cannot be started: {error}") from error
    try:
        ours.setblocking(False)
        environment = os.environ | ({STORE_VARIABLE: mark} if mark else {})
        # The only descriptors that it gets are these three; above all not the lock's.
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-P", "-m", "beaver.helper", data, str(os.getpid())],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            close_fds=True,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        ours.close()
        raise HelperFailed(f"the helper process cannot be started: {error}") from error
    finally:
        theirs.close()
    connection = _Connection(process)
    loop = asyncio.get_running_loop()
    try:
        await loop.create_unix_connection(lambda: connection, sock=ours)
    except OSError as error:
        ours.close()
        process.kill()
        process.wait()
        raise HelperFailed(f"the helper process cannot be reached: {error}") from error
    return connection


class _Connection(asyncio.Protocol):
    """The socket to one helper process, and what is asked of it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, op: str, args: list[Any]) -> Any:
        if self.lost or self._transport is None:
            raise HelperFailed("the helper process died")
        self._numbers += 1
        number = self._numbers
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._transport.write(encode_frame([number, op, args]))
        try:
            return await answer
        finally:
            self._asked.pop(number, None)

    async def end(self) -> None:
        """Closes the socket, which ends the process, and reaps it."""
        if self._transport is not None:
            self._transport.abort()
        await asyncio.to_thread(self._reap)

    def _reap(self) -> None:
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, 9)
            self.process.wait()

    # -- asyncio.Protocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop\'s transports do not derive from asyncio\'s.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                number, status, result = decode_message(body)
                answer = self._asked.get(number)
                if answer is None or answer.done():
                    continue
                if status == 0:
                    answer.set_result(result)
                else:
                    answer.set_exception(error_named(*result))
        except (BeaverError, ValueError, TypeError) as error:
            self._fail(f"the helper process answered nonsense: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the helper process died (pid {self.process.pid})")

    def _fail(self, message: str) -> None:
        self.lost = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(HelperFailed(message))
        if self._transport is not None:
            self._transport.abort()
