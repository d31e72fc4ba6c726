"""Long polls that end with their token.

What may not live here: streams, which look after each event whether they may go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from beaver.access.tokens import Token, Tokens
from beaver.errors import BeaverError
from beaver.server.http.problems import Problem

LOOK_S: Final = 0.25
"""How often is looked whether the tokens of those who wait are good."""


class Revocable:
    """Requests that are under way, by their tokens."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._tasks: dict[asyncio.Task[object], str] = {}
        """Those who wait, and the id of their token."""
        self._ended: set[asyncio.Task[object]] = set()
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, token: Token) -> Iterator[None]:
        """Ends what runs in this block when the token does.

        Raises:
            Problem: It has.
        """
        task = asyncio.current_task()
        assert task is not None, "a request is carried out by a task"
        self._tasks[task] = token.id
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        try:
            yield
        except asyncio.CancelledError:
            if task in self._ended and not task.uncancel():
                raise Problem(
                    "unauthenticated",
                    "Authorization: the token was revoked or has expired while this waited",
                    headers={"WWW-Authenticate": "Bearer"},
                ) from None
            raise
        finally:
            del self._tasks[task]
            self._ended.discard(task)

    async def _look(self) -> None:
        while self._tasks:
            await asyncio.sleep(LOOK_S)
            for task, token in list(self._tasks.items()):
                if task not in self._ended and not self._is_good(token):
                    self._ended.add(task)
                    task.cancel()
        self._looking = None

    def _is_good(self, token: str) -> bool:
        try:
            return self._tokens.current(token) is not None
        except BeaverError:
            return True  # The file cannot be read now; who asks anew is told.
