"""The blocking client by URL: calls from any number of threads over a pool of connections."""

from __future__ import annotations

import os
import threading
import time
from typing import Final, TypeVar

from beaver.client.calls import Call, Operations, Synchronous
from beaver.client.http.address import Address, Credentials, parse_address, trust
from beaver.client.http.effort import (
    CROWD_S,
    Effort,
    Later,
    Lost,
    Unreached,
)
from beaver.client.http.messages import Answer, Ask
from beaver.client.http.wire import Wire, timed

T = TypeVar("T")

CONNECTIONS_MAX: Final = 64
"""Connections of one client at once; more calls wait for one of them."""
POLLS_MAX: Final = 32
"""Long polls of one client at once: other calls need a connection.  More waits ask in turns."""


class HttpClient(Operations, Synchronous):
    """Asks a server at a URL."""

    runs_jobs: Final = True

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Makes a client; nothing is opened or asked.

        Args:
            url: `http://host:port` or `https://host:port`.
            token: The token; by default `$BEAVER_TOKEN`, or that of this machine's own server.
            ca_file: Certificates that TLS trusts, as PEM; by default `$BEAVER_CA_FILE`, or the
                machine's.
            timeout_s: Seconds that a call may take in all, tries included, a wait excepted; by
                default `TIMEOUT_S`, of which `PATIENCE_S` for a server that is not there.

        Raises:
            InvalidInput: One of them is wrong.
        """
        self.address: Final[Address] = parse_address(url)
        self.credentials: Final = Credentials(self.address, token)
        self.context = timed(trust(self.address, ca_file))
        self.timeout_s: Final = timeout_s
        self._lock: threading.Lock
        self._free: threading.BoundedSemaphore
        self._polls: threading.BoundedSemaphore
        self._idle: list[Wire]
        self.begin_anew()

    def begin_anew(self) -> None:
        """Has no connection and nothing under way, as in a forked child."""
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._polls = threading.BoundedSemaphore(POLLS_MAX)
        self._idle = []

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        effort = Effort(call, self.address.url, time.monotonic(), self.timeout_s)
        renewed = False
        while True:
            poll = effort.waits and self._polls.acquire(blocking=False)
            token = self.credentials.token()
            pause_s = 0.0
            try:
                asked, until_s = effort.next(time.monotonic(), poll=poll)
                answer = self.exchange(asked, token, until_s, fresh=effort.fresh)
            except Unreached as error:
                pause_s = effort.unreached(error, time.monotonic())
            except Lost as error:
                pause_s = effort.lost(error, time.monotonic())
            else:
                if answer.status == 401 and not renewed and self.credentials.renewed():
                    renewed = True
                    continue
                try:
                    return effort.answered(answer, time.monotonic(), authorised=bool(token))
                except Later as later:
                    pause_s = later.pause_s if poll or not effort.waits else CROWD_S
            finally:
                if poll:
                    self._polls.release()
            time.sleep(pause_s)

    def exchange(self, asked: Ask, token: str, until_s: float, *, fresh: bool = False) -> Answer:
        """Sends one request, once; returns its answer, whatever that says.

        Args:
            asked: The request.
            token: Stands in it, unless it is empty.
            until_s: The moment at which it is over, by `time.monotonic`.
            fresh: Over a new connection: an idle one may be about to end, and the request must
                not be sent twice.

        Raises:
            Unreached: Nothing was sent.
            Lost: The answer will not come.
            StoreUnavailable: TLS does not trust who answers.
        """
        if not self._free.acquire(timeout=max(0.0, until_s - time.monotonic())):
            raise Unreached(f"all {CONNECTIONS_MAX} connections are in use")
        try:
            wire = None if fresh else self._take()
            if wire is None:
                wire = Wire(self.address, self.context, until_s)
            keep = False
            try:
                answer, keep = wire.exchange(asked, token, until_s)
            finally:
                if keep:
                    with self._lock:
                        self._idle.append(wire)
                else:
                    wire.close()
            return answer
        finally:
            self._free.release()

    def _take(self) -> Wire | None:
        """Returns the connection that was used last, if one can be used."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                wire = self._idle.pop()
            if wire.usable:
                return wire
            wire.close()

    def close(self) -> None:
        """Ends the idle connections; a later call opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()
