"""The cells: every pair of state and event, reachable or not.

Four tellings of the lifecycle have to agree on each: the `transitions` Machine, asked by
firing it; the table compiled from it; `legal` with `apply`; and `decide`, whose events must
be legal.  A job is put into each state in every shape that its row can take, also where no
history leads there.  The guards that the table cannot hold are told a second time here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Annotated, Any, Final, NamedTuple, get_origin

import msgspec
from transitions import Machine, MachineError

from beaver_model import Rejection, State, thaw
from beaver_model.bounds import SNOOZES_MAX
from beaver_model.commands import (
    REJECTIONS,
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    CompleteBatch,
    ConfirmCancel,
    Discard,
    Dispatch,
    DispatchBatch,
    Done,
    Enqueue,
    Expire,
    Fail,
    NewJob,
    Release,
    Requeue,
)
from beaver_model.events import JOB_EVENTS, Cause, Digest, Enqueued, JobEvent
from beaver_model.legality import JudgedFrame
from beaver_model.lifecycle import CELLS, Life, build_machine
from beaver_model.rows import encode_spec
from beaver_model.states import JobState, Trigger
from beaver_spec.explorer.model_under_test import ModelUnderTest
from beaver_spec.explorer.rows import (
    LIVE,
    NAMES,
    NOW_MS,
    SAME,
    JobRow,
    Model,
    concrete,
    job_spec,
    token_of,
)
from beaver_spec.results import CheckResult, Verdict

ATTEMPTS: Final = 2
_SPEC: Final = job_spec(ATTEMPTS)
_RAW: Final = encode_spec(_SPEC)
Table = Sequence[Sequence[JobState | None]]


class Cell(NamedTuple):
    """The next state by the Machine, of an event in a state."""

    trigger: Trigger
    state: JobState
    target: JobState | None


class CellsReport(NamedTuple):
    """The number of comparisons, and the disagreements."""

    cells: list[Cell]
    shapes: int
    """Rows that a job was given."""
    events: int
    """Pairs of row and event that were put to `legal`, and to `apply` where legal."""
    commands: int
    """Pairs of row and command that were put to `decide`."""
    wrong: list[str]
    seconds: float


def machine_cells(machine: Machine) -> list[Cell]:
    """Asks the Machine what each event does in each state, by firing it."""
    cells: list[Cell] = []
    for trigger, state in product(Trigger, JobState):
        life = Life()
        machine.add_model(life, initial=state.name)
        try:
            life.trigger(trigger.name.lower())  # type: ignore[attr-defined]
            target = JobState[life.state]
        except MachineError:
            target = None
        machine.remove_model(life)
        cells.append(Cell(trigger, state, target))
    return cells


def shapes(state: JobState) -> Iterator[tuple[JobRow, int]]:
    """Yields every shape that a job's row can take in a state, with its snoozes."""
    if state not in LIVE:
        yield JobRow(int(state)), 0
        return
    in_flight = state == JobState.IN_FLIGHT
    flags = (False, True)
    attempts = {
        JobState.PENDING: range(ATTEMPTS),
        JobState.IN_FLIGHT: range(1, ATTEMPTS + 1),
    }.get(state, range(ATTEMPTS + 1))
    can_suspect = state in {JobState.PENDING, JobState.IN_FLIGHT}
    for attempt, waiting, cancel, suspect, generation, snoozes in product(
        attempts,
        flags if state == JobState.PENDING else (False,),
        flags if in_flight else (False,),
        flags if can_suspect else (False,),
        (0, 1),
        (0, SNOOZES_MAX),
    ):
        label = 1 if in_flight else 0
        row = JobRow(int(state), attempt, label, waiting, cancel, suspect, generation, snoozes)
        yield row, snoozes


def state_of(row: JobRow) -> State:
    """Returns a state of the real model whose one job has this row."""
    buried = (0,) if row.state in {JobState.COMPLETED, JobState.FORGOTTEN} else ()
    return thaw(*concrete(Model((row,), False, buried), _SPEC, len(NAMES)))


