"""Between rows and workers: the attempt that a row stands for, the command of an outcome.

Pure leaves, shared by `outcome_handler` and by `testing`, which runs jobs without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from beaver.dispatch.outcome_checks import fault_of
from beaver.errors import InvalidInput
from beaver.structs.messages import Attempt, Outcome, OutcomeKind, Request
from beaver.text.foreign import cut
from beaver_model.commands import (
    AnyCommand,
    Complete,
    ConfirmCancel,
    Expire,
    Fail,
    NewJob,
    Release,
)
from beaver_model.events import Cause
from beaver_model.rows import Row

# By name: looking up a member of an enumeration takes longer than all the rest.
_OK: Final = OutcomeKind.OK


def attempt_of(row: Row, store: str) -> Attempt:
    """Returns what a worker needs to run the attempt that a row has in flight."""
    spec, extra = row.spec, row.extra
    generation = extra.generation if extra is not None else 0
    return Attempt(
        row.token,
        row.id,
        spec.task,
        row.payload,
        row.attempt,
        spec.max_attempts,
        spec.queue,
        spec.timeout_ms,
        f"{store}-{row.seq}-{generation}",
        spec.origin,
        extra.tags if extra is not None else (),
    )


def command_of(
    outcome: Outcome, to_child: Callable[[Request], NewJob], random: Callable[[], float]
) -> AnyCommand:
    """Returns what to ask of the state for an outcome that a worker reports.

    Nothing in it is taken on trust: what is out of bounds fails the attempt for good.

    Args:
        outcome: How the attempt ended.
        to_child: Resolves a job that it enqueued; raises `InvalidInput`.
        random: Draws the jitter of a delay, in [0, 1).
    """
    job, token, kind = outcome.job, outcome.token, outcome.kind
    if fault := fault_of(outcome):
        return Fail(job, token, cut(fault), cause=Cause.NOT_RETRYABLE, retry=False)
    if kind == _OK:
        if not outcome.children:
            return Complete(job, token, outcome.result)
        try:
            children = tuple(map(to_child, outcome.children))
        except InvalidInput as error:
            return Fail(job, token, cut(str(error)), cause=Cause.CHILD_CONFLICT, retry=False)
        return Complete(job, token, outcome.result, children)
    text = cut(outcome.error)
    if kind == OutcomeKind.FAILED:
        return Fail(job, token, text, random(), delay_ms=outcome.delay_ms)
    if kind == OutcomeKind.SNOOZE:
        return Release(job, token, Cause.SNOOZE, outcome.delay_ms or 0)
    if kind == OutcomeKind.CANCELLED:
        return ConfirmCancel(job, token, Cause.JOB, text)
    if kind == OutcomeKind.TIMED_OUT:
        return Expire(job, token, Cause.TIME_LIMIT, random(), text)
    return Fail(job, token, text, random(), Cause.NOT_RETRYABLE, retry=False)
