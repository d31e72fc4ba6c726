"""The rows of the state: jobs, queues and finished jobs.

Rows are plain data.  Only `apply` changes them.  They are slim, since a store may hold ten
million: options that jobs share live in one interned `Spec`, what is rare in `Extra`.
`gc=False` keeps a million rows out of the garbage collector; no row is part of a cycle.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from enum import IntEnum
from operator import attrgetter
from typing import Annotated, Final, NamedTuple

import msgspec

from beaver_model.bounds import (
    ATTEMPTS_DEFAULT,
    ATTEMPTS_MAX,
    BY_CHARS_MAX,
    DIGEST_BYTES,
    NAME_BYTES_MAX,
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    REMOTE_WORKERS_FROM,
    TIME_MS_MAX,
    TIMEOUT_MS_DEFAULT,
    WEIGHT_DEFAULT,
)
from beaver_model.states import JobState

DEFAULT_QUEUE: Final = "default"
"""The queue of jobs that name none; there is always room for it."""


class BackoffKind(IntEnum):
    """How the delay grows with the attempts."""

    FIXED = 0
    LINEAR = 1
    EXPONENTIAL = 2


class Origin(IntEnum):
    """How a job was enqueued; `exec` runs only jobs from `LOCAL`."""

    LOCAL = 0
    HTTP = 1
    JOB = 2


_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)]


class Spec(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The options that many jobs share.  Logged as MessagePack bytes inside ENQUEUE.

    New fields go to the end, with a default, so that old logs keep their meaning.
    """

    task: str
    queue: str = DEFAULT_QUEUE
    priority: Annotated[int, msgspec.Meta(ge=0, le=PRIORITY_MAX)] = PRIORITY_DEFAULT
    timeout_ms: _Milliseconds = TIMEOUT_MS_DEFAULT
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=ATTEMPTS_MAX)] = ATTEMPTS_DEFAULT
    backoff_kind: Annotated[int, msgspec.Meta(ge=0, le=2)] = BackoffKind.EXPONENTIAL
    backoff_base_ms: _Milliseconds = 1_000
    backoff_max_ms: _Milliseconds = 3_600_000
    backoff_jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    origin: Annotated[int, msgspec.Meta(ge=0, le=2)] = Origin.LOCAL
    by: Annotated[str, msgspec.Meta(max_length=BY_CHARS_MAX)] = ""
    """Who enqueued it over HTTP: `token:ID`.  Left out where empty, so that a job without it takes
    the bytes, and has the fingerprint, of releases which did not know it."""

    def backoff_ms(self, attempt: int, jitter: float) -> int:
        """Returns the delay in ms before the attempt after `attempt` (1 is the first).

        `jitter`, in [0, 1), is drawn by the caller; it spreads the delay evenly over
        ± `backoff_jitter` of its value.
        """
        if self.backoff_kind == BackoffKind.FIXED:
            delay = self.backoff_base_ms
        elif self.backoff_kind == BackoffKind.LINEAR:
            delay = self.backoff_base_ms * attempt
        else:
            delay = self.backoff_base_ms << min(attempt - 1, 48)
        delay = min(delay, self.backoff_max_ms)
        return int(delay * (1.0 + self.backoff_jitter * (2.0 * jitter - 1.0)))


_SPEC_ENCODER: Final = msgspec.msgpack.Encoder()
_SPEC_DECODER: Final = msgspec.msgpack.Decoder(Spec)
_SPECS_MAX: Final = 10_000
SPECS: Final[dict[bytes, Spec]] = {}
"""The memo of `spec_of`, which alone writes it."""


def encode_spec(spec: Spec) -> bytes:
    """Returns the bytes that stand for `spec` in the log."""
    if not spec.by:
        return _SPEC_ENCODER.encode(msgspec.structs.astuple(spec)[:-1])
    return _SPEC_ENCODER.encode(spec)


def spec_of(raw: bytes) -> Spec:
    """Returns the one shared `Spec` for these bytes.

    A pure function with a memo: the table is emptied when it is full, and equality of
    specs never depends on identity.

    Raises:
        msgspec.DecodeError: The bytes are no spec, or a value is out of its bounds.
    """
    spec = SPECS.get(raw)
    if spec is None:
        if len(SPECS) >= _SPECS_MAX:
            SPECS.clear()
        try:
            spec = _SPEC_DECODER.decode(raw)
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(f"a name is not UTF-8: {error}") from error
        if not (is_text(spec.task, NAME_BYTES_MAX) and is_text(spec.queue, NAME_BYTES_MAX)):
            raise msgspec.ValidationError("a name is empty, too long or holds a control character")
        SPECS[raw] = spec
    return spec


_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def is_text(text: str, bytes_max: int) -> bool:
    """True for 1 to so many bytes of UTF-8 without control characters: an id, or a name."""
    # Nearly every text is short and printable, and a character has at most four bytes.
    if text.isprintable() and 0 < len(text) * 4 <= bytes_max:
        return True
    return 0 < len(text.encode()) <= bytes_max and not _CONTROL.search(text)


