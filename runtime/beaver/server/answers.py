"""Answers to clients: who asked, what an answer is, and what waits for one that comes later.

What may not live here: what is answered (`service`), and how it travels (`connection`, `http`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from beaver.errors import BeaverError
from beaver.structs.questions import Ending, Known, Listed, Search, Told
from beaver.structs.views import ResultView

Respond = Callable[["Answer"], None]
Answer = list[Any] | str | bytes | BeaverError
"""The body of an answer (views are JSON, as bytes), or the error that answers instead."""


class PastTeller(Protocol):
    """What the log tells of jobs, without waiting for its index."""

    async def tell(self, known: Known, until_seq: int) -> Told:
        """Returns the events of a job up to a durable seq."""
        ...

    async def ending(self, token: int, until_seq: int) -> Ending | None:
        """Returns what the log tells of an attempt up to a durable seq."""
        ...

    async def find(self, search: Search, until_seq: int) -> Listed:
        """Takes a step of a search for finished jobs."""
        ...

    async def close(self) -> None: ...


class Asker:
    """The client that asked: receives the answer, and is charged for its memory until then.

    A thousand pipelined questions may have answers of a megabyte each, which all wait for one
    commit, so a connection has to know how much memory its answers take.
    """

    __slots__ = ("_respond", "by", "charge")

    def __init__(
        self, respond: Respond, charge: Callable[[int], None] | None = None, by: str = ""
    ) -> None:
        """Takes who is told what.

        Args:
            respond: Called once, with the answer.
            charge: Called with the bytes of an answer that is computed and waits for a commit,
                and with as many below zero once it waits no longer.
            by: Who it is, for the log; see `beaver_model.events.By`.
        """
        self._respond, self.charge, self.by = respond, charge or _free, by

    def __call__(self, answer: Answer) -> None:
        self._respond(answer)


def _free(size: int) -> None:
    """Charges nobody."""


def size_of(answer: Any) -> int:
    """Returns about how many bytes an answer keeps alive."""
    if isinstance(answer, ResultView):
        return len(answer.result) if isinstance(answer.result, bytes | msgspec.Raw) else 0
    return len(answer) if isinstance(answer, bytes) else 0


class Watch:
    """A client's wait for an answer that does not come at once."""

    __slots__ = ("_respond", "charge", "forget", "holds", "over", "timer")

    def __init__(self, asker: Asker, *, holds: bool = False) -> None:
        self._respond, self.charge = asker, asker.charge
        self.holds = holds
        """The answer may be large: no other request of the client is taken before it."""
        self.over = False
        """The answer was given, or nobody waits for it any more."""
        self.forget: Callable[[], None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, answer: Answer) -> None:
        """Answers, once."""
        if not self.over:
            self.drop()
            self._respond(answer)

    def drop(self) -> None:
        """Ends the wait: nothing of it stays in memory, and nothing more is answered."""
        self.over = True
        if self.timer is not None:
            self.timer.cancel()
        if self.forget is not None:
            self.forget()
