"""Converts each `Rejection` of the model to the error that a client gets.

The model refuses with a value and facts; here they become a sentence and a class, the same
whether a server or a client without one has decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from beaver.errors import BeaverError, Conflict, InvalidInput, NotFound
from beaver.limits import hint
from beaver.text.foreign import counted
from beaver_model.commands import REJECTIONS, Rejection
from beaver_model.lifecycle import CELLS
from beaver_model.states import JobState, Trigger

_Facts = Mapping[str, Any]

_WORDS: Final = (
    ("cancel", Trigger.CANCEL),
    ("retry", Trigger.REQUEUE),
    ("discard", Trigger.DISCARD),
)
"""Operations on a job, by the names of the commands."""


def error_of(rejection: Rejection) -> BeaverError:
    """Returns the error that stands for a rejection."""
    error = _ERRORS.get(rejection.code, partial(_unforeseen, rejection.code))(rejection.facts)
    error.facts = rejection.facts
    return error


def _unforeseen(code: str, facts: _Facts) -> BeaverError:
    job = facts.get("job")
    meaning = REJECTIONS.get(code, code)
    return Conflict(f"job {job}: {meaning}" if job else meaning)


def _conflict(facts: _Facts) -> BeaverError:
    return Conflict(
        f"job {facts['job']} (index {facts['index']}) exists since seq {facts['seq']} with "
        "different content; nothing was enqueued\n"
        "Send it with another id, or exactly as before."
    )


def _finished(facts: _Facts) -> BeaverError:
    outcome = _word(facts["outcome"])
    return Conflict(f"job {facts['job']} has finished ({outcome}); it can no longer be changed")


def _wrong_state(facts: _Facts) -> BeaverError:
    state = facts["state"]
    possible = ", ".join(
        word for word, trigger in _WORDS if CELLS[trigger][JobState[state]] is not None
    )
    return Conflict(f"job {facts['job']} is {_word(state)}; possible now: {possible}")


def _bad_value(facts: _Facts) -> BeaverError:
    name, value = next((k, v) for k, v in facts.items() if k not in ("min", "max"))
    least, most = facts.get("min"), facts.get("max")
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    return InvalidInput(f"{name} is {value}; it must be {bounds}")


def _word(state: str) -> str:
    return "discarded" if state == "FORGOTTEN" else state.lower()


_ERRORS: Final[dict[str, Callable[[_Facts], BeaverError]]] = {
    "no_such_job": lambda facts: NotFound(f"no job {facts['job']}"),
    "conflict": _conflict,
    "repeated": lambda facts: InvalidInput(
        f"job {facts['job']} stands twice in one batch (again at index {facts['index']}); "
        "nothing was enqueued"
    ),
    "batch_too_large": lambda facts: InvalidInput(
        f"{counted(facts['jobs'], 'job')} in one commit; at most {facts['max']} fit; "
        f"{hint('batch_jobs')}"
    ),
    "finished": _finished,
    "wrong_state": _wrong_state,
    "too_many_queues": lambda facts: InvalidInput(
        f"queue {facts['queue']} would be one more than the {facts['max']} that a store holds "
        "beside the default, and each has jobs or settings of its own; "
        f"{hint('queues')}"
    ),
    "bad_value": _bad_value,
}
