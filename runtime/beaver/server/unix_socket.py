"""The local socket: listens for Python clients and the command line.

`connection` handles what each client asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from beaver.server.budget import Budget
from beaver.server.connection import Connection
from beaver.server.outbox import Outbox
from beaver.server.service import Service
from beaver.system.descriptors import SOCKETS_MAX
from beaver.system.spinning import Looking

LOOK_PAUSE_S: Final = 0.001
"""First pause without a look after a look in vain: the loop sleeps at once meanwhile."""


class SocketServer:
    """Listens on a Unix socket (0600) until it is closed."""

    def __init__(
        self,
        service: Service,
        store: str,
        connections_max: int = SOCKETS_MAX,
        budget: Budget | None = None,
    ) -> None:
        self._service, self._store = service, store
        self._connections_max = connections_max
        self._budget = budget or Budget()
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._path, self._inode = "", 0

    @property
    def connections(self) -> Collection[Connection]:
        """Those that are open."""
        return self._connections

    async def start(self, path: str) -> None:
        """Listens at `path`; a socket that a dead server left there is replaced.

        Called again, it listens there instead; open connections stay open.

        Args:
            path: At most `endpoint.SOCKET_PATH_BYTES_MAX` bytes.
        """
        if self._server is not None:
            self._server.close()
        _unlink(path)
        loop = asyncio.get_running_loop()
        outbox = Outbox(self._service.once_told, Looking(vain_pause_s=LOOK_PAUSE_S))
        mask = os.umask(0o177)
        try:
            self._server = await loop.create_unix_server(
                lambda: Connection(
                    self._service,
                    self._store,
                    self._connections,
                    self._connections_max,
                    outbox,
                    self._budget,
                ),
                path,
            )
        finally:
            os.umask(mask)
        self._path = path
        self._inode = os.lstat(path).st_ino

    def is_there(self) -> bool:
        """True where its path still stands for the socket that it listens at."""
        try:
            return os.lstat(self._path).st_ino == self._inode
        except OSError:
            return False

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
