"""The rules of a trace: does a log follow the specification, event by event?

What lives here: the lifecycle of a job as the design states it, written a second time, and
a validator that walks a log along it.  What may not: anything of `beaver_model`.  The two
are independent on purpose: what the model wrongly allows, or wrongly logs, is seen here; so
are events that were lost, swapped, forged or doubled on the way.

The rules, with the promises (P1 to P12) they come from:

- seqs follow each other, stamps never go back, and what one commit must hold together does
  (a child right behind its parent's ACK, a BOOT with the fate of every job that a local
  worker had in flight);
- names, options and numbers are within their bounds, and a cause stands where it can be true;
- only the changes of `LIFE` happen (P2);
- an outcome carries the token, the seq of the DISPATCH it answers (P3);
- attempts, snoozes and children have their bounds; an outcome that has attempts left is no
  DEAD, and one that has none is (P6);
- nothing starts before its time, from a paused queue, or beside another suspect (P12, BOOT);
- a cancel that was asked for ends the job, unless an ACK came first;
- an id comes back only when its tombstone may have been forgotten;
- a queue is forgotten only without jobs and settings.

Not checked: which of several eligible jobs is dispatched (that is policy), and whether a
cause was true.  How names map to the model, the log and the TLA+ module stands in
`spec/README.md`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

NEW: Final = "new"
PENDING: Final = "pending"
IN_FLIGHT: Final = "in_flight"
COMPLETED: Final = "completed"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"
FORGOTTEN: Final = "forgotten"

LIFE: Final[dict[str, dict[str, str]]] = {
    "ENQUEUE": {NEW: PENDING},
    "DISPATCH": {PENDING: IN_FLIGHT},
    "ACK": {IN_FLIGHT: COMPLETED},
    "RETRY": {IN_FLIGHT: PENDING},
    "TIMEOUT": {IN_FLIGHT: PENDING},
    "RELEASE": {IN_FLIGHT: PENDING},
    "DEAD": {IN_FLIGHT: DEAD, PENDING: DEAD},
    "CANCEL_REQUESTED": {IN_FLIGHT: IN_FLIGHT},
    "CANCEL": {PENDING: CANCELLED, IN_FLIGHT: CANCELLED},
    "REQUEUE": {DEAD: PENDING, CANCELLED: PENDING},
    "DISCARD": {PENDING: FORGOTTEN, DEAD: FORGOTTEN, CANCELLED: FORGOTTEN},
}
"""The transitions of a job: event, from, to."""

SNOOZES_MAX: Final = 10_000
CHILDREN_MAX: Final = 1_000
ATTEMPTS_MAX: Final = 10_000
WEIGHT: Final = 10
"""The settings of a queue that were never changed."""
TOMBSTONES_MAX: Final = 1_000_000
"""Until a BOUNDS event says otherwise."""
ID_BYTES_MAX: Final = 255
NAME_BYTES_MAX: Final = 200
DIGEST_BYTES: Final = 12
TAGS_MAX: Final = 16
QUEUES_MAX: Final = 10_000
TIME_MS_MAX: Final = 253_402_300_799_000
NUMBER_MAX: Final = (1 << 53) - 1
REMOTE_FROM: Final = 1_000_000
"""The first number of a remote worker."""
TIMEOUT_CAUSES: Final = frozenset({"time_limit", "lease_expired", "node_lost"})
CHARGED: Final = TIMEOUT_CAUSES | {"failed", "worker_lost"}
"""What an attempt is charged for: a job dies of it only in its last one."""
GIVEN_BACK: Final = frozenset({"drain", "snooze", "never_started", "neighbour"})
FOR_GOOD: Final = frozenset({"not_retryable", "child_conflict", "snooze_limit"})
CANCELLED_BY: Final = frozenset({"operator", "job"})
OTHERWISE: Final = {
    "RETRY": TIMEOUT_CAUSES | GIVEN_BACK | FOR_GOOD | CANCELLED_BY,
    "TIMEOUT": CHARGED - TIMEOUT_CAUSES | GIVEN_BACK | FOR_GOOD | CANCELLED_BY,
    "RELEASE": CHARGED | FOR_GOOD | CANCELLED_BY,
    "DEAD": GIVEN_BACK | CANCELLED_BY,
    "CANCEL": CHARGED | GIVEN_BACK | FOR_GOOD,
}
"""Causes that an event cannot have.  One that is in no list is a later release's."""


