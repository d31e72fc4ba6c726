"""The local socket: frames in, frames out, for Python clients and the command line.

One connection pipelines many requests; answers leave in the order in which they become
durable.  A client that sends garbage, or does not read its answers, loses its connection;
nobody else notices.  What the operations mean stands in `service`, the frames in `protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec

from beaver import protocol
from beaver.descriptors import SOCKETS_MAX
from beaver.errors import BeaverError, InvalidInput, StoreUnavailable
from beaver.server.service import Answer, Service, Watch

UNREAD_BYTES_MAX: Final = 64 << 20
"""A client that leaves more answers unread than this is cut off."""

PAUSE_BYTES: Final = 4 << 20
"""Requests of a client wait while it has so many answers unread."""


class Outbox:
    """Connections with answers to be sent: those of a commit leave together."""

    def __init__(self, once_told: Callable[[Callable[[], None]], None]) -> None:
        """`once_told` calls back once no more answers are told for now."""
        self._once_told = once_told
        self._full: list[Connection] = []

    def add(self, connection: Connection) -> None:
        """Has a connection's answers sent soon."""
        if not self._full:
            self._once_told(self._send)
        self._full.append(connection)

    def _send(self) -> None:
        full, self._full = self._full, []
        for connection in full:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001 - the others get theirs
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "answers could not be sent", "exception": error}
                )


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(
        self,
        service: Service,
        store: str,
        connections: set[Connection],
        connections_max: int = SOCKETS_MAX,
        outbox: Outbox | None = None,
    ) -> None:
        self._service, self._store, self._connections = service, store, connections
        self._connections_max = connections_max
        self._outbox = outbox or Outbox(service.once_told)
        self._reader = protocol.FrameReader()
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._watches: dict[int, Watch] = {}
        """Answers that do not come at once, by the number of their request."""
        self._holder: Watch | None = None
        """One of them that the client's next requests wait for."""
        self._paused = False
        """The client does not read: requests that have arrived wait as well."""

    @property
    def watches(self) -> int:
        """Waits of this client that are not answered yet."""
        return len(self._watches)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop\'s transports do not derive from asyncio\'s.
        self._transport = cast("asyncio.Transport", transport)
        if len(self._connections) >= self._connections_max:
            # The log and the workers need descriptors too, and come first.
            full = StoreUnavailable(
                f"the server has {self._connections_max} connections open, which is the limit; "
                "close some, or try again"
            )
            self._transport.write(protocol.encode_error(0, full))
            self._transport.close()
            self._transport = None
            return
        self._transport.set_write_buffer_limits(high=PAUSE_BYTES)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`.  What was submitted goes on; its answers are dropped."""
        self._transport = self._holder = None
        self._connections.discard(self)
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            watch.drop()

    def pause_writing(self) -> None:
        """Takes no more requests from a client that does not read."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = False
        self._go_on()

    def _go_on(self) -> None:
        """Takes requests again: first what has arrived meanwhile."""
        if self._transport is None or self._paused or self._holder is not None:
            return
        self.data_received(b"")
        if self._transport is not None and not self._paused and self._holder is None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Handles every request that these bytes complete, as long as answers are read.

        A read brings thousands of small requests, each of which may have a large answer: so
        it stops between two of them where the client falls behind, or where an answer has to
        be looked for.
        """
        try:
            for frame in self._reader.feed(data):
                self._request(*protocol.decode_request(frame))
                if self._out_bytes >= PAUSE_BYTES:
                    self.flush()
                if self._paused or self._holder is not None:
                    break
        except InvalidInput as error:
            self._answer(0, error)
            self.flush()
            self.close()

    def _request(self, number: int, op: str, body: msgspec.Raw) -> None:
        if self._greeted:
            watch = self._service.handle(op, body, partial(self._answer, number))
            if watch is not None and not watch.over:
                if number in self._watches:
                    self._watches[number].drop()  # a client that counts wrongly waits once
                self._watches[number] = watch
                if watch.holds and self._transport is not None:
                    self._holder = watch
                    self._transport.pause_reading()
            return
        if op != "hello" or protocol.decode_message(body) != [protocol.VERSION]:
            raise InvalidInput(
                f"the first request must be hello with protocol version {protocol.VERSION}"
            )
        self._greeted = True
        self._answer(number, [protocol.VERSION, *self._service.hello(self._store)])

    def _answer(self, number: int, answer: Answer) -> None:
        """Queues an answer; those of a commit leave in one write."""
        if self._transport is None:
            return
        if not self._out:
            self._outbox.add(self)
        if self._watches:
            watch = self._watches.pop(number, None)
            if watch is not None and watch is self._holder:
                self._holder = None
                self._service.once_told(self._go_on)
        if isinstance(answer, BeaverError):
            frame = protocol.encode_error(number, answer)
        else:
            frame = protocol.encode_frame([number, 0, answer])
        self._out.append(frame)
        self._out_bytes += len(frame)

    def flush(self) -> None:
        """Sends what is queued."""
        out, self._out, self._out_bytes = self._out, [], 0
        if self._transport is None or not out:
            return
        self._transport.write(b"".join(out))
        if self._transport.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._transport.abort()

    def say_farewell(self) -> None:
        """Hangs up on a client all of whose requests are answered, but those not taken up."""
        if self._greeted and self._transport is not None:
            self._out.append(protocol.encode_frame([0, protocol.FAREWELL, []]))
        self.close()

    def close(self) -> None:
        """Sends what is queued, then hangs up."""
        self.flush()
        if self._transport is not None:
            self._transport.close()


class SocketServer:
    """Listens on a Unix socket (0600) until it is closed."""

    def __init__(self, service: Service, store: str, connections_max: int = SOCKETS_MAX) -> None:
        self._service, self._store = service, store
        self._connections_max = connections_max
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._path = ""

    @property
    def connections(self) -> Collection[Connection]:
        """Those that are open."""
        return self._connections

    async def start(self, path: str) -> None:
        """Listens at `path`; a socket that a dead server left there is replaced.

        Args:
            path: At most `endpoint.SOCKET_PATH_BYTES_MAX` bytes.
        """
        _unlink(path)
        loop, outbox = asyncio.get_running_loop(), Outbox(self._service.once_told)
        most = self._connections_max
        mask = os.umask(0o177)
        try:
            self._server = await loop.create_unix_server(
                lambda: Connection(self._service, self._store, self._connections, most, outbox),
                path,
            )
        finally:
            os.umask(mask)
        self._path = path

    async def close(self) -> None:
        """Stops listening and hangs up on everyone, after their answers."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.say_farewell()
        _unlink(self._path)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()
