"""How many bytes the events of a command may take in the log, before anything is decided.

Upper bounds, cheap to compute: room for them is made first, so that the disk cannot turn
out to be full in the middle of a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from beaver_model import State
from beaver_model.bounds import (
    BY_CHARS_MAX,
    ERROR_BYTES_MAX,
    ID_BYTES_MAX,
    QUEUES_FORGOTTEN_AT_ONCE,
)
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    CompleteBatch,
    ConfirmCancel,
    Discard,
    DispatchBatch,
    Enqueue,
    Expire,
    Fail,
    NewJob,
    Requeue,
    SetQueue,
)

EVENT_BYTES: Final = 384
"""More than any event takes on disk beside its payload, result, error and tags."""
_OPERATORS_BYTES: Final = EVENT_BYTES + ID_BYTES_MAX + 4 * BY_CHARS_MAX
"""Of an event that tells who asked for it."""


def events_bytes_max(command: AnyCommand, state: State) -> int:
    """Returns no less than what the events of `command` will take."""
    return _BYTES.get(type(command), _small_bytes)(command, state)


def events_max(command: AnyCommand) -> int:
    """Returns how many events of `command` count against the bound of one commit.

    Those of a batch; what jobs enqueue and what a start finds in flight is bounded elsewhere.
    """
    if type(command) is Enqueue or type(command) is DispatchBatch:
        return len(command.jobs)
    return len(command.done) if type(command) is CompleteBatch else 1


def _enqueue_bytes(command: Enqueue, state: State) -> int:
    size, count = _jobs_bytes(command.jobs), len(command.jobs)
    if len(state.queues) + count <= state.queues_max:
        return size  # As nearly always: none has to be forgotten.
    return size + _forgotten_bytes(count, state)


def _forgotten_bytes(queues: int, state: State) -> int:
    """What forgetting queues takes, where so many may be new."""
    if len(state.queues) + queues <= state.queues_max:
        return 0
    return EVENT_BYTES * max(queues, QUEUES_FORGOTTEN_AT_ONCE)


def _dispatches_bytes(command: DispatchBatch, state: State) -> int:
    return (EVENT_BYTES + ID_BYTES_MAX) * len(command.jobs)


def _completes_bytes(command: CompleteBatch, state: State) -> int:
    results = sum([len(done.result) for done in command.done])
    return (EVENT_BYTES + ID_BYTES_MAX) * len(command.done) + results


def _complete_bytes(command: Complete, state: State) -> int:
    children = 0
    if command.children:
        children = _jobs_bytes(command.children) + _forgotten_bytes(len(command.children), state)
    return EVENT_BYTES + ID_BYTES_MAX + len(command.result) + children


def _failure_bytes(command: Fail | Expire | ConfirmCancel, state: State) -> int:
    return EVENT_BYTES + ID_BYTES_MAX + min(4 * len(command.error), 2 * ERROR_BYTES_MAX)


def _requeue_bytes(command: Requeue, state: State) -> int:
    return _OPERATORS_BYTES + len(command.payload or b"")


def _set_queue_bytes(command: SetQueue, state: State) -> int:
    return _OPERATORS_BYTES + _forgotten_bytes(1, state)


def _boot_bytes(command: Boot, state: State) -> int:
    return (EVENT_BYTES + ID_BYTES_MAX) * (1 + len(state.in_flight))


def _small_bytes(command: AnyCommand, state: State) -> int:
    return EVENT_BYTES + ID_BYTES_MAX


def _operators_bytes(command: Cancel | Discard, state: State) -> int:
    return _OPERATORS_BYTES


def _jobs_bytes(jobs: Sequence[NewJob]) -> int:
    size = (EVENT_BYTES + 2 * ID_BYTES_MAX) * len(jobs)
    for job in jobs:
        size += len(job.spec) + len(job.payload)
        if job.tags:
            size += sum(4 * len(tag) + 5 for tag in job.tags)
    return size


_BYTES: Final[dict[type, Callable[[Any, State], int]]] = {
    Enqueue: _enqueue_bytes,
    DispatchBatch: _dispatches_bytes,
    Complete: _complete_bytes,
    CompleteBatch: _completes_bytes,
    Fail: _failure_bytes,
    Expire: _failure_bytes,
    ConfirmCancel: _failure_bytes,
    Cancel: _operators_bytes,
    Requeue: _requeue_bytes,
    Discard: _operators_bytes,
    SetQueue: _set_queue_bytes,
    Boot: _boot_bytes,
}
"""Upper bounds of the bytes that a command's events take in the log; others are small."""