class LogStep(NamedTuple):
    """One event of a log, with its place."""

    seq: int
    time_ms: int
    commit: int
    """First seq of the frame that it stands in."""
    name: str
    fields: dict[str, Any]


class TraceVerdict(msgspec.Struct, frozen=True):
    """Whether a trace follows the specification, and if not, where it leaves it."""

    ok: bool
    index: int
    """Index of the wrong event from 0; the number of events if none is wrong."""
    seq: int
    """Seq of the wrong event; the last seq if none is wrong."""
    reason: str = ""


class _Job(msgspec.Struct):
    """A job as the specification remembers it."""

    state: str
    run_at_ms: int = 0
    queue: str = "default"
    attempts_max: int = ATTEMPTS_MAX
    attempt: int = 0
    token: int = 0
    is_remote: bool = False
    """It is in flight at a remote worker: no BOOT ends that."""
    snoozes: int = 0
    is_suspect: bool = False
    is_to_cancel: bool = False
    is_known: bool = True
    """False where the trace begins after the job: its counts are not known."""
    is_counted: bool = False
    """It came in within the trace, and counts in its queue."""
    is_bounded: bool = True
    """False where its ENQUEUE stands before the trace: how often it may be tried is not known."""


class Validator:
    """Walks along a trace; `step` says what is wrong with each event."""

    def __init__(self, *, first_seq: int = 1) -> None:
        """Makes a validator at the beginning of a trace.

        Args:
            first_seq: Where the trace begins.  Above 1 the jobs and settings from before are
                not known: what an event says of one is then believed once.
        """
        self.last_seq = first_seq - 1
        self.steps = 0
        self._is_whole = first_seq == 1
        self._time_ms = 0
        self._epoch: int | None = 0 if self._is_whole else None
        self._jobs: dict[str, _Job] = {}
        self._paused: set[str] = set()
        self._set: set[str] = set()
        """Queues with settings that a new one has not."""
        self._queues: dict[str, int] = {}
        """Queues that are known, and how many jobs each has that can still change."""
        self._tombstones: OrderedDict[str, int] = OrderedDict()
        """Those that must be remembered, oldest first, with their times."""
        self._tombstones_max = TOMBSTONES_MAX if self._is_whole else 0
        self._tombstones_age_ms = 0
        self._suspects_in_flight = 0
        self._owed: set[str] = set()
        """In flight when the server booted; each must be resolved in that commit."""
        self._is_power_cut = False
        self._commit = 0
        self._parent = ""
        """The job whose ACK, with children at most, is what came last in this commit."""
        self._children = 0

    def step(self, step: LogStep) -> str | None:
        """Takes the next event; returns why it cannot be the next, or `None`."""
        reason = self._place(step) or self._change(step)
        if reason is None:
            self.last_seq = step.seq
            self.steps += 1
        return reason

    def end(self) -> str | None:
        """Returns what is missing after the last event of a commit, or `None`."""
        if self._owed:
            return f"BOOT left job {min(self._owed)} in flight"
        return None

    # -- the place of an event ------------------------------------------------------------

    def _place(self, step: LogStep) -> str | None:
        if step.seq != self.last_seq + 1:
            return f"seq {step.seq} follows seq {self.last_seq}"
        if step.time_ms < self._time_ms:
            return f"the time goes back from {self._time_ms} to {step.time_ms}"
        if step.time_ms > TIME_MS_MAX:
            return f"the time {step.time_ms} lies behind the year 9999"
        if step.commit != self._commit:
            left = self.end()
            if left is not None:
                return left
            if step.commit != step.seq:
                return f"it says that its commit begins with seq {step.commit}"
            self._commit = step.commit
            self._parent = ""
        elif step.time_ms != self._time_ms:
            return "events of one commit have different times"
        self._time_ms = step.time_ms
        return None

    def _change(self, step: LogStep) -> str | None:
        name, fields = step.name, step.fields
        at_ms = fields.get("run_at_ms", 0)
        if at_ms and not 0 <= at_ms <= NUMBER_MAX:
            return f"{at_ms} is no time"
        store_event = self._STORE_EVENTS.get(name)
        if store_event is not None:
            self._parent = ""
            if self._owed:
                return f"BOOT left job {min(self._owed)} in flight"
            return store_event(self, fields)
        if name not in LIFE:
            return f"{name} is no event"
        reason = self._job_event(step)
        if name == "ACK":
            self._parent, self._children = fields["job"], 0
        elif name != "ENQUEUE" or fields["parent"] != self._parent:
            self._parent = ""
        return reason

    # -- events of a job -------------------------------------------------------------------

    def _job_event(self, step: LogStep) -> str | None:
        name, fields = step.name, step.fields
        job_id = fields["job"]
        job = self._jobs.get(job_id)
        is_strange = job is None and not self._is_whole  # it may have been in flight as well
        if self._owed and job_id not in self._owed and not is_strange:
            return f"BOOT left job {min(self._owed)} in flight"
        if name == "ENQUEUE":
            return self._enqueue(job_id, job, fields)
        if job is None:
            if self._is_whole or job_id in self._tombstones:
                return f"job {job_id} does not exist"
            job = self._jobs[job_id] = _believe(name, fields)
        if job.state not in LIFE[name]:
            return f"job {job_id} is {job.state}"
        reason = self._RULES[name](self, job, step)
        if reason is not None:
            return f"job {job_id} {reason}"
        self._move(job_id, job, step)
        return None

    def _enqueue(self, job_id: str, job: _Job | None, fields: dict[str, Any]) -> str | None:
        if job is not None:
            return f"job {job_id} exists: it is {job.state}"
        if job_id in self._tombstones:
            return f"job {job_id} has finished, and is not forgotten"
        if not _is_name(job_id, ID_BYTES_MAX):
            return f"{job_id!r} is no id"
        if len(fields["digest"]) != DIGEST_BYTES:
            return f"job {job_id} has a digest of {len(fields['digest'])} bytes"
        if fields["tags"] and not _are_tags(fields["tags"]):
            return f"job {job_id} has tags that are none"
        options = options_of(fields["spec"])
        if options is None:
            return f"job {job_id} has options that cannot be read"
        queue, attempts_max = options
        parent = fields["parent"]
        if parent:
            if parent != self._parent:
                return f"job {job_id} is a child of {parent}, which has not completed here"
            self._children += 1
            if self._children > CHILDREN_MAX:
                return f"job {parent} has more than {CHILDREN_MAX} children"
        run_at_ms = max(fields["run_at_ms"], self._time_ms)
        self._jobs[job_id] = _Job(PENDING, run_at_ms, queue, attempts_max, is_counted=True)
        self._queues[queue] = self._queues.get(queue, 0) + 1
        return self._too_many(queue)

    def _too_many(self, queue: str) -> str | None:
        known = len(self._queues)
        if known > QUEUES_MAX and known - ("default" in self._queues) > QUEUES_MAX:
            return f"queue {queue} is one too many"
        return None

    def _move(self, job_id: str, job: _Job, step: LogStep) -> None:
        """Changes a job as a legal event says."""
        name, was, now_ms = step.name, job.state, self._time_ms
        job.state = LIFE[name][was]
        self._owed.discard(job_id)
        if was == IN_FLIGHT and job.state != IN_FLIGHT:
            job.token = 0
            job.is_remote = False
            self._suspects_in_flight -= job.is_suspect
        if name == "DISPATCH":
            job.attempt += 1
            job.token = step.seq
            job.is_remote = step.fields["worker"] >= REMOTE_FROM
            self._suspects_in_flight += job.is_suspect
        elif name in {"RETRY", "TIMEOUT"}:
            job.run_at_ms = max(step.fields["run_at_ms"], now_ms)
            job.is_suspect = bool(step.fields.get("suspect"))
        elif name == "RELEASE":
            job.attempt -= 1
            job.snoozes += step.fields["cause"] == "snooze"
            job.run_at_ms = max(job.run_at_ms, step.fields["run_at_ms"])
        elif name == "CANCEL_REQUESTED":
            job.is_to_cancel = True
        elif name in {"DEAD", "CANCEL"}:
            job.is_suspect = job.is_to_cancel = False
        elif name == "REQUEUE":
            job.attempt = job.snoozes = 0
            job.run_at_ms, job.is_known = now_ms, True
        if job.state in {COMPLETED, FORGOTTEN}:
            del self._jobs[job_id]
            if job.is_counted:
                self._queues[job.queue] -= 1
            self._bury(job_id)

    def _bury(self, job_id: str) -> None:
        """Remembers a finished job, and forgets at once whatever may be forgotten."""
        self._tombstones.pop(job_id, None)
        self._tombstones[job_id] = self._time_ms
        oldest_ms = self._time_ms - self._tombstones_age_ms if self._tombstones_age_ms else 0
        while self._tombstones and (
            len(self._tombstones) > self._tombstones_max
            or next(iter(self._tombstones.values())) < oldest_ms
        ):
            self._tombstones.popitem(last=False)

    # -- rules of each event ----------------------------------------------------------------

    def _dispatch(self, job: _Job, step: LogStep) -> str | None:
        if job.run_at_ms > self._time_ms:
            return f"starts at {self._time_ms}, before its time {job.run_at_ms}"
        if job.queue in self._paused:
            return f"starts from the paused queue {job.queue}"
        if job.is_known and job.attempt >= job.attempts_max:
            return f"starts again after all its {job.attempts_max} attempts"
        if job.is_suspect and self._suspects_in_flight:
            return "is a suspect, and starts beside another"
        if not 0 <= step.fields["worker"] <= NUMBER_MAX:
            return f"goes to a worker {step.fields['worker']}"
        return None

    def _answers(self, job: _Job, step: LogStep) -> str | None:
        """An outcome carries the token of the attempt in flight."""
        token = step.fields["token"]
        if job.state == IN_FLIGHT and not job.token and token < step.seq:
            return None  # Its DISPATCH stands before the trace, and nothing has named it since.
        if job.state == IN_FLIGHT and token != job.token:
            return f"is in flight with token {job.token}, not {token}"
        if job.state == PENDING and token:
            return f"is not in flight, and is answered with token {token}"
        return None

    def _ends(self, job: _Job, step: LogStep) -> str | None:
        return self._answers(job, step) or self._caused(step)

    def _caused(self, step: LogStep) -> str | None:
        """The cause fits, also where a BOOT asks for the outcome."""
        fields = step.fields
        cause = fields.get("cause", "")
        if cause in OTHERWISE.get(step.name, ()):
            return f"has the cause {cause}, which {step.name} cannot have"
        if fields["job"] not in self._owed or step.name == "CANCEL":
            return None
        wanted = {"TIMEOUT": "node_lost", "DEAD": "node_lost", "RELEASE": "never_started"}
        if wanted.get(step.name) != cause:
            return f"ends by {step.name} across a BOOT, {cause or 'of no cause'}"
        return None

    def _ill(self, job: _Job, step: LogStep) -> str | None:
        """Not an ACK: token and cause fit, and nobody wants the job cancelled."""
        return self._answers(job, step) or _unless_cancelled(job, step) or self._caused(step)

    def _again(self, job: _Job, step: LogStep) -> str | None:
        """RETRY and TIMEOUT: there is an attempt left, and nobody wants it cancelled."""
        reason = self._ill(job, step)
        if reason is not None:
            return reason
        if job.is_known and job.attempt >= job.attempts_max:
            return f"is tried again after all its {job.attempts_max} attempts"
        if step.fields["run_at_ms"] < self._time_ms:
            return f"waits until {step.fields['run_at_ms']}, which has passed"
        owed_to_a_cut = self._owes(job, step) and self._is_power_cut
        if step.name == "TIMEOUT" and bool(step.fields["suspect"]) != owed_to_a_cut:
            return "is a suspect exactly where the machine went down while it was in flight"
        return None

    def _release(self, job: _Job, step: LogStep) -> str | None:
        reason = self._ill(job, step)
        if reason is not None:
            return reason
        if self._owes(job, step) and self._is_power_cut:
            return "is given back, though nobody knows whether it had started"
        if step.fields["cause"] == "snooze" and job.snoozes >= SNOOZES_MAX:
            return f"snoozes more than {SNOOZES_MAX} times"
        return None

    def _dies(self, job: _Job, step: LogStep) -> str | None:
        reason = self._ill(job, step)
        if reason is not None:
            return reason
        has_attempts = job.is_known and job.is_bounded and job.attempt < job.attempts_max
        if job.state == IN_FLIGHT and step.fields["cause"] in CHARGED and has_attempts:
            return f"dies of {step.fields['cause']} after {job.attempt} of {job.attempts_max}"
        return None

    def _cancel_requested(self, job: _Job, step: LogStep) -> str | None:
        if step.fields["job"] in self._owed:
            return "is asked to stop, and its attempt ended with the BOOT"
        return "is asked to stop a second time" if job.is_to_cancel else None

    def _free(self, job: _Job, step: LogStep) -> str | None:
        return None

    def _owes(self, job: _Job, step: LogStep) -> bool:
        """True where BOOT found the job in flight, as far as the trace tells."""
        from_before = not job.is_known and step.fields["cause"] == "node_lost"
        return step.fields["job"] in self._owed or from_before

    # -- events of the store -----------------------------------------------------------------

    def _booted(self, fields: dict[str, Any]) -> str | None:
        epoch = fields["epoch"]
        if self._epoch is not None and epoch != self._epoch + 1:
            return f"epoch {epoch} follows epoch {self._epoch}"
        if not 0 < epoch <= NUMBER_MAX:
            return f"{epoch} is no epoch"
        self._epoch = epoch
        self._is_power_cut = fields["power_cut"]
        self._owed = {
            i for i, job in self._jobs.items() if job.state == IN_FLIGHT and not job.is_remote
        }
        return None

    def _queue_set(self, fields: dict[str, Any]) -> str | None:
        if not 1 <= fields["weight"] <= 1_000 or fields["bytes_max"] < 0:
            return f"queue {fields['queue']} gets a weight or a bound out of range"
        if not isinstance(fields["durable_dispatch"], bool):
            return f"queue {fields['queue']} waits for its DISPATCH neither way"
        queue = fields["queue"]
        if not _is_name(queue, NAME_BYTES_MAX):
            return f"{queue!r} is no name of a queue"
        change = self._paused.add if fields["paused"] else self._paused.discard
        change(queue)
        is_set = fields["paused"] or fields["weight"] != WEIGHT or fields["bytes_max"]
        change = self._set.add if is_set or not fields["durable_dispatch"] else self._set.discard
        change(queue)
        self._queues.setdefault(queue, 0)
        return self._too_many(queue)

    def _queue_forgotten(self, fields: dict[str, Any]) -> str | None:
        queue = fields["queue"]
        if queue == "default":
            return "the default queue is forgotten"
        if self._is_whole and queue not in self._queues:
            return f"queue {queue} is not known"
        jobs = self._queues.pop(queue, 0)
        if jobs:
            return f"queue {queue} has {jobs} jobs"
        return f"queue {queue} has settings" if queue in self._set else None

    def _bounds_set(self, fields: dict[str, Any]) -> str | None:
        if fields["tombstones_max"] < 0 or fields["tombstones_age_ms"] < 0:
            return "a bound of tombstones is negative"
        self._tombstones_max = fields["tombstones_max"]
        self._tombstones_age_ms = fields["tombstones_age_ms"]
        return None

    _RULES: ClassVar[dict[str, Callable[[Validator, _Job, LogStep], str | None]]] = {
        "DISPATCH": _dispatch,
        "ACK": _ends,
        "RETRY": _again,
        "TIMEOUT": _again,
        "RELEASE": _release,
        "DEAD": _dies,
        "CANCEL_REQUESTED": _cancel_requested,
        "CANCEL": _ends,
        "REQUEUE": _free,
        "DISCARD": _free,
    }
    _STORE_EVENTS: ClassVar[dict[str, Callable[[Validator, dict[str, Any]], str | None]]] = {
        "QUEUE": _queue_set,
        "BOOT": _booted,
        "BOUNDS": _bounds_set,
        "FORGET_QUEUE": _queue_forgotten,
    }


