"""The process executor: one attempt at a time, stopped from outside by killing the worker.

No thread and no event loop of ours runs beside the user's code, so whatever it does, it
does it alone; an `async def` task gets an event loop of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from beaver.structs.messages import Outcome
from beaver.task.context import JobContext, enter_alone
from beaver.workers.attempts import Steps, close
from beaver.workers.inbox import Inbox, OutcomeSender


def run(inbox: Inbox, outbox: OutcomeSender, steps: Steps) -> None:
    """Runs attempts until the inbox ends."""
    cancelled: set[int] = set()

    def poll_cancelled(token: int) -> bool:
        cancelled.update(outbox.cancelled_tokens())
        return token in cancelled

    outbox.announce()
    while (attempt := inbox.take()) is not None:
        context = JobContext(attempt, time.monotonic(), poll_cancelled)
        outbox.send(run_attempt(steps, context))
        cancelled.clear()


def run_attempt(
    steps: Steps,
    context: JobContext,
    on_raised: Callable[[BaseException], None] = lambda _: None,
) -> Outcome:
    """Runs one attempt from the first step to the last, whatever happens in it.

    Args:
        steps: The application's tasks.
        context: Of the attempt.
        on_raised: Told what the user code raised.
    """
    enter_alone(context)
    try:
        try:
            call = steps.prepare(context)
            value = call.function(*call.args, **call.kwargs)
            if call.is_async:
                import asyncio

                value = asyncio.run(value)
            outcome = steps.settle(context, value)
        except BaseException as error:  # noqa: BLE001 -- user code may raise anything
            on_raised(error)
            outcome = steps.failed(context, error)
        return close(context, outcome)
    finally:
        enter_alone(None)
