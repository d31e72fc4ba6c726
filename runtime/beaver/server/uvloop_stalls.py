"""Loop stalls of uvloop, which polls in C: they are told from what its polls lead to.

In each iteration libuv runs timers, then what was scheduled with `call_soon`, then the poll with
the callbacks of what is readable.  So every reader and timer notes itself (`_noted`).  The first
one of an iteration ends the last measurement and begins the next.  `_mark`, scheduled from there,
runs first among the `call_soon` callbacks of the next iteration: where nothing was noted since,
the loop has polled and found nothing, and the measurement ended there.  So each one holds what
one poll led to, the commit included, and at most one empty poll.

What a protocol with slots reads (aiohttp's) is not noted, but all that it schedules with
`call_soon` counts to the measurement under way, if there is one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVarTuple

import uvloop

Ts = TypeVarTuple("Ts")


class Loop(uvloop.Loop):
    """uvloop's loop, whose stalls are measured."""

    def __init__(self, poll_begins: Callable[[], None], poll_returned: Callable[[], None]) -> None:
        super().__init__()
        self._poll_begins, self._poll_returned = poll_begins, poll_returned
        self._fresh = False
        """Something was noted since the last mark."""
        self._marking = False

    def _note(self) -> None:
        self._fresh = True
        self._poll_begins()
        self._poll_returned()
        if not self._marking:
            self._marking = True
            super().call_soon(self._mark)

    def _mark(self) -> None:
        if self._fresh:
            self._fresh = False
            super().call_soon(self._mark)
        else:
            self._marking = False
            self._poll_begins()

    def _noted(self, callback: Callable[..., Any]) -> Callable[..., None]:
        def noted(*args: Any) -> None:
            if not self._fresh:
                self._note()
            callback(*args)

        return noted

    def _noting(self, factory: Callable[[], Any]) -> Callable[[], Any]:
        """Returns a factory of protocols that note when they read."""

        def make() -> Any:
            protocol = factory()
            with contextlib.suppress(AttributeError):
                received = protocol.data_received

                def data_received(data: bytes) -> None:
                    if not self._fresh:
                        self._note()
                    received(data)

                protocol.data_received = data_received
            return protocol

        return make

    # -- what is readable, and what was timed -------------------------------------------------

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
        """See `asyncio.AbstractEventLoop`, as everything below."""
        super().add_reader(fd, self._noted(callback), *args)

    async def create_unix_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        factory = self._noting(protocol_factory)
        return await super().create_unix_server(factory, *args, **options)

    async def create_unix_connection(
        self, protocol_factory: Any, *args: Any, **options: Any
    ) -> Any:
        factory = self._noting(protocol_factory)
        return await super().create_unix_connection(factory, *args, **options)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Any = None
    ) -> Any:
        return super().call_later(delay, self._noted(callback), *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Any = None
    ) -> Any:
        return super().call_at(when, self._noted(callback), *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Any = None
    ) -> Any:
        return super().call_soon_threadsafe(self._noted(callback), *args, context=context)