def validate(events: Iterable[LogStep], *, first_seq: int = 1) -> TraceVerdict:
    """Walks along a trace to its end or to the first event that cannot be the next."""
    validator = Validator(first_seq=first_seq)
    for step in events:
        reason = validator.step(step)
        if reason is not None:
            return TraceVerdict(False, validator.steps, step.seq, f"{step.name}: {reason}")
    left = validator.end()
    if left is not None:
        return TraceVerdict(False, validator.steps, validator.last_seq + 1, f"the end: {left}")
    return TraceVerdict(True, validator.steps, validator.last_seq)


def _unless_cancelled(job: _Job, step: LogStep) -> str | None:
    return f"was to be cancelled, and is not by {step.name}" if job.is_to_cancel else None


def _believe(name: str, fields: dict[str, Any]) -> _Job:
    """Returns a job from before the trace, as its first event shows it."""
    (*_, state) = LIFE[name]
    if fields.get("token"):
        state = IN_FLIGHT
    elif name in {"DEAD", "CANCEL"}:
        state = PENDING
    return _Job(state, token=fields.get("token", 0), is_known=False, is_bounded=False)


@lru_cache(maxsize=1_000)
def options_of(raw: bytes) -> tuple[str, int] | None:
    """Returns queue and attempts of a job from its options as they stand in the log.

    `None` where they cannot be read, or one is out of its bounds.
    """
    try:
        found = msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if not isinstance(found, list) or not found:
        return None
    options = [*found, *_DEFAULTS[len(found) :]]
    if not all(is_right(value) for is_right, value in zip(_OPTIONS, options, strict=False)):
        return None
    return options[1], options[4]


