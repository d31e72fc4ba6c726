"""Which jobs an action on many is for: those that fit the filters, in states that allow it.

What may not live here: finished jobs; no action is possible on them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, NamedTuple

import msgspec

from beaver.errors import InvalidInput
from beaver.inspect.finding import FINISHED, SEQ_MAX, STATES
from beaver.structs.questions import CameIn, Wanted, Where
from beaver.text.near import unknown_name
from beaver_model import State
from beaver_model.commands import AnyCommand, Cancel, Discard, Requeue
from beaver_model.rows import Row
from beaver_model.states import JobState

SLICE_JOBS: Final = 500
"""Jobs looked at between two pauses."""
TEXT_CHARS_MAX: Final = 4_096
"""Characters of a text that is looked for."""


class Action(NamedTuple):
    """What can be done to many jobs."""

    states: frozenset[JobState]
    """The states in which it is possible."""
    command: Callable[[str, str], AnyCommand]
    """Returns the command for a job, by somebody."""


ACTIONS: Final[dict[str, Action]] = {
    "cancel": Action(frozenset({JobState.PENDING, JobState.IN_FLIGHT}), Cancel),
    "retry": Action(
        frozenset({JobState.DEAD, JobState.CANCELLED}), lambda job, by: Requeue(job, None, by)
    ),
    "discard": Action(frozenset({JobState.PENDING, JobState.DEAD, JobState.CANCELLED}), Discard),
}


class Member(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A job that an action is for, in one of its lives."""

    job: str
    seq: int
    generation: int


def check(action: str, where: Where) -> None:
    """Checks what is asked for; filters that fit nothing are no error.

    Raises:
        InvalidInput: There is no such action, or no such state; a value is out of bounds; or there
            is no filter, or an empty one, which must not pass for none: it would match every job.
    """
    if action not in ACTIONS:
        raise InvalidInput(
            f"no action {action!r:.80}; there are {', '.join(ACTIONS)}"
            f"{unknown_name(action, tuple(ACTIONS))}"
        )
    if where == Where():
        raise InvalidInput(
            "where: at least one filter is needed, since none would match every job; known are "
            + ", ".join(Where.__struct_fields__)
        )
    for name in Where.__struct_fields__:
        if getattr(where, name) == "":
            raise InvalidInput(
                f"{name}: an empty filter fits no job; say which, or leave it out to mean all"
            )
    if where.state is not None and where.state not in STATES:
        hint = unknown_name(where.state, STATES)
        raise InvalidInput(
            f"no state {where.state!r:.80}; the states are {', '.join(STATES)}{hint}"
        )
    if where.text is not None and len(where.text) > TEXT_CHARS_MAX:
        raise InvalidInput(f"text: at most {TEXT_CHARS_MAX} characters are looked for")
    for time_ms in (where.since_ms, where.until_ms):
        if time_ms is not None and not 0 <= time_ms <= SEQ_MAX:
            raise InvalidInput(f"a time of {time_ms} ms is out of bounds")


def matching(
    state: State, action: str, where: Where, first_seq: int, last_seq: int
) -> Generator[list[Member], None, None]:
    """Yields the jobs that are meant, some at a time; the state may go on in between.

    Each is as it is when it is looked at.

    Args:
        state: The state.
        action: What is to be done.
        where: Filters that `check` has let pass.
        first_seq: Of the ENQUEUE, inclusive, as `first_since` finds it by the time.
        last_seq: The same.
    """
    states = ACTIONS[action].states
    if where.state is not None:
        states &= frozenset() if where.state in FINISHED else {JobState[where.state.upper()]}
    rows = list(state.jobs.values()) if states else []
    for at in range(0, len(rows), SLICE_JOBS):
        found = []
        for seen in rows[at : at + SLICE_JOBS]:
            # Another row may stand for the job by now, or none.
            row = state.jobs.get(seen.id)
            if (
                row is not None
                and row.seq == seen.seq
                and row.state in states
                and first_seq <= row.seq <= last_seq
                and _fits(row, where)
            ):
                found.append(Member(row.id, row.seq, generation_of(row)))
        yield found


def _fits(row: Row, where: Where) -> bool:
    spec, extra, text = row.spec, row.extra, where.text
    return (
        where.queue in (None, spec.queue)
        and where.task in (None, spec.task)
        and (where.tag is None or (extra is not None and where.tag in extra.tags))
        and (where.parent is None or (extra is not None and extra.parent == where.parent))
        and (
            text is None
            or text.encode() in row.payload
            or (extra is not None and text in extra.error)
        )
    )


def generation_of(row: Row) -> int:
    """Returns how often a job was requeued."""
    return 0 if row.extra is None else row.extra.generation


Asking = Generator[tuple[Wanted, int], CameIn, int]
"""Questions to the log."""


def answered(asking: Asking, answer: Callable[[Wanted, int], CameIn]) -> int:
    """Returns what questions come to."""
    try:
        question = next(asking)
        while True:
            question = asking.send(answer(*question))
    except StopIteration as end:
        return int(end.value)


def first_since(time_ms: int, until_seq: int) -> Asking:
    """Finds the first job that came in at a time or later, by questions to the log.

    Args:
        time_ms: The time.
        until_seq: A seq that is durable.

    Yields:
        Which jobs are wanted, and behind which seq; one is enough.  The answer is sent in.

    Returns:
        Its seq; one above all where there is none.
    """
    after_seq, wanted = 0, Wanted(since_ms=time_ms)
    while after_seq < until_seq:
        found = yield wanted, after_seq
        if found.jobs:
            return found.jobs[0][0]
        if after_seq + 1 < found.first_seq:
            after_seq = found.first_seq - 1  # What the log no longer tells of came in before.
        elif found.come_to <= after_seq:
            break
        else:
            after_seq = found.come_to
    return until_seq + 1
