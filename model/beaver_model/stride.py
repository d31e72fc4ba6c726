"""Stride order: the queues whose jobs may be taken, by their virtual time (stride scheduling).

A heap by (virtual time, number of the queue).  Virtual times only grow, so an entry is never
too late: one whose queue has moved on is put in its place when it comes to the top, and one
whose queue has nothing to take is dropped there.  So a turn costs what a heap of the queues
costs, whatever else waits: ten thousand queues that are paused, or whose tasks nobody knows,
cost nothing.  Nothing here is frozen or fingerprinted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from beaver_model.index import QueueIndex

STRIDE: Final = 1 << 20
"""Virtual time that one turn of a queue of weight 1 takes."""

T = TypeVar("T")

_NO_END: Final = 1 << 30
_HUSKS_MIN: Final = 100


class StrideOrder:
    """The queues that have something to take.  Each is in it at most once."""

    __slots__ = ("_heap", "_listed", "_prefetched")

    def __init__(self, *, prefetched: bool) -> None:
        """Makes an empty order.

        Args:
            prefetched: Only jobs count that may wait behind another one at a worker.
        """
        self._prefetched = prefetched
        self._heap: list[tuple[int, int, QueueIndex]] = []
        self._listed: set[int] = set()

    def enter(self, queue: QueueIndex) -> None:
        """Lists a queue; where there is nothing to take it is dropped when its turn comes."""
        if queue.number not in self._listed:
            self._listed.add(queue.number)
            heapq.heappush(self._heap, (queue.stride_pass, queue.number, queue))

    def leave(self, queue: QueueIndex) -> None:
        """Strikes out a queue that is forgotten; entries of such are dropped in bulk."""
        if queue.number not in self._listed:
            return
        self._listed.discard(queue.number)
        if len(self._heap) > 2 * len(self._listed) + _HUSKS_MIN:
            self._heap = [entry for entry in self._heap if entry[1] in self._listed]
            heapq.heapify(self._heap)

    def first(self, take: Callable[..., T | None], *context: object) -> T | None:
        """Returns what `take(queue, *context)` finds in the first queue that has something."""
        heap = self._heap
        passed_over = []
        found = None
        while heap:
            stride_pass, number, queue = heap[0]
            if stride_pass != queue.stride_pass and len(heap) > 1:
                heapq.heapreplace(heap, (queue.stride_pass, number, queue))
                continue
            found = take(queue, *context)
            if found is not None:
                break
            heapq.heappop(heap)
            if queue.has_work(prefetched=self._prefetched):
                passed_over.append((stride_pass, number, queue))
            else:
                self._listed.discard(number)
        for entry in passed_over:
            heapq.heappush(heap, entry)
        return found

    def in_a_row(self, queue: QueueIndex) -> int:
        """Returns how many turns the queue whose turn it is has, before it is another one's.

        No less than one, and no more than there are for sure: what stands in the heap of
        another queue may be too early.
        """
        others = self._heap[1:3]
        if not others:
            return _NO_END
        stride_pass, number, _ = min(others)
        gap, stride = stride_pass - queue.stride_pass, STRIDE // queue.row.weight
        turns, rest = divmod(gap, stride)
        # The turn that begins at the very time of the other's goes to the lower number.
        return max(1, turns + (1 if rest or queue.number < number else 0))

    def __bool__(self) -> bool:
        """False where no queue has anything to take."""
        return bool(self._heap)

    def __contains__(self, queue: QueueIndex) -> bool:
        return queue.number in self._listed

    def __iter__(self) -> Iterator[tuple[int, int, QueueIndex]]:
        return iter(self._heap)
