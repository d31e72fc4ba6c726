"""Group commit: when the open batch is written, and what follows.

Arrivals collect while the log writes, and the commit runs when the loop has read what came in,
so no timer delays a lone producer.  One append is outstanding; the next batch collects
meanwhile.

A failed append makes the engine useless: it decides and answers nothing more, and the process must
end, since the page cache can no longer be trusted.  After a deposed append this assembly is
useless: another writer leads, and everything in memory is discarded.

What may not live here: decisions and state (`engine`), files (`journal`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from beaver.engine.counters import CommitCounters
from beaver.engine.intake import Intake
from beaver.engine.replies import Replies, Waiting
from beaver.errors import LostLeadership
from beaver.journal.codec import encode_commit
from beaver.journal.port import (
    OVERHEAD_BYTES,
    Appended,
    AppendOutcome,
    Deposed,
    Failed,
    Journal,
    Stamp,
)
from beaver.ports import Clock
from beaver_model.bounds import BATCH_BYTES_MAX, BATCH_JOBS_MAX
from beaver_model.events import AnyEvent, Booted

IDLE_S: Final = 0.05
"""Idle time after which the log is told that it is quiet."""

ENOUGH: Final = 100
"""Answers and events with which a commit goes off at once: its sync costs each next to nothing."""

Observer = Callable[[int, int, Sequence[AnyEvent]], None]
"""Called after each commit with its first seq, its stamp and its events."""


class Batch:
    """What one commit writes, and who waits for it.

    The state holds its events already, and the log does not: **nothing that rests on them may
    leave before they are durable**.  `str` tells both, what must be durable and what leaves then.
    """

    __slots__ = ("bytes", "events", "first_seq", "now_ms", "room", "waiting")

    def __init__(self, first_seq: int, room: int = 0) -> None:
        self.first_seq = first_seq
        self.now_ms = 0
        """The stamp of its events; 0 while it has none."""
        self.events: list[AnyEvent] = []
        self.bytes = 0
        """No less than what its events take in the log."""
        self.room = room
        """Bytes that it may have without asking the log; 0 where not known."""
        self.waiting: list[Waiting] = []

    @property
    def next_seq(self) -> int:
        """The seq behind its last event."""
        return self.first_seq + len(self.events)

    def next(self) -> Batch:
        """Returns the batch behind it, which has the room that it leaves."""
        left = self.room - self.bytes - OVERHEAD_BYTES if self.events else self.room
        return Batch(self.next_seq, max(0, left))

    def __str__(self) -> str:
        told = f"{len(self.waiting)} answer{'s' * (len(self.waiting) != 1)}"
        if not self.events:
            return f"nothing to write before {told}"
        names = ", ".join(
            f"{event.NAME} {event.job}" if hasattr(event, "job") else event.NAME
            for event in self.events
        )
        seqs = f"seq {self.first_seq}"
        if len(self.events) > 1:
            seqs = f"seqs {self.first_seq} to {self.next_seq - 1}"
        return f"{seqs} at {self.now_ms} ms before {told}: {names}"


class GroupCommit:
    """Writes batches, one at a time, and tells who waits for them."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        replies: Replies,
        intake: Intake,
        loop: asyncio.AbstractEventLoop,
        *,
        last_seq: int,
        prepare: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """Begins behind `last_seq`, which is durable.

        Args:
            journal: The log.
            clock: For what commits take.
            replies: Gives the answers.
            intake: What has come in and is not decided yet.
            loop: Runs the commits.
            last_seq: Last seq of the log.
            prepare: Decides what belongs into the commit, just before it is written.
            fail: Told once the log, or whoever observes it, cannot be trusted.
        """
        self._journal, self._clock, self._replies = journal, clock, replies
        self._intake, self._loop = intake, loop
        self._prepare, self._fail = prepare, fail
        self.batch_bytes_max = min(BATCH_BYTES_MAX, journal.commit_bytes_max)
        self.durable_seq = last_seq
        self.batch = Batch(last_seq + 1)
        """The open batch."""
        self.under_way: Batch | None = None
        """The batch that is being appended; the open one waits for it."""
        self.is_over = False
        """The engine has failed or is closed: nothing more is written or told."""
        self.stamp: Stamp | None = None
        """Stamp of the last commit, if the journal uses stamps."""
        self.observers: list[Observer] = []
        self.late_observers: list[Observer] = []
        self._uncounted: deque[tuple[Batch, Appended]] = deque()
        """Commits that are told, or being told, and not yet counted and shown to the late ones."""
        self.counters = CommitCounters()
        self.is_scheduled = False
        """A commit runs soon."""
        self._is_postponed = False
        """A commit, and with it the controller's look for work, waits for the one under way."""
        self._crowd = 0
        """Answers that waited for the last commit."""
        self._sync_ns = 0
        """What a commit takes on the disk (moving mean)."""
        self._looked_at = 0
        """Answers and events of the open batch at the last look; 0 before the first."""
        self._looking_ns = 0
        """When that first look was."""
        self._is_idle_armed = False
        self._idle_after = 0

    # -- when it goes off ------------------------------------------------------------------

    def touch(self) -> None:
        """Makes a commit run soon."""
        if not self.is_scheduled and not self.is_over:
            self.is_scheduled = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        if self.under_way is not None:
            # The open batch goes on collecting; `_appended` makes it go next.
            self.is_scheduled, self._is_postponed = False, True
            return
        if self._expects_more():
            self._loop.call_soon(self._commit)
            return
        self._prepare()
        # Cleared only now: what the controller has just submitted needs no commit of its own.
        self.is_scheduled = False
        if not self.is_over and self.under_way is None:
            self.write()

    def _expects_more(self) -> bool:
        """True where the commit waits for one more look at what comes in.

        Only where the last one answered several at once; as long as each look brings somebody;
        and no longer than a sync takes.  Who is first loses a sync's time at most, and a sync
        serves many instead of a few.
        """
        batch = self.batch
        arrived = len(batch.waiting) + len(batch.events) + len(self._intake.asked)
        if self._crowd < 2 or arrived == self._looked_at or arrived > ENOUGH:
            return False
        now_ns = self._clock.monotonic_ns()
        if not self._looked_at:
            self._looking_ns = now_ns
            self.counters.gathered += 1
        elif now_ns - self._looking_ns > self._sync_ns:
            return False
        self._looked_at = arrived
        return True

    def settle(self) -> None:
        """Returns when the batch under way, if there is one, is durable and told."""
        while self.under_way is not None and not self.is_over:
            self._journal.wait()

    def flush(self) -> None:
        """Commits at once whatever is open, and returns when it is durable."""
        while not self.is_over and (
            self.batch.events or self.batch.waiting or self.under_way is not None
        ):
            if self.under_way is not None:
                self._journal.wait()
            else:
                self.write()

    def reserve(self, size: int) -> int:
        """Returns how large the open batch may become, once `size` more bytes fit; else 0."""
        try:
            while not self.is_over:
                # Making room may wait for a commit, whose observers submit.
                room = self._journal.reserve(self.batch.bytes + size + OVERHEAD_BYTES)
                room -= OVERHEAD_BYTES
                if room < 0 or self.batch.bytes + size <= room:
                    return max(0, room)
        except Exception as error:  # noqa: BLE001 - as in write
            self._fail(error)
        return 0

    def make_room(self, size: int, count: int, reserve: int) -> bool:
        """Sees that `count` more events of `size` bytes fit into the open batch.

        Where they do not, it is written, and they come into the next one.

        Args:
            size: No less than what they take.
            count: How many they are at most.
            reserve: Room that has to be left in the log behind them.

        Returns:
            False where the disk is full, or the log has failed.
        """
        batch = self.batch
        size_then = batch.bytes + size
        fits = size_then <= self.batch_bytes_max and len(batch.events) + count <= BATCH_JOBS_MAX
        if fits and size_then + reserve <= batch.room:
            return True
        if batch.events and not fits:
            self.settle()
            if self.batch.events and not self.is_over:
                self.write()
        room = self.reserve(size + reserve)
        if room:
            self.batch.room = room
        return room > 0

    # -- what becomes of it ----------------------------------------------------------------

    def write(self) -> None:
        """Appends the open batch to the log."""
        batch = self.batch
        self.batch = batch.next()
        self._looked_at, self._crowd = 0, len(batch.waiting)
        if not batch.events:
            self._replies.tell_all(batch.waiting)
            return
        self.under_way, journal = batch, self._journal
        try:
            payload = encode_commit(batch.now_ms, batch.events, self._next_stamp(batch))
            journal.append(journal.position, payload, len(batch.events), self._appended)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log is not trusted now
            self._fail(error)

    def _next_stamp(self, batch: Batch) -> Stamp | None:
        """Returns the stamp that a batch has to carry: none in a log with one owner."""
        if not self._journal.is_stamped:
            return None
        first = batch.events[0]
        if isinstance(first, Booted):
            self.stamp = Stamp(first.epoch, first.writer, 1)
        else:
            assert self.stamp is not None, "a writer begins with its BOOT"
            self.stamp = self.stamp._replace(number=self.stamp.number + 1)
        return self.stamp

    def _appended(self, outcome: AppendOutcome) -> None:
        """The log tells what became of a batch."""
        batch, self.under_way = self.under_way, None
        assert batch is not None, "a batch was handed over"
        if isinstance(outcome, Failed):
            self._fail(outcome.error)
            return
        if isinstance(outcome, Deposed):
            self._fail(LostLeadership(f"{outcome.reason}; send it again"))
            return
        self._durable(batch, outcome)
        # Also where nothing is open: a worker may have become ready during the sync.
        if self.batch.events or self.batch.waiting or self._is_postponed:
            self._is_postponed = False
            self.touch()

    def _durable(self, batch: Batch, appended: Appended) -> None:
        """A batch is on disk: it is told to who waits for it, then counted.

        Clients go on while it is counted.
        """
        self.durable_seq = batch.next_seq - 1
        self._uncounted.append((batch, appended))
        # Observers tell too: of ends that somebody waits for.
        self._replies.is_telling = True
        is_shown = self._show(self.observers, batch)
        self._replies.is_telling = False
        if not is_shown:
            return
        self._replies.tell_all(batch.waiting)
        # An answer may have led to another commit, which has counted this one first.
        while self._uncounted:
            self._count(*self._uncounted.popleft())
        self._arm_idle()

    def _show(self, observers: Sequence[Observer], batch: Batch) -> bool:
        """Shows a commit; False where an observer failed."""
        try:
            for observer in observers:
                observer(batch.first_seq, batch.now_ms, batch.events)
        except Exception as error:  # noqa: BLE001 - who missed a commit cannot be trusted
            self._fail(error)
            return False
        return True

    def _count(self, batch: Batch, appended: Appended) -> None:
        counters, count, seconds = self.counters, len(batch.events), appended.seconds
        self._sync_ns += (int(seconds * 1e9) - self._sync_ns) // 8
        counters.syncs.observe(seconds)
        counters.batches.observe(float(count))
        counters.commits += 1
        counters.events += count
        counters.bytes += appended.bytes
        counters.told = len(batch.waiting)
        self._show(self.late_observers, batch)

    def _arm_idle(self) -> None:
        if not self._is_idle_armed:
            self._is_idle_armed = True
            self._idle_after = self.counters.commits
            self._loop.call_later(IDLE_S, self._tell_idle)

    def _tell_idle(self) -> None:
        """Tells the log of a quiet moment."""
        self._is_idle_armed = False
        if self.is_over:
            return
        if self.counters.commits != self._idle_after or self.under_way or self.batch.events:
            # Not yet quiet; and room that an open batch has reserved is not the log's to use.
            self._arm_idle()
            return
        self.batch.room = 0
        try:
            self._journal.idle()
        except Exception as error:  # noqa: BLE001 - as in write
            self._fail(error)
