"""The events: what the log holds, and the only thing that changes the state.

An event records decided facts (times, causes), never policy.  Its seq and time are those
of its place in a frame: the n-th event of a frame has the frame's first seq plus n, and
all events of a frame share one stamp.

The bounds of a field are part of its type, so whoever decodes an event checks them.  What else
binds it stands in `legality`.

Versions: an event's shape is named by its tag.  A field may be added at the end with a
default that means what its absence meant; any other change needs a new class with a new
tag, and the old one stays for ever, with the same `apply`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, get_args

import msgspec

from beaver_model.bounds import BY_CHARS_MAX, DIGEST_BYTES, INTEGER_MAX, TAGS_MAX, WEIGHT_MAX
from beaver_model.states import Trigger

Number = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Seq = Number
Milliseconds = Number
Bound = Annotated[int, msgspec.Meta(ge=0)]
Digest = Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Tags = Annotated[tuple[str, ...], msgspec.Meta(max_length=TAGS_MAX)]
Weight = Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_MAX)]
By = Annotated[str, msgspec.Meta(max_length=BY_CHARS_MAX)]
"""Who asked for a change: `token:ID:NAME` over HTTP, `uid:N` on this machine, `config`; empty in
logs of releases that did not tell.  Nothing is decided by it."""


class Event(msgspec.Struct, array_like=True, gc=False):
    """Base of all events; on disk an array that begins with the tag."""

    NAME: ClassVar[str] = ""
    """Name in the log's listing, in documents and in metrics."""
    TRIGGER: ClassVar[Trigger | None] = None
    """Cell row of the lifecycle, for events of a job."""


class JobEvent(Event):
    """An event of one job, named by its id."""

    job: str


class AttemptEnded(JobEvent):
    """An attempt ended; its token, or 0 if the job was pending."""

    token: Seq


class Enqueued(JobEvent, tag=1):
    """A job was enqueued.  Its seq is the job's identity in the store."""

    NAME: ClassVar[str] = "ENQUEUE"
    TRIGGER: ClassVar[Trigger | None] = Trigger.ENQUEUE
    spec: bytes
    payload: bytes
    digest: Digest
    run_at_ms: Milliseconds = 0
    """Not before this time; 0 means at once."""
    parent: str = ""
    tags: Tags = ()


class Dispatched(JobEvent, tag=2):
    """A job was given to a worker.  Its seq is the token that the outcome must carry."""

    NAME: ClassVar[str] = "DISPATCH"
    TRIGGER: ClassVar[Trigger | None] = Trigger.DISPATCH
    worker: Number
    """From `bounds.REMOTE_WORKERS_FROM` on it is a remote one."""


class Acked(AttemptEnded, tag=3):
    """The attempt completed; children follow as ENQUEUE events in the same frame."""

    NAME: ClassVar[str] = "ACK"
    TRIGGER: ClassVar[Trigger | None] = Trigger.ACK
    result: bytes


class Retried(AttemptEnded, tag=4):
    """The attempt failed or its worker died, and attempts are left."""

    NAME: ClassVar[str] = "RETRY"
    TRIGGER: ClassVar[Trigger | None] = Trigger.RETRY
    run_at_ms: Milliseconds
    cause: str
    error: str = ""


class TimedOut(AttemptEnded, tag=5):
    """The attempt ran over its limit, its lease ended or its node was lost; attempts are left."""

    NAME: ClassVar[str] = "TIMEOUT"
    TRIGGER: ClassVar[Trigger | None] = Trigger.TIMEOUT
    run_at_ms: Milliseconds
    cause: str
    suspect: bool = False
    error: str = ""


class Released(AttemptEnded, tag=6):
    """The attempt is given back to its queue and does not count."""

    NAME: ClassVar[str] = "RELEASE"
    TRIGGER: ClassVar[Trigger | None] = Trigger.RELEASE
    run_at_ms: Milliseconds
    cause: str


class Died(AttemptEnded, tag=7):
    """No attempt is left, or none makes sense.  An operator may requeue the job."""

    NAME: ClassVar[str] = "DEAD"
    TRIGGER: ClassVar[Trigger | None] = Trigger.DEAD
    cause: str
    error: str = ""


