"""A second book: what has become of each job, kept from the events alone.

It shares no code with the model: states are words, attempts are counted here, and what a
requeue or a release means stands here once more.  It is told what was acknowledged, so a
recovered state that differs from it has lost, invented or miscounted something.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from beaver_model import State
from beaver_model.events import AnyEvent
from beaver_model.rows import spec_of

_EVICTED_PER_EVENT = 4
_BACK = {"RETRY", "TIMEOUT", "RELEASE"}
_REMEMBERED_BY_DEFAULT = 1_000_000


class Page:
    """One job that has not finished."""

    def __init__(self, seq: int, attempts_max: int, queue: str) -> None:
        self.seq, self.attempts_max, self.queue = seq, attempts_max, queue
        self.state = "PENDING"
        self.attempts = self.generation = self.snoozes = 0
        self.token = 0
        self.stopping = self.suspect = False
        self.cause = self.error = ""

    def facts(self) -> tuple[Any, ...]:
        return (
            self.seq,
            self.state,
            self.attempts,
            self.token,
            self.generation,
            self.snoozes,
            self.stopping,
            self.suspect,
            self.cause,
            self.error,
        )


class Book:
    """All jobs, by what the events said."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.ended: dict[str, tuple[int, str]] = {}
        """Seq and last state of the finished jobs that must be remembered."""
        self._order: deque[tuple[str, int]] = deque()
        self._ended_max, self._age_ms = _REMEMBERED_BY_DEFAULT, 0
        self._time_ms = 0
        self.last_seq = 0
        self.epoch = 0
        self.paused: set[str] = set()
        self.completed = 0

    def note(self, first_seq: int, time_ms: int, events: Sequence[AnyEvent]) -> None:
        """Takes in the events of one commit."""
        assert first_seq == self.last_seq + 1, "seqs are contiguous"
        assert time_ms >= self._time_ms, "stamps never go back"
        self._time_ms = time_ms
        for event in events:
            self.last_seq += 1
            self._note(event)

    def _note(self, event: Any) -> None:
        match event.NAME:
            case "ENQUEUE":
                assert event.job not in self.pages, "a job comes in once"
                assert event.job not in self.ended, "a finished job does not come back"
                spec = spec_of(event.spec)
                self.pages[event.job] = Page(self.last_seq, spec.max_attempts, spec.queue)
            case "BOOT":
                assert event.epoch == self.epoch + 1, "epochs are counted"
                self.epoch = event.epoch
            case "QUEUE":
                (self.paused.add if event.paused else self.paused.discard)(event.queue)
            case "FORGET_QUEUE":
                assert event.queue not in self.paused, "a queue keeps its settings"
                assert all(page.queue != event.queue for page in self.pages.values()), (
                    "a queue with jobs stays"
                )
            case "BOUNDS":
                self._ended_max, self._age_ms = event.tombstones_max, event.tombstones_age_ms
            case name:
                self._note_of_job(name, event, self.pages[event.job])

    def _note_of_job(self, name: str, event: Any, page: Page) -> None:
        if name in _BACK or name == "ACK":
            assert page.state == "IN_FLIGHT", f"{name} of a job that is {page.state}"
            assert event.token == page.token, f"{name} with a token that is not in flight"
        match name:
            case "DISPATCH":
                page.state, page.token = "IN_FLIGHT", self.last_seq
                page.attempts += 1
                assert page.attempts <= page.attempts_max, "attempts are bounded"
            case "CANCEL_REQUESTED":
                page.stopping = True
            case "ACK" | "DISCARD":
                self.completed += name == "ACK"
                self._end(event.job, "COMPLETED" if name == "ACK" else "FORGOTTEN")
            case "DEAD" | "CANCEL":
                page.state = "DEAD" if name == "DEAD" else "CANCELLED"
                page.token, page.stopping, page.suspect = 0, False, False
                page.cause = event.cause
                if name == "DEAD" or event.error:
                    page.error = event.error
            case "REQUEUE":
                page.state, page.attempts, page.snoozes = "PENDING", 0, 0
                page.generation += 1
                page.cause = page.error = ""
            case _:
                assert not page.stopping, f"{name} of an attempt that is to stop"
                page.state, page.token = "PENDING", 0
                if name == "RELEASE":
                    page.attempts -= 1
                    page.snoozes += event.cause == "snooze"
                else:
                    assert page.attempts < page.attempts_max, "an attempt is left"
                    page.suspect = name == "TIMEOUT" and event.suspect
                    page.cause, page.error = event.cause, event.error

    def _end(self, job: str, state: str) -> None:
        page = self.pages.pop(job)
        self.ended[job] = (page.seq, state)
        self._order.append((job, self._time_ms))
        oldest_ms = self._time_ms - self._age_ms
        for _ in range(_EVICTED_PER_EVENT):
            too_old = bool(self._order and self._age_ms and self._order[0][1] < oldest_ms)
            if len(self._order) > self._ended_max or too_old:
                del self.ended[self._order.popleft()[0]]

    def check(self, state: State) -> None:
        """Checks that the state says the same of every job."""
        assert state.last_seq == self.last_seq, "the state is of another seq"
        assert (state.epoch, state.completed) == (self.epoch, self.completed)
        rows = {row.id: _facts(row) for row in state.jobs.values()}
        pages = {job: page.facts() for job, page in self.pages.items()}
        assert rows == pages, "rows and events differ"
        ended = {
            job: (tombstone.seq, tombstone.outcome.name)
            for job in state.tombstones
            if (tombstone := state.tombstone(job)) is not None
        }
        assert ended == self.ended, "what is remembered of finished jobs differs"
        paused = {name for name, queue in state.queues.items() if queue.row.paused}
        assert paused == self.paused, "another queue is paused"


def _facts(row: Any) -> tuple[Any, ...]:
    extra = row.extra
    return (
        row.seq,
        row.state.name,
        row.attempt,
        row.token,
        extra.generation if extra is not None else 0,
        extra.snoozes if extra is not None else 0,
        row.cancel_requested,
        row.suspect,
        extra.cause if extra is not None else "",
        extra.error if extra is not None else "",
    )
