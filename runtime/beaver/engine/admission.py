"""Admission: whether new jobs still fit into the bounds on the state and on each queue.

Asked before a command is decided, by the engine and by clients that write without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from beaver.errors import QueueFull
from beaver.limits import hint
from beaver_model import State
from beaver_model.commands import NewJob
from beaver_model.rows import ROW_BYTES, spec_of

UNKNOWN: Final = 1 << 62


def refusal(
    state: State, jobs: Sequence[NewJob], state_bytes_max: int = 0, size_max: int = UNKNOWN
) -> QueueFull | None:
    """Returns why these jobs are not taken in, or `None` where they are.

    Args:
        state: What holds now.
        jobs: Jobs of one commit, all or none of which come in.
        state_bytes_max: Bound on the memory of the whole state; 0 means none.
        size_max: No less than what they take in memory, where the caller knows that.
    """
    fits = not state_bytes_max or state.bytes + size_max <= state_bytes_max
    if fits and not _any_bounded(state, jobs):
        return None
    sizes: dict[str, int] = {}
    for job in jobs:
        queue = spec_of(job.spec).queue
        sizes[queue] = sizes.get(queue, 0) + ROW_BYTES + len(job.payload) + len(job.id)
    size = sum(sizes.values())
    if state_bytes_max and state.bytes + size > state_bytes_max:
        return QueueFull(
            f"the store holds {state.bytes} bytes of jobs and these would add {size}; at most "
            f"{state_bytes_max} are held; nothing was enqueued\n{_room('state')}"
        )
    for name, wanted in sizes.items():
        queue_index = state.queues.get(name)
        bound = queue_index.row.bytes_max if queue_index is not None else 0
        if queue_index is not None and bound and queue_index.bytes + wanted > bound:
            return QueueFull(
                f"queue {name} holds {queue_index.bytes} bytes of jobs and these would add "
                f"{wanted}; it holds at most {bound}; nothing was enqueued\n{_room('queue_bytes')}"
            )
    return None


def _room(limit: str) -> str:
    return f"Let workers take jobs off, or raise it: {hint(limit)}."


def _any_bounded(state: State, jobs: Sequence[NewJob]) -> bool:
    """True where one of the jobs goes to a queue that has a bound of its own."""
    spec = None
    for job in jobs:
        if job.spec is not spec:
            spec = job.spec
            queue = state.queues.get(spec_of(spec).queue)
            if queue is not None and queue.row.bytes_max:
                return True
    return False
