"""The thread executor: several attempts at once in one worker, stopped softly.

N threads take attempts from one inbox, one thread at a time, so that starts follow the
order of the tokens.  The main thread runs no user code: it watches limits and cancels.
A soft stop cannot reach code that sits in a C call; then the server kills this worker
after a grace, and gives the attempts of the other threads back.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import traceback
from typing import Final

from beaver.structs.messages import Attempt, Outcome
from beaver.task import context as contexts
from beaver.task.context import JobContext
from beaver.task.directives import CancelRequested, TimeLimit
from beaver.workers.attempts import Steps, close
from beaver.workers.inbox import Inbox, OutcomeSender
from beaver.workers.stopping import Stoppable, TaskStop, ThreadStop

_INTERNAL_ERROR: Final = 70
_NEVER: Final = float("inf")


class ThreadAttempt:
    """An attempt that runs in one of the threads."""

    __slots__ = ("context", "deadline_s", "stoppable")

    def __init__(self, context: JobContext, stoppable: Stoppable, deadline_s: float) -> None:
        self.context = context
        self.stoppable = stoppable
        self.deadline_s = deadline_s


class Threads:
    """Runs attempts in `concurrency` threads until the inbox ends."""

    def __init__(self, inbox: Inbox, outbox: OutcomeSender, steps: Steps, concurrency: int) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._steps = steps
        self._taking = threading.Lock()
        self._lock = threading.Lock()
        self._running: dict[int, ThreadAttempt] = {}
        self._cancelled: set[int] = set()
        self._watched_until_s = _NEVER
        self._at_work = concurrency
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._threads = [
            threading.Thread(target=self._work, name=f"beaver-{number}", daemon=True)
            for number in range(1, concurrency + 1)
        ]

    def run(self) -> None:
        self._outbox.announce()
        for thread in self._threads:
            thread.start()
        poll = select.poll()
        poll.register(self._outbox.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while self._at_work:
            wait_s = self._stop_overdue()
            for fd, _ in poll.poll(None if wait_s == _NEVER else wait_s * 1000 + 1):
                if fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                else:
                    self._cancel(self._outbox.cancelled_tokens())

    # -- in the main thread -----------------------------------------------------------------

    def _stop_overdue(self) -> float:
        """Stops what ran over its limit; returns seconds until the next limit."""
        now_s = time.monotonic()
        overdue = []
        with self._lock:
            self._watched_until_s = _NEVER
            for running in self._running.values():
                if running.deadline_s <= now_s:
                    overdue.append(running)
                    running.deadline_s = _NEVER
                else:
                    self._watched_until_s = min(self._watched_until_s, running.deadline_s)
            wait_s = self._watched_until_s - now_s
        for running in overdue:
            running.stoppable.stop(TimeLimit)
        return wait_s

    def _cancel(self, tokens: list[int]) -> None:
        found = []
        with self._lock:
            for token in tokens:
                running = self._running.get(token)
                if running is not None:
                    found.append(running)
                elif token > self._inbox.started:
                    self._cancelled.add(token)
        for running in found:
            running.context.cancel_noticed = True
            running.stoppable.stop(CancelRequested)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    # -- in the job threads -----------------------------------------------------------------

    def _work(self) -> None:
        try:
            while True:
                with self._taking:
                    attempt = self._inbox.take()
                if attempt is None:
                    break
                outcome = self._run(attempt)
                self._outbox.send(outcome)
        except BaseException:  # noqa: BLE001 -- a bug of ours: the worker must not limp on
            traceback.print_exc()
            os._exit(_INTERNAL_ERROR)
        # The count, not the thread's end: it goes down before the main thread looks again.
        with self._lock:
            self._at_work -= 1
        self._wake()

    def _run(self, attempt: Attempt) -> Outcome:
        context = JobContext(attempt, time.monotonic())
        is_async = self._steps.is_async(attempt.task)
        stoppable = TaskStop() if is_async else ThreadStop()
        self._enter(context, attempt, stoppable)
        contexts.enter(context)
        try:
            if isinstance(stoppable, ThreadStop):
                outcome = stoppable.run(
                    lambda: self._call(context),
                    lambda stop: self._steps.failed(context, stop),
                )
            else:
                outcome = self._call_async(context, stoppable)
            return close(context, outcome)
        finally:
            contexts.enter(None)
            with self._lock:
                del self._running[attempt.token]

    def _enter(self, context: JobContext, attempt: Attempt, stoppable: Stoppable) -> None:
        deadline_s = _NEVER
        if attempt.timeout_ms:
            deadline_s = time.monotonic() + attempt.timeout_ms / 1000
        with self._lock:
            self._running[attempt.token] = ThreadAttempt(context, stoppable, deadline_s)
            sooner = deadline_s < self._watched_until_s
            cancelled = attempt.token in self._cancelled
            self._cancelled.discard(attempt.token)
        if cancelled:
            context.cancel_noticed = True
            stoppable.stop(CancelRequested)
        if sooner:
            self._wake()

    def _call(self, context: JobContext) -> Outcome:
        try:
            call = self._steps.prepare(context)
            value = call.function(*call.args, **call.kwargs)
            return self._steps.settle(context, value)
        except BaseException as error:  # noqa: BLE001 -- user code may raise anything
            return self._steps.failed(context, error)

    def _call_async(self, context: JobContext, stoppable: TaskStop) -> Outcome:
        import asyncio

        try:
            call = self._steps.prepare(context)
            coroutine = call.function(*call.args, **call.kwargs)
            return self._steps.settle(context, asyncio.run(stoppable.run(coroutine)))
        except BaseException as error:  # noqa: BLE001 -- user code may raise anything
            return self._steps.failed(context, error)
