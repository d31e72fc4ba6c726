"""Replies: what commands come to, who waits for an answer, and how answers are given.

An answer is computed at once and given later: only when all that it rests on is durable.  What
may not live here: that decision; it is the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from beaver.errors import BeaverError
from beaver_model import Rejection
from beaver_model.events import AnyEvent

T = TypeVar("T")


class Applied(msgspec.Struct, frozen=True, gc=False):
    """The events that a command led to; none where it changed nothing."""

    first_seq: int
    events: Sequence[AnyEvent]


Reply = Applied | Rejection | BeaverError
OnReply = Callable[[Reply], None]

Waiting = tuple[Callable[[Any], None], Any]
"""A waiting callback and its answer."""


class Replies:
    """Gives answers.  One listener's bug does not stop the others."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_telling = False
        """Answers are being given, or observers see a commit whose answers come next."""
        self._once_told: list[Callable[[], None]] = []

    def tell(self, done: Callable[[T], None], answer: T) -> None:
        """Gives one answer."""
        try:
            done(answer)
        except Exception as error:  # noqa: BLE001 - one listener's bug must not stop the others
            self._report(error)

    def tell_all(self, waiting: Sequence[Waiting]) -> None:
        """Gives the answers of a commit, and then calls whoever has asked by `once_told`."""
        self.is_telling = True
        try:
            for done, answer in waiting:
                try:
                    done(answer)
                except Exception as error:  # noqa: BLE001 - as in tell
                    self._report(error)
        finally:
            self.is_telling = False
        callbacks, self._once_told = self._once_told, []
        for callback in callbacks:
            self.tell(call, callback)

    def once_told(self, callback: Callable[[], None]) -> None:
        """Calls back when all answers of the commit under way are given, else in the next turn."""
        if self.is_telling:
            self._once_told.append(callback)
        else:
            self._loop.call_soon(callback)

    def _report(self, error: Exception) -> None:
        context = {"message": "a listener of the engine raised", "exception": error}
        self._loop.call_exception_handler(context)


def call(callback: Callable[[], None]) -> None:
    """Makes an answer of a callback."""
    callback()


class Refused(BeaverError):
    """A `Rejection` of the model, for callers that wait."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(f"{rejection.code}: {rejection.facts}")
        self.rejection = rejection
