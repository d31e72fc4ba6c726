"""The log as it grows, for those who follow it over HTTP.

One task asks the helper for what was committed, for all of them, and keeps the newest events; it
runs only while somebody follows.  Whoever is further behind asks the helper for themselves until
they have caught up.

Followers who are at one place share a `Piece`, with the bytes that are sent: a hundred readers of
everything cost one making of them.  They are woken some at a time, and the more they are the
rarer, so that the loop serves others meanwhile.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from beaver.errors import BeaverError
from beaver.structs.questions import Walked, WalkedEvent

KEPT_BYTES: Final = 16 << 20
"""Bytes of recent events kept in memory; a follower that falls further behind is cut off."""
PIECE_BYTES: Final = 256 << 10
"""Bytes of JSON requested from the helper at once."""
PAUSE_S: Final = 0.02
"""Pause between two requests, so that one covers many commits."""
PAUSE_EACH_S: Final = 0.001
"""More of a pause for each follower."""
PAUSE_MAX_S: Final = 1.0
WOKEN_AT_ONCE: Final = 32
"""Followers woken before the loop serves others."""
EVENT_BYTES: Final = 200
"""Memory of an event beside its JSON."""

_decode: Final = msgspec.json.Decoder(Walked).decode

Walk = Callable[[int, int, int], Awaitable[bytes]]


class Gap(NamedTuple):
    """Events before this seq are no longer kept."""

    first_seq: int


class Cut(NamedTuple):
    """The follower has fallen behind and may resume from this seq."""

    next_seq: int


class Quiet(NamedTuple):
    """No event arrived for a while."""


class Piece:
    """Some events, one after the other, and the bytes that readers of all of them get."""

    def __init__(self, events: list[WalkedEvent]) -> None:
        self.events = events
        self.last_seq = events[-1].seq

    @cached_property
    def frames(self) -> list[bytes]:
        """Each event as it is sent."""
        return [
            b"id: %d\nevent: %s\ndata: %s\n\n" % (one.seq, one.event.encode(), one.json)
            for one in self.events
        ]

    @cached_property
    def whole(self) -> bytes:
        """All of them."""
        return b"".join(self.frames)


Step = Piece | Gap | Cut | Quiet


class Feed:
    """The newest events of a log."""

    def __init__(self, walk: Walk, durable_seq: Callable[[], int]) -> None:
        """Takes where events come from.

        Args:
            walk: Asks the helper.
            durable_seq: Tells up to where the log may be told.
        """
        self._walk, self._durable_seq = walk, durable_seq
        self._kept: list[WalkedEvent] = []
        self._kept_bytes = 0
        self._come_to = 0
        """Events up to this seq have been read."""
        self._followers = 0
        self._sleeping: list[asyncio.Future[None]] = []
        """Followers who have seen everything."""
        self._pieces: dict[int, Piece] = {}
        """Those that were asked for since events arrived, by the seq that they follow."""
        self._is_closed = False
        self._committed = asyncio.Event()
        self._pumping: asyncio.Task[None] | None = None
        self._failed: BeaverError | None = None

    def committed(self) -> None:
        """Something is durable that was not."""
        if self._followers:
            self._committed.set()

    async def follow(self, after_seq: int, quiet_s: float) -> AsyncGenerator[Step, None]:
        """Yields what comes behind a seq, and `Quiet` where nothing does for a while.

        It ends when the server does.

        Raises:
            BeaverError: The log cannot be read.
        """
        with self._following():
            live = False
            while not self._is_closed:
                if after_seq >= self._begins:
                    live = True
                    piece = self._after(after_seq)
                    if piece is None:
                        if self._failed is not None:
                            raise self._failed
                        if not await self._sleep(quiet_s):
                            yield Quiet()
                        continue
                elif live:
                    yield Cut(after_seq + 1)
                    return
                else:
                    walked = await self._ask(after_seq)
                    if walked.first_seq > after_seq + 1:
                        after_seq = walked.first_seq - 1
                        yield Gap(walked.first_seq)
                        continue
                    if not walked.events:
                        await asyncio.sleep(PAUSE_S)
                        continue
                    piece = Piece(walked.events)
                after_seq = piece.last_seq
                yield piece

    async def _sleep(self, quiet_s: float) -> bool:
        """Waits for events; false where none came."""
        more = asyncio.get_running_loop().create_future()
        self._sleeping.append(more)
        try:
            async with asyncio.timeout(quiet_s):
                await more
        except TimeoutError:
            return False
        return True

    async def _wake(self) -> None:
        """Wakes all who sleep, some at a time."""
        sleeping, self._sleeping = self._sleeping, []
        for number, more in enumerate(sleeping, 1):
            if not more.done():
                more.set_result(None)
            if number % WOKEN_AT_ONCE == 0:
                await asyncio.sleep(0)

    def close(self) -> None:
        """Ends what everybody follows."""
        self._is_closed = True
        for more in self._sleeping:
            if not more.done():
                more.set_result(None)

    @property
    def _begins(self) -> int:
        """A follower at this seq or later finds everything it needs in memory."""
        return self._kept[0].seq - 1 if self._kept else self._come_to

    def _after(self, seq: int) -> Piece | None:
        """Returns what is kept behind a seq; `None` for nothing."""
        piece = self._pieces.get(seq)
        if piece is not None:
            return piece
        at = bisect_right(self._kept, seq, key=_seq)
        found: list[WalkedEvent] = []
        size = 0
        for event in self._kept[at:]:
            size += len(bytes(event.json))
            found.append(event)
            if size >= PIECE_BYTES:
                break
        if not found:
            return None
        piece = self._pieces[seq] = Piece(found)
        return piece

    @contextmanager
    def _following(self) -> Iterator[None]:
        self._followers += 1
        if self._pumping is None:
            self._failed = None
            self._kept, self._kept_bytes, self._come_to = [], 0, self._durable_seq()
            self._pumping = asyncio.get_running_loop().create_task(self._pump())
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self._pumping is not None:
                self._pumping.cancel()
                self._pumping = None
                self._kept, self._kept_bytes = [], 0
                self._pieces.clear()

    async def _pump(self) -> None:
        """Asks for what was committed, as long as somebody follows."""
        try:
            while True:
                if self._durable_seq() <= self._come_to:
                    self._committed.clear()
                    await self._committed.wait()
                walked = await self._ask(self._come_to)
                self._keep(walked)
                await self._wake()
                pause_s = PAUSE_S + PAUSE_EACH_S * self._followers
                await asyncio.sleep(min(pause_s, PAUSE_MAX_S))
        except BeaverError as error:
            self._failed = error
            self._pumping = None  # Who comes next tries again.
            await self._wake()

    def _keep(self, walked: Walked) -> None:
        self._pieces.clear()
        self._kept += walked.events
        self._kept_bytes += sum(len(bytes(e.json)) + EVENT_BYTES for e in walked.events)
        self._come_to = max(self._come_to, walked.come_to)
        over = 0
        while self._kept_bytes > KEPT_BYTES and over < len(self._kept) - 1:
            self._kept_bytes -= len(bytes(self._kept[over].json)) + EVENT_BYTES
            over += 1
        del self._kept[:over]

    async def _ask(self, after_seq: int) -> Walked:
        return _decode(await self._walk(after_seq, self._durable_seq(), PIECE_BYTES))


def _seq(event: WalkedEvent) -> int:
    return event.seq
