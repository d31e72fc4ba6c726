"""Soft stops: asking running user code to end, from another thread or the event loop.

A soft stop is an exception that is raised inside the user's code.  In a thread that is
`PyThreadState_SetAsyncExc`, which takes effect between two bytecodes only: code that sits
in a C call is not reached, and after a grace the server kills the worker.  A coroutine is
cancelled as asyncio does it.  Either way an attempt is stopped at most once.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from beaver.structs.messages import Outcome
from beaver.task.directives import SoftStop

T = TypeVar("T")


class Stoppable(Protocol):
    """A running attempt that can be stopped softly."""

    def stop(self, reason: type[SoftStop]) -> None:
        """Raises `reason` in it, unless it has ended or was stopped before."""
        ...


class ThreadStop:
    """Stops a plain function, in whichever thread it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread_id = 0
        """The thread that is inside of user code, or 0."""
        self._reason: type[SoftStop] | None = None

    def stop(self, reason: type[SoftStop]) -> None:
        with self._lock:
            if self._reason is None:
                self._reason = reason
                if self._thread_id:
                    _raise_in(self._thread_id, reason)

    def run(
        self, call: Callable[[], Outcome], failed: Callable[[BaseException], Outcome]
    ) -> Outcome:
        """Calls `call`, which handles every exception itself but may be stopped in doing so.

        The stop may be raised at any bytecode until `_leave` has taken back what is still
        pending, so it is caught around that too.  There is at most one.
        """
        outcome: Outcome | None = None
        try:
            try:
                self._enter()
                outcome = call()
            finally:
                self._leave()
        except SoftStop as stop:
            self._leave()
            if outcome is None:
                outcome = failed(stop)
        return outcome

    def _enter(self) -> None:
        with self._lock:
            if self._reason is not None:
                raise self._reason
            self._thread_id = threading.get_ident()

    def _leave(self) -> None:
        with self._lock:
            if self._reason is not None and self._thread_id:
                _raise_in(self._thread_id, None)
            self._thread_id = 0


class TaskStop:
    """Stops a coroutine, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._reason: type[SoftStop] | None = None

    def stop(self, reason: type[SoftStop]) -> None:
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Awaits `coroutine` in the current task.

        Raises:
            SoftStop: It was stopped and let the cancellation pass.
        """
        with self._lock:
            if self._reason is not None:
                coroutine.close()
                raise self._reason
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            return await coroutine
        except asyncio.CancelledError:
            if self._reason is None:
                raise
            raise self._reason from None
        finally:
            with self._lock:
                self._loop = None


def _raise_in(thread_id: int, reason: type[SoftStop] | None) -> None:
    """Raises `reason` in a thread at its next bytecode; `None` takes a pending one back."""
    pointer = ctypes.py_object(reason) if reason is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), pointer)
