"""How a store is asked: what builds a call of each operation, for every way to ask it.

A `Call` is an operation of the table (`operations`) with its arguments.  The blocking client,
the async one and the serverless one only differ in how they carry it out, so each named method
is written here alone: `Operations` turns the builders into methods, and `await` is needed
exactly where the client is asynchronous.

What may not live here: sockets, files, and what Python users see (`app`, `api.handle`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import MethodType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Self, TypedDict, TypeVar, overload

import msgspec

from beaver.request import operations
from beaver.request.job_options import Duration
from beaver.request.operations import OneJob, Operation
from beaver.structs.messages import Request
from beaver.structs.questions import Where
from beaver.structs.views import (
    Accepted,
    BulkView,
    EventView,
    ExplainView,
    JobView,
    QueueView,
    ReloadView,
    ResultView,
    StatusView,
)
from beaver.text.durations import parse_duration_ms, parse_time_ms
from beaver.text.names import check_id, check_name

if TYPE_CHECKING:
    import inspect

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

LIST_LIMIT_DEFAULT: Final = 100


class Call(msgspec.Struct, Generic[T], frozen=True):
    """One question or change, ready to be carried out."""

    operation: Operation[Any]
    body: Any
    finish: Callable[[Any], T]
    """Turns the answer into what the caller gets, or raises."""

    @property
    def jobs(self) -> int:
        """Jobs that it asks to take in."""
        return len(self.body.jobs) if self.operation is operations.ENQUEUE else 0

    def then(self, finish: Callable[[T], U]) -> Call[U]:
        """Returns the same call, whose result goes through `finish`."""
        first = self.finish
        return Call(self.operation, self.body, lambda value: finish(first(value)))


class Synchronous:
    """A way to carry out calls that blocks until the answer is there."""

    def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        raise NotImplementedError

    def enqueue_each(self, batches: Iterable[Sequence[Request]]) -> Iterator[list[Accepted]]:
        """Takes in batches, each as `enqueue` does; yields the answer to each, in order.

        Where one is refused, later batches that were already sent may have been accepted.
        """
        return map(self.call, map(enqueue, batches))

    def close(self) -> None:
        """Ends the connections that it holds; without any it does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Asynchronous:
    """A way to carry out calls that is awaited."""

    async def call(self, call: Call[T]) -> T:
        """Carries out one call; raises the `BeaverError` that answers it."""
        raise NotImplementedError


class Method(Generic[P, T]):
    """Makes a builder of calls a method of every client."""

    def __init__(self, build: Callable[P, Call[T]]) -> None:
        self._build = build
        self.__doc__, self.__module__ = build.__doc__, build.__module__
        self.__name__, self.__qualname__ = build.__name__, f"Operations.{build.__name__}"

    def __call__(self, client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        return client.call(self._build(*args, **kwargs))

    @property
    def __signature__(self) -> inspect.Signature:
        """The builder's parameters after the client, for `inspect`."""
        import inspect

        own = inspect.signature(self._build)
        client = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        returned = str(own.return_annotation).removeprefix("Call[").removesuffix("]")
        return own.replace(
            parameters=[client, *own.parameters.values()], return_annotation=returned
        )

    @overload
    def __get__(self, client: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, client: Synchronous, owner: type[Any]) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: Asynchronous, owner: type[Any]) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, client: Synchronous | Asynchronous | None, owner: type[Any]) -> Any:
        return self if client is None else MethodType(self, client)


def _same(value: T) -> T:
    return value


def _asks(operation: Operation[T], body: msgspec.Struct) -> Call[T]:
    return Call(operation, body, _same)


@overload
def enqueue(requests: Sequence[Request]) -> Call[list[Accepted]]: ...
@overload
def enqueue(requests: Sequence[Request], finish: Callable[[list[Accepted]], T]) -> Call[T]: ...
def enqueue(requests: Sequence[Request], finish: Callable[[Any], Any] = _same) -> Call[Any]:
    """Takes in jobs with one commit, all or none; durable on return.

    A job that exists with the same content is a no-op (`created` is false). After `ServerGone` the
    outcome is unknown; resending the same requests is safe.

    Args:
        requests: At most 10,000, from `job.request(...)` or `app.request(...)`.
        finish: Turns the answers into what is returned.

    Raises:
        Conflict: An id exists with different content; nothing was enqueued.
        QueueFull, DiskFull: There is no room; nothing was enqueued.
    """
    return Call(operations.ENQUEUE, operations.Jobs(list(requests)), finish)


