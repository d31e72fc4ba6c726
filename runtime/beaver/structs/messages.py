"""The messages that pass between processes: plain structs, no behaviour.

Client to server: `Request`.  Server to worker: `Attempt`.  Worker to server: `Outcome`.
All are MessagePack arrays; fields may be added at the end, with a default.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Backoff(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How long to wait before the next attempt; kinds as `beaver_model.rows.BackoffKind`."""

    kind: int
    base_ms: int
    max_ms: int
    jitter: float


class Options(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The options of a job as they were sent: `None` leaves the choice to the server."""

    task: str
    queue: str | None = None
    priority: int | None = None
    timeout_ms: int | None = None
    max_attempts: int | None = None
    backoff: Backoff | None = None


class Request(msgspec.Struct, array_like=True, gc=False):
    """One job as a producer sends it.  `requests` makes and checks it."""

    id: str
    options: bytes
    """MessagePack of `Options`: jobs of one kind share the bytes, and a memo their meaning."""
    payload: bytes
    """JSON as it was sent, on one line."""
    digest: bytes
    """BLAKE2b-96 of the request in canonical form, `id` excepted."""
    run_at_ms: int = 0
    delay_ms: int = 0
    tags: tuple[str, ...] = ()


class TaskInfo(msgspec.Struct, array_like=True, frozen=True):
    """A task that workers know, with the options of its declaration."""

    options: Options
    is_async: bool = False


class Attempt(msgspec.Struct, array_like=True, gc=False):
    """One attempt of a job, as a worker gets it."""

    token: int
    job: str
    task: str
    payload: bytes
    attempt: int
    max_attempts: int
    queue: str
    timeout_ms: int
    idempotency_key: str
    origin: int
    tags: tuple[str, ...] = ()


class OutcomeKind(IntEnum):
    """How an attempt ended."""

    OK = 0
    FAILED = 1
    """Raised; to be retried while attempts are left."""
    DEAD = 2
    """Not to be retried."""
    SNOOZE = 3
    CANCELLED = 4
    TIMED_OUT = 5
    """Stopped softly at its time limit (thread and async executors)."""


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """The outcome of one attempt."""

    token: int
    job: str
    kind: int
    result: bytes = b"null"
    """JSON, for `OK`."""
    error: str = ""
    delay_ms: int | None = None
    """For `SNOOZE`, and for a `FAILED` that names its own delay."""
    children: tuple[Request, ...] = ()
    elapsed_ms: float = 0.0
    """Running time of the user code."""


class SnapshotWritten(msgspec.Struct):
    """A snapshot that was written: its seq and the check values of its state."""

    last_seq: int
    fingerprint: str
    ledger: int
    bytes: int
    seconds: float = 0.0
