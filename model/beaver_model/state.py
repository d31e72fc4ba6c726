"""The state of the queue: rows, and the indexes that are derived from them.

`take` and `put` are the writers of the indexes, and only `apply` calls them.  `bulk` does the
same for many rows.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from beaver_model.bounds import (
    ADVANCE_MAX,
    QUEUES_MAX,
    TOMBSTONES_EVICTED_PER_EVENT,
    TOMBSTONES_MAX_DEFAULT,
)
from beaver_model.index import Bucket, Kind, QueueIndex
from beaver_model.rows import (
    TOMBSTONE_BYTES,
    QueueRow,
    Row,
    Tombstone,
    size_of,
    unpack_tombstone,
)
from beaver_model.states import JobState
from beaver_model.stride import StrideOrder

_PENDING: Final = JobState.PENDING
_IN_FLIGHT: Final = JobState.IN_FLIGHT
_DEAD: Final = JobState.DEAD
_CANCELLED: Final = JobState.CANCELLED
_STATES: Final = tuple(JobState)
_NORMAL: Final = Kind.NORMAL
LEDGER_MASK: Final = (1 << 64) - 1


class Header(NamedTuple):
    """The single values of a state."""

    last_seq: int
    time_ms: int
    epoch: int
    tombstones_max: int
    tombstones_age_ms: int
    completed_elsewhere: int = 0
    """Jobs completed in queues that are forgotten."""


class State:
    """Everything that `decide` may consult.  Read it freely; only `apply` writes."""

    suspect_out: tuple[str, int] | None = None
    """Job and token of the last suspect that was dispatched here.  It is rare, and beyond 30
    attributes of its own an object takes CPython longer to read."""

    def __init__(self, header: Header | None = None) -> None:
        header = header or Header(0, 0, 0, TOMBSTONES_MAX_DEFAULT, 0)
        self.last_seq, self.time_ms, self.epoch = header[:3]
        self.tombstones_max, self.tombstones_age_ms = header[3:5]
        self.completed_elsewhere = header[5]
        self.jobs: dict[str, Row] = {}
        """Every job that has a row, by id, in the order of their seqs."""
        self.queues: dict[str, QueueIndex] = {}
        self.tombstones: dict[str, bytes] = {}
        self.tombstone_ids: deque[str] = deque()
        self.tombstone_times: deque[int] = deque()

        self.queues_max = QUEUES_MAX
        """A bound of the model, here so that checkers reach it with a few."""

        # Derived from here on.
        self.indexed = True
        """False while `take` and `put` leave the indexes alone (see `bulk.build_indexes`)."""
        self.boot_seq = 0
        """Seq of the last BOOT that was applied here: older attempts in flight are remote."""
        self.in_flight: dict[int, Row] = {}
        """By token, in the order of dispatch."""
        self.dead: dict[str, Row] = {}
        self.cancelled: dict[str, Row] = {}
        self.scheduled: list[tuple[int, int, Row]] = []
        """Heap of jobs whose time has not come, with husks."""
        self.scheduled_live = 0
        self.ready = 0
        """Pending jobs whose time has come, parked ones included."""
        self.bytes = 0
        """Estimate of the memory that jobs and tombstones take."""
        self.ledger = 0
        """Sum of mixed (seq, state, attempt, token) of all rows, modulo 2^64."""
        self.suspects_in_flight = 0
        self.stride_pass = 0
        self._queues_made = 0
        self.idle_queues: tuple[int, Sequence[QueueIndex]] = -1, ()
        """Those that may be forgotten, as of a seq (see `forgetting`)."""
        self.stride_order = StrideOrder(prefetched=False)
        """Queues with jobs for an idle worker."""
        self.prefetch_stride_order = StrideOrder(prefetched=True)
        """Queues with jobs that may wait at a busy worker."""
        self.known_tasks: frozenset[str] | None = None
        """Tasks that some worker knows; `None` presumes all."""

    # -- what is asked most -------------------------------------------------------

    @property
    def completed(self) -> int:
        """Jobs completed in the store's life."""
        known = sum(queue.row.completed for queue in self.queues.values())
        return known + self.completed_elsewhere

    def count(self, state: JobState) -> int:
        """Returns how many jobs are in `state` (for `COMPLETED`: over the store's life)."""
        if state == JobState.COMPLETED:
            return self.completed
        return sum(queue.counts[state] for queue in self.queues.values())

    def tombstone(self, job: str) -> Tombstone | None:
        raw = self.tombstones.get(job)
        return None if raw is None else unpack_tombstone(raw)

    def seq_of(self, job: str) -> int | None:
        """Returns the seq of the ENQUEUE of a job that is known or remembered."""
        row = self.jobs.get(job)
        if row is not None:
            return row.seq
        tombstone = self.tombstone(job)
        return None if tombstone is None else tombstone.seq

    def next_ready_ms(self) -> int | None:
        """Returns when the next scheduled job becomes ready."""
        heap = self.scheduled
        while heap and heap[0][2].state != _PENDING:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    # -- derived caches: no row changes ---------------------------------------------

    def advance(self, now_ms: int) -> int:
        """Moves scheduled jobs whose time has come to the ready lanes.

        Returns how many it moved, at most `ADVANCE_MAX`; call again while it is that many.
        """
        heap, moved = self.scheduled, 0
        while heap and moved < ADVANCE_MAX:
            ready_ms, _, row = heap[0]
            if row.state != _PENDING:
                heapq.heappop(heap)
                continue
            if ready_ms > now_ms:
                break
            heapq.heappop(heap)
            self.scheduled_live -= 1
            row.scheduled = False
            self._make_ready(row, self.queues[row.spec.queue])
            moved += 1
        return moved

    def set_known_tasks(self, tasks: frozenset[str] | None) -> None:
        """Says which tasks some worker knows; parks and unparks whole buckets."""
        self.known_tasks = tasks
        for queue in self.queues.values():
            for bucket in queue.buckets.values():
                bucket.known = tasks is None or bucket.task in tasks
            self.list_queue(queue)

    def list_queue(self, queue: QueueIndex) -> None:
        """Puts a queue into the stride order, after what kept its jobs back is gone."""
        if queue.ready:
            self.stride_order.enter(queue)
            self.prefetch_stride_order.enter(queue)

    # -- the only writers of the indexes ------------------------------------------------

    def queue(self, name: str) -> QueueIndex:
        """Returns the queue of that name, made if need be."""
        return self.queues.get(name) or self.add_queue(QueueRow(name))

    def add_queue(self, row: QueueRow) -> QueueIndex:
        """Takes in a queue that the state does not know."""
        queue = self.queues[row.name] = QueueIndex(row, self._queues_made)
        self._queues_made += 1
        return queue

    def forget_queue(self, name: str) -> None:
        """Drops a queue without jobs; what it has completed stays counted."""
        queue = self.queues.pop(name)
        self.completed_elsewhere += queue.row.completed
        self.stride_order.leave(queue)
        self.prefetch_stride_order.leave(queue)

    def defer_indexes(self) -> None:
        """Leaves the indexes alone until `build_indexes`: for replay, which asks for none of them.

        Only rows, queues and tombstones are right in between; nothing may be decided.
        """
        assert not self.jobs, "before the first row comes in"
        self.indexed = False

    def enter(self, row: Row) -> QueueIndex:
        """Takes in a row that the state does not hold yet; returns its queue."""
        self.jobs[row.id] = row
        name = row.spec.queue
        queue = self.queues.get(name) or self.queue(name)
        if self.indexed:
            self.put_new(row)
        return queue

    def put_new(self, row: Row) -> None:
        """Enters a row that the indexes have never held."""
        self._weigh(row, 1)
        self.put(row)

    def leave(self, row: Row) -> None:
        """Drops a row that `take` returned."""
        del self.jobs[row.id]
        if self.indexed:
            self._weigh(row, -1)

    def replace_payload(self, row: Row, payload: bytes) -> None:
        """Gives a row that `take` returned another payload."""
        self._weigh(row, -1)
        row.payload = payload
        self._weigh(row, 1)

    def _weigh(self, row: Row, sign: int) -> None:
        if not self.indexed:
            return
        size = sign * size_of(row)
        self.queues[row.spec.queue].bytes += size
        self.bytes += size

    def put(self, row: Row) -> None:
        """Enters a row that stands in no index into those of its state."""
        if not self.indexed:
            return
        state = row.state
        queue = self.queues[row.spec.queue]
        queue.counts[state] += 1
        self.ledger = (self.ledger + hash((row.seq, state, row.attempt, row.token))) & LEDGER_MASK
        if state == _PENDING:
            if row.ready_ms > self.time_ms:
                row.scheduled = True
                self.scheduled_live += 1
                heapq.heappush(self.scheduled, (row.ready_ms, row.seq, row))
            else:
                row.scheduled = False
                self._make_ready(row, queue)
        elif state == _IN_FLIGHT:
            self.in_flight[row.token] = row
            if row.extra is not None and row.extra.suspect:
                self.suspects_in_flight += 1
        elif state == _DEAD:
            self.dead[row.id] = row
        else:
            self.cancelled[row.id] = row

    def take(self, row: Row) -> Row:
        """Takes a row out of every index and returns the object to change.

        That is the row itself, or a copy where the old object had to stay as a husk.
        """
        if not self.indexed:
            return row
        state = row.state
        queue = self.queues[row.spec.queue]
        queue.counts[state] -= 1
        self.ledger = (self.ledger - hash((row.seq, state, row.attempt, row.token))) & LEDGER_MASK
        if state == _IN_FLIGHT:
            del self.in_flight[row.token]
            if row.extra is not None and row.extra.suspect:
                self.suspects_in_flight -= 1
        elif state == _PENDING:
            if row.scheduled:
                self.scheduled_live -= 1
                return self._leave_husk(row)
            self.ready -= 1
            queue.ready -= 1
            bucket = queue.bucket(row, self.known_tasks)
            if not bucket.take(row):
                row = self._leave_husk(row)
                bucket.tidy(row.spec.priority)
        elif state == _DEAD:
            del self.dead[row.id]
        else:
            del self.cancelled[row.id]
        return row

    # -- what has ended --------------------------------------------------------------------

    def bury(self, job: str, time_ms: int, tombstone: bytes) -> None:
        """Remembers a finished job and evicts a few of the oldest tombstones."""
        self.tombstones[job] = tombstone
        self.tombstone_ids.append(job)
        self.tombstone_times.append(time_ms)
        self.bytes += TOMBSTONE_BYTES + len(job)
        if len(self.tombstones) > self.tombstones_max or self.tombstones_age_ms:
            self.evict(TOMBSTONES_EVICTED_PER_EVENT)

    def evict(self, count: int) -> None:
        """Drops the oldest tombstones, up to so many, where there are too many or too old ones."""
        oldest_ms = self.time_ms - self.tombstones_age_ms if self.tombstones_age_ms else 0
        for _ in range(count):
            if len(self.tombstones) <= self.tombstones_max and not (
                self.tombstone_times and self.tombstone_times[0] < oldest_ms
            ):
                break
            evicted = self.tombstone_ids.popleft()
            self.tombstone_times.popleft()
            del self.tombstones[evicted]
            self.bytes -= TOMBSTONE_BYTES + len(evicted)

    def _make_ready(self, row: Row, queue: QueueIndex) -> None:
        self.count_ready(queue, 1)
        bucket = queue.bucket(row, self.known_tasks)
        bucket.push(row)
        if bucket.live == 1:
            self.list_bucket(queue, bucket)

    def list_bucket(self, queue: QueueIndex, bucket: Bucket) -> None:
        """Puts a queue into the stride order, after a bucket that was empty has got jobs."""
        self.stride_order.enter(queue)
        if bucket.kind == _NORMAL:
            self.prefetch_stride_order.enter(queue)

    def count_ready(self, queue: QueueIndex, count: int) -> None:
        if not queue.ready and queue.stride_pass < self.stride_pass:
            # A queue that was idle does not catch up on what it did not use.
            queue.stride_pass = self.stride_pass
        queue.ready += count
        self.ready += count

    def _leave_husk(self, row: Row) -> Row:
        copy = self.jobs[row.id] = msgspec.structs.replace(row, scheduled=False)
        row.state = JobState.FORGOTTEN
        if len(self.scheduled) > 2 * self.scheduled_live + ADVANCE_MAX:
            self.scheduled = [entry for entry in self.scheduled if entry[2].state == _PENDING]
            heapq.heapify(self.scheduled)
        return copy
