"""One attempt as a pipeline of named steps, whichever executor runs it.

    find      the task of that name
    decode    its payload
    bind      the payload to the parameters, the context where it is asked for
    call      the user's code (here the executors differ)
    settle    what it returned or raised becomes an `Outcome`

The steps before the call raise; `failed` settles whatever was raised, wherever it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from beaver.errors import BindError, InvalidInput
from beaver.structs.messages import Outcome, OutcomeKind
from beaver.task import output
from beaver.task.builtins import BuiltinTask
from beaver.task.context import JobContext
from beaver.task.directives import (
    Cancel,
    CancelRequested,
    Dead,
    Directive,
    Retry,
    SoftStop,
    TimeLimit,
)
from beaver.task.registry import Registry, Task
from beaver.text.foreign import cut
from beaver.workers import failures
from beaver.workers.returned import encode_result
from beaver_model.bounds import RESULT_BYTES_MAX

_decode_json: Final = msgspec.json.Decoder().decode
_OK: Final = int(OutcomeKind.OK)


class UnknownTask(Exception):
    """This worker does not know the task (it was renamed, or the worker's code is older)."""


class CallPlan(NamedTuple):
    """How a task is called, looked up once."""

    function: Callable[..., Any]
    is_async: bool
    task: Task[..., Any] | None
    """`None` for a built-in, which takes the context alone."""
    context: str | None
    """Name of the parameter that gets the context."""


class Invocation(msgspec.Struct):
    """A call that is ready to be made."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_async: bool


class Steps:
    """The steps of an attempt that do not depend on the executor."""

    def __init__(self, registry: Registry, builtins: dict[str, BuiltinTask]) -> None:
        self._registry = registry
        self._plans: dict[str, CallPlan] = {}
        for name, builtin in builtins.items():
            self._plans[name] = CallPlan(builtin.function, builtin.is_async, None, None)
        for task in registry:
            self._plans[task.name] = _plan(task)

    def is_async(self, task: str) -> bool:
        """True where a call of that task gives a coroutine."""
        plan = self._plans.get(task)
        return plan is not None and plan.is_async

    def prepare(self, context: JobContext) -> Invocation:
        """Finds, decodes and binds.

        Raises:
            UnknownTask: No task has this name here.
            BindError: The payload fits no way of calling the task.
        """
        plan = self._plans.get(context.task)
        if plan is None:
            raise UnknownTask(f"this worker knows no task {context.task!r}")
        if plan.task is None:
            return Invocation(plan.function, (context,), {}, plan.is_async)
        args, kwargs = plan.task.bind(_decode_json(context.payload))
        if plan.context is not None:
            args, kwargs = plan.task.parameters.with_context(args, kwargs, context)
        return Invocation(plan.function, args, kwargs, plan.is_async)

    def settle(self, context: JobContext, value: Any) -> Outcome:
        """Returns the outcome of an attempt that returned `value`."""
        if isinstance(value, Directive):
            return self.failed(context, value)
        try:
            result = encode_result(value)
        except InvalidInput as error:
            # Trying again gives the same: its code has to change, and `beaver retry` runs it then.
            return self._dead(context, str(error))
        if len(result) > RESULT_BYTES_MAX:
            return self._dead(context, _too_large(len(result)))
        attempt = context._attempt  # noqa: SLF001 -- two sides of one thing
        children = tuple(context.children) if context.children else ()
        return Outcome(attempt.token, attempt.job, _OK, result, "", None, children)

    def failed(self, context: JobContext, error: BaseException) -> Outcome:
        """Returns the outcome of an attempt in which `error` was raised."""
        kind, text, delay_ms = OutcomeKind.FAILED, "", None
        if isinstance(error, Directive):
            kind, text, delay_ms = _outcome_of(error)
        elif isinstance(error, SoftStop):
            kind, text = _stopped(error)
        elif isinstance(error, BindError):
            kind, text = OutcomeKind.DEAD, str(error)
        elif isinstance(error, SystemExit):
            text = f"the job called sys.exit({error.code!r})"
        elif isinstance(error, UnknownTask):
            text = str(error)
        else:
            text = failures.describe(error)
        attempt = context._attempt  # noqa: SLF001 -- two sides of one thing
        return Outcome(attempt.token, attempt.job, int(kind), b"null", cut(text), delay_ms)

    def _dead(self, context: JobContext, text: str) -> Outcome:
        return self.failed(context, Dead(text))


def close(context: JobContext, outcome: Outcome) -> Outcome:
    """The last step: ends the job's output and notes how long the attempt took."""
    output.finish(context)
    outcome.elapsed_ms = (time.monotonic() - context._started_s) * 1000  # noqa: SLF001
    return outcome


def _too_large(size: int) -> str:
    from beaver.limits import hint

    return f"the result has {size} bytes; at most {RESULT_BYTES_MAX} are kept; {hint('result')}"


def _plan(task: Task[..., Any]) -> CallPlan:
    return CallPlan(task.function, task.is_async, task, task.parameters.context)


def _outcome_of(error: Directive) -> tuple[OutcomeKind, str, int | None]:
    if isinstance(error, Retry):
        text = error.error
        if not text and error.__cause__ is not None:
            text = failures.describe(error.__cause__)
        return OutcomeKind.FAILED, text or str(error), error.delay_ms
    if isinstance(error, Cancel):
        return OutcomeKind.CANCELLED, str(getattr(error, "reason", "") or ""), None
    if isinstance(error, Dead):
        return OutcomeKind.DEAD, str(error), None
    return OutcomeKind.SNOOZE, str(error), getattr(error, "delay_ms", 0)


def _stopped(error: SoftStop) -> tuple[OutcomeKind, str]:
    if isinstance(error, TimeLimit):
        return OutcomeKind.TIMED_OUT, "the attempt ran over its time limit and was stopped"
    if isinstance(error, CancelRequested):
        return OutcomeKind.CANCELLED, ""
    return OutcomeKind.FAILED, "the attempt was stopped"
