"""What a running server tells of the past: asked of the helper, which reads index and log.

What lives here: putting questions together, so that many of them cost one process, and what
follows where the index is found damaged.  Nothing here waits for the index to be brought up:
what it does not hold yet, the helper reads in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from beaver.errors import BeaverError
from beaver.journal.wal.layout import Layout
from beaver.ports import Helper
from beaver.server.gathering import Gathering
from beaver.server.housekeeping import Housekeeping
from beaver.structs.questions import Ending, Endings, Known, Listed, Search, Stories, Told

log = logging.getLogger("beaver")

ASKED_MAX: Final = 1_000
"""Jobs, or attempts, in one question to the helper: what it costs most is to open index and log."""

_decode_answer: Final = msgspec.json.Decoder(Stories).decode
_decode_endings: Final = msgspec.json.Decoder(Endings).decode
_decode_listed: Final = msgspec.json.Decoder(Listed).decode


class Past:
    """Asks the helper about the past: an `answers.PastTeller`."""

    def __init__(self, layout: Layout, helper: Helper, keeping: Housekeeping) -> None:
        self._layout, self._helper, self._keeping = layout, helper, keeping
        self._jobs = Gathering(self._ask_jobs, ASKED_MAX)
        self._tokens = Gathering(self._ask_tokens, ASKED_MAX)
        self._until_seq = 0
        self._mending: asyncio.Task[None] | None = None

    async def tell(self, known: Known, until_seq: int) -> Told:
        """Returns the events of a job up to `until_seq`, which is durable.

        Raises:
            BeaverError: The log is damaged, or the helper died.
        """
        self._until_seq = max(self._until_seq, until_seq)
        return await self._jobs.get(known.job, known)

    async def _ask_jobs(self, asked: Mapping[str, Known]) -> dict[str, Told]:
        raw = await self._helper.tell(list(asked.values()), self._until_seq)
        answer = _decode_answer(raw)
        self._mend_if(damaged=answer.damaged)
        # One is left out where the answer would have been too long with it.
        return {
            job: Told(events, answer.as_of_seq, answer.first_seq)
            for job, events in answer.by_job.items()
        }

    async def ending(self, token: int, until_seq: int) -> Ending | None:
        """Returns what the log tells of an attempt up to `until_seq`, which is durable.

        Raises:
            BeaverError: The log is damaged, or the helper died.
        """
        self._until_seq = max(self._until_seq, until_seq)
        return await self._tokens.get(token, None)

    async def _ask_tokens(self, asked: Mapping[int, None]) -> dict[int, Ending | None]:
        answer = _decode_endings(await self._helper.endings(list(asked), self._until_seq))
        self._mend_if(damaged=answer.damaged)
        found = {ending.token: ending for ending in answer.found}
        rest = answer.next_token
        return {token: found.get(token) for token in asked if not rest or token < rest}

    async def find(self, search: Search, until_seq: int) -> Listed:
        """Takes a step of a search; see `stories.find_finished`."""
        listed = _decode_listed(await self._helper.find(search, until_seq))
        self._mend_if(damaged=listed.damaged)
        return listed

    def _mend_if(self, *, damaged: bool) -> None:
        """Has a damaged index made anew, while questions are answered from the log."""
        if damaged and (self._mending is None or self._mending.done()):
            self._mending = asyncio.get_running_loop().create_task(self._mend())

    async def _mend(self) -> None:
        from beaver.history.rows import delete_history  # here alone the server needs SQLite

        path = self._layout.history
        log.warning("%s is damaged, and is made anew from the archive", path)
        try:
            await self._keeping.project_anew(partial(delete_history, path))
        except BeaverError as error:
            log.warning("%s; it is tried again with the next question", error)

    async def close(self) -> None:
        """Ends what is being asked."""
        await self._jobs.close()
        await self._tokens.close()
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
