"""Stretches of uvloop, which polls in C: they are told from what its polls lead to.

libuv runs, in each turn: timers, then what was called soon, then the poll with the callbacks
of what is readable.  So whatever is read or was timed notes itself (`_noted`).  The first of a
turn ends the last stretch and begins the next.  `_mark`, called soon from there, comes first
among what is called in the next turn: where nothing was noted since, the loop has polled, has
found nothing, and the stretch ended there.  So a stretch holds what one poll led to, the commit
included, and at most one empty poll.

What a protocol with slots reads (aiohttp's) is not noted, but all that it calls soon is timed
with the stretch that goes on, if one does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple

import uvloop

if TYPE_CHECKING:
    from beaver.server.loop_stalls import Stretches


Ts = TypeVarTuple("Ts")


class Loop(uvloop.Loop):
    """uvloop's loop, whose stretches are measured."""

    def __init__(self, stretches: Stretches) -> None:
        super().__init__()
        self._stretches = stretches
        self._fresh = False
        """Something was noted since the last mark."""
        self._marking = False

    def _note(self) -> None:
        self._fresh = True
        self._stretches.end_stretch()
        self._stretches.begin_stretch()
        if not self._marking:
            self._marking = True
            super().call_soon(self._mark)

    def _mark(self) -> None:
        if self._fresh:
            self._fresh = False
            super().call_soon(self._mark)
        else:
            self._marking = False
            self._stretches.end_stretch()

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
