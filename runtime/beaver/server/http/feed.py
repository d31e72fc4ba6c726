"""The log as it grows, for those who follow it over HTTP.

One task asks the helper for what was committed, for all of them, and keeps the newest events; it
runs only while somebody follows.  Whoever is further behind asks the helper for themselves until
they have caught up.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
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


Step = list[WalkedEvent] | Gap | Cut | Quiet


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
        self._more = asyncio.Event()
        """Set and replaced whenever events arrive."""
        self._committed = asyncio.Event()
        self._pumping: asyncio.Task[None] | None = None
        self._failed: BeaverError | None = None

    def committed(self) -> None:
        """Something is durable that was not."""
        if self._followers:
            self._committed.set()

    async def follow(self, after_seq: int, quiet_s: float) -> AsyncGenerator[Step, None]:
        """Yields what comes behind a seq, for ever, and `Quiet` where nothing does for a while.

        Raises:
            BeaverError: The log cannot be read.
        """
        with self._following():
            live = False
            while True:
                if after_seq >= self._begins:
                    live = True
                    found = self._after(after_seq)
                    if not found:
                        more = self._more
                        if self._failed is not None:
                            raise self._failed
                        try:
                            await asyncio.wait_for(more.wait(), quiet_s)
                        except TimeoutError:
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
                    found = walked.events
                    if not found:
                        await asyncio.sleep(PAUSE_S)
                if found:
                    after_seq = found[-1].seq
                    yield found

    @property
    def _begins(self) -> int:
        """A follower at this seq or later finds everything it needs in memory."""
        return self._kept[0].seq - 1 if self._kept else self._come_to

    def _after(self, seq: int) -> list[WalkedEvent]:
        at = bisect_right(self._kept, seq, key=_seq)
        found: list[WalkedEvent] = []
        size = 0
        for event in self._kept[at:]:
            size += len(bytes(event.json))
            found.append(event)
            if size >= PIECE_BYTES:
                break
        return found

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

    async def _pump(self) -> None:
        """Asks for what was committed, as long as somebody follows."""
        try:
            while True:
                if self._durable_seq() <= self._come_to:
                    self._committed.clear()
                    await self._committed.wait()
                walked = await self._ask(self._come_to)
                self._keep(walked)
                more, self._more = self._more, asyncio.Event()
                more.set()
                await asyncio.sleep(PAUSE_S)
        except BeaverError as error:
            self._failed = error
            self._pumping = None  # Who comes next tries again.
            self._more.set()

    def _keep(self, walked: Walked) -> None:
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
