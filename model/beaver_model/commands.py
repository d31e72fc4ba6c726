"""The commands: requests to the state machine.

A command names everything that the decision needs and the state does not hold: ids,
jitter, what a worker reported.  Times and randomness are arguments, never asked for.
`decide` turns a command into events, or into a `Rejection`, which is a value with facts.
"""

from __future__ import annotations

from typing import Any

import msgspec

from beaver_model.events import Cause


class NewJob(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A request for one job, with every option resolved where it was accepted."""

    id: str
    spec: bytes
    payload: bytes
    digest: bytes
    run_at_ms: int = 0
    tags: tuple[str, ...] = ()


class Command(msgspec.Struct, frozen=True):
    """Base of all commands."""


class Enqueue(Command, frozen=True):
    """Takes in a batch, all or none; jobs that exist with the same content are no-ops."""

    jobs: tuple[NewJob, ...] | list[NewJob]


class Dispatch(Command, frozen=True):
    """Hands a job to a worker.  `prefetched`: the worker is busy and will start it later."""

    job: str
    worker: int
    prefetched: bool = False


class Complete(Command, frozen=True):
    """A worker reports success; `children` are enqueued in the same commit."""

    job: str
    token: int
    result: bytes
    children: tuple[NewJob, ...] = ()
    may_send_again: bool = False
    """Children that are refused end nothing: whoever reports can report otherwise."""


class DispatchBatch(Command, frozen=True):
    """Hands jobs to a worker in this order, all or none; each as `Dispatch` would."""

    jobs: list[str]
    worker: int
    prefetched: bool = False


class Done(msgspec.Struct, frozen=True, gc=False):
    """One success of a `CompleteBatch`."""

    job: str
    token: int
    result: bytes


class CompleteBatch(Command, frozen=True):
    """A worker reports successes, none with children.  Refused ones are left out."""

    done: list[Done]


class Fail(Command, frozen=True):
    """An attempt failed.  `jitter` in [0, 1); `delay_ms` replaces the job's backoff."""

    job: str
    token: int
    error: str
    jitter: float = 0.5
    cause: str = Cause.FAILED
    retry: bool = True
    delay_ms: int | None = None


class Expire(Command, frozen=True):
    """An attempt exceeded its time limit and has stopped."""

    job: str
    token: int
    cause: str = Cause.TIME_LIMIT
    jitter: float = 0.5
    error: str = ""


class Release(Command, frozen=True):
    """Gives an attempt back.  `delay_ms` is for a snooze."""

    job: str
    token: int
    cause: str
    delay_ms: int = 0


class Cancel(Command, frozen=True):
    """Cancels a pending job, or asks a running one to stop."""

    job: str
    by: str = ""
    """Who asks, for the log."""


class ConfirmCancel(Command, frozen=True):
    """A cancelled attempt has stopped, or its job cancelled itself."""

    job: str
    token: int
    cause: str = Cause.OPERATOR
    error: str = ""
    """The reason that the job gave."""


class Requeue(Command, frozen=True):
    job: str
    payload: bytes | None = None
    by: str = ""


class Discard(Command, frozen=True):
    job: str
    by: str = ""


class SetQueue(Command, frozen=True):
    """Changes settings of a queue; `None` keeps a value."""

    queue: str
    paused: bool | None = None
    weight: int | None = None
    bytes_max: int | None = None
    durable_dispatch: bool | None = None
    by: str = ""


class SetBounds(Command, frozen=True):
    tombstones_max: int
    tombstones_age_ms: int = 0


class Boot(Command, frozen=True):
    """A server starts.  `started`: the tokens whose user code had begun; `writer`: its name."""

    started: frozenset[int] = frozenset()
    power_cut: bool = False
    writer: str = ""


AnyCommand = (
    Enqueue
    | Dispatch
    | DispatchBatch
    | Complete
    | CompleteBatch
    | Fail
    | Expire
    | Release
    | Cancel
    | ConfirmCancel
    | Requeue
    | Discard
    | SetQueue
    | SetBounds
    | Boot
)


class Rejection(msgspec.Struct, frozen=True):
    """A refusal: a code from `REJECTIONS` and the facts that a message needs."""

    code: str
    facts: dict[str, Any] = {}


REJECTIONS = {
    "no_such_job": "no unfinished, dead or cancelled job has this id",
    "conflict": "the id exists with different content",
    "repeated": "the same id stands twice in one batch",
    "batch_too_large": "more jobs than one commit holds",
    "finished": "the job has finished and only its tombstone is left",
    "wrong_state": "the job is in a state from which this cannot happen",
    "stale_token": "the outcome does not answer the attempt in flight",
    "not_ready": "the job's time has not come",
    "paused": "the job's queue is paused",
    "no_attempt_left": "all attempts are spent",
    "last_attempt": "a last attempt goes to an idle worker only",
    "suspect_waits": "a suspect runs alone among suspects, on an idle worker",
    "too_many_queues": "no further queue can be known",
    "bad_value": "a value is out of its bounds",
}
"""Every refusal of `decide`, with its meaning: shown in the reference, met in the tests."""
