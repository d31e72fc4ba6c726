"""The vestibule of HTTP: TLS, before anybody comes to a door.

A server of asyncio's tells nobody of a connection before its handshake is done.  So that those
that never get there are counted and bounded like all others, connections are accepted here.

What may not live here: how many there may be (`doors`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Final, NamedTuple

from beaver.system.descriptors import is_pressure

HANDSHAKE_S: Final = 10.0
"""Seconds for the handshake of TLS."""
GOODBYE_S: Final = 2.0
"""Seconds in which a client may answer the end of TLS."""
PRESSURE_S: Final = 1.0
"""Where there is no descriptor for a client, it waits so long in the backlog."""

log: Final = logging.getLogger("beaver.http")


class Admission(NamedTuple):
    """What becomes of a client that has connected."""

    make: Callable[[], asyncio.Protocol]
    """Makes the protocol that it meets behind TLS."""
    entering: set[socket.socket]
    """Holds it until it is there."""


class Vestibule:
    """Accepts clients, and speaks TLS with them until it is up."""

    def __init__(
        self, admit: Callable[[], Admission | None], context: Callable[[], ssl.SSLContext]
    ) -> None:
        """Takes who decides.

        Args:
            admit: Asked for each client; `None` hangs up on it.
            context: Returns the certificate to show.
        """
        self._admit, self._context = admit, context
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Serves those who connect to a socket that listens."""
        self._run(self._accept(listener))

    def close(self) -> None:
        """Accepts nobody any more, and hangs up on those whose handshake is under way."""
        for task in self._tasks:
            task.cancel()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                if not is_pressure(error):
                    continue  # It has left already.
                loop.call_exception_handler({"message": "accept", "exception": error})
                await asyncio.sleep(PRESSURE_S)
                continue
            admission = self._admit()
            if admission is None:
                client.close()
            else:
                self._run(self._shake_hands(client, admission))

    async def _shake_hands(self, client: socket.socket, admission: Admission) -> None:
        admission.entering.add(client)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                admission.make,
                client,
                ssl=self._context(),
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=GOODBYE_S,
            )
        except (OSError, asyncio.CancelledError):
            client.close()  # No TLS, or too slow; `TimeoutError` and `ssl.SSLError` are `OSError`.
        finally:
            admission.entering.discard(client)
