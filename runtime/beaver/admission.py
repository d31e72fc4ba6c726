"""Admission: whether new jobs still fit into the bounds on the state and on each queue.

Asked before a command is decided, by the engine and by clients that write without one.
"""

from __future__ import annotations

from collections.abc import Sequence

from beaver.errors import QueueFull
from beaver_model import State
from beaver_model.commands import Job
from beaver_model.rows import ROW_BYTES, spec_of


def refusal(state: State, jobs: Sequence[Job], state_bytes_max: int = 0) -> QueueFull | None:
    """Returns why these jobs are not taken in, or `None` where they are.

    Args:
        state: What holds now.
        jobs: Jobs of one commit, all or none of which come in.
        state_bytes_max: Bound on the memory of the whole state; 0 means none.
    """
    sizes: dict[str, int] = {}
    for job in jobs:
        queue = spec_of(job.spec).queue
        sizes[queue] = sizes.get(queue, 0) + ROW_BYTES + len(job.payload) + len(job.id)
    size = sum(sizes.values())
    if state_bytes_max and state.bytes + size > state_bytes_max:
        return QueueFull(
            f"the store holds {state.bytes} bytes of jobs and these would add {size}; the "
            f"bound is {state_bytes_max} (state_bytes_max). Nothing was enqueued."
        )
    for name, wanted in sizes.items():
        queue_index = state.queues.get(name)
        bound = queue_index.row.bytes_max if queue_index is not None else 0
        if queue_index is not None and bound and queue_index.bytes + wanted > bound:
            return QueueFull(
                f"queue {name} holds {queue_index.bytes} bytes of jobs and these would add "
                f"{wanted}; its bound is {bound} (bytes_max). Nothing was enqueued."
            )
    return None
