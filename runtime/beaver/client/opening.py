"""Which client a directory gets: of its server, of its keeper, or of its files.

Code for stores without a server is loaded only when needed: a command that finds a server
to ask starts faster.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from beaver.client import blocking
from beaver.client.calls import Call, Operations, Synchronous
from beaver.errors import NotFound, ServerLeft

if TYPE_CHECKING:
    from beaver.client.embedded import EmbeddedClient
    from beaver.config.layers import Config

T = TypeVar("T")


class KeptClient(Operations, Synchronous):
    """Asks the keeper of a store, and goes on without it where it ends."""

    runs_jobs: Final = False

    def __init__(self, kept: blocking.Client, without: Callable[[], EmbeddedClient]) -> None:
        self._kept, self._make_without = kept, without
        self._without: EmbeddedClient | None = None
        self.greeting = kept.greeting

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        if self._without is None:
            try:
                return self._kept.call(call)
            except ServerLeft:  # Nothing was done.
                self._kept.close()
                self._without = self._make_without()
        return self._without.call(call)

    def close(self) -> None:
        """Ends the connection."""
        self._kept.close()
        if self._without is not None:
            self._without.close()


def open_client(
    data: str | os.PathLike[str],
    *,
    settings: Config | None = None,
) -> blocking.Client | KeptClient | EmbeddedClient:
    """Returns a client to the server that holds `data`, or one that works without.

    Nothing is created, locked or started by this; an enqueue creates the directory, and a read
    of one that does not exist raises `NotFound`.

    Args:
        data: The data directory.
        settings: Those of a keeper that has to be started, and of what is done without one.

    Raises:
        StoreUnavailable: `data` is a file, or may not be entered.
    """
    path = os.fspath(data)

    def without() -> EmbeddedClient:
        from beaver.client.embedded import EmbeddedClient

        return EmbeddedClient(path, settings=settings)

    try:
        found = blocking.find(path)
    except NotFound:
        found = None
    if found is None:
        return without()
    return KeptClient(found, without) if found.greeting.keeper else found
