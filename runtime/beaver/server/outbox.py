"""The outbox: sends the answers of one commit together, and polls for a lone client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from beaver.system.spinning import Looking


class Full(Protocol):
    """A connection with answers to be sent."""

    def flush(self) -> None:
        """Sends them."""
        ...


class Outbox:
    """Connections with answers to be sent: those of a commit leave together."""

    def __init__(
        self,
        once_told: Callable[[Callable[[], None]], None],
        looking: Looking | None = None,
    ) -> None:
        """Takes who says when to send, and how to look for the next request.

        Args:
            once_told: Calls back once no more answers are told for now.
            looking: For how long the loop keeps turning behind an answer to a client that is
                alone; without it the loop sleeps.
        """
        self._once_told = once_told
        self._full: list[Full] = []
        self._looking, self._looks = looking, False
        self._alone = False
        """The last answers went to one connection only."""
        self._sent = self._looked_at = 0
        """How often answers were sent; and until the look under way began."""
        self.has_come = False
        """A request has come since that look began; set by its connection."""

    def add(self, connection: Full) -> None:
        """Has a connection's answers sent soon."""
        if not self._full:
            self._once_told(self._send)
        self._full.append(connection)

    def _send(self) -> None:
        full, self._full = self._full, []
        for connection in full:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001 - the others get theirs
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "answers could not be sent", "exception": error}
                )
        self._sent += 1
        self._alone = len(full) == 1
        if self._alone and not self._looks and self._looking is not None:
            self._go_on(self._looking.begins())

    def _look(self) -> None:
        """Runs once a turn of the loop, which does not sleep as long as this goes on."""
        looking = self._looking
        assert looking is not None, "it looks"
        if self.has_come:
            # To yield the core now would keep its client waiting.
            looking.found()
            self._looks = False
        elif self._sent == self._looked_at:
            self._go_on(looking.goes_on())
        else:
            looking.found()
            self._go_on(self._alone and looking.begins())

    def _go_on(self, looks: bool) -> None:
        self._looks, self._looked_at, self.has_come = looks, self._sent, False
        if looks:
            asyncio.get_running_loop().call_soon(self._look)