class Extra(msgspec.Struct, array_like=True, gc=False):
    """Fields that few jobs have; a row without any of them holds `None` instead."""

    generation: int = 0
    """Requeues so far: part of the idempotency key."""
    snoozes: int = 0
    cancel_requested: bool = False
    suspect: bool = False
    """The machine went down while this job was in flight."""
    cause: str = ""
    error: str = ""
    """Cause and error of the last attempt that did not complete."""
    parent: str = ""
    tags: tuple[str, ...] = ()


class Row(msgspec.Struct, gc=False):
    """One job that is pending, in flight, dead or cancelled.

    The fields of every new job come first, so that a million rows are built by position; the rest
    is at its default.
    """

    seq: int
    """Seq of its ENQUEUE: the identity of the job within the store."""
    id: str
    ready_ms: int
    """Time from which it may run: its `run_at`, or when it came in."""
    spec: Spec
    content: bytes
    """Digest of the request as sent, then the payload.  One object instead of two, since
    each costs 33 bytes beside what it holds."""
    state: JobState = JobState.PENDING
    attempt: int = 0
    token: int = 0
    """Seq of the DISPATCH that is in flight, else 0."""
    worker: int = 0
    """Worker that holds it, else 0."""
    extra: Extra | None = None
    scheduled: bool = False
    """It waits for its time: where the indexes keep it, no part of the frozen row."""

    def __lt__(self, other: Row) -> bool:
        """Breaks a tie in a heap: of a job's row and its husk either may come first."""
        return False

    @property
    def digest(self) -> bytes:
        return self.content[:DIGEST_BYTES]

    @property
    def payload(self) -> bytes:
        return self.content[DIGEST_BYTES:]

    @payload.setter
    def payload(self, payload: bytes) -> None:
        self.content = self.content[:DIGEST_BYTES] + payload

    @property
    def on_last_attempt(self) -> bool:
        """True where the next attempt, or the one in flight, is the last."""
        spent = self.attempt if self.state == JobState.IN_FLIGHT else self.attempt + 1
        return spent >= self.spec.max_attempts

    @property
    def is_remote(self) -> bool:
        """True where a remote worker holds it: a lease ends that, and no BOOT does."""
        return self.worker >= REMOTE_WORKERS_FROM

    @property
    def suspect(self) -> bool:
        return self.extra is not None and self.extra.suspect

    @property
    def cancel_requested(self) -> bool:
        return self.extra is not None and self.extra.cancel_requested


ROW_BYTES: Final = 360
"""Bytes of memory charged for a row beside its payload and id (measured, rounded up)."""
_ROW_REST: Final = ROW_BYTES - DIGEST_BYTES


def size_of(row: Row) -> int:
    """Returns the bytes of memory that are charged for a row."""
    return _ROW_REST + len(row.content) + len(row.id)


def size_of_all(rows: Sequence[Row]) -> int:
    """Returns the sum of `size_of`; a million rows take a twentieth of a second."""
    contents, ids = map(attrgetter("content"), rows), map(attrgetter("id"), rows)
    return len(rows) * _ROW_REST + sum(map(len, contents)) + sum(map(len, ids))


class QueueRow(msgspec.Struct, array_like=True, gc=False):
    """A queue: its settings and what has gone through it."""

    name: str
    paused: bool = False
    weight: int = WEIGHT_DEFAULT
    bytes_max: int = 0
    """Bound on the bytes of its unfinished jobs; 0 means only the store's bound counts."""
    enqueued: int = 0
    completed: int = 0
    durable_dispatch: bool = True
    """A job of the queue starts only once its DISPATCH is durable."""

    @property
    def is_as_new(self) -> bool:
        """True where every setting is that of a queue nobody has set."""
        return (
            not self.paused
            and self.weight == WEIGHT_DEFAULT
            and not self.bytes_max
            and self.durable_dispatch
        )


class Tombstone(NamedTuple):
    """A finished or discarded job, remembered to find duplicates."""

    seq: int
    outcome: JobState
    digest: bytes


_TOMBSTONE: Final = struct.Struct(f"<QB{DIGEST_BYTES}s")
TOMBSTONE_BYTES: Final = 260
"""Bytes of memory charged for a tombstone (measured, rounded up)."""


def pack_tombstone(seq: int, outcome: int, digest: bytes) -> bytes:
    """Returns a tombstone as one small `bytes`, since a million of them are kept."""
    return _TOMBSTONE.pack(seq, outcome, digest)


def unpack_tombstone(raw: bytes) -> Tombstone:
    """Returns what `pack_tombstone` packed."""
    seq, outcome, digest = _TOMBSTONE.unpack(raw)
    return Tombstone(seq, JobState(outcome), digest)
