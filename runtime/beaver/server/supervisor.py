"""What a supervisor such as systemd is told: ready, alive, stopping (`sd_notify`).

A unit of `Type=notify` counts as started once the server serves, and one with `WatchdogSec=` is
restarted when its event loop no longer turns.  Nobody is told anything unless the supervisor asked
for it in the environment, and a supervisor that does not listen never disturbs the server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Final

log: Final = logging.getLogger("beaver")

_SOCKET: Final = "NOTIFY_SOCKET"
_USEC: Final = "WATCHDOG_USEC"
_PID: Final = "WATCHDOG_PID"
STATUS_BYTES_MAX: Final = 500


class Supervisor:
    """Whoever has started this server, if that is one who wants to be told."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Takes what the environment says out of it: workers and jobs have no say in this."""
        self._address = environ.pop(_SOCKET, "")
        usec, pid = environ.pop(_USEC, ""), environ.pop(_PID, "")
        for_us = not pid or pid == str(os.getpid())
        self._beat_s = int(usec) / 2e6 if usec.isdigit() and int(usec) and for_us else 0.0
        self._beating: asyncio.TimerHandle | None = None

    def ready(self, status: str) -> None:
        """It serves; from now on each turn of the watchdog is answered by a turn of the loop."""
        self._tell(f"READY=1\nSTATUS={status[:STATUS_BYTES_MAX]}")
        if self._address and self._beat_s:
            self._beat()

    def stopping(self, status: str) -> None:
        """It ends, which may take its grace; the watchdog is answered all the same."""
        self._tell(f"STOPPING=1\nSTATUS={status[:STATUS_BYTES_MAX]}")

    def close(self) -> None:
        """Tells nothing more."""
        if self._beating is not None:
            self._beating.cancel()
        self._address = ""

    def _beat(self) -> None:
        self._tell("WATCHDOG=1")
        self._beating = asyncio.get_running_loop().call_later(self._beat_s, self._beat)

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract address.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError as error:
            log.debug("the supervisor at %s is not reached: %s", self._address, error)
