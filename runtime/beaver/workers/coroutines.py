"""The async executor: many attempts at once in one event loop, stopped by cancellation.

The loop takes attempts while it has room.  A plain `def` task runs in a thread beside it,
so that it does not hold up the others, and is stopped as in the thread executor.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from beaver.structs.messages import Attempt, Outcome
from beaver.task import context as contexts
from beaver.task.context import JobContext
from beaver.task.directives import CancelRequested, TimeLimit
from beaver.workers.attempts import Invocation, Steps, close
from beaver.workers.inbox import Inbox, OutcomeSender
from beaver.workers.stopping import Stoppable, TaskStop, ThreadStop


class CoroutineAttempt(NamedTuple):
    """An attempt that runs now."""

    context: JobContext
    stoppable: Stoppable


class Coroutines:
    """Runs up to `concurrency` attempts at once until the inbox ends."""

    def __init__(self, inbox: Inbox, outbox: OutcomeSender, steps: Steps, concurrency: int) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._steps = steps
        self._concurrency = concurrency
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="beaver")
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[int, CoroutineAttempt] = {}
        self._cancelled: set[int] = set()
        self._listening = False

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop.add_reader(self._outbox.fileno(), self._cancel)
        self._outbox.announce()
        self._listen()
        await self._ended

    # -- taking attempts in -----------------------------------------------------------------

    def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._loop.add_reader(self._inbox.fileno(), self._take)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._inbox.fileno())

    def _take(self) -> None:
        while len(self._tasks) < self._concurrency:
            try:
                attempt = self._inbox.take(wait=False)
            except BlockingIOError:
                return
            if attempt is None:
                self._pause()
                self._end_if_idle()
                return
            task = self._loop.create_task(self._run(attempt))
            self._tasks.add(task)
            task.add_done_callback(self._done)
        self._pause()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if not self._ended.done():  # a bug of ours: the worker must not limp on
                self._ended.set_exception(error)
        elif self._inbox.has_enough():  # no permit may ever come that would lead to `_take`
            self._end_if_idle()
        else:
            self._listen()

    def _end_if_idle(self) -> None:
        if not self._tasks and not self._ended.done():
            self._ended.set_result(None)

    # -- running them -----------------------------------------------------------------------

    async def _run(self, attempt: Attempt) -> None:
        context = JobContext(attempt, time.monotonic())
        contexts.enter(context)
        try:
            call = self._steps.prepare(context)
            if call.is_async:
                outcome = await self._await(context, call)
            else:
                outcome = await self._run_in_thread(context, call)
        except BaseException as error:  # noqa: BLE001 -- user code may raise anything
            outcome = self._steps.failed(context, error)
        self._outbox.send(close(context, outcome))

    async def _await(self, context: JobContext, call: Invocation) -> Outcome:
        stoppable = TaskStop()
        timer = self._enter(context, stoppable)
        try:
            value = await stoppable.run(call.function(*call.args, **call.kwargs))
            return self._steps.settle(context, value)
        finally:
            self._leave(context, timer)

    async def _run_in_thread(self, context: JobContext, call: Invocation) -> Outcome:
        """Runs a plain function in a thread.  There are as many threads as attempts."""
        stoppable = ThreadStop()
        timer = self._enter(context, stoppable)

        def in_thread() -> Outcome:
            contexts.enter(context)
            try:
                return stoppable.run(
                    lambda: _call(self._steps, context, call),
                    lambda stop: self._steps.failed(context, stop),
                )
            finally:
                contexts.enter(None)

        try:
            return await self._loop.run_in_executor(self._threads, in_thread)
        finally:
            self._leave(context, timer)

    def _enter(self, context: JobContext, stoppable: Stoppable) -> asyncio.TimerHandle | None:
        token = context.token
        self._running[token] = CoroutineAttempt(context, stoppable)
        if token in self._cancelled:
            self._cancelled.discard(token)
            context.cancel_noticed = True
            stoppable.stop(CancelRequested)
        remaining = context.remaining
        if remaining is None:
            return None
        return self._loop.call_later(remaining, stoppable.stop, TimeLimit)

    def _leave(self, context: JobContext, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
        del self._running[context.token]

    def _cancel(self) -> None:
        for token in self._outbox.cancelled_tokens():
            running = self._running.get(token)
            if running is not None:
                running.context.cancel_noticed = True
                running.stoppable.stop(CancelRequested)
            elif token > self._inbox.started:
                self._cancelled.add(token)


def _call(steps: Steps, context: JobContext, call: Invocation) -> Outcome:
    try:
        return steps.settle(context, call.function(*call.args, **call.kwargs))
    except BaseException as error:  # noqa: BLE001 -- user code may raise anything
        return steps.failed(context, error)