def check_cells(
    machine: Machine | None = None,
    table: Table = CELLS,
    model: ModelUnderTest | None = None,
) -> CellsReport:
    """Compares the Machine, the table, `legal`, `apply` and `decide` on every cell."""
    started = time.perf_counter()
    model = model or ModelUnderTest()
    cells = machine_cells(machine or build_machine())
    wrong = [
        f"{cell.trigger.name} in {cell.state.name}: the Machine says {_name(cell.target)}, "
        f"the table {_name(table[cell.trigger][cell.state])}"
        for cell in cells
        if table[cell.trigger][cell.state] != cell.target
    ]
    targets = {(cell.trigger, cell.state): cell.target for cell in cells}
    events = commands = count = 0
    for state in JobState:
        for row, snoozes in shapes(state):
            count += 1
            for event in _events(row):
                events += 1
                wrong += _check_event(model, row, snoozes, event, targets)
            for command in _commands(row):
                commands += 1
                wrong += _check_command(model, row, command, targets)
    return CellsReport(cells, count, events, commands, wrong, time.perf_counter() - started)


def _name(state: JobState | None) -> str:
    return "illegal" if state is None else state.name


def _events(row: JobRow) -> Iterator[Any]:
    """Yields each event of a job, with the token in flight and with another one."""
    token = token_of(0, row.label) if row.label else 0
    words: dict[str, Any] = {"job": NAMES[0], "spec": _RAW, "payload": b"null", "digest": SAME}
    words |= {"run_at_ms": NOW_MS}
    for kind in JOB_EVENTS:
        tokens = {token, token_of(0, row.label + 1)} if "token" in kind.__struct_fields__ else {0}
        causes = ("", *_CAUSES) if "cause" in kind.__struct_fields__ else ("",)
        for number, cause in product(sorted(tokens), causes):
            yield example(kind, {**words, "token": number, "cause": cause})


_CAUSES: Final = {
    Cause.FAILED: Trigger.RETRY,
    Cause.TIME_LIMIT: Trigger.TIMEOUT,
    Cause.DRAIN: Trigger.RELEASE,
    Cause.SNOOZE: Trigger.RELEASE,
    Cause.NOT_RETRYABLE: Trigger.DEAD,
    Cause.OPERATOR: Trigger.CANCEL,
}
"""Causes, and the event that each may stand in; a last attempt may die of the first two."""


_SOMETHING: Final[dict[Any, Any]] = {
    int: 7,
    str: "text",
    bytes: b"[1]",
    bytes | None: b"[1]",
    bool: True,
    tuple[str, ...]: ("text",),
}


def _something(kind: Any) -> Any:
    plain = kind.__origin__ if get_origin(kind) is Annotated else kind
    return b"digest-of-12" if kind is Digest else _SOMETHING[plain]


def example(kind: type[Any], values: dict[str, Any], *, whole: bool = False) -> Any:
    """Returns an event with these values as far as it has such fields.

    Each other field that it must have, or each where it is to be `whole`, has something in it.
    """
    given = {}
    for field in msgspec.structs.fields(kind):
        if field.name in values:
            given[field.name] = values[field.name]
        elif field.required or whole:
            given[field.name] = _something(field.type)
    return kind(**given)


def _allowed(row: JobRow, snoozes: int, event: Any, filled: bool) -> bool:
    """The guards beside the table: what `legal` has to say, told a second time."""
    if not filled:
        return False
    trigger = event.TRIGGER
    fields = type(event).__struct_fields__
    if "token" in fields and event.token != (token_of(0, row.label) if row.label else 0):
        return False
    if row.cancel and trigger not in {Trigger.ACK, Trigger.CANCEL}:
        return False
    home = _CAUSES.get(event.cause, trigger) if "cause" in fields else trigger
    if trigger == Trigger.DEAD and home in {Trigger.RETRY, Trigger.TIMEOUT}:
        return row.state == JobState.PENDING or row.attempt >= ATTEMPTS
    if home != trigger:
        return False
    if trigger in {Trigger.RETRY, Trigger.TIMEOUT}:
        return row.attempt < ATTEMPTS
    if trigger == Trigger.RELEASE and event.cause == Cause.SNOOZE:
        return snoozes < SNOOZES_MAX
    if trigger == Trigger.DISPATCH:
        return row.attempt < ATTEMPTS and not row.waiting
    return True


