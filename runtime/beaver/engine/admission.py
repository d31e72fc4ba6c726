"""Admission: whether new jobs still fit into the bounds on the state and on each queue.

Asked before a command is decided, by the engine and by clients that write without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from beaver.errors import BeaverError, DiskFull, InvalidInput, QueueFull
from beaver.limits import hint
from beaver_model import State
from beaver_model.commands import AnyCommand, Enqueue, NewJob, Requeue
from beaver_model.rows import ROW_BYTES, spec_of

UNKNOWN: Final = 1 << 62


class Admission:
    """Whether a command may be decided, as far as memory, one commit and the disk bound it."""

    def __init__(
        self, state: State, commit_bytes_max: int, state_bytes_max: int, reserve_bytes: int
    ) -> None:
        """Admits whatever fits.

        Args:
            state: What holds now.
            commit_bytes_max: Largest commit that the log takes.
            state_bytes_max: Bound on the memory of the whole state; 0 means none.
            reserve_bytes: Room in the log that new jobs leave, so that those that run can end.
        """
        self._state, self._commit_bytes_max = state, commit_bytes_max
        self.state_bytes_max = state_bytes_max
        self._reserve_bytes = reserve_bytes
        self.disk_full = False
        """New jobs are refused; outcomes go on in the reserve."""

    def refuse(self, command: AnyCommand, size: int) -> BeaverError | None:
        """Returns why a command whose events take up to `size` bytes may not be decided."""
        if type(command) is Enqueue or type(command) is Requeue:
            jobs = command.jobs if type(command) is Enqueue else ()
            if self.disk_full:
                return DiskFull(
                    "the disk is full: new jobs are refused until a log segment can be prepared; "
                    "nothing is lost, and running jobs go on"
                )
            full = refusal(self._state, jobs, self.state_bytes_max, size)
            if full is not None:
                return full
        if size > self._commit_bytes_max:
            return InvalidInput(
                f"up to {size} bytes in one commit, and this log takes at most "
                f"{self._commit_bytes_max}: send less at once"
            )
        return None

    def reserve_of(self, command: AnyCommand) -> int:
        """Returns the bytes of the log that a command may not use up."""
        return self._reserve_bytes if type(command) is Enqueue or type(command) is Requeue else 0


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
