"""What a running server tells of the past: asked of the helper, which reads index and log.

What lives here: putting questions together, so that many of them cost one process, and what
follows where the index is found damaged.  Nothing here waits for the index to be brought up:
what it does not hold yet, the helper reads in the log.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

import msgspec

from beaver.errors import BeaverError
from beaver.journal.wal.layout import Layout
from beaver.ports import Helper
from beaver.server.housekeeping import Housekeeping
from beaver.structs.questions import Known, Listed, Search, Stories, Told

log = logging.getLogger("beaver")

ASKED_MAX: Final = 64
"""Jobs in one question to the helper."""


_decode_answer: Final = msgspec.json.Decoder(Stories).decode
_decode_listed: Final = msgspec.json.Decoder(Listed).decode


class Past:
    """Asks the helper about the past: an `answers.PastTeller`."""

    def __init__(self, layout: Layout, helper: Helper, keeping: Housekeeping) -> None:
        self._layout, self._helper, self._keeping = layout, helper, keeping
        self._asked: dict[str, tuple[Known, list[asyncio.Future[Told]]]] = {}
        self._until_seq = 0
        self._asking: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None

    async def tell(self, known: Known, until_seq: int) -> Told:
        """Returns the events of a job up to `until_seq`, which is durable.

        Raises:
            BeaverError: The log is damaged, or the helper died.
        """
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        _, futures = self._asked.setdefault(known.job, (known, []))
        futures.append(future)
        self._until_seq = max(self._until_seq, until_seq)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return await future

    async def _ask(self) -> None:
        """Asks for what came in while it was asked, until nothing has."""
        while self._asked:
            # A turn of the loop later, those that came with the first are there as well.
            await asyncio.sleep(0)
            asked = dict(list(self._asked.items())[:ASKED_MAX])
            for job in asked:
                del self._asked[job]
            try:
                known = [known for known, _ in asked.values()]
                answer = _decode_answer(await self._helper.tell(known, self._until_seq))
            except (BeaverError, msgspec.MsgspecError) as error:
                for _, futures in asked.values():
                    for future in futures:
                        if not future.done():
                            future.set_exception(error)
                continue
            self._mend_if(damaged=answer.damaged)
            for job, (wanted, futures) in asked.items():
                if job not in answer.by_job:
                    # The answer would have been too long with it.
                    self._asked.setdefault(job, (wanted, []))[1].extend(futures)
                    continue
                told = Told(answer.by_job[job], answer.as_of_seq, answer.first_seq)
                for future in futures:
                    if not future.done():
                        future.set_result(told)

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
        tasks = [task for task in (self._asking, self._mending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
