"""What an application asks its store through, whatever that is: a directory, a socket, a URL.

What may not live here: how a call is carried out (`reconnecting`, `http.connection`).
"""

from __future__ import annotations

import os
import weakref
from typing import Final, TypeVar

from beaver.client.calls import Asynchronous, Call, Operations, Synchronous

T = TypeVar("T")


class Connection(Operations, Synchronous):
    """Carries out calls on the store of an application, from any thread or event loop."""

    def __init__(self, store: str) -> None:
        self.store = store
        """Path of the data directory, or a URL."""
        self.instead: Synchronous | None = None
        """Takes every call while it is set: the store of a test."""
        _connections.add(self)

    async def acall(self, call: Call[T]) -> T:
        """Carries out one call without holding up the event loop."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the connection of the blocking calls; the next call opens a new one."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Ends the connections of this event loop as well."""
        raise NotImplementedError

    def begin_anew(self) -> None:
        """In a forked child: a thread that held a lock is not there to let go of it."""
        raise NotImplementedError


_connections: Final[weakref.WeakSet[Connection]] = weakref.WeakSet()


def _begin_anew() -> None:
    for connection in list(_connections):
        connection.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


class AsyncConnection(Operations, Asynchronous):
    """The same, awaited."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        return await self._connection.acall(call)
