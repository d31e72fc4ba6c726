"""Handles: what an enqueue gives back, to follow one job to its end.

A handle is an id with a connection to the store; it holds nothing else, and one made from an id
alone (`app.handle(id)`) does as much.  Each method has an awaited twin with an `a` before
its name, made from the same builder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET

from beaver.client import calls
from beaver.client.calls import Call
from beaver.client.connection import Connection
from beaver.client.reconnecting import HasConnection, awaited, blocking
from beaver.errors import JobFailed, NotFound
from beaver.request.job_options import Duration
from beaver.structs.views import Accepted, EventView, ExplainView, JobView, ResultView
from beaver_model.bounds import PAYLOAD_BYTES_CEILING

R = TypeVar("R")

_ERROR_SHOWN: Final = 500


class Handle(HasConnection, Generic[R]):
    """One job, by its id."""

    __slots__ = ("_decode", "connection", "created", "id", "seq")

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        *,
        seq: int = 0,
        created: bool = False,
        decode: Callable[[bytes], Any] = msgspec.json.decode,
    ) -> None:
        self.connection = connection
        self.id = job_id
        self.seq = seq
        """Seq of its ENQUEUE in the log; 0 where the handle was made from an id."""
        self.created = created
        """False where the job existed already, with the same content."""
        self._decode = decode

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and (self.id, self.connection) == (
            other.id,
            other.connection,
        )

    def __hash__(self) -> int:
        return hash((self.id, self.connection))

    def _result(self, timeout: Duration | None = None) -> Call[R]:
        """Returns the job's result, once it has completed.

        Args:
            timeout: Time after which the wait ends, in seconds, as text (`"5m"`) or as a
                `timedelta`; `None` waits for as long as it takes.

        Raises:
            JobFailed: It died, or was cancelled or discarded.
            WaitTimeout: It has not ended; it goes on.
            NotFound: There is no such job, or its result is no longer kept.
            StoreUnavailable: No server runs, and none came up within a while.
        """
        return calls.wait(self.id, timeout).then(self._value)

    def _value(self, ended: ResultView) -> R:
        if ended.state == "completed":
            value: R = self._decode(bytes(ended.result))
            return value
        if ended.state == "expired":
            raise NotFound(f"job {self.id} completed, but its result is no longer kept")
        raise failed(ended)

    def _status(self) -> Call[JobView]:
        """Returns what is known of the job now: `.state`, `.attempt`, `.waiting`, ..."""
        return calls.show(self.id)

    def _cancel(self) -> Call[str]:
        """Cancels the job, or asks it to stop where it runs; returns its state then.

        A running job ends as `cancelled` once it has stopped, unless it completes first.
        """
        return calls.cancel(self.id)

    def _retry(self, payload: Any = UNSET) -> Call[str]:
        """Runs the job again, dead or cancelled, with all its attempts; returns its state then.

        `requeue` is another name for it: that of the event in the log, and of `app.client`.

        Args:
            payload: Another payload, any JSON; left out, it keeps the one that it has.

        Raises:
            Conflict: It is neither dead nor cancelled.
            NotFound: There is no such job.
            InvalidInput: The payload is no JSON, or out of bounds.
        """
        if payload is UNSET:
            return calls.requeue(self.id)
        from beaver.text import jsontext

        return calls.requeue(self.id, jsontext.encode(payload, PAYLOAD_BYTES_CEILING, "payload"))

    def _discard(self) -> Call[str]:
        """Removes the job for good where it is pending, dead or cancelled; a tombstone stays.

        Raises:
            Conflict: It runs, or has completed.
            NotFound: There is no such job.
        """
        return calls.discard(self.id)

    def _history(self) -> Call[list[EventView]]:
        """Returns the events of the job in the log, as far back as it is kept."""
        return calls.history(self.id)

    def _explain(self) -> Call[ExplainView]:
        """Returns the job's events and why it does not run now."""
        return calls.explain(self.id)

    result = blocking(_result)
    aresult = awaited(_result)
    status = blocking(_status)
    astatus = awaited(_status)
    cancel = blocking(_cancel)
    acancel = awaited(_cancel)
    retry = blocking(_retry)
    aretry = awaited(_retry)
    requeue = retry
    arequeue = aretry
    discard = blocking(_discard)
    adiscard = awaited(_discard)
    history = blocking(_history)
    ahistory = awaited(_history)
    explain = blocking(_explain)
    aexplain = awaited(_explain)


_told: Final[set[str]] = set()
_TOLD_MAX: Final = 1_000


def tell_unknown(made: Accepted) -> None:
    """Logs that no worker of the server knows the task of a job, once for each task."""
    task = made.unknown_task[0]
    if task in _told or len(_told) >= _TOLD_MAX:
        return
    _told.add(task)
    import logging

    logging.getLogger("beaver").warning("%s", made.warning)


def failed(ended: ResultView) -> JobFailed:
    """Returns the error of a job that did not complete."""
    said = ended.error.strip()
    if len(said) > _ERROR_SHOWN:
        said = said[:_ERROR_SHOWN] + "…"
    text = f"job {ended.id} is {ended.state}"
    if ended.cause:
        text += f" ({ended.cause})"
    error = JobFailed(f"{text}: {said}" if said else text)
    error.job, error.state, error.cause, error.error = (
        ended.id,
        ended.state,
        ended.cause,
        ended.error,
    )
    return error