def status() -> Call[StatusView]:
    """Returns the whole queue at a glance."""
    return _asks(operations.STATUS, operations.Nothing())


def list_jobs(
    state: str = "",
    queue: str = "",
    task: str = "",
    after_seq: int = 0,
    limit: int = LIST_LIMIT_DEFAULT,
    tag: str = "",
    since: datetime | str | int | None = None,
    until: datetime | str | int | None = None,
) -> Call[list[JobView]]:
    """Returns jobs in the order in which they came in, from after `after_seq`.

    Each is as it was when it was looked at: a list of many is no single moment.  Jobs that
    are `completed` or `discarded` come from the log, in the order in which they ended: page on
    with the `end_seq` of the last one.  `as_of_seq` of each says up to which seq the list goes.

    Args:
        state: A state; without one, all that have not completed and are not discarded.
        queue: Only this queue.
        task: Only this task.
        after_seq: Only jobs that came in, or ended, after this seq.
        limit: At most so many; fewer may come, none says that there are no more.
        tag: Only jobs with this tag.
        since: Only jobs that finished at this time or later: a `datetime`, ISO 8601, or ms.
        until: Only jobs that finished before.

    Raises:
        InvalidInput: No such state, no name, too large a limit, or a time for jobs that do not
            finish.
        NotFound: No such queue.
    """
    for name, what in ((queue, "queue"), (task, "task"), (tag, "tag")):
        if name != "":
            check_name(name, what)
    since_ms = 0 if since is None else parse_time_ms(since, "since")
    until_ms = 0 if until is None else parse_time_ms(until, "until")
    wanted = operations.Listing(state, queue, task, after_seq, limit, tag, since_ms, until_ms)
    return _asks(operations.LIST, wanted)


def show(job: str) -> Call[JobView]:
    """Returns one job as it is now.

    Args:
        job: Its id.

    Raises:
        InvalidInput: It is no id.
        NotFound: No such job.
    """
    return _asks(operations.SHOW, OneJob(check_id(job)))


def explain(job: str) -> Call[ExplainView]:
    """Returns a job, its events, and why it does not run now.

    Args:
        job: Its id.

    Raises:
        InvalidInput: It is no id.
        NotFound: No such job, and no event of it is kept.
    """
    return _asks(operations.EXPLAIN, OneJob(check_id(job)))


def history(job: str) -> Call[list[EventView]]:
    """Returns the events of a job that are kept, in order.

    Args:
        job: Its id.

    Raises:
        InvalidInput: It is no id.
        NotFound: No such job, and no event of it is kept.
    """
    return _asks(operations.HISTORY, OneJob(check_id(job)))


def wait(job: str, timeout: Duration | None = None) -> Call[ResultView]:
    """Returns how a job ended, once it has.

    Args:
        job: Its id.
        timeout: Time after which the wait ends, in seconds, as text (`"5m"`) or as a
            `timedelta`; `None` waits for ever.

    Raises:
        NotFound: No such job.
        WaitTimeout: It goes on.
    """
    if timeout is None:
        timeout_ms = -1
    elif isinstance(timeout, (int, float)) and timeout <= 0:
        timeout_ms = 0  # A remainder of another limit.
    else:
        timeout_ms = parse_duration_ms(timeout, "timeout")
    return _asks(operations.WAIT, operations.Wait(check_id(job), timeout_ms))


def cancel(job: str) -> Call[str]:
    """Cancels a job, or asks a running one to stop; returns its state then.

    Args:
        job: Its id.

    Raises:
        InvalidInput: It is no id.
        NotFound: No such job.
        Conflict: It has ended.
    """
    return _asks(operations.CANCEL, OneJob(check_id(job)))


def requeue(job: str, payload: bytes | None = None) -> Call[str]:
    """Runs a dead or cancelled job again, with all its attempts; returns its state then.

    Args:
        job: Its id.
        payload: Another payload, as JSON text; without one it keeps its own.

    Raises:
        NotFound: No such job.
        Conflict: It is neither dead nor cancelled.
        InvalidInput: The payload is no JSON, or out of bounds.
    """
    return _asks(operations.REQUEUE, operations.Again(check_id(job), payload))


