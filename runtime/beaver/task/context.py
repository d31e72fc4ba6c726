"""The context of a running attempt: what a job may know of itself, and `ctx.enqueue`.

A function gets it by a parameter annotated `JobContext`, or anywhere below by `current()`.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Unpack

from beaver.errors import InvalidInput
from beaver.request.job_options import JobOptions, given_of, takes_options
from beaver.structs.messages import Attempt, Request
from beaver_model.bounds import CHILDREN_BYTES_MAX, CHILDREN_MAX

_CHILD_OVERHEAD_BYTES: Final = 128
_TAG_OVERHEAD_BYTES: Final = 2

_current: contextvars.ContextVar[JobContext | None] = contextvars.ContextVar("beaver_job")


class Enqueueable(Protocol):
    """An object that turns a call into a job: a task, or a task with options."""

    def request(self, *args: Any, **kwargs: Any) -> Request: ...


class JobContext:
    """One attempt of a job, as its own code sees it."""

    __slots__ = (
        "_attempt",
        "_child_bytes",
        "_poll_cancelled",
        "_started_s",
        "cancel_noticed",
        "children",
        "lines",
    )

    def __init__(
        self,
        attempt: Attempt,
        started_s: float = 0.0,
        poll_cancelled: Callable[[int], bool] | None = None,
    ) -> None:
        self._attempt = attempt
        self._started_s = started_s
        self._poll_cancelled = poll_cancelled
        self._child_bytes = 0
        self.cancel_noticed = False
        self.children: list[Request] = []
        """Jobs to be enqueued with this attempt's ACK."""
        self.lines: dict[int, str] | None = None
        """Begun lines of output by descriptor; `task.output` keeps them here."""

    @property
    def token(self) -> int:
        """Seq of the DISPATCH of this attempt: unique in the store, for ever."""
        return self._attempt.token

    @property
    def job_id(self) -> str:
        return self._attempt.job

    @property
    def attempt(self) -> int:
        """The number of this attempt, 1 for the first."""
        return self._attempt.attempt

    @property
    def max_attempts(self) -> int:
        return self._attempt.max_attempts

    @property
    def queue(self) -> str:
        return self._attempt.queue

    @property
    def task(self) -> str:
        return self._attempt.task

    @property
    def idempotency_key(self) -> str:
        """The same over all attempts of this job, and no other job's."""
        return self._attempt.idempotency_key

    @property
    def tags(self) -> tuple[str, ...]:
        return self._attempt.tags

    @property
    def origin(self) -> int:
        """How the job came in: a `beaver_model.rows.Origin`."""
        return self._attempt.origin

    @property
    def payload(self) -> bytes:
        """The payload as it was sent: JSON."""
        return self._attempt.payload

    @property
    def remaining(self) -> float | None:
        """Seconds until this attempt is stopped; `None` without a limit."""
        if not self._attempt.timeout_ms:
            return None
        return self._started_s + self._attempt.timeout_ms / 1000 - time.monotonic()

    @property
    def deadline(self) -> datetime | None:
        """When this attempt is stopped; `None` without a limit."""
        remaining = self.remaining
        if remaining is None:
            return None
        return datetime.fromtimestamp(time.time() + remaining, UTC)

    @property
    def cancelled(self) -> bool:
        """True once somebody asked for this job to be cancelled: clean up and return."""
        if not self.cancel_noticed and self._poll_cancelled is not None:
            self.cancel_noticed = self._poll_cancelled(self._attempt.token)
        return self.cancel_noticed

    def progress(self, fraction: float, note: str = "") -> None:
        """Reports how far the job is: to the worker's log only, and not durably.

        Args:
            fraction: 0 to 1.
            note: A word on what is done now.
        """
        import logging

        logging.getLogger("beaver.job").info("%3.0f %% %s", 100 * fraction, note)

    def enqueue(self, task: Enqueueable, /, *args: Any, **kwargs: Any) -> str:
        """Enqueues a child in the same commit as this attempt's success; returns its id.

        A failed attempt leaves no children.  A child whose id exists with different content
        fails this attempt for good.

        Args:
            task: A job of the application, or one with options (`send.options(delay=5)`).
            *args: What it is called with.
            **kwargs: The same by name.

        Raises:
            InvalidInput: The child, or the number or bytes of all of them, is out of bounds.
        """
        request = getattr(task, "request", None)
        if request is None:
            by_name = f"; by its name it is ctx.enqueue_json({task!r}, ...)"
            raise InvalidInput(
                "ctx.enqueue: a function declared with @app.job is expected, found "
                f"{task!r:.80}{by_name if isinstance(task, str) else ''}"
            )
        return self._add(request(*args, **kwargs))

    @takes_options
    def enqueue_json(
        self,
        task: str,
        payload: Any = None,
        **options: Unpack[JobOptions],
    ) -> str:
        """Enqueues a child by the name of its task; returns its id.

        Args:
            task: Name of the task.
            payload: Any JSON value: an object becomes keyword arguments.
            **options: Options of the job: see `JobOptions`.

        Raises:
            InvalidInput: As for `enqueue`.
            TypeError: There is no such option.
        """
        from beaver.request.requests import make_request

        given = given_of(options, "JobContext.enqueue_json()")
        return self._add(make_request(task, payload, **given))

    def _add(self, request: Request) -> str:
        if len(self.children) >= CHILDREN_MAX:
            raise _too_many(f"a job may enqueue at most {CHILDREN_MAX} jobs", "children")
        self._child_bytes += child_bytes(request)
        if self._child_bytes > CHILDREN_BYTES_MAX:
            raise _too_many(
                f"the jobs that a job enqueues may have {CHILDREN_BYTES_MAX} bytes together",
                "children_bytes",
            )
        self.children.append(request)
        return request.id


def _too_many(text: str, limit: str) -> InvalidInput:
    from beaver.limits import hint

    return InvalidInput(f"{text}; {hint(limit)}")


def child_bytes(request: Request) -> int:
    """Returns the bytes that a child counts among those of all children of an attempt."""
    size = len(request.payload) + len(request.id) + len(request.options) + _CHILD_OVERHEAD_BYTES
    return size + sum([len(tag.encode()) + _TAG_OVERHEAD_BYTES for tag in request.tags])


_alone: JobContext | None = None


def current() -> JobContext:
    """Returns the context of the job that runs here.

    Raises:
        InvalidInput: No job runs here.
    """
    context = current_or_none()
    if context is None:
        raise InvalidInput("no job runs here; `current()` is for code below a task")
    return context


def current_or_none() -> JobContext | None:
    """Returns the context of the job that runs here, or `None`."""
    return _current.get(None) or _alone


enter: Final = _current.set
"""Makes a context the current one of this thread or coroutine; for executors."""


def enter_alone(context: JobContext | None) -> None:
    """Makes a context the current one of the whole process, threads that a job starts included.

    For the process executor, which runs one job at a time.
    """
    global _alone  # noqa: PLW0603 -- it is the process's, as its standard output is
    _alone = context