def _check_event(
    model: ModelUnderTest,
    row: JobRow,
    snoozes: int,
    event: Any,
    targets: dict[tuple[Trigger, JobState], JobState | None],
) -> Iterator[str]:
    state, before = state_of(row), JobState(row.state)
    target = targets[event.TRIGGER, before]
    reason = model.legal(state, event, JudgedFrame(NOW_MS))
    allowed = _allowed(row, snoozes, event, target is not None)
    if (reason is None) != allowed:
        said = "legal" if reason is None else f"illegal, {reason}"
        yield f"{event.NAME} on {row}: `legal` says {said}"
    elif allowed:
        model.apply(state, event, NOW_MS)
        yield from _check_after(model, state, f"{event.NAME} on {row}", target)


def _check_after(
    model: ModelUnderTest, state: State, what: str, target: JobState | None
) -> Iterator[str]:
    if _state_in(state) != target:
        yield f"{what}: `apply` led to {_state_in(state).name}, the Machine to {_name(target)}"
    for violation in model.violations(state):
        yield f"{what}: {violation}"


def _state_in(state: State) -> JobState:
    row = state.jobs.get(NAMES[0])
    if row is not None:
        return row.state
    tombstone = state.tombstone(NAMES[0])
    if tombstone is None:
        return JobState.NEW
    completed = tombstone.outcome == JobState.COMPLETED
    return JobState.COMPLETED if completed else JobState.FORGOTTEN


def _commands(row: JobRow) -> Iterator[AnyCommand]:
    name = NAMES[0]
    yield Enqueue((NewJob(name, _RAW, b"null", SAME),))
    yield from (Dispatch(name, 1, prefetched) for prefetched in (True, False))
    yield from (DispatchBatch([name], 1, prefetched) for prefetched in (True, False))
    yield from (Cancel(name), Requeue(name), Requeue(name, b"1"), Discard(name))
    current = token_of(0, row.label)
    for token in (current, current + len(NAMES)):
        yield Complete(name, token, b"null")
        yield CompleteBatch([Done(name, token, b"null")] * 2)
        yield Complete(name, token, b"null", (NewJob(name, _RAW, b"1", SAME),))
        yield from (Fail(name, token, "", retry=retry) for retry in (True, False))
        yield Expire(name, token)
        yield from (Release(name, token, cause) for cause in (Cause.SNOOZE, Cause.DRAIN))
        yield ConfirmCancel(name, token)
    yield from (Boot(frozenset(t), cut) for t in ((), (current,)) for cut in (True, False))


def _check_command(
    model: ModelUnderTest,
    row: JobRow,
    command: AnyCommand,
    targets: dict[tuple[Trigger, JobState], JobState | None],
) -> Iterator[str]:
    state, what = state_of(row), f"{type(command).__name__} on {row}"
    decision = model.decide(state, command, NOW_MS)
    if isinstance(decision, Rejection):
        if decision.code not in REJECTIONS:
            yield f"{what}: the refusal {decision.code} is not known"
        return
    frame = JudgedFrame(NOW_MS, state.last_seq + 1, decision)
    for event in decision:
        reason = model.legal(state, event, frame)
        if reason is not None:
            yield f"{what}: `decide` returned an illegal {event.NAME}: {reason}"
            return
        before = _state_in(state)
        model.apply(state, event, NOW_MS)
        if isinstance(event, JobEvent):
            assert event.TRIGGER is not None
            target = targets[event.TRIGGER, before]
            yield from _check_after(model, state, f"{what}, {event.NAME}", target)
            if isinstance(event, Enqueued) and event.job != NAMES[0]:
                yield f"{what}: it enqueued a stranger"


def cells_result(report: CellsReport) -> CheckResult:
    """Returns the outcome as a row of the report."""
    return CheckResult(
        name="Machine, table, `legal`, `apply` and `decide` agree on every cell",
        kind="cells",
        tool="beaver_spec.explorer.cells",
        bounds={
            "states": len(JobState),
            "events": len(Trigger),
            "max_attempts": ATTEMPTS,
            "snoozes": f"0 and {SNOOZES_MAX}",
        },
        verdict=Verdict.VIOLATED if report.wrong else Verdict.HOLDS,
        states=report.shapes,
        seconds=report.seconds,
        details=[
            (
                f"{len(report.cells)} cells; {report.shapes} rows; {report.events} pairs of row "
                f"and event; {report.commands} pairs of row and command"
            ),
            *report.wrong[:20],
        ],
    )
