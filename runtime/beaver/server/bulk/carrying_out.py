"""Carrying out actions on many jobs, a commit at a time, so that nobody waits for them.

A set is gone through from its beginning, also after a restart: a job whose generation has moved on,
or which is in the wanted state, was changed before.

What may not live here: which jobs are meant (`choosing`), and files (`sets`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import islice
from typing import Final

from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Reply
from beaver.errors import DiskFull, StoreUnavailable
from beaver.inspect.matching import ACTIONS, Member, generation_of
from beaver.ports import Clock, Entropy
from beaver.server.bulk.sets import Bulk, BulkFiles, members_of
from beaver.text.foreign import counted
from beaver_model import State
from beaver_model.states import JobState

log: Final = logging.getLogger("beaver")

RUNNING_MAX: Final = 4
"""Actions under way at once."""
KEPT_MAX: Final = 100
"""Actions that are done and still told of."""
CHUNK_JOBS: Final = 100
"""Jobs changed by one commit: one or two milliseconds of the loop."""
ROOM_S: Final = 1.0
"""While the disk is full it is tried again so much later."""

_REMOVED: Final = frozenset({JobState.FORGOTTEN})
"""What a tombstone says of a job that was discarded."""


class TooManyBulks(StoreUnavailable):
    """As many actions as may be are under way."""


class Bulks:
    """The actions on many jobs of one server.  Every method belongs to the loop's thread."""

    def __init__(self, engine: Engine, data: str, clock: Clock, entropy: Entropy) -> None:
        self._engine, self._clock, self._entropy = engine, clock, entropy
        self._files = BulkFiles(data)
        self._known: dict[str, Bulk] = {}
        """By id, oldest first."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0

    def resume(self) -> None:
        """Goes on with what was under way when the last server ended."""
        for name in self._files.names():
            try:
                bulk, lines = self._files.read(name)
            except StoreUnavailable as error:
                log.warning("%s", error)
                continue
            self._known[name] = bulk
            if bulk.state != "done":
                bulk.done = bulk.refused = 0
                self._go(bulk, lines)
        self._forget()

    async def close(self) -> None:
        """Stops; the next server goes on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def running(self) -> int:
        """How many are under way."""
        return len(self._tasks) + self._starting

    def find(self, bulk: str) -> Bulk | None:
        """Returns one that is known."""
        return self._known.get(bulk)

    def check_room(self) -> None:
        """Refuses another action where there are too many.

        Raises:
            TooManyBulks: There are.
        """
        if self.running >= RUNNING_MAX:
            raise TooManyBulks(
                f"{self.running} actions on many jobs are under way, which is the limit; try again"
            )

    async def start(self, action: str, by: str, lines: Sequence[bytes]) -> Bulk:
        """Takes on an action on a set of jobs, which is durable on return.

        Args:
            action: `cancel`, `retry` or `discard`.
            by: Who asks, for the log.
            lines: The jobs, as `sets.line_of` gives them.

        Raises:
            TooManyBulks: There are too many.
            StoreUnavailable: The set cannot be written.
        """
        self.check_room()
        now_ms = self._clock.wall_ms()
        name = f"{now_ms:012x}{self._entropy.token_bytes(6).hex()}"
        bulk = Bulk(name, action, len(lines), by, now_ms)
        self._starting += 1
        try:
            await asyncio.to_thread(self._files.write, bulk, lines)
        finally:
            self._starting -= 1
        self._known[name] = bulk
        self._forget()
        self._go(bulk, b"".join(lines))
        return bulk

    def _forget(self) -> None:
        """Forgets the oldest of those that are done."""
        over = [name for name, bulk in self._known.items() if bulk.state == "done"][:-KEPT_MAX]
        for name in over:
            del self._known[name]
            self._files.remove(name)

    def _go(self, bulk: Bulk, lines: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._carry_out(bulk, lines))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, bulk: Bulk, lines: bytes) -> None:
        members = members_of(lines)
        late: list[Member] = []
        while chunk := late or list(islice(members, CHUNK_JOBS)):
            late = await self._change(bulk, chunk)
            if late:
                await asyncio.sleep(ROOM_S)
        bulk.state = "done"
        log.info(
            "%s of %s: %d done, %d refused",
            bulk.action, counted(bulk.matched, "job"), bulk.done, bulk.refused,
        )  # fmt: skip
        try:
            await asyncio.to_thread(self._files.write, bulk)
        except StoreUnavailable as error:
            log.warning("%s", error)  # The next start goes through it again, and changes nothing.

    async def _change(self, bulk: Bulk, chunk: list[Member]) -> list[Member]:
        """Changes some jobs in one commit; returns those that the disk had no room for."""
        loop = asyncio.get_running_loop()
        durable: asyncio.Future[None] = loop.create_future()
        counts = {"done": 0, "refused": 0}
        late: list[Member] = []
        for member in chunk:
            judged = judge(self._engine.state, bulk.action, member)
            if judged is not None:
                counts[judged] += 1
                continue

            def answer(reply: Reply, member: Member = member) -> None:
                if isinstance(reply, DiskFull):
                    late.append(member)
                else:
                    counts["done" if isinstance(reply, Applied) else "refused"] += 1

            command = ACTIONS[bulk.action].command(member.job, bulk.by)
            self._engine.change(command, answer, lambda _: None)
        # All of these answers are computed by now; they count once they are on disk.
        self._engine.once_durable(lambda: None if durable.done() else durable.set_result(None))
        await durable
        bulk.done += counts["done"]
        bulk.refused += counts["refused"]
        return late


def judge(state: State, action: str, member: Member) -> str | None:
    """Returns what is to be counted of a job that need not be changed; `None` where it has to be.

    The model decides whether it can be.
    """
    row = state.jobs.get(member.job)
    if row is None or row.seq != member.seq:
        buried = state.tombstone(member.job)
        if buried is None or buried.seq != member.seq:
            return "refused"
        return "done" if action == "discard" and buried.outcome in _REMOVED else "refused"
    if generation_of(row) != member.generation:
        return "done" if action == "retry" else "refused"
    if action == "cancel" and row.state == JobState.CANCELLED:
        return "done"
    return None
