"""Choosing the jobs of an action on many, and beginning it: what socket and HTTP ask.

The set of jobs is fixed, and on disk, before the answer; carrying it out takes as long as it takes
(`carrying_out`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from beaver.engine.engine import Engine
from beaver.errors import InvalidInput, NotFound
from beaver.inspect.matching import check, first_since, matching
from beaver.server.bulk import sets
from beaver.server.bulk.carrying_out import Bulks
from beaver.server.bulk.sets import Bulk
from beaver.structs.questions import CameIn, Wanted, Where
from beaver.structs.views import BulkView

JOBS_MAX: Final = 1_000_000
"""Jobs that one action may be for."""

_decode_came_in: Final = msgspec.json.Decoder(CameIn).decode


class TooManyMatch(InvalidInput):
    """More jobs match than one action may be for."""


class Choosing:
    """Begins actions on many jobs, and tells of them.  It belongs to the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        bulks: Bulks,
        enqueued: Callable[[Wanted, int, int, int], Awaitable[bytes]],
    ) -> None:
        """Takes what it works on.

        Args:
            engine: Owner of the state.
            bulks: Carries them out.
            enqueued: Finds jobs in the log; see `ports.Helper.enqueued`.
        """
        self._engine, self.bulks, self._enqueued = engine, bulks, enqueued
        self._scanning = asyncio.Lock()
        """Held while jobs are looked for: a table of all of them is large."""

    def find(self, bulk: str) -> BulkView:
        """Returns how far an action is.

        Raises:
            NotFound: There is none, or it was done long ago.
        """
        found = self.bulks.find(bulk)
        if found is None:
            raise NotFound(f"no bulk action {bulk!r:.80}; the last hundred that are done are kept")
        return _view(found)

    async def begin(self, action: str, where: Where, by: str, *, dry_run: bool) -> BulkView:
        """Counts the jobs that are meant, and begins.

        All that it rests on is durable on return.

        Args:
            action: `cancel`, `retry` or `discard`.
            where: Which jobs.
            by: Who asks, for the log.
            dry_run: Only count them.

        Raises:
            InvalidInput: See `matching.check`.
            TooManyMatch: They are too many for one action.
            TooManyBulks: As many actions as may be are under way.
            StoreUnavailable: The set cannot be written.
        """
        check(action, where)
        if not dry_run:
            self.bulks.check_room()
        last_seq = await self._synced()
        since_ms, until_ms = where.since_ms, where.until_ms
        first_seq = 0 if since_ms is None else await self._first_since(since_ms, last_seq)
        if until_ms is not None:
            last_seq = await self._first_since(until_ms, last_seq) - 1
        async with self._scanning:
            lines: list[bytes] = []
            count = size = 0
            for found in matching(self._engine.state, action, where, first_seq, last_seq):
                count += len(found)
                if not dry_run:
                    fresh = list(map(sets.line_of, found))
                    lines += fresh
                    size += sum(map(len, fresh))
                    if size > sets.SET_BYTES_MAX or count > JOBS_MAX:
                        raise TooManyMatch(
                            f"more than {JOBS_MAX} jobs, or {sets.SET_BYTES_MAX} bytes of their "
                            "ids, match; narrow the filters, and act several times"
                        )
                await asyncio.sleep(0)
        await self._synced()  # All that was looked at is durable by now.
        if dry_run:
            return BulkView(action, count, "counted")
        return _view(await self.bulks.start(action, by, lines))

    async def _synced(self) -> int:
        """Waits until all that has happened is durable; returns the seq up to which that is."""
        synced: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._engine.read(
            lambda state: state.last_seq,
            lambda seq: None if synced.done() else synced.set_result(seq),
        )
        return await synced

    async def _first_since(self, time_ms: int, until_seq: int) -> int:
        """See `matching.first_since`."""
        asking = first_since(time_ms, until_seq)
        try:
            wanted, after_seq = next(asking)
            while True:
                raw = await self._enqueued(wanted, after_seq, until_seq, 1)
                wanted, after_seq = asking.send(_decode_came_in(raw))
        except StopIteration as end:
            return int(end.value)


def _view(bulk: Bulk) -> BulkView:
    return BulkView(
        bulk.action, bulk.matched, bulk.state, bulk.bulk, bulk.done, bulk.refused, bulk.by,
        bulk.created_ms,
    )  # fmt: skip