def discard(job: str) -> Call[str]:
    """Removes a job that is pending, dead or cancelled; a tombstone stays.

    Args:
        job: Its id.

    Raises:
        InvalidInput: It is no id.
        NotFound: No such job.
        Conflict: It runs, or has completed.
    """
    return _asks(operations.DISCARD, OneJob(check_id(job)))


def set_queue(
    queue: str,
    paused: bool | None = None,
    weight: int | None = None,
    bytes_max: int | None = None,
    durable_dispatch: bool | None = None,
) -> Call[QueueView]:
    """Changes settings of a queue; `None` keeps a value.

    Args:
        queue: Its name; it need not have had a job.
        paused: Its jobs wait until it is resumed.
        weight: Its share of the slots, in proportion to the others': 1 to 1,000.
        bytes_max: Bound on the bytes of its unfinished jobs; 0 is none.
        durable_dispatch: Its jobs start only once their DISPATCH is on disk.

    Raises:
        InvalidInput: A value is out of its bounds.
    """
    check_name(queue, "queue")
    given = operations.QueueSettings(queue, paused, weight, bytes_max, durable_dispatch)
    return _asks(operations.SET_QUEUE, given)


class BulkFilters(TypedDict, total=False):
    """Which jobs an action on many is for: those that fit all of these."""

    state: str
    queue: str
    task: str
    tag: str
    parent: str
    """Children of this job."""
    text: str
    """Jobs with this in their payload or error."""
    since: datetime | str | int
    """Jobs that came in at this time or later: a `datetime`, ISO 8601, or ms."""
    until: datetime | str | int
    """Jobs that came in before."""
    dry_run: bool
    """Only count them."""


def bulk(
    action: str,
    *,
    state: str | None = None,
    queue: str | None = None,
    task: str | None = None,
    tag: str | None = None,
    parent: str | None = None,
    text: str | None = None,
    since: datetime | str | int | None = None,
    until: datetime | str | int | None = None,
    dry_run: bool = False,
) -> Call[BulkView]:
    """Cancels, retries or discards all jobs that fit every filter; at least one is needed.

    Which jobs are meant is settled, and on disk, on return; a server then changes them in the
    background, also after a restart (`bulk_status` tells how far it is).  Without a server all is
    done on return.  Jobs whose state forbids the action are not meant.

    Args:
        action: `cancel`, `retry` or `discard`.
        state: Only jobs in this state.
        queue: Only this queue.
        task: Only this task.
        tag: Only jobs with this tag.
        parent: Only children of this job.
        text: Only jobs with this in their payload or error.
        since: Only jobs that came in at this time or later: a `datetime`, ISO 8601, or ms.
        until: Only jobs that came in before.
        dry_run: Only count them.

    Raises:
        InvalidInput: No such action, no filter, or a wrong one; or too many jobs fit.
        StoreUnavailable: There are too many such actions now.
    """
    since_ms = None if since is None else parse_time_ms(since, "since")
    until_ms = None if until is None else parse_time_ms(until, "until")
    where = Where(state, queue, task, tag, parent, text, since_ms, until_ms)
    return _asks(operations.BULK, operations.Many(action, where, dry_run))


def bulk_status(bulk: str) -> Call[BulkView]:
    """Returns how far an action on many jobs is.

    Args:
        bulk: Its id.

    Raises:
        NotFound: There is none; the last hundred that are done are kept.
        NoServer: No server runs.
    """
    return _asks(operations.BULK_STATUS, operations.OneBulk(bulk))


def reload() -> Call[ReloadView]:
    """Has the server start workers with code and settings as they are now.

    Raises:
        InvalidInput: The application cannot be imported, or a setting is wrong; the former
            workers serve on.
    """
    return _asks(operations.RELOAD, operations.Nothing())


class Operations:
    """The named methods of every client."""

    enqueue = Method(enqueue)
    status = Method(status)
    list_jobs = Method(list_jobs)
    show = Method(show)
    explain = Method(explain)
    history = Method(history)
    wait = Method(wait)
    cancel = Method(cancel)
    requeue = Method(requeue)
    discard = Method(discard)
    set_queue = Method(set_queue)
    bulk = Method(bulk)
    bulk_status = Method(bulk_status)
    reload = Method(reload)
