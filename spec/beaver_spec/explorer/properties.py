"""The properties: what must hold at every step, stated without looking at `decide`.

These are a second, independent telling of the rules: small tables over rows as the explorer
sees them.  `check_step` judges one command and what it led to; `broken_promise` judges what
a client was told.  The invariants of the model itself stand in `beaver_model.invariants`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from beaver_model.events import Cause
from beaver_model.invariants import INVARIANTS
from beaver_model.states import JobState, Trigger
from beaver_spec.explorer.rows import (
    CANCELLED,
    COMPLETED,
    FORGOTTEN,
    IN_FLIGHT,
    LIVE,
    NAMES,
    NEW,
    PENDING,
    JobRow,
    Model,
)
from beaver_spec.traces.lifecycle import LIFE

Ask = tuple[object, ...]
"""A command as the explorer writes it: its kind, then its arguments."""


class Move(NamedTuple):
    """One event: what happened to which job."""

    trigger: Trigger
    job: int
    cause: str
    suspect: bool


class Wrong(NamedTuple):
    """A property that does not hold, and what is wrong."""

    property: str
    message: str


PROPERTIES: Final[dict[str, str]] = {
    "events_are_legal": "every event that `decide` returns is legal, and every refusal is known",
    "replay_agrees": "freezing, thawing and replaying events, once, twice and all at once, give "
    "one state",
    "fenced": "P3: an outcome changes something only with the token that is in flight, and never "
    "where a dead server gave it",
    "completes_once": "P3: a job that has completed never runs or completes again",
    "attempts_are_counted": "P6: DISPATCH spends one attempt, RELEASE gives it back, REQUEUE "
    "starts afresh, and nothing else changes the count",
    "dispatch_is_guarded": "P5, P6, P12: a pending job can be dispatched exactly where its time "
    "has come, its queue runs, an attempt is left, and neither last-attempt nor suspect forbids",
    "several_are_as_each": "one command for several jobs does what one for each in turn would do: "
    "it dispatches all or none, and of the successes that it reports exactly those count that "
    "answer an attempt in flight",
    "death_is_earned": "P6: a job dies only with its attempts spent, or for good",
    "cancel_is_kept": "once its cancel is asked, an attempt ends in ACK or CANCEL, nothing else",
    "cancel_is_asked": "the server ends an attempt with CANCEL only where somebody asked for it",
    "suspects_are_marked": "what a power cut interrupts is suspect until it ends otherwise",
    "neighbours_are_untouched": "an event changes its own job only",
    "tombstones_last": "finished jobs are remembered up to the bound, and forgotten oldest first",
    "nothing_acknowledged_is_lost": "P1, P4: what a client was told stands in the durable state, "
    "also after every crash",
    "released_when_durable": "P1: a reply goes out once all that it rests on is durable",
    "started_is_charged": "P6: an attempt whose user code began is charged unless it is given "
    "back on purpose, and one that never began is not charged while the slots are there",
    "started_is_durable": "P1, P6: user code begins only once its DISPATCH is durable; where a "
    "queue opts out, a crash may forget that an attempt began, and it is not counted",
    "remote_attempts_outlive_boot": "P6: a start of the server ends no attempt of a remote worker: "
    "its lease does",
    "a_lease_leaves_the_job_ready": "P5: a job whose lease has ended may run at once, if it may "
    "run again at all",
    "exclusive": "P10: on one node two attempts of a job never run at once",
    "in_flight_is_held": "P5: every job in flight is held by exactly one live worker",
    "policy_finds_work": "P5: a free slot gets a job exactly where one may be dispatched",
    "no_job_stuck": "P5 (eventually): from every state each accepted job can reach its end by "
    "fair steps alone, without a further operator, client or crash",
}
"""Each property of the explorer, as a claim."""

ALL_PROPERTIES: Final[dict[str, str]] = {
    **{check.__name__: (check.__doc__ or "").strip().split("\n")[0] for check in INVARIANTS},
    **PROPERTIES,
}

_OUTCOMES: Final = frozenset({"complete", "fail", "expire", "lease", "release", "confirm"})
_SEVERAL: Final = frozenset({"dispatch-several", "complete-several"})
_FOR_GOOD: Final = frozenset({Cause.NOT_RETRYABLE, Cause.CHILD_CONFLICT, Cause.SNOOZE_LIMIT})


class Limits(NamedTuple):
    """The bounds that the properties need to know."""

    attempts: int
    tombstones_max: int


def check_step(
    before: Model, ask: Ask, moves: Sequence[Move], after: Model, limits: Limits
) -> Iterator[Wrong]:
    """Yields what is wrong with a command that was accepted, and with what it led to."""
    touched = {move.job for move in moves}
    if ask[0] in _OUTCOMES:
        row = before.rows[_place(ask)]
        if moves and (row.state != IN_FLIGHT or row.label != ask[2]):
            led = ", ".join(move.trigger.name for move in moves)
            message = f"an outcome of {_name(ask)} without the token in flight led to {led}"
            yield Wrong("fenced", message)
    if ask[0] in _SEVERAL:
        wanted, found = as_each(before, ask), [move.job for move in moves]
        if found != wanted:
            message = f"{_names(found)} moved, and one by one {_names(wanted)} would"
            yield Wrong("several_are_as_each", message)
    for move in moves:
        old, new = before.rows[move.job], after.rows[move.job]
        yield from _check_move(move, old, new, limits)
        cut = ask[0] == "boot" and bool(ask[2])
        if move.trigger == Trigger.TIMEOUT and move.suspect != cut:
            after_what = "a power cut" if cut else "no power cut"
            message = f"{NAMES[move.job]} is suspect: {move.suspect}, after {after_what}"
            yield Wrong("suspects_are_marked", message)
        if ask[0] == "lease" and new.waiting:
            message = f"{NAMES[move.job]} waits, though no failure of its own is known"
            yield Wrong("a_lease_leaves_the_job_ready", message)
        if move.trigger == Trigger.DISPATCH:
            reason = why_not(before, move.job, limits.attempts, prefetched=bool(ask[3]))
            if reason:
                yield Wrong("dispatch_is_guarded", f"{NAMES[move.job]} was dispatched: {reason}")
    evicted = []
    for place, (old, new) in enumerate(zip(before.rows, after.rows, strict=True)):
        if place in touched or old == new:
            continue
        if old.state in {COMPLETED, FORGOTTEN} and new.state == NEW:
            evicted.append(place)
        else:
            yield Wrong("neighbours_are_untouched", f"{NAMES[place]} went from {old} to {new}")
    yield from _check_buried(before, moves, after, evicted, limits)


def _place(ask: Ask) -> int:
    place = ask[1]
    assert isinstance(place, int)
    return place


def _name(ask: Ask) -> str:
    return NAMES[_place(ask)]


def why_not(model: Model, job: int, attempts: int, *, prefetched: bool) -> str:
    """Returns what forbids to dispatch a job, or nothing: the rule, told a second time."""
    row = model.rows[job]
    last = row.attempt + 1 >= attempts
    others = any(r.suspect and r.state == IN_FLIGHT for r in model.rows)
    if row.state != PENDING:
        return "wrong_state" if row.state in LIVE else "absent"
    if row.waiting:
        return "not_ready"
    if model.paused and not row.second:
        return "paused"
    if row.attempt >= attempts:
        return "no_attempt_left"
    if prefetched and last:
        return "last_attempt"
    if row.suspect and (prefetched or others):
        return "suspect_waits"
    return ""


def as_each(model: Model, ask: Ask) -> list[int]:
    """Returns which jobs a command for several moves, in order: the rule, told a second time."""
    named = ask[1]
    assert isinstance(named, tuple)
    if ask[0] == "dispatch-several":
        return list(named)
    answered = [
        job
        for job, label in dict.fromkeys(named)
        if model.rows[job].state == IN_FLIGHT and model.rows[job].label == label
    ]
    assert len(set(answered)) == len(answered), "one token is in flight"
    return answered


def why_not_several(model: Model, ask: Ask, attempts: int) -> str:
    """Returns what forbids to dispatch several jobs with one command, or nothing."""
    jobs = ask[1]
    assert isinstance(jobs, tuple)
    if len(set(jobs)) < len(jobs):
        return "repeated"
    if sum(model.rows[job].suspect for job in jobs) > 1:
        return "suspect_waits"
    reasons = (why_not(model, job, attempts, prefetched=bool(ask[3])) for job in jobs)
    return next(filter(None, reasons), "")


def _names(jobs: Sequence[int]) -> str:
    return ", ".join(NAMES[job] for job in jobs) or "nothing"


_ATTEMPTS: Final = {Trigger.DISPATCH: 1, Trigger.RELEASE: -1}
_WHERE: Final = {
    Trigger[name]: {JobState[old.upper()]: JobState[new.upper()] for old, new in arrows.items()}
    for name, arrows in LIFE.items()
}
"""Where each event leads, as the specification tells it: from these states to that one."""


def _check_move(move: Move, old: JobRow, new: JobRow, limits: Limits) -> Iterator[Wrong]:
    name, trigger = NAMES[move.job], move.trigger
    target = _WHERE[trigger].get(JobState(old.state))
    # With room for no tombstone at all a finished job is forgotten at once.
    gone = new.state == NEW and target in {COMPLETED, FORGOTTEN} and not limits.tombstones_max
    if target is None or not (new.state == target or gone):
        where = f"{JobState(old.state).name} to {JobState(new.state).name}"
        yield Wrong("events_are_legal", f"{trigger.name} took {name} from {where}")
    if trigger == Trigger.ACK and old.state == COMPLETED:
        yield Wrong("completes_once", f"{name} completed twice")
    if new.state in LIVE:
        expected = old.attempt + _ATTEMPTS.get(trigger, 0)
        if trigger in {Trigger.REQUEUE, Trigger.ENQUEUE}:
            expected = 0
        if new.attempt != expected:
            message = f"{trigger.name} took {name} from attempt {old.attempt} to {new.attempt}"
            yield Wrong("attempts_are_counted", message)
    if trigger == Trigger.DEAD and move.cause not in _FOR_GOOD and old.attempt < limits.attempts:
        message = f"{name} died of {move.cause} after {old.attempt} of {limits.attempts} attempts"
        yield Wrong("death_is_earned", message)
    if old.cancel and trigger not in {Trigger.ACK, Trigger.CANCEL}:
        yield Wrong("cancel_is_kept", f"{name} was asked to cancel, and {trigger.name} came")
    if trigger == Trigger.CANCEL_REQUESTED and not new.cancel:
        yield Wrong("cancel_is_kept", f"the cancel of {name} left no mark")
    keeps = trigger in {Trigger.DISPATCH, Trigger.RELEASE, Trigger.CANCEL_REQUESTED}
    suspect = old.suspect if keeps else move.suspect
    if new.state in LIVE and new.suspect != suspect:
        yield Wrong("suspects_are_marked", f"{trigger.name} left {name} suspect: {new.suspect}")


def _check_buried(
    before: Model, moves: Sequence[Move], after: Model, evicted: list[int], limits: Limits
) -> Iterator[Wrong]:
    """Tombstones go oldest first, and only beyond the bound."""
    came = [m.job for m in moves if m.trigger in {Trigger.ACK, Trigger.DISCARD}]
    expected = [*before.buried, *came]
    gone = max(0, len(expected) - limits.tombstones_max) if came else 0
    if tuple(sorted(expected[gone:])) != tuple(sorted(after.buried)):
        lost = [NAMES[place] for place in expected if place not in after.buried]
        message = f"of {len(expected)} tombstones {lost} were forgotten; the bound says {gone}"
        yield Wrong("tombstones_last", message)
    if any(place not in expected[:gone] for place in evicted):
        yield Wrong("tombstones_last", f"{[NAMES[p] for p in evicted]} were forgotten early")


# -- situations ----------------------------------------------------------------------------------

Situation = Callable[[Model, Ask, Sequence[Move], Model], bool]


def _moved(
    *triggers: Trigger, when: Callable[[JobRow, Move], bool] = lambda _row, _move: True
) -> Situation:
    def met(before: Model, _ask: Ask, moves: Sequence[Move], _after: Model) -> bool:
        return any(m.trigger in triggers and when(before.rows[m.job], m) for m in moves)

    return met


def _evicts(before: Model, _ask: Ask, _moves: Sequence[Move], after: Model) -> bool:
    return any(place not in after.buried for place in before.buried)


def _sorts_at_boot(_before: Model, ask: Ask, moves: Sequence[Move], _after: Model) -> bool:
    charged = any(m.trigger in {Trigger.TIMEOUT, Trigger.DEAD} for m in moves)
    return ask[0] == "boot" and charged and any(m.trigger == Trigger.RELEASE for m in moves)


def _leaves_suspects(before: Model, ask: Ask, _moves: Sequence[Move], _after: Model) -> bool:
    if ask[0] != "dispatch" or not before.rows[_place(ask)].suspect:
        return False
    waiting = (n for n, row in enumerate(before.rows) if row.suspect and row.state == PENDING)
    return any(place != _place(ask) for place in waiting)


def _several(kind: str, *, left_out: bool = False) -> Situation:
    def met(_before: Model, ask: Ask, moves: Sequence[Move], _after: Model) -> bool:
        if ask[0] != kind:
            return False
        assert isinstance(ask[1], tuple)
        return (len(moves) == 1) if left_out else (len(moves) > 1)

    return met


SITUATIONS: Final[dict[str, Situation]] = {
    "a tombstone is evicted": _evicts,
    "one BOOT charges one job and gives another back": _sorts_at_boot,
    "a suspect runs, and another one waits": _leaves_suspects,
    "a suspect snoozes": _moved(
        Trigger.RELEASE, when=lambda row, move: row.suspect and move.cause == Cause.SNOOZE
    ),
    "a suspect loses its mark": _moved(
        Trigger.ACK, Trigger.RETRY, Trigger.DEAD, when=lambda row, _move: row.suspect
    ),
    "a suspect is interrupted once more": _moved(
        Trigger.TIMEOUT, when=lambda row, move: row.suspect and move.suspect
    ),
    "an ACK wins over a cancel that was asked before": _moved(
        Trigger.ACK, when=lambda row, _move: row.cancel
    ),
    "a cancel that was asked ends an attempt": _moved(
        Trigger.CANCEL, when=lambda row, _move: row.cancel
    ),
    "a job dies of its last attempt": _moved(
        Trigger.DEAD, when=lambda _row, move: move.cause not in _FOR_GOOD
    ),
    "a requeued job completes": _moved(Trigger.ACK, when=lambda row, _move: row.generation > 0),
    "several jobs are dispatched with one command": _several("dispatch-several"),
    "several successes are reported with one command": _several("complete-several"),
    "of two successes one is left out": _several("complete-several", left_out=True),
    "a neighbour is given back": _moved(
        Trigger.RELEASE, when=lambda _row, move: move.cause == Cause.NEIGHBOUR
    ),
}
"""Witnesses: situations that some scope has to reach, or the check would prove nothing."""


# -- what a client was told ----------------------------------------------------------------------

TOLD_EXISTS: Final = 1
"""Accepted, a duplicate or a conflict: the job is there."""
TOLD_CANCEL: Final = 2
"""Its cancel was accepted."""
TOLD_GONE: Final = 4
"""Its discard was accepted."""
TOLD_DONE: Final = 8
"""It was seen completed."""


def broken_promise(told: int, row: JobRow) -> str:
    """Returns which promise the durable row of a job breaks, or nothing."""
    state = row.state
    if told & TOLD_DONE and state != COMPLETED:
        return f"it was seen completed, and is {JobState(state).name.lower()}"
    if told & TOLD_GONE and state not in {FORGOTTEN, COMPLETED}:
        return f"its discard was acknowledged, and it is {JobState(state).name.lower()}"
    if told & TOLD_EXISTS and state == NEW:
        return "it was acknowledged, and is nowhere in the durable state"
    if told & TOLD_CANCEL and not (
        state in {CANCELLED, COMPLETED, FORGOTTEN} or (state == IN_FLIGHT and row.cancel)
    ):
        return f"its cancel was acknowledged, and it is {JobState(state).name.lower()}"
    return ""
