"""The asyncio client: the calls of `calls`, pipelined over one connection.

A lone call leaves at once; while one is under way, those of one turn of the loop leave in one
write. Cancelling a call only stops the wait; the server may still carry it out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from beaver.client import blocking
from beaver.client.calls import Asynchronous, Call, Operations
from beaver.errors import BeaverError, ServerGone, ServerLeft
from beaver.request.operations import Operation
from beaver.transport import framing
from beaver.transport.endpoint import Greeting, ServerInfo

T = TypeVar("T")

_TOGETHER: Final = 8
"""Calls of one turn that leave in one write: the server works on them while the next are made."""


class _Wire(asyncio.Protocol):
    """The connection: frames out, answers to their futures."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.lost = False
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport | None = None
        self._reader = framing.FrameReader()
        self._waiting: dict[int, tuple[Operation[Any], asyncio.Future[Any]]] = {}
        self._frames: list[bytes] = []
        self._number = 0

    def ask(self, call: Call[Any]) -> asyncio.Future[Any]:
        if self.lost:
            raise ServerLeft("the connection to the server is closed; nothing was sent")
        self._number += 1
        frame = framing.encode_request(self._number, call.operation.name, call.body)
        future: asyncio.Future[Any] = self.loop.create_future()
        if not self._waiting and self.transport is not None:
            self.transport.write(frame)
        else:
            frames = self._frames
            frames.append(frame)
            if len(frames) == 1:
                self.loop.call_soon(self._flush)
            elif len(frames) >= _TOGETHER:
                self._flush()
        self._waiting[self._number] = (call.operation, future)
        return future

    def _flush(self) -> None:
        frames, self._frames = self._frames, []
        if frames and self.transport is not None and not self.lost:
            self.transport.write(b"".join(frames))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop\'s transports do not derive from asyncio\'s.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)  # Writes are sent at once.

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._reader.feed(data):
                number, status, answer = framing.decode_answer(body)
                if status == framing.FAREWELL:
                    self._lose(blocking.left)
                    return
                _, future = self._waiting.pop(number, (None, None))
                if future is None or future.done():
                    continue
                if status:
                    future.set_exception(framing.decode_error(answer))
                else:
                    future.set_result(answer)
        except (BeaverError, TypeError, ValueError):
            # It is no valid answer: nothing after it can be trusted.
            assert self.transport is not None
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(blocking.gone)
        self.ended.set()

    def _lose(self, how: Callable[[Operation[Any]], ServerGone]) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for operation, future in waiting.values():
            if not future.done():
                future.set_exception(how(operation))


class AsyncClient(Operations, Asynchronous):
    """A connection to a server, for one event loop.  Get one from `connect`."""

    def __init__(self, wire: _Wire, greeting: Greeting, info: ServerInfo | None = None) -> None:
        self.greeting = greeting
        self.info = info
        self.process = os.getpid()
        self._wire = wire
        # `asyncio.run` cancels this task when it ends, and so closes what nobody closed.
        self._guard = wire.loop.create_task(self._end_with_loop())

    async def _end_with_loop(self) -> None:
        try:
            await self._wire.ended.wait()
        finally:
            self.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that this client belongs to."""
        return self._wire.loop

    @property
    def closed(self) -> bool:
        """The connection is lost or closed; open a new one."""
        return self._wire.lost

    async def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the error that answers it, or `ServerGone`."""
        return call.finish(call.operation.parse(await self._wire.ask(call)))

    def close(self) -> None:
        """Ends the connection; calls under way get `ServerGone`."""
        if self._wire.transport is not None:
            self._wire.transport.abort()

    async def aclose(self) -> None:
        """Ends the connection, and waits until nothing of it is left in the loop."""
        self.close()
        await asyncio.wait((self._guard,))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def connect(data: str | os.PathLike[str]) -> AsyncClient:
    """Connects to the server that holds a data directory, or to a `unix:` URL.

    Raises:
        NotFound: There is no such directory.
        StoreUnavailable: No server holds it, or it cannot be used.
    """
    # A hello may take seconds, and a start longer: not on the loop.
    return await _adopt(await asyncio.to_thread(blocking.connect, data))


async def find(data: str | os.PathLike[str]) -> AsyncClient | None:
    """Connects as `connect` does; `None` where no server holds the directory."""
    # The hello of an unresponsive server may take seconds: not on the loop.
    found = await asyncio.to_thread(blocking.find, data)
    return None if found is None else await _adopt(found)


async def _adopt(found: blocking.Client) -> AsyncClient:
    """Returns an asyncio client on the connection of a blocking one."""
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_unix_connection(_Wire, sock=found.detach())
    return AsyncClient(wire, found.greeting, found.info)
