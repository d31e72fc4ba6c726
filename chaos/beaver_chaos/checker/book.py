"""A second book: what has become of each job, kept from the events alone.

It shares no code with the model: events are decoded by `beaver_spec`, states are words,
attempts are counted here, and what a requeue, a release or a tombstone means stands here once
more.  It is told what is durable, so a state that differs from it has lost, invented or
miscounted something, in `apply` as well as on the way.  The stateful tests and the simulator
keep one each.

What may not live here: `apply`, `legal`, or anything else that a wrong state could come from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from beaver_model import State
from beaver_model.events import AnyEvent
from beaver_spec.traces.following import steps_of
from beaver_spec.traces.rules import LogStep

_EVICTED_PER_EVENT: Final = 4
_REMEMBERED_BY_DEFAULT: Final = 1_000_000
_WEIGHT: Final = 10
_OPTIONS: Final[tuple[Any, ...]] = ("", "default", 5, 600_000, 5)
"""Task, queue, priority, limit in ms and attempts of a job that says nothing of them."""
_BACK: Final = frozenset({"RETRY", "TIMEOUT", "RELEASE"})


class BookDiffers(AssertionError):
    """A state is not what its events say, or an event is none that can follow."""


class Page:
    """One job that has not finished."""

    def __init__(self, seq: int, time_ms: int, fields: dict[str, Any]) -> None:
        options = msgspec.msgpack.decode(fields["spec"])
        known: tuple[Any, ...] = (*options[: len(_OPTIONS)], *_OPTIONS[len(options) :])
        self.task, self.queue = str(known[0]), str(known[1])
        self.priority, self.timeout_ms, self.attempts_max = map(int, known[2:])
        self.seq, self.id, self.spec = seq, str(fields["job"]), bytes(fields["spec"])
        self.payload, self.digest = bytes(fields["payload"]), bytes(fields["digest"])
        self.parent, self.tags = fields["parent"], tuple(fields["tags"])
        self.ready_ms = max(time_ms, fields["run_at_ms"])
        self.state = "PENDING"
        self.attempts = self.generation = self.snoozes = 0
        self.token = self.worker = 0
        self.stopping = self.suspect = False
        self.cause = self.error = ""

    @property
    def on_last_attempt(self) -> bool:
        """The next attempt, or the one in flight, is the last."""
        return self.attempts + (self.state != "IN_FLIGHT") >= self.attempts_max

    def facts(self) -> dict[str, Any]:
        """Everything that a row of the state says."""
        names = (
            *("seq", "state", "attempts", "token", "worker", "ready_ms", "spec", "payload"),
            *("digest", "generation", "snoozes", "stopping", "suspect", "cause", "error"),
            *("parent", "tags"),
        )
        return {name: getattr(self, name) for name in names}


class BookQueue:
    """One queue that is known."""

    def __init__(self) -> None:
        self.paused, self.weight, self.bytes_max, self.durable_dispatch = False, _WEIGHT, 0, True
        self.enqueued = self.completed = 0

    def facts(self) -> dict[str, Any]:
        return dict(vars(self))


class Book:
    """All jobs, by what the events said."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.queues: dict[str, BookQueue] = {}
        self.ended: dict[str, tuple[int, str, bytes, int]] = {}
        """Seq, last state, digest and time of the finished jobs that must be remembered."""
        self._order: deque[str] = deque()
        self.ended_max, self._age_ms = _REMEMBERED_BY_DEFAULT, 0
        self.time_ms = 0
        self.last_seq = 0
        self.epoch = 0
        self.completed = 0
        self.completed_elsewhere = 0

    @property
    def paused(self) -> set[str]:
        return {name for name, queue in self.queues.items() if queue.paused}

    def in_flight(self) -> list[Page]:
        return [page for page in self.pages.values() if page.state == "IN_FLIGHT"]

    def note(self, first_seq: int, time_ms: int, events: Sequence[AnyEvent]) -> None:
        """Takes in the events of one commit."""
        for step in steps_of(first_seq, time_ms, events):
            self.step(step)

    def step(self, step: LogStep) -> None:
        """Takes in the next event.

        Raises:
            BookDiffers: It cannot follow.
        """
        _expect(step.seq == self.last_seq + 1, "seqs are contiguous")
        _expect(step.time_ms >= self.time_ms, "stamps never go back")
        self.time_ms, self.last_seq = step.time_ms, step.seq
        fields = step.fields
        match step.name:
            case "ENQUEUE":
                self._enqueue(step)
            case "BOOT":
                _expect(fields["epoch"] == self.epoch + 1, "epochs are counted")
                self.epoch = fields["epoch"]
            case "QUEUE":
                queue = self.queues.setdefault(fields["queue"], BookQueue())
                for name in ("paused", "weight", "bytes_max", "durable_dispatch"):
                    setattr(queue, name, fields[name])
            case "FORGET_QUEUE":
                self._forget_queue(fields["queue"])
            case "BOUNDS":
                self.ended_max, self._age_ms = fields["tombstones_max"], fields["tombstones_age_ms"]
            case name:
                page = self.pages.get(fields["job"])
                if page is None:
                    raise BookDiffers(f"{name} of job {fields['job']}, which is not there")
                self._step_of_job(name, fields, page)

    def _enqueue(self, step: LogStep) -> None:
        job = step.fields["job"]
        _expect(job not in self.pages, "a job comes in once")
        _expect(job not in self.ended, "a finished job does not come back")
        page = self.pages[job] = Page(step.seq, step.time_ms, step.fields)
        self.queues.setdefault(page.queue, BookQueue()).enqueued += 1

    def _forget_queue(self, name: str) -> None:
        queue = self.queues.pop(name)
        is_new = (queue.weight, queue.bytes_max, queue.durable_dispatch) == (_WEIGHT, 0, True)
        _expect(is_new and not queue.paused, "a queue keeps its settings")
        _expect(all(p.queue != name for p in self.pages.values()), "a queue with jobs stays")
        self.completed_elsewhere += queue.completed

    def _step_of_job(self, name: str, fields: dict[str, Any], page: Page) -> None:
        if name in _BACK or name == "ACK":
            _expect(page.state == "IN_FLIGHT", f"{name} of a job that is {page.state}")
            _expect(fields["token"] == page.token, f"{name} with a token that is not in flight")
        match name:
            case "DISPATCH":
                page.state, page.token = "IN_FLIGHT", self.last_seq
                page.worker = fields["worker"]
                page.attempts += 1
                _expect(page.attempts <= page.attempts_max, "attempts are bounded")
            case "CANCEL_REQUESTED":
                page.stopping = True
            case "ACK" | "DISCARD":
                if name == "ACK":
                    self.completed += 1
                    self.queues[page.queue].completed += 1
                self._end(page, "COMPLETED" if name == "ACK" else "FORGOTTEN")
            case "DEAD" | "CANCEL":
                page.state = "DEAD" if name == "DEAD" else "CANCELLED"
                page.token = page.worker = 0
                page.stopping = page.suspect = False
                page.cause = fields["cause"]
                if name == "DEAD" or fields["error"]:
                    page.error = fields["error"]
            case "REQUEUE":
                page.state, page.attempts, page.snoozes = "PENDING", 0, 0
                page.generation += 1
                page.cause = page.error = ""
                page.ready_ms = self.time_ms
                if fields["payload"] is not None:
                    page.payload = bytes(fields["payload"])
            case _:
                self._back(name, fields, page)

    def _back(self, name: str, fields: dict[str, Any], page: Page) -> None:
        """RETRY, TIMEOUT and RELEASE."""
        _expect(not page.stopping, f"{name} of an attempt that is to stop")
        page.state, page.token, page.worker = "PENDING", 0, 0
        if name == "RELEASE":
            page.attempts -= 1
            page.snoozes += fields["cause"] == "snooze"
            page.ready_ms = max(page.ready_ms, fields["run_at_ms"])
            return
        _expect(page.attempts < page.attempts_max, "an attempt is left")
        page.suspect = name == "TIMEOUT" and fields["suspect"]
        page.cause, page.error = fields["cause"], fields["error"]
        page.ready_ms = max(self.time_ms, fields["run_at_ms"])

    def _end(self, page: Page, state: str) -> None:
        del self.pages[page.id]
        self.ended[page.id] = (page.seq, state, page.digest, self.time_ms)
        self._order.append(page.id)
        oldest_ms = self.time_ms - self._age_ms
        for _ in range(_EVICTED_PER_EVENT):
            too_old = bool(
                self._order and self._age_ms and self.ended[self._order[0]][3] < oldest_ms
            )
            if len(self._order) > self.ended_max or too_old:
                del self.ended[self._order.popleft()]

    # -- a state beside it ------------------------------------------------------------------

    def check(self, state: State, jobs: Iterable[str] | None = None) -> None:
        """Checks that a state of the same seq says the very same.

        Args:
            state: What came of the same events.
            jobs: Those that are compared; all, and all that have ended, where none are named.

        Raises:
            BookDiffers: It does not.
        """
        ours: dict[str, Any] = {
            "last_seq": self.last_seq,
            "time_ms": self.time_ms,
            "epoch": self.epoch,
            "tombstones_max": self.ended_max,
            "tombstones_age_ms": self._age_ms,
            "completed": self.completed,
            "completed_elsewhere": self.completed_elsewhere,
        }
        for name, value in ours.items():
            _same(name, getattr(state, name), value)
        _same("the number of jobs", len(state.jobs), len(self.pages))
        _same("the number of tombstones", len(state.tombstones), len(self.ended))
        queues = {name: _facts_of_queue(queue.row) for name, queue in state.queues.items()}
        _same("a queue", queues, {name: queue.facts() for name, queue in self.queues.items()})
        for job in self.pages if jobs is None else jobs:
            page, row = self.pages.get(job), state.jobs.get(job)
            facts = None if row is None else _facts(row)
            _same(f"job {job}", facts, None if page is None else page.facts())
        if jobs is None:
            _same("the tombstones", _tombstones(state), list(self.ended.items()))


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise BookDiffers(f"not so: {what}")


