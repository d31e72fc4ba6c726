"""Checking what a worker says of an attempt, as if user code had written it.

User code may indeed have written it: a job runs in the worker's process and can use all its
descriptors. So no check in a worker counts here; every bound is checked again before an outcome
becomes a command.  An outcome out of bounds fails the attempt for good, with an error that says
what was wrong, and so ends in the log. Only an error text is cut instead, since it tells why the
job failed.

What may not live here: whether the worker holds the attempt at all (`outcome_handler`).
"""

from __future__ import annotations

import math
from typing import Final

from beaver.structs.messages import Outcome, OutcomeKind
from beaver.task.context import child_bytes
from beaver.text import jsontext
from beaver.text.foreign import counted
from beaver_model.bounds import (
    BACKOFF_MS_MAX,
    CHILDREN_BYTES_MAX,
    CHILDREN_MAX,
    RESULT_BYTES_MAX,
)

_OK: Final = OutcomeKind.OK
_KINDS: Final = frozenset(map(int, OutcomeKind))


def fault_of(outcome: Outcome) -> str:
    """Returns what of an outcome is out of its bounds; empty where all is well."""
    if outcome.kind == _OK:
        size = len(outcome.result)
        if size > RESULT_BYTES_MAX:
            return f"the result has {size} bytes; at most {RESULT_BYTES_MAX} are kept"
        if fault := jsontext.fault_of_result(outcome.result):
            return f"the result cannot be kept: {fault}"
        return fault_of_children(outcome) if outcome.children else ""
    if outcome.kind not in _KINDS:
        return f"an outcome of the kind {outcome.kind}, which does not exist"
    delay_ms = outcome.delay_ms
    if delay_ms is not None and not 0 <= delay_ms <= BACKOFF_MS_MAX:
        return f"a delay of {delay_ms} ms; it must lie between 0 and {BACKOFF_MS_MAX} ms"
    return ""


def fault_of_children(outcome: Outcome) -> str:
    """Returns why so many jobs, or such large ones, cannot be enqueued by one attempt."""
    count = len(outcome.children)
    if count > CHILDREN_MAX:
        return f"the job enqueued {counted(count, 'job')}; at most {CHILDREN_MAX} are taken"
    size = sum(map(child_bytes, outcome.children))
    if size > CHILDREN_BYTES_MAX:
        return f"the job enqueued jobs of {size} bytes; at most {CHILDREN_BYTES_MAX} are taken"
    return ""


def running_ms(outcome: Outcome) -> float | None:
    """Returns for how long an attempt ran, as its worker says; `None` where that is nonsense."""
    elapsed_ms = outcome.elapsed_ms
    return elapsed_ms if elapsed_ms >= 0 and math.isfinite(elapsed_ms) else None