class CancelRequested(JobEvent, tag=8):
    """Someone wants a running job to stop; an ACK that comes first still wins."""

    NAME: ClassVar[str] = "CANCEL_REQUESTED"
    TRIGGER: ClassVar[Trigger | None] = Trigger.CANCEL_REQUESTED
    by: By = ""


class Cancelled(AttemptEnded, tag=9):
    """The job is cancelled: it was pending, or its attempt has ended otherwise than by ACK."""

    NAME: ClassVar[str] = "CANCEL"
    TRIGGER: ClassVar[Trigger | None] = Trigger.CANCEL
    cause: str = ""
    error: str = ""
    """Why, where the job cancelled itself and said so."""
    by: By = ""
    """Of a pending job; for one that ran, its CANCEL_REQUESTED tells."""


class Requeued(JobEvent, tag=10):
    """An operator gives a dead or cancelled job a new generation, with all attempts again."""

    NAME: ClassVar[str] = "REQUEUE"
    TRIGGER: ClassVar[Trigger | None] = Trigger.REQUEUE
    payload: bytes | None = None
    """The edited payload; `None` keeps the old one."""
    by: By = ""


class Discarded(JobEvent, tag=11):
    """An operator removes the job; a tombstone stays."""

    NAME: ClassVar[str] = "DISCARD"
    TRIGGER: ClassVar[Trigger | None] = Trigger.DISCARD
    by: By = ""


class QueueSet(Event, tag=12):
    """The settings of a queue, whole."""

    NAME: ClassVar[str] = "QUEUE"
    queue: str
    paused: bool
    weight: Weight
    bytes_max: Bound
    durable_dispatch: bool = True
    """A job of the queue starts only once its DISPATCH is durable."""
    by: By = ""


class Booted(Event, tag=13):
    """A server (later: a leader) took over.  Its epoch is one above the last."""

    NAME: ClassVar[str] = "BOOT"
    epoch: Number
    power_cut: bool
    """The machine went down since the last BOOT, so which attempts had started is unknown."""
    writer: str = ""
    """The writer from here on: host and process."""


class BoundsSet(Event, tag=14):
    """How many finished jobs are remembered, and for how long (0: no limit in time)."""

    NAME: ClassVar[str] = "BOUNDS"
    tombstones_max: Bound
    tombstones_age_ms: Bound


class QueueForgotten(Event, tag=15):
    """A queue without jobs and with the settings of a new one makes room for another."""

    NAME: ClassVar[str] = "FORGET_QUEUE"
    queue: str


AnyEvent = (
    Enqueued
    | Dispatched
    | Acked
    | Retried
    | TimedOut
    | Released
    | Died
    | CancelRequested
    | Cancelled
    | Requeued
    | Discarded
    | QueueSet
    | Booted
    | BoundsSet
    | QueueForgotten
)
"""Every event that a log may hold: the only place to register a new one."""

ALL_EVENTS: Final[tuple[type[AnyEvent], ...]] = get_args(AnyEvent)
JOB_EVENTS: Final = tuple(kind for kind in ALL_EVENTS if issubclass(kind, JobEvent))
STORE_EVENTS: Final = tuple(kind for kind in ALL_EVENTS if not issubclass(kind, JobEvent))


class Cause:
    """Causes that events carry.  Plain strings, so that old logs may hold others.

    Which event may carry which of them stands in `legality`.
    """

    FAILED: Final = "failed"
    NOT_RETRYABLE: Final = "not_retryable"
    WORKER_LOST: Final = "worker_lost"
    TIME_LIMIT: Final = "time_limit"
    LEASE_EXPIRED: Final = "lease_expired"
    NODE_LOST: Final = "node_lost"
    DRAIN: Final = "drain"
    SNOOZE: Final = "snooze"
    SNOOZE_LIMIT: Final = "snooze_limit"
    NEVER_STARTED: Final = "never_started"
    NEIGHBOUR: Final = "neighbour"
    CHILD_CONFLICT: Final = "child_conflict"
    OPERATOR: Final = "operator"
    JOB: Final = "job"
