"""Questions put together: those that come while one is under way are asked as one.

What may not live here: what is asked, and of whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from beaver.errors import BeaverError

K = TypeVar("K")
Q = TypeVar("Q")
A = TypeVar("A")


class Gathering(Generic[K, Q, A]):
    """Asks for many at once what was asked for one by one."""

    def __init__(
        self, ask: Callable[[Mapping[K, Q]], Awaitable[Mapping[K, A]]], asked_max: int
    ) -> None:
        """Notes whom to ask.

        Args:
            ask: Answers questions by key.  One that it leaves out is asked again; it answers one
                at least.
            asked_max: Questions that are asked together.
        """
        self._ask, self._asked_max = ask, asked_max
        self._waiting: dict[K, tuple[Q, list[asyncio.Future[A]]]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def get(self, key: K, question: Q) -> A:
        """Returns the answer to one question.

        Raises:
            BeaverError: It is the answer.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._waiting.setdefault(key, (question, []))[1].append(future)
        if self._asking is None or self._asking.done():
            self._asking = loop.create_task(self._go_on())
        return await future

    async def _go_on(self) -> None:
        """Asks for what came in while it was asked, until nothing has."""
        while self._waiting:
            # A turn of the loop later, those that came with the first are there as well.
            await asyncio.sleep(0)
            asked = dict(list(self._waiting.items())[: self._asked_max])
            for key in asked:
                del self._waiting[key]
            try:
                answers = await self._ask({key: question for key, (question, _) in asked.items()})
            except (BeaverError, msgspec.MsgspecError) as error:
                for _, futures in asked.values():
                    for future in futures:
                        if not future.done():
                            future.set_exception(error)
                continue
            for key, (question, futures) in asked.items():
                if key not in answers:
                    self._waiting.setdefault(key, (question, []))[1].extend(futures)
                    continue
                for future in futures:
                    if not future.done():
                        future.set_result(answers[key])

    async def close(self) -> None:
        """Ends what is being asked."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
