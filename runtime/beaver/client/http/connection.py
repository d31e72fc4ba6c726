"""The connection of an application to a server at a URL, from threads, loops and forks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from beaver.client.calls import Call
from beaver.client.connection import Connection
from beaver.client.http.pool import HttpClient
from beaver.text.durations import parse_duration_ms

if TYPE_CHECKING:
    from beaver.client.http.loops import Sessions
    from beaver.request.job_options import Duration

T = TypeVar("T")


class HttpConnection(Connection):
    """Carries out calls on a server at a URL."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout: Duration | None = None,
    ) -> None:
        """Makes a connection; nothing is opened.  Arguments as those of `Beaver`."""
        timeout_s = None if timeout is None else parse_duration_ms(timeout, "timeout") / 1000
        self._client = HttpClient(url, token=token, ca_file=ca_file, timeout_s=timeout_s)
        self._sessions: Sessions | None = None
        super().__init__(self._client.address.url)

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        if self.instead is not None:
            return self.instead.call(call)
        return self._client.call(call)

    async def acall(self, call: Call[T]) -> T:
        """Carries out one call without holding up the event loop."""
        if self.instead is not None:
            return self.instead.call(call)
        if self._sessions is None:
            from beaver.client.http.loops import Sessions

            self._sessions = Sessions(self._client)
        return await self._sessions.call(call)

    def close(self) -> None:
        """Ends the connections of the blocking calls; the next call opens new ones."""
        self._client.close()

    async def aclose(self) -> None:
        """Ends the connections of this event loop, and of the blocking calls."""
        if self._sessions is not None:
            await self._sessions.close()
        self.close()

    def begin_anew(self) -> None:
        """In a forked child: connections belong to the parent, and so do threads with locks."""
        self._client.begin_anew()
        if self._sessions is not None:
            self._sessions.abandon()
