"""Logs forged at random, frame by frame: two judges that know nothing of each other must agree.

An input chooses events, jobs, tokens, causes and times, right ones and wrong ones.  What the model
takes, recovery has to take whole, and the state that it leads to keeps every invariant and can
be decided on: a log that is accepted harms nobody later.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from beaver.journal.codec import encode_commit
from beaver_model import (
    IllegalEvent,
    Offer,
    Rejection,
    State,
    apply_all,
    build_indexes,
    decide,
    fingerprint,
    replay,
    select,
    violations,
)
from beaver_model.commands import Boot, Dispatch
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    Cancelled,
    CancelRequested,
    Died,
    Discarded,
    Dispatched,
    Enqueued,
    QueueForgotten,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.legality import refuse_left_in_flight
from beaver_model.rows import Spec, encode_spec
from beaver_spec.traces.following import Opinion

FRAMES_MAX: Final = 60
BEGIN_MS: Final = 1_700_000_000_000
_JOBS: Final = ("a", "b", "c", "d")
_CAUSES: Final = (
    "failed", "worker_lost", "time_limit", "node_lost", "drain", "snooze", "never_started",
    "neighbour", "not_retryable", "child_conflict", "operator", "job", "unheard of",
)  # fmt: skip
_SPECS: Final = tuple(
    encode_spec(Spec("echo", queue, max_attempts=attempts))
    for queue in ("default", "mail")
    for attempts in (1, 2, 3)
)


class _OutOfChoices(Exception):
    """The input is used up."""


class _Choices:
    def __init__(self, data: bytes) -> None:
        self._data: Iterator[int] = iter(data)

    def of(self, *options: Any) -> Any:
        byte = next(self._data, None)
        if byte is None:
            raise _OutOfChoices
        return options[byte % len(options)]


def forged(data: bytes) -> set[str]:
    """Builds a log of the frames that both judges take; returns what was met."""
    choices, places = _Choices(data), set[str]()
    state, opinion = State(), Opinion(1)
    taken: list[tuple[int, int, list[AnyEvent]]] = []
    now_ms = BEGIN_MS
    try:
        for _ in range(FRAMES_MAX):
            now_ms += choices.of(0, 1, 1_000, 1_000, 60_000, -1)
            events = list(_frame(choices, state, now_ms))
            first_seq = state.last_seq + 1
            payload = encode_commit(now_ms, events)
            here, there = deepcopy(state), deepcopy(opinion)
            try:
                replay(here, first_seq, now_ms, events)
                reason = ""
            except IllegalEvent as error:
                reason = str(error)
            found = there.of(first_seq, payload)
            assert (found is None) == (not reason), (events, reason, found)
            places.add("illegal" if reason else "legal")
            if not reason:
                state, opinion = here, there
                taken.append((first_seq, now_ms, events))
                places |= {event.NAME for event in events}
            now_ms = max(now_ms, state.time_ms)
    except _OutOfChoices:
        pass
    _recovered(state, taken)
    return places


def _recovered(state: State, taken: list[tuple[int, int, list[AnyEvent]]]) -> None:
    """Recovery comes to the same, and a server can go on."""
    again = State()
    again.defer_indexes()
    for frame in taken:
        replay(again, *frame)
    build_indexes(again)
    refuse_left_in_flight(again)
    assert fingerprint(again) == fingerprint(state)
    for one in (state, again):
        assert violations(one) == []
        booted = decide(one, Boot(), one.time_ms)
        assert not isinstance(booted, Rejection)
        apply_all(one, booted, one.time_ms)
        while one.advance(one.time_ms + 1_000_000):
            pass
        row = select(one, Offer(idle=True), one.time_ms + 1_000_000)
        if row is not None:
            gone = decide(one, Dispatch(row.id, 1), one.time_ms + 1_000_000)
            assert not isinstance(gone, Rejection)
            apply_all(one, gone, one.time_ms + 1_000_000)
        assert violations(one) == []


def _frame(choices: _Choices, state: State, now_ms: int) -> Iterator[AnyEvent]:
    """Yields the events of one frame; those of a start with what becomes of each attempt."""
    if choices.of(*range(6)) == 0:
        cut = choices.of(False, True)
        yield Booted(state.epoch + choices.of(1, 1, 1, 1, 0, 2), cut)
        for row in list(state.in_flight.values()):
            kind = choices.of("as it should", "as it should", "as it should", "any", "none")
            if kind == "as it should" and row.cancel_requested:
                yield Cancelled(row.id, row.token, "operator")
            elif kind == "as it should" and not cut:
                yield Released(row.id, row.token, 0, "never_started")
            elif kind == "as it should" and row.on_last_attempt:
                yield Died(row.id, row.token, "node_lost")
            elif kind == "as it should":
                yield TimedOut(row.id, row.token, now_ms, "node_lost", suspect=cut)
            elif kind == "any":
                yield _event(choices, state, now_ms)
    for _ in range(choices.of(1, 1, 2, 3)):
        yield _event(choices, state, now_ms)


def _event(choices: _Choices, state: State, now_ms: int) -> AnyEvent:
    job = choices.of(*_JOBS)
    row = state.jobs.get(job)
    held = row.token if row is not None else 0
    token = choices.of(held, held, held, held, held, 0, held + 1, max(held - 1, 0))
    cause = choices.of(*_CAUSES)
    later_ms = now_ms + choices.of(0, 0, 1_000, 90_000)
    at_ms = choices.of(later_ms, later_ms, later_ms, 0)
    match choices.of(*range(20)):
        case 0 | 1 | 2:
            parent = choices.of("", "", "", "", *_JOBS)
            return Enqueued(job, choices.of(*_SPECS), b"null", b"digest-of-12", at_ms, parent)
        case 3 | 4 | 5 | 6 | 7:
            return Dispatched(job, choices.of(0, 1, 2))
        case 8 | 9:
            return Acked(job, token, b"null")
        case 10:
            return Retried(job, token, at_ms, choices.of("failed", "failed", cause))
        case 11:
            suspect = choices.of(False, False, False, True)
            return TimedOut(job, token, at_ms, choices.of("time_limit", cause), suspect)
        case 12:
            return Released(job, token, choices.of(0, at_ms), choices.of("drain", "snooze", cause))
        case 13:
            return Died(job, token, choices.of("not_retryable", "failed", cause))
        case 14:
            return CancelRequested(job)
        case 15:
            return Cancelled(job, token, choices.of("operator", "job", "", cause))
        case 16:
            return Requeued(job, choices.of(None, b"[1]"))
        case 17:
            return Discarded(job)
        case 18:
            return QueueSet(choices.of("default", "mail"), choices.of(False, True), 10, 0)
        case _:
            return QueueForgotten(choices.of("mail", "default", "nobody"))
