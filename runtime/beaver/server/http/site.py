"""What the routes of HTTP share: the parts of the server, and asking them.

Every answer waits for the sync of all that it tells (promise P1), as on the local socket: what is
asked of the engine here comes back through its replies.

What may not live here: what a route does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final, TypeVar, cast

from aiohttp import web

from beaver.access.tokens import Token
from beaver.engine.replies import Reply
from beaver.errors import BeaverError
from beaver.request.rejections import error_of
from beaver.server.answers import Answer
from beaver.server.http.access import Gate
from beaver.server.http.feed import Feed
from beaver.server.http.problems import Problem
from beaver.server.http.revocable import Revocable
from beaver.server.http.served import Served
from beaver.server.received import check_bytes
from beaver.structs.messages import Request
from beaver.structs.views import AcceptedBriefly
from beaver_model import Rejection, State
from beaver_model.commands import AnyCommand
from beaver_model.rows import Origin

T = TypeVar("T")

ROOM_BYTES: Final = 128 << 20
"""Bytes of request bodies held at once."""
HELD_MAX: Final = 64
"""Long polls and streams of one token at once."""
SMALL_BYTES: Final = 64 << 10
"""A smaller body needs no room: a thousand connections may hold one each."""


class Site:
    """The parts of one server, as routes ask them."""

    def __init__(self, served: Served, gate: Gate) -> None:
        self.served, self.gate = served, gate
        self.engine, self.service = served.engine, served.service
        self.queue_of, self.snapshot = served.queue_of, served.snapshot
        self.enqueued, self.programs = served.enqueued, served.programs
        self.data = served.data
        self.backups = 0
        """Backups that are being sent."""
        self.walk, self.leases, self.reports = served.walk, served.leases, served.reports
        self.room = Room(check=gate.check_again)
        self.choosing = served.choosing
        self.feed = Feed(served.walk, lambda: self.engine.durable_seq)
        self.engine.late_observers.append(lambda *_: self.feed.committed())
        self.closing = asyncio.Event()
        """Set when the server ends."""
        self._waiting: set[asyncio.Future[Any]] = set()
        self._revocable = Revocable(gate.tokens)
        self._held: Counter[str] = Counter()
        """Long polls and streams, by token."""

    def close(self) -> None:
        """Tells whoever waits that the server ends; nobody may wait any more."""
        self.closing.set()
        self.feed.close()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(_ending())

    async def take_in(self, requests: Sequence[Request], by: str) -> list[AcceptedBriefly]:
        """Takes in jobs with one commit, all or none; returns what became of each, durably.

        Args:
            requests: Jobs that were read.
            by: Who asks, for the log.

        Raises:
            BeaverError: They were refused.
            Problem: The server ends.
        """
        check_bytes(requests)
        told: asyncio.Future[Answer] = self.waiting()
        self.service.take_in(requests, partial(_tell, told), Origin.HTTP, by)
        answer: Any = await self.answer(told)
        if isinstance(answer, BeaverError):
            raise answer
        return cast("list[AcceptedBriefly]", answer)

    async def ask(self, op: str, body: Any) -> Any:
        """Carries out an operation of the table, and returns its answer, which is durable.

        Raises:
            BeaverError: It is the answer.
            Problem: The server ends.
        """
        told: asyncio.Future[Answer] = self.waiting()
        watch = self.service.handle(op, body, partial(_tell, told), Origin.HTTP)
        answered = False
        try:
            answer = await told
            answered = True
        finally:
            self._waiting.discard(told)
            if watch is not None and not answered:
                watch.drop()
        if isinstance(answer, BeaverError):
            raise answer
        return answer

    @contextmanager
    def holding(self, token: Token, *, ends: bool = True) -> Iterator[None]:
        """Counts a long poll or a stream of a token while it lasts.

        Args:
            token: The token.
            ends: It ends when the token does; a stream looks after that by itself.

        Raises:
            Problem: The token has as many as it may, or is good no longer.
        """
        if self._held[token.id] >= HELD_MAX:
            raise Problem(
                "too_many_requests",
                f"this token holds {HELD_MAX} long polls and streams, which is the limit; "
                "end some, or use another token",
            )
        self._held[token.id] += 1
        try:
            with self._revocable.watching(token) if ends else nullcontext():
                yield
        finally:
            self._held[token.id] -= 1
            if not self._held[token.id]:
                del self._held[token.id]

    def forget(self, told: asyncio.Future[Any]) -> None:
        """Nobody waits for an answer any more."""
        self._waiting.discard(told)

    async def answer(self, told: asyncio.Future[T]) -> T:
        """Waits for what `waiting` has returned."""
        try:
            return await told
        finally:
            self._waiting.discard(told)

    def waiting(self) -> asyncio.Future[Any]:
        """Returns what an answer is to come to.  Whoever waits for it calls `answer`."""
        if self.closing.is_set():
            raise _ending()
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(told)
        return told

    async def read(self, question: Callable[[State], T]) -> tuple[T, int]:
        """Asks the state; returns the answer, once it is durable, and the seq that it is of.

        Raises:
            BeaverError: The question raised it.
        """
        told: asyncio.Future[tuple[T | BeaverError, int]] = self.waiting()

        def ask(state: State) -> tuple[T | BeaverError, int]:
            try:
                return question(state), state.last_seq
            except BeaverError as error:
                return error, state.last_seq

        self.engine.read(ask, partial(_tell, told))
        found, seq = await self.answer(told)
        if isinstance(found, BeaverError):
            raise found
        return found, seq

    async def change(self, command: AnyCommand, answer: Callable[[State, int], T]) -> T:
        """Carries out a command; returns what is said of it right after, once it is durable.

        Args:
            command: The command.
            answer: Makes the answer from the state and the seq of the command's last event; the
                seq is 0 where nothing had to change.

        Raises:
            BeaverError: It was refused.
        """
        told: asyncio.Future[T | BeaverError] = self.waiting()

        def judge(reply: Reply) -> T | BeaverError:
            if isinstance(reply, Rejection):
                return error_of(reply)
            if isinstance(reply, BeaverError):
                return reply
            last_seq = reply.first_seq + len(reply.events) - 1 if reply.events else 0
            return answer(self.engine.state, last_seq)

        self.engine.change(command, judge, partial(_tell, told))
        found = await self.answer(told)
        if isinstance(found, BeaverError):
            raise found
        return found


def _tell(told: asyncio.Future[T], answer: T) -> None:
    if not told.done():
        told.set_result(answer)


class Room:
    """Room for the bodies that are read, first come, first served."""

    def __init__(
        self, bytes_max: int = ROOM_BYTES, check: Callable[[web.Request], None] | None = None
    ) -> None:
        """Takes how much there is.

        Args:
            bytes_max: The room.
            check: Asked whether a request may still be carried out, once its body is there.
        """
        self._free, self._check = bytes_max, check
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def reading(self, request: web.Request, bytes_max: int) -> AsyncIterator[bytes]:
        """Reads a body and holds room for it, as long as it is worked on.

        Raises:
            Problem: It is longer than `bytes_max`.
        """
        length = request.content_length
        if length is not None and length > bytes_max:
            raise too_large(bytes_max)
        wanted = bytes_max if length is None else length
        if wanted <= SMALL_BYTES:
            yield await self._read(request, bytes_max)
            return
        await self._take(wanted)
        try:
            yield await self._read(request, bytes_max)
        finally:
            self._give(wanted)

    async def _read(self, request: web.Request, bytes_max: int) -> bytes:
        body = await read_body(request, bytes_max)
        if self._check is not None:
            self._check(request)
        return body

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(size)
            else:
                self._waiting = [entry for entry in self._waiting if entry[1] is not turn]
                self._give(0)  # A smaller one behind it may fit.
            raise

    def _give(self, size: int) -> None:
        self._free += size
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, turn = self._waiting.pop(0)
            if not turn.done():  # Else its client has left in this turn of the loop.
                self._free -= wanted
                turn.set_result(None)


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """Returns the body of a request.

    Raises:
        Problem: It is longer than `bytes_max`.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := await request.content.readany():
        size += len(piece)
        if size > bytes_max:
            raise too_large(bytes_max)
        pieces.append(piece)
    return b"".join(pieces)


def too_large(bytes_max: int) -> Problem:
    """Returns what is said of a body that is too long."""
    return Problem("too_large", f"the body is longer than the {bytes_max} bytes that are taken")


def _ending() -> Problem:
    return Problem("unavailable", "the server is ending; ask again")
