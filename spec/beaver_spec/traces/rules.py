"""The rules of a trace: does a log follow the specification, event by event?

What lives here: a validator that walks a log along the lifecycle of a job (`lifecycle`).  What
may not: anything of `beaver_model`.  The two are independent on purpose: what the model wrongly
allows, or wrongly logs, is seen here; so are events that were lost, swapped, forged or doubled
on the way.

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

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import msgspec

from beaver_spec.traces.fields import (
    ATTEMPTS_MAX,
    DIGEST_BYTES,
    ID_BYTES_MAX,
    NUMBER_MAX,
    TIME_MS_MAX,
    are_tags,
    is_name,
    options_of,
)
from beaver_spec.traces.lifecycle import (
    CHARGED,
    CHILDREN_MAX,
    COMPLETED,
    FORGOTTEN,
    IN_FLIGHT,
    LIFE,
    OTHERWISE,
    PENDING,
    REMOTE_FROM,
    SNOOZES_MAX,
)
from beaver_spec.traces.store import KnownQueues, Tombstones


class LogStep(msgspec.Struct, gc=False):
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


class _Job(msgspec.Struct, gc=False):
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
        self._queues = KnownQueues(is_whole=self._is_whole)
        self._tombstones = Tombstones(is_whole=self._is_whole)
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
        if not is_name(job_id, ID_BYTES_MAX):
            return f"{job_id!r} is no id"
        if len(fields["digest"]) != DIGEST_BYTES:
            return f"job {job_id} has a digest of {len(fields['digest'])} bytes"
        if fields["tags"] and not are_tags(fields["tags"]):
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
        return self._queues.enter(queue)

    def _move(self, job_id: str, job: _Job, step: LogStep) -> None:
        """Changes a job as a legal event says."""
        name, was, now_ms = step.name, job.state, self._time_ms
        job.state = LIFE[name][was]
        if name == "DISPATCH":
            job.attempt += 1
            job.token = step.seq
            job.is_remote = step.fields["worker"] >= REMOTE_FROM
            self._suspects_in_flight += job.is_suspect
            return
        self._owed.discard(job_id)
        if was == IN_FLIGHT and job.state != IN_FLIGHT:
            job.token = 0
            job.is_remote = False
            self._suspects_in_flight -= job.is_suspect
        if job.state in {COMPLETED, FORGOTTEN}:
            del self._jobs[job_id]
            if job.is_counted:
                self._queues.leave(job.queue)
            self._tombstones.bury(job_id, now_ms)
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

    # -- rules of each event ----------------------------------------------------------------

    def _dispatch(self, job: _Job, step: LogStep) -> str | None:
        if job.run_at_ms > self._time_ms:
            return f"starts at {self._time_ms}, before its time {job.run_at_ms}"
        if self._queues.is_paused(job.queue):
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
        return self._queues.change(fields)

    def _queue_forgotten(self, fields: dict[str, Any]) -> str | None:
        return self._queues.forget(fields["queue"])

    def _bounds_set(self, fields: dict[str, Any]) -> str | None:
        return self._tombstones.bound(fields)

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
