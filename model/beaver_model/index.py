"""The order of pending jobs: lanes, buckets and queues, derived from the rows.

A *lane* holds the ready jobs of one priority in the order (ready time, seq).  A *bucket*
holds the lanes of one queue, task and kind, so that all jobs which lack the same thing can
be parked and unparked at once: pausing a queue or losing the last worker for a task flips
one flag, however many jobs wait.  Nothing here is frozen or fingerprinted.

A job that leaves a lane otherwise than from its head leaves a *husk* behind: its old row
object, marked `FORGOTTEN`, which is dropped when it reaches the head.  The job itself lives
on in a copy, so an entry is valid exactly when its object says `PENDING`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import islice
from operator import attrgetter
from typing import Final

from beaver_model.bounds import PRIORITY_MAX
from beaver_model.rows import QueueRow, Row
from beaver_model.states import JobState

_PENDING: Final = JobState.PENDING
_state: Final = attrgetter("state")
_HUSKS_MIN: Final = 1_000
_BUCKETS_KEPT: Final = 64


class Kind(IntEnum):
    """Which worker may take a ready job: any, an idle one only, or one job at a time."""

    NORMAL = 0
    LAST_ATTEMPT = 1
    SUSPECT = 2


# By name: looking up a member of an enumeration takes longer than all the rest.
_NORMAL: Final = Kind.NORMAL
_LAST_ATTEMPT: Final = Kind.LAST_ATTEMPT
_SUSPECT: Final = Kind.SUSPECT


def kind_of(row: Row) -> Kind:
    """Returns the kind of a pending row."""
    if row.extra is not None and row.extra.suspect:
        return _SUSPECT
    if row.attempt + 1 >= row.spec.max_attempts:
        return _LAST_ATTEMPT
    return _NORMAL


class Lane:
    """Ready jobs of one bucket and priority, first to run first.

    Nearly all jobs become ready in order and go to a deque; the few that come out of order
    (released, or scheduled for an earlier time) go to a heap beside it.
    """

    __slots__ = ("arrivals", "late", "live", "tail")

    def __init__(self) -> None:
        self.arrivals: deque[Row] = deque()
        self.late: list[tuple[int, int, Row]] = []
        self.live = 0
        self.tail = (0, 0)

    def push(self, row: Row) -> None:
        key = (row.ready_ms, row.seq)
        if key >= self.tail:
            self.tail = key
            self.arrivals.append(row)
        else:
            heapq.heappush(self.late, (row.ready_ms, row.seq, row))
        self.live += 1

    def extend(self, rows: Sequence[Row]) -> None:
        """Enters rows, first to run first."""
        if (rows[0].ready_ms, rows[0].seq) < self.tail:
            for row in rows:
                self.push(row)
            return
        self.arrivals.extend(rows)
        self.tail = (rows[-1].ready_ms, rows[-1].seq)
        self.live += len(rows)

    def heads(self, count: int) -> list[Row]:
        """Returns the first jobs in order: up to `count`, or fewer if husks or heaps intervene."""
        head = self.head()
        if head is None:
            return []
        if self.late:
            return [head]
        rows = list(islice(self.arrivals, count))
        states = list(map(_state, rows))
        if states.count(_PENDING) == len(rows):
            return rows
        return rows[: next(n for n, state in enumerate(states) if state != _PENDING)]

    def take_heads(self, rows: Sequence[Row]) -> bool:
        """Removes rows that are first, in this order; otherwise returns False and removes none."""
        count = len(rows)
        if self.late or list(islice(self.arrivals, count)) != rows:
            return False
        for _ in range(count):
            self.arrivals.popleft()
        self.live -= count
        return True

    def head(self) -> Row | None:
        """Returns the first job, or `None`.  Drops husks on its way."""
        arrivals, late = self.arrivals, self.late
        while arrivals and arrivals[0].state != _PENDING:
            arrivals.popleft()
        while late and late[0][2].state != _PENDING:
            heapq.heappop(late)
        if not late:
            return arrivals[0] if arrivals else None
        if not arrivals:
            return late[0][2]
        first = arrivals[0]
        return first if (first.ready_ms, first.seq) < late[0][:2] else late[0][2]

    def take(self, row: Row) -> bool:
        """Takes `row` out; returns False where its object must stay behind as a husk."""
        self.live -= 1
        if self.arrivals and self.arrivals[0] is row:
            self.arrivals.popleft()
            return True
        if self.late and self.late[0][2] is row:
            heapq.heappop(self.late)
            return True
        return False

    def tidy(self) -> None:
        """Drops all husks once they outnumber the jobs."""
        if len(self.arrivals) + len(self.late) > 2 * self.live + _HUSKS_MIN:
            self.arrivals = deque(row for row in self.arrivals if row.state == _PENDING)
            self.late = [entry for entry in self.late if entry[2].state == _PENDING]
            heapq.heapify(self.late)

    def __iter__(self) -> Iterator[Row]:
        """Yields the jobs, in no order."""
        yield from (row for row in self.arrivals if row.state == _PENDING)
        yield from (row for _, _, row in self.late if row.state == _PENDING)


class Bucket:
    """The ready jobs of one queue, task and kind."""

    __slots__ = ("kind", "known", "lanes", "live", "mask", "task")

    def __init__(self, task: str, kind: Kind, known: bool) -> None:
        self.task = task
        self.kind = kind
        self.known = known
        """Some worker knows the task."""
        self.lanes: list[Lane | None] = [None] * (PRIORITY_MAX + 1)
        self.mask = 0
        """Bit n is set while the lane of priority n has jobs."""
        self.live = 0

    def push(self, row: Row) -> None:
        priority = row.spec.priority
        lane = self.lanes[priority]
        if lane is None:
            lane = self.lanes[priority] = Lane()
        lane.push(row)
        self.mask |= 1 << priority
        self.live += 1

    def extend(self, rows: Sequence[Row]) -> None:
        """Enters rows of one lane, first to run first."""
        priority = rows[0].spec.priority
        lane = self.lanes[priority]
        if lane is None:
            lane = self.lanes[priority] = Lane()
        lane.extend(rows)
        self.mask |= 1 << priority
        self.live += len(rows)

    def take_heads(self, rows: Sequence[Row]) -> bool:
        """Removes rows that are first in their lane; otherwise returns False and removes none."""
        priority = rows[0].spec.priority
        lane = self.lanes[priority]
        if lane is None or not lane.take_heads(rows):
            return False
        self.live -= len(rows)
        if not lane.live:
            self.mask &= ~(1 << priority)
        return True

    def take(self, row: Row) -> bool:
        """Takes `row` out; returns False where a husk stays."""
        priority = row.spec.priority
        lane = self.lanes[priority]
        assert lane is not None, "a ready row has a lane"
        clean = lane.take(row)
        self.live -= 1
        if not lane.live:
            self.mask &= ~(1 << priority)
        return clean

    def tidy(self, priority: int) -> None:
        lane = self.lanes[priority]
        if lane is not None:
            lane.tidy()


class QueueIndex:
    """One queue: its row, its counts and its ready jobs."""

    __slots__ = ("buckets", "bytes", "counts", "number", "ready", "row", "stride_pass")

    def __init__(self, row: QueueRow, number: int) -> None:
        self.row = row
        self.number = number
        """Its place among the queues of the state: the order of those with equal turns."""
        self.buckets: dict[tuple[str, Kind], Bucket] = {}
        self.counts = [0] * len(JobState)
        """Jobs by state; `COMPLETED` stands in the row, over the store's life."""
        self.bytes = 0
        self.ready = 0
        """Jobs in the buckets, parked ones included."""
        self.stride_pass = 0
        """Virtual time of stride scheduling (Waldspurger and Weihl, 1995)."""

    def bucket(self, row: Row, known_tasks: frozenset[str] | None) -> Bucket:
        """Returns the bucket of a pending row; creates it if necessary."""
        key = (row.spec.task, kind_of(row))
        bucket = self.buckets.get(key)
        if bucket is None:
            if len(self.buckets) >= _BUCKETS_KEPT:
                self.buckets = {k: b for k, b in self.buckets.items() if b.live}
            known = known_tasks is None or key[0] in known_tasks
            bucket = self.buckets[key] = Bucket(key[0], key[1], known)
        return bucket

    def has_work(self, *, prefetched: bool) -> bool:
        """True if a job may be dispatched now, or may wait at a worker if `prefetched`."""
        return not self.row.paused and any(
            bucket.live and bucket.known and (bucket.kind == _NORMAL or not prefetched)
            for bucket in self.buckets.values()
        )

    def oldest_ready_ms(self) -> int | None:
        """Returns the ready time of the job that has waited longest."""
        heads = (
            lane.head()
            for bucket in self.buckets.values()
            for lane in bucket.lanes
            if lane is not None and lane.live
        )
        return min((row.ready_ms for row in heads if row is not None), default=None)
