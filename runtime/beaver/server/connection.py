"""One client of the local socket: frames in, frames out.

A connection pipelines many requests; answers leave in the order in which they become
durable.  A client that sends garbage, or does not read its answers, loses its connection;
nobody else notices.  What the operations mean stands in `service`, the frames in
`transport/framing`, and who listens in `unix_socket`.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final, cast

import msgspec

from beaver.errors import BeaverError, InvalidInput, StoreUnavailable
from beaver.server.answers import Answer, Asker, Respond, Watch
from beaver.server.budget import (
    FRAME_BYTES_FREE,
    REQUEST_BYTES,
    UNREAD_BYTES_FREE,
    WAITS_ALL_MAX,
    WAITS_MAX,
    Budget,
)
from beaver.server.outbox import Outbox
from beaver.server.service import Service
from beaver.system.descriptors import SOCKETS_MAX
from beaver.system.ownership import is_trusted, said_by
from beaver.transport import endpoint, framing

log: Final = logging.getLogger("beaver")

UNREAD_BYTES_MAX: Final = 64 << 20
"""A client with more unread answers than this is disconnected."""

PAUSE_BYTES: Final = 4 << 20
"""Requests of a client wait while its answers that are unread, or wait for a commit, exceed this.
"""

ASKED_MAX: Final = 10_000
"""Requests of a client wait while this many have no answer; waits for the end of a job do not
count."""

ASKED_FREE: Final = 16
"""Up to this many of them take no share of what all connections may hold."""

HELLO_S: Final = 10.0
"""Seconds for the first request."""


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(
        self,
        service: Service,
        store: str,
        connections: set[Connection],
        connections_max: int = SOCKETS_MAX,
        outbox: Outbox | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._service, self._store, self._connections = service, store, connections
        self._connections_max = connections_max
        self._outbox = outbox or Outbox(service.once_told)
        self._budget = budget or Budget()
        self._answers = self._budget.answers
        self._reader = framing.FrameReader(framing.HELLO_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._by = ""
        """Who it is, for the log."""
        self._hello_timer: asyncio.TimerHandle | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._asked = 0
        """Requests without an answer, waits excepted."""
        self._asked_charged = 0
        """The number of them that the budget knows about."""
        self._held = 0
        """Bytes of answers that are computed, and wait for a commit."""
        self._watches: dict[int, Watch] = {}
        """Answers that do not come at once, by the number of their request."""
        self._holder: Watch | None = None
        """One of them that the client's next requests wait for."""
        self._paused = False
        """The client does not read: requests that have arrived wait as well."""
        self._is_read = True
        self._framed = False
        """Room was asked for, for a frame that is not whole."""

    @property
    def watches(self) -> int:
        """Waits of this client that are not answered yet."""
        return len(self._watches)

    @property
    def unread_bytes(self) -> int:
        """Answers that the client has not read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # -- coming and going ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # uvloop\'s transports do not derive from asyncio\'s.
        self._transport = cast("asyncio.Transport", transport)
        uid = endpoint.client_uid(transport)
        if uid is not None and not is_trusted(uid):
            log.warning("a connection of another user was refused")
            self._transport.abort()
            self._transport = None
            return
        if len(self._connections) >= self._connections_max:
            # The log and the workers need descriptors too, and come first.
            full = StoreUnavailable(
                f"the server has {self._connections_max} connections open, which is the limit; "
                "close some, or try again"
            )
            self._transport.write(framing.encode_error(0, full))
            self._transport.close()
            self._transport = None
            return
        self._by = said_by(uid)
        self._transport.set_write_buffer_limits(high=PAUSE_BYTES)
        self._connections.add(self)
        loop = asyncio.get_running_loop()
        self._hello_timer = loop.call_later(HELLO_S, self.cut_off, "it does not say hello")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`.  What was submitted goes on; its answers are dropped."""
        self._transport = self._holder = None
        self._connections.discard(self)
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        watches, self._watches = self._watches, {}
        self._budget.waits -= len(watches)
        for watch in watches.values():
            watch.drop()
        self._budget.frames.give_back(self)
        self._answers.forget(self)
        self._charge_asked()

    def cut_off(self, why: str) -> None:
        """Hangs up at once."""
        if self._transport is not None:
            log.debug("a client of the socket is hung up on: %s", why)
            self._transport.abort()

    def say_farewell(self) -> None:
        """Tells a client that no further request is taken up, and hangs up."""
        if self._greeted and self._transport is not None:
            self._out.append(framing.encode_frame([0, framing.FAREWELL, []]))
        self.close()

    def close(self) -> None:
        """Sends what is queued, then hangs up."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    # -- requests --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Handles every request that these bytes complete, as long as there is room for more.

        A read may bring thousands of small requests, each with a large answer.  So handling stops
        between two requests where the client falls behind, where an answer has to be searched for,
        or where too much is under way.
        """
        reader = self._reader
        self._outbox.has_come = True
        try:
            answers = self._answers
            if self._is_read and (answers.total < answers.bytes_max or answers.admits(self)):
                for frame in reader.feed(data):
                    self._request(*framing.decode_request(frame))
                    if self._out_bytes >= PAUSE_BYTES:
                        self.flush()
                    if (
                        self._paused
                        or self._holder is not None
                        or self._asked >= ASKED_MAX
                        or self._held >= PAUSE_BYTES
                    ):
                        self._stop_reading()
                        break
            else:
                reader.keep(data)
                self._stop_reading()
        except InvalidInput as error:
            self._answer(0, error)
            self.flush()
            self.close()
            return
        if self._framed or reader.buffer:
            self._account_for_frame()
        if self._asked >= self._asked_charged + ASKED_FREE:
            self._charge_asked()

    def _stop_reading(self) -> None:
        if self._is_read and self._transport is not None:
            self._is_read = False
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Takes requests again: first what has arrived meanwhile."""
        if self._is_read or self._transport is None:
            return
        if self._paused or self._holder is not None:
            return
        if self._asked >= ASKED_MAX or self._held >= PAUSE_BYTES:
            return
        self._is_read = True
        self.data_received(b"")
        if self._is_read and self._transport is not None:
            self._transport.resume_reading()

    def _account_for_frame(self) -> None:
        """Takes room for a frame that is not whole, or waits for it; or gives it back."""
        reader, frames = self._reader, self._budget.frames
        # A client that is not read sends no more of what it has announced.
        size = reader.kept if self._is_read else len(reader.buffer)
        if size <= FRAME_BYTES_FREE or self._transport is None:
            self._framed = False
            frames.give_back(self)
            return
        self._framed = True
        if not frames.take(self, size, arrived=not self._is_read):
            self._stop_reading()

    def _charge_asked(self) -> None:
        """Has the budget know of the requests under way: not of a few, and not one by one."""
        asked = self._asked
        self._answers.charge((asked - self._asked_charged) * REQUEST_BYTES)
        self._asked_charged = asked

    def _charge(self, size: int) -> None:
        self._held += size
        self._answers.charge(size)

    def _request(self, number: int, op: str, body: msgspec.Raw) -> None:
        if not self._greeted:
            self._greet(number, op, body)
            return
        self._asked += 1
        respond = partial(self._answer, number)
        if op == "enqueue":  # As nearly always.
            self._service.enqueue(body, respond)
            return
        if op == "wait" and not self._may_wait(respond):
            return
        watch = self._service.handle(op, body, Asker(respond, self._charge, self._by))
        if watch is not None and not watch.over:
            self._asked -= 1
            if number in self._watches:
                self._watches[number].drop()  # a client that counts wrongly waits once
            else:
                self._budget.waits += 1
            self._watches[number] = watch
            if watch.holds:
                self._holder = watch

    def _may_wait(self, respond: Respond) -> bool:
        """Refuses a wait where too many are open."""
        ours, all_waits = len(self._watches), self._budget.waits
        if ours < WAITS_MAX and all_waits < WAITS_ALL_MAX:
            return True
        whose = f"this connection has {ours}" if ours >= WAITS_MAX else f"there are {all_waits}"
        respond(StoreUnavailable(f"{whose} waits open, which is the limit; wait for some to end"))
        return False

    def _greet(self, number: int, op: str, body: msgspec.Raw) -> None:
        if op != "hello" or framing.decode_message(body) != [framing.VERSION]:
            raise InvalidInput(
                f"the first request must be hello with protocol version {framing.VERSION}"
            )
        self._greeted = True
        self._reader.limit = framing.FRAME_BYTES_MAX
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._asked += 1
        self._answer(number, [framing.VERSION, *self._service.hello(self._store)])

    # -- answers ---------------------------------------------------------------------------------

    def _answer(self, number: int, answer: Answer) -> None:
        """Queues an answer; those of a commit leave in one write."""
        watch = self._watches.get(number) if self._watches else None
        if watch is not None and watch.over:
            del self._watches[number]
            self._budget.waits -= 1
            if watch is self._holder:
                self._holder = None
        elif self._asked:
            self._asked -= 1
        if self._transport is None:
            if self._asked_charged:
                self._charge_asked()
            return
        if not self._out:
            self._outbox.add(self)
        if not self._is_read:
            self._service.once_told(self.go_on)
        if isinstance(answer, BeaverError):
            frame = framing.encode_error(number, answer)
        else:
            frame = framing.encode_frame([number, 0, answer])
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes > 2 * PAUSE_BYTES:
            self.flush()  # Of many waits for one job with a large result, say.

    def flush(self) -> None:
        """Sends what is queued."""
        out, self._out, self._out_bytes = self._out, [], 0
        if self._transport is None or not out:
            return
        self._transport.write(b"".join(out))
        if self._asked_charged:
            self._charge_asked()
        unread = self._transport.get_write_buffer_size()
        if unread > UNREAD_BYTES_FREE:
            self._answers.left_unread(self, unread)
            if unread > UNREAD_BYTES_MAX:
                self.cut_off("it does not read its answers")

    def pause_writing(self) -> None:
        """Takes no more requests from a client that does not read."""
        self._paused = True
        self._stop_reading()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = False
        self.go_on()
