"""Forgetting queues: which ones make room for new ones, so that names never run out.

A queue is known from its first job or setting on.  One without jobs and with the settings of a
new one holds no information, so it may be forgotten.  That happens only when there is
no room for another, since its counts are useful while it exists.

Forgetting is logged.  Queues that had the fewest jobs go first: names that were made up
for a job or two.  That count is in the rows, so equal states decide alike.
"""

from __future__ import annotations

from collections.abc import Sequence

from beaver_model.bounds import QUEUES_FORGOTTEN_AT_ONCE
from beaver_model.events import AnyEvent, QueueForgotten
from beaver_model.index import QueueIndex
from beaver_model.rows import DEFAULT_QUEUE
from beaver_model.state import State


def why_kept(queue: QueueIndex) -> str | None:
    """Returns why a queue may not be forgotten, or `None` where it may."""
    if queue.row.name == DEFAULT_QUEUE:
        return "it is the default queue"
    if any(queue.counts):
        return "it has jobs"
    return None if queue.row.is_as_new else "it has settings"


def room_for(state: State, new: set[str], used: set[str]) -> list[AnyEvent] | None:
    """Returns the queues to forget before new ones are added; `None` if that is not enough.

    Args:
        state: The state.
        new: Queues that are not known.
        used: Queues that are used with them, and so are not forgotten.
    """
    missing = beside_default(state, new) - state.queues_max
    if missing <= 0:
        return []
    idle = [queue for queue in idle_queues(state) if queue.row.name not in used]
    if len(idle) < missing:
        return None
    idle.sort(key=lambda queue: (queue.row.enqueued, queue.row.name))
    # More than needed, so that this does not run for each new queue.
    gone = idle[: max(missing, min(QUEUES_FORGOTTEN_AT_ONCE, state.queues_max // 2))]
    return [QueueForgotten(queue.row.name) for queue in gone]


def idle_queues(state: State) -> Sequence[QueueIndex]:
    """Returns the queues that may be forgotten.

    The search runs once until the next event: a client that is refused ten thousand times
    in a row must not cost ten thousand scans of ten thousand queues.
    """
    seq, idle = state.idle_queues
    if seq != state.last_seq:
        idle = [q for q in state.queues.values() if not q.bytes and why_kept(q) is None]
        state.idle_queues = state.last_seq, idle
    return idle


def beside_default(state: State, new: set[str] | None = None) -> int:
    """Returns how many queues there are with new ones, the default queue not counted."""
    new = new or set()
    count = len(state.queues) + len(new)
    return count - (DEFAULT_QUEUE in state.queues or DEFAULT_QUEUE in new)