def _same(what: str, found: object, wanted: object) -> None:
    if found == wanted:
        return
    if isinstance(found, dict) and isinstance(wanted, dict):
        found = {key: value for key, value in found.items() if wanted.get(key) != value}
        wanted = {key: wanted.get(key) for key in found} if found else wanted
    raise BookDiffers(f"{what} is {found!r} in the state, and by the events {wanted!r}")


def _facts(row: Any) -> dict[str, Any]:
    extra = row.extra
    return {
        "seq": row.seq,
        "state": row.state.name,
        "attempts": row.attempt,
        "token": row.token,
        "worker": row.worker,
        "ready_ms": row.ready_ms,
        "spec": _logged_spec(row.spec),
        "payload": row.payload,
        "digest": row.digest,
        "generation": extra.generation if extra is not None else 0,
        "snoozes": extra.snoozes if extra is not None else 0,
        "stopping": extra is not None and extra.cancel_requested,
        "suspect": extra is not None and extra.suspect,
        "cause": extra.cause if extra is not None else "",
        "error": extra.error if extra is not None else "",
        "parent": extra.parent if extra is not None else "",
        "tags": extra.tags if extra is not None else (),
    }


def _facts_of_queue(row: Any) -> dict[str, Any]:
    names = ("paused", "weight", "bytes_max", "durable_dispatch", "enqueued", "completed")
    return {name: getattr(row, name) for name in names}


def _tombstones(state: State) -> list[tuple[str, tuple[int, str, bytes, int]]]:
    found = []
    for job, time_ms in zip(state.tombstone_ids, state.tombstone_times, strict=True):
        tombstone = state.tombstone(job)
        if tombstone is None:
            raise BookDiffers(f"the tombstone of job {job} is not there")
        found.append((job, (tombstone.seq, tombstone.outcome.name, tombstone.digest, time_ms)))
    return found


def _logged_spec(spec: Any) -> bytes:
    """Returns options as the log holds them: who asked stands there only if it is known."""
    values = msgspec.structs.astuple(spec)
    return msgspec.msgpack.encode(values if spec.by else values[:-1])
