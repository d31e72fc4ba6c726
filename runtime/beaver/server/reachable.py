"""Staying reachable: a running server makes its socket and `server.json` again.

People remove what looks left over, and services empty /tmp, where the socket of a long path
lies.  Whoever came then would find nobody, and wait for the lock in vain.

What may not live here: lock and log, which `housekeeping` looks at.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from beaver.server.unix_socket import SocketServer
from beaver.transport import endpoint

BEAT_S: Final = 1.0

log: Final = logging.getLogger("beaver")


async def stay_reachable(data: str, server: SocketServer, tell: Callable[..., None]) -> None:
    """Looks once a second, until it is cancelled.

    Args:
        data: The data directory.
        server: What listens.
        tell: Writes `server.json`, with changes.
    """
    said = ""
    while True:
        await asyncio.sleep(BEAT_S)
        try:
            if not server.is_there():
                path = endpoint.socket_path(data)
                await server.start(path)
                tell(socket=path)
                log.warning("somebody has removed the socket; it is there again, at %s", path)
            info = endpoint.read(data)
            if info is None or info.pid != os.getpid():
                tell()
                log.warning("somebody has removed or replaced server.json; it is there again")
            said = ""
        except OSError as error:
            # A full disk, or no descriptor: it is tried again, and told once.
            if str(error) != said:
                said = str(error)
                log.warning("clients cannot find this server, and it tries again: %s", error)