def _number(least: float, most: float, kind: Any = int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most
    )


def _is_name(text: Any, bytes_max: int) -> bool:
    """True for 1 to so many bytes of UTF-8 without a control character."""
    if not isinstance(text, str):
        return False
    if text.isprintable() and 0 < 4 * len(text) <= bytes_max:
        return True  # No character has more than four bytes.
    if not 0 < len(text.encode()) <= bytes_max:
        return False
    return text.isprintable() or not any(
        ord(character) < 32 or 127 <= ord(character) < 160 for character in text
    )


def _are_tags(tags: list[Any]) -> bool:
    return len(tags) <= TAGS_MAX and all(_is_name(tag, NAME_BYTES_MAX) for tag in tags)


def _is_name_of_others(text: Any) -> bool:
    return _is_name(text, NAME_BYTES_MAX)


_MS: Final = _number(0, TIME_MS_MAX)
_OPTIONS: Final = (
    _is_name_of_others,
    _is_name_of_others,
    _number(0, 9),
    _MS,
    _number(1, ATTEMPTS_MAX),
    _number(0, 2),
    _MS,
    _MS,
    _number(0, 1, (int, float)),
    _number(0, 2),
)
"""What each option has to be: task, queue, priority, time limit, attempts, kind, base, longest
and spread of the backoff, origin."""
_DEFAULTS: Final = (None, "default", 5, 600_000, 5, 2, 1_000, 3_600_000, 0.1, 0)
