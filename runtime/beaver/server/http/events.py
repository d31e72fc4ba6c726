"""`GET /v1/events`: the log as server-sent events, first from history, then live."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import Annotated, Final

import msgspec
from aiohttp import web

from beaver.access.roles import Right
from beaver.errors import BeaverError, InvalidInput
from beaver.server.http.feed import Cut, Gap, Piece, Quiet
from beaver.server.http.problems import problem_of
from beaver.server.http.routing import EVENTS, Body, HttpCall, Route
from beaver.text.near import unknown_name
from beaver_model.events import JOB_EVENTS, STORE_EVENTS

QUIET_S: Final = 1.0
"""How often a stream checks that its token is still valid."""
COMMENT_EVERY: Final = 15
"""Quiet periods after which a comment is sent, to detect dead connections."""
SLOW_S: Final = 5.0
"""A reader that accepts no data for this long is cut off."""
WRITE_BYTES: Final = 16 << 10
"""Bytes written at once; even a slow reader accepts them in time."""
_NAMES: Final = tuple(kind.NAME for kind in (*JOB_EVENTS, *STORE_EVENTS))
_SEQ_MAX: Final = (1 << 62) - 1


class EventsQuery(Body):
    """Which events, and from where."""

    job: str = ""
    queue: str = ""
    """Events of jobs in this queue."""
    event: str = ""
    """Events of this name."""
    from_: Annotated[int, msgspec.Meta(ge=0, le=_SEQ_MAX)] | msgspec.UnsetType = msgspec.field(
        default=msgspec.UNSET, name="from"
    )
    """The first seq; without it the stream begins with what comes next."""


async def _events(call: HttpCall) -> web.StreamResponse:
    query: EventsQuery = call.query
    if query.event and query.event not in _NAMES:
        hint = unknown_name(query.event, _NAMES)
        raise InvalidInput(f"event: there is no {query.event!r:.80}{hint}")
    after_seq = _begin(call, query)
    with call.site.holding(call.token, ends=False):
        return await _Stream(call, query).run(after_seq)


def _begin(call: HttpCall, query: EventsQuery) -> int:
    last = call.request.headers.get("Last-Event-ID")
    if last is not None:
        if not (last.isascii() and last.isdigit() and int(last[:20]) <= _SEQ_MAX):
            raise InvalidInput(f"Last-Event-ID: a seq is expected, found {last!r:.80}")
        return int(last)
    if isinstance(query.from_, msgspec.UnsetType):
        return call.site.engine.durable_seq
    return max(0, query.from_ - 1)


class _Stream:
    """One reader."""

    def __init__(self, call: HttpCall, query: EventsQuery) -> None:
        self._call, self._query = call, query
        self._looked_s = 0.0
        self._response = web.StreamResponse(
            headers={
                "Content-Type": EVENTS,
                "Cache-Control": "no-store",
                "Beaver-Seq": str(call.site.engine.durable_seq),
            }
        )

    async def run(self, after_seq: int) -> web.StreamResponse:
        """Sends events until the reader leaves, or is cut off."""
        response = self._response
        await response.prepare(self._call.request)
        await self._send(b": beaver\n\n")
        with contextlib.suppress(ConnectionError, TimeoutError):  # The reader is gone, or slow.
            await self._follow(after_seq)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(response.write_eof(), SLOW_S)
        response.force_close()
        return response

    async def _follow(self, after_seq: int) -> None:
        quiet, next_seq = 0, after_seq + 1
        try:
            async with aclosing(self._call.site.feed.follow(after_seq, QUIET_S)) as steps:
                async for step in steps:
                    if not self._is_good():
                        return
                    if isinstance(step, Quiet):
                        quiet += 1
                        if quiet % COMMENT_EVERY == 0:
                            await self._send(b":\n\n")
                    elif isinstance(step, Gap):
                        await self._send(
                            _frame(step.first_seq - 1, "gap", {"first_seq": step.first_seq})
                        )
                    elif isinstance(step, Cut):
                        await self._send(
                            _frame(step.next_seq - 1, "cut", {"next_seq": step.next_seq})
                        )
                        return
                    else:
                        await self._send(self._told(step))
                        next_seq = step.last_seq + 1
        except TimeoutError:
            # It takes nothing: what is said now may still reach it.
            transport = self._call.request.transport
            if transport is not None:
                await self._response.write(_frame(next_seq - 1, "cut", {"next_seq": next_seq}))
            raise
        except BeaverError as error:
            await self._send(_frame(next_seq - 1, "error", problem_of(error).members()))

    def _is_good(self) -> bool:
        """False where the token would not be let in any more; looked up once a second."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s >= QUIET_S:
            self._looked_s = now_s
            return self._call.site.gate.still_good(self._call.request)
        return True

    def _told(self, piece: Piece) -> bytes:
        query = self._query
        if not (query.job or query.queue or query.event):
            return piece.whole
        pieces = [
            frame
            for one, frame in zip(piece.events, piece.frames, strict=True)
            if (not query.job or one.job == query.job)
            and (not query.queue or one.queue == query.queue)
            and (not query.event or one.event == query.event)
        ]
        return b"".join(pieces)

    async def _send(self, data: bytes) -> None:
        """Sends to a reader.

        Raises:
            TimeoutError: It takes nothing.
        """
        for at in range(0, len(data), WRITE_BYTES):
            piece = data[at : at + WRITE_BYTES]
            async with asyncio.timeout(SLOW_S):
                await self._response.write(piece)


def _frame(seq: int, name: str, data: dict[str, object]) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, name.encode(), msgspec.json.encode(data))


ROUTES: Final = (
    Route(
        "GET", "/v1/events", Right.READ, _events,
        "The log as server-sent events: what was kept from a seq on, then what comes",
        {200: str}, EventsQuery, gives=(EVENTS,),
    ),
)  # fmt: skip
