"""The doors of HTTP: each connection, behind bounds on how many there are and on their time.

aiohttp parses and answers; it has no bound on connections, and none on the time that the head
of a request may take.  So a `Door` stands between the socket and aiohttp's protocol: it passes
everything on and holds one timer, for whatever the client has to do next: send a head, go on
with a body, take an answer, or ask again.

What may not live here: what is answered.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

from beaver.server.http.vestibule import Admission

HEAD_S: Final = 10.0
"""Seconds for the head of an HTTP request, from its first byte or from the connection."""
BODY_S: Final = 30.0
"""Seconds from one piece of a body to the next."""
UNREAD_S: Final = 30.0
"""Seconds in which a client takes nothing of an answer."""
KEEPALIVE_S: Final = 30.0
"""Seconds from one request of a connection to the next."""

REFUSED_SHARE: Final = 16
"""One more for each so many connections is waited for, to read that there are too many."""
_REFUSED_S: Final = 1.0
"""How long one of them may take to read that and leave."""

RETRY_AFTER_S: Final = 1


def _bare(status: str, title: str, name: str, detail: str, *more: str) -> bytes:
    """Returns a whole answer that ends the connection, for where aiohttp has no say."""
    number = status.split(maxsplit=1)[0]
    body = (
        f'{{"type": "urn:beaver:{name}", "title": "{title}", "status": {number}, '
        f'"detail": "{detail}"}}'
    )
    head = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *more,
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


_TOO_LATE: Final = _bare(
    "408 Request Timeout",
    "Request timeout",
    "request_timeout",
    f"the head of a request must be sent within {HEAD_S:g} s",
)


class IncomingBody(Protocol):
    """The body of a request, as it comes in."""

    def is_eof(self) -> bool: ...


class Door(asyncio.Protocol):
    """One client."""

    def __init__(self, handler: asyncio.Protocol, doors: dict[object, Door]) -> None:
        """`doors` holds every open one by its handler."""
        self._handler, self._doors = handler, doors
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waits_for_head = False
        self._asked = 0
        """Requests whose head is there and whose answer is not."""
        self._body: IncomingBody | None = None
        """Body of the last request until it has arrived completely, even after the answer."""
        self._more_came = False
        """Bytes came while a request was carried out: maybe a part of the next."""

    # -- what the client does ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._doors[self._handler] = self
        self._handler.connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self._stop()
        self._doors.pop(self._handler, None)
        self._handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        body = self._body
        self._handler.data_received(data)
        if self._asked:
            self._more_came = True
            if self._body is not None:
                self._expect_body(self._body)
        elif body is not None:
            self._expect_nothing(body)
        elif not self._waits_for_head:
            self._expect_head()

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._handler.eof_received()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`.  The client does not read."""
        self._handler.pause_writing()
        self._expect(UNREAD_S, self._hang_up)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._handler.resume_writing()
        self._expect(KEEPALIVE_S, self._hang_up)

    # -- what becomes of its requests ------------------------------------------------------------

    def has_asked(self, body: IncomingBody) -> None:
        """The head of a request is there."""
        self._asked += 1
        self._more_came = self._waits_for_head = False
        self._expect_body(body)

    def is_answered(self) -> None:
        """The answer to a request is made."""
        self._asked -= 1
        if self._asked:
            return
        if self._body is None and self._more_came:
            self._expect_head()
        else:
            self._expect_nothing(self._body)

    # -- time ------------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        self._waits_for_head = True
        self._more_came = False
        self._expect(HEAD_S, self._head_is_late)

    def _expect_nothing(self, body: IncomingBody | None) -> None:
        """All is answered; the rest of a body that nobody wanted may come, or a new request."""
        self._body = None if body is None or body.is_eof() else body
        self._expect(KEEPALIVE_S, self._hang_up)

    def _expect_body(self, body: IncomingBody) -> None:
        if body.is_eof():
            self._body = None
            self._stop()
        else:
            self._body = body
            self._expect(BODY_S, self._hang_up)

    def _expect(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self._stop()
        if self._transport is not None:
            self._timer = self._loop.call_later(seconds, otherwise)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        if self._transport is not None:
            self._transport.write(_TOO_LATE)
            self._transport.close()
            self._expect(_REFUSED_S, self._hang_up)

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class SurplusClient(asyncio.Protocol):
    """One client too many: it reads why, as far as it reads at all."""

    def __init__(self, refused: set[SurplusClient], connections_max: int) -> None:
        self._refused = refused
        self._connections_max = connections_max
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            _bare(
                "503 Service Unavailable",
                "Unavailable",
                "unavailable",
                f"{self._connections_max} connections are open, which is the limit; try again",
                f"Retry-After: {RETRY_AFTER_S}",
            )
        )
        if len(self._refused) > self._connections_max // REFUSED_SHARE:
            self._transport.close()
            return
        # Not closed before its request was read: the answer would be lost with a reset.
        self._refused.add(self)
        self._timer = asyncio.get_running_loop().call_later(_REFUSED_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        self._refused.discard(self)
        if self._timer is not None:
            self._timer.cancel()


class Doors:
    """Every connection to HTTP."""

    def __init__(self, make_handler: Callable[[], asyncio.Protocol], connections_max: int) -> None:
        """Takes what answers.

        Args:
            make_handler: Makes the protocol of one connection.
            connections_max: How many there may be at once.
        """
        self._make_handler, self._connections_max = make_handler, connections_max
        self._doors: dict[object, Door] = {}
        self._refused: set[SurplusClient] = set()
        self._entering: set[socket.socket] = set()
        """Those whose handshake is under way."""
        self._entering_refused: set[socket.socket] = set()

    def __call__(self) -> asyncio.Protocol:
        """Makes the protocol of the next connection."""
        if len(self._doors) >= self._connections_max:
            return self._refuse()
        return self._open()

    def admit(self) -> Admission | None:
        """Says what becomes of the next connection, before TLS; `None` is to be hung up on."""
        if len(self._doors) + len(self._entering) < self._connections_max:
            return Admission(self._open, self._entering)
        if len(self._entering_refused) <= self._connections_max // REFUSED_SHARE:
            return Admission(self._refuse, self._entering_refused)
        return None

    def _open(self) -> asyncio.Protocol:
        return Door(self._make_handler(), self._doors)

    def _refuse(self) -> asyncio.Protocol:
        return SurplusClient(self._refused, self._connections_max)

    def has_asked(self, handler: object, body: IncomingBody) -> None:
        """The head of a request is there."""
        door = self._doors.get(handler)
        if door is not None:
            door.has_asked(body)

    def is_answered(self, handler: object) -> None:
        """The answer to a request is made."""
        door = self._doors.get(handler)
        if door is not None:
            door.is_answered()
