"""What each call is over HTTP: the request that it becomes, and what its answer is read as.

One entry in `ASKED` for each operation of the table; a test holds it to that.  Views are made of
what the contract tells; what it does not tell of a job is `None`, as it is where the log holds it
no longer.

What may not live here: connections, and when something is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from beaver import errors
from beaver.client.calls import Call
from beaver.errors import BeaverError, InvalidInput, StoreUnavailable
from beaver.request import operations
from beaver.request.operations import Operation
from beaver.request.requests import request_to_json
from beaver.structs.views import (
    ABSENT,
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
from beaver.transport.framing import error_named

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
URN: Final = "urn:beaver:"
LIST_LIMIT_MAX: Final = 1_000
"""Jobs that one answer lists."""
POLL_MS: Final = 20_000
"""Time that the server holds one request for a result."""
BULK_S: Final = 30.0
"""Time that the jobs of an action on many may take to be found."""
RELOAD_S: Final = 120.0
"""Time that new workers may take to come up."""
_SHOWN_CHARS: Final = 200


class Ask(NamedTuple):
    """A request."""

    method: str
    path: str
    """With its query, percent-encoded."""
    body: bytes = b""
    hold_s: float = 0.0
    """Time for which the server may keep it waiting on purpose."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes


class Pending(Exception):
    """The job that was waited for has not ended yet."""


# -- jobs come in ------------------------------------------------------------------------------


class _Taken(msgspec.Struct):
    id: str
    seq: int
    created: bool
    unknown_task: tuple[str, ...] = ()

    def accepted(self) -> Accepted:
        return Accepted(self.id, self.seq, self.created, self.unknown_task)


class _ManyTaken(msgspec.Struct):
    jobs: list[_Taken]


_taken: Final = msgspec.json.Decoder(_Taken).decode
_many_taken: Final = msgspec.json.Decoder(_ManyTaken).decode


def _enqueue(asked: operations.Jobs) -> Ask:
    jobs = list(map(request_to_json, asked.jobs))
    body = jobs[0] if len(jobs) == 1 else b"[" + b",".join(jobs) + b"]"
    return Ask("POST", "/v1/jobs", body)


def _accepted(body: bytes, asked: operations.Jobs) -> list[Accepted]:
    if len(asked.jobs) == 1:
        return [_taken(body).accepted()]
    return [one.accepted() for one in _many_taken(body).jobs]


# -- jobs as they are --------------------------------------------------------------------------


class JobData(msgspec.Struct):
    """A job as HTTP tells it."""

    id: str
    seq: int
    state: str
    task: str | None = None
    queue: str | None = None
    priority: int | None = None
    payload: msgspec.Raw = ABSENT
    attempt: int | None = None
    max_attempts: int | None = None
    timeout_ms: int | None = None
    run_at_ms: int = 0
    waiting: str = ""
    worker: int = 0
    token: int = 0
    result: msgspec.Raw = ABSENT
    cause: str = ""
    error: str = ""
    tags: tuple[str, ...] = ()
    parent: str = ""
    cancel_requested: bool = False
    generation: int = 0
    suspect: bool = False
    enqueued_ms: int = 0
    ended_ms: int = 0
    ended_seq: int = 0
    as_of_seq: int = 0

    def view(self) -> JobView:
        """Returns what every other client gives."""
        running, ended = self.state == "in_flight", self.state in ("completed", "discarded")
        waits = self.waiting or ("running" if running else "finished")
        view = JobView(
            self.id,
            self.seq,
            self.state,
            self.task,
            self.queue,
            self.priority,
            self.attempt,
            self.max_attempts,
            self.timeout_ms,
            waiting=waits,
            payload=self.payload,
            result=self.result,
        )
        if self.state == "pending":
            view.ready_ms = self.run_at_ms
        if not ended:
            view.worker, view.token = self.worker, self.token
            view.cancel_requested, view.suspect = self.cancel_requested, self.suspect
        if self.task is not None:
            view.generation = self.generation
            view.parent, view.tags = self.parent, self.tags
            view.cause, view.error = self.cause, self.error
        view.enqueued_ms, view.finished_ms = self.enqueued_ms or None, self.ended_ms or None
        view.end_seq, view.as_of_seq = self.ended_seq or None, self.as_of_seq or None
        return view


class _Page(msgspec.Struct):
    jobs: list[JobData]


class _History(msgspec.Struct):
    events: list[EventView]


class _Explained(msgspec.Struct):
    job: JobData
    events: list[EventView]
    history_from: int = 1
    as_of_seq: int = 0
    lagging: bool = False
    waiting: str = ""
    waiting_until_ms: int = 0
    held_by: int = 0
    near_tasks: tuple[str, ...] = ()
    disk_full: bool = False


_job: Final = msgspec.json.Decoder(JobData).decode
_page: Final = msgspec.json.Decoder(_Page).decode
_history: Final = msgspec.json.Decoder(_History).decode
_explained: Final = msgspec.json.Decoder(_Explained).decode


def path_of(job: str, *more: str) -> str:
    """Returns the path of a job."""
    return "/".join(["/v1/jobs", quote(job, safe=""), *more])


def _list(asked: operations.Listing) -> Ask:
    given = {
        "state": asked.word,
        "queue": asked.queue,
        "task": asked.task,
        "tag": asked.tag,
        "cursor": asked.after_seq,
        "since_ms": asked.since_ms,
        "until_ms": asked.until_ms,
    }
    query = {name: value for name, value in given.items() if value}
    # 0 is as many as one answer has; what is wrong is refused by the server, in its words.
    limit = asked.limit if asked.limit < 0 else min(asked.limit or LIST_LIMIT_MAX, LIST_LIMIT_MAX)
    return Ask("GET", f"/v1/jobs?{urlencode({'view': 'brief', 'limit': limit, **query})}")


def _listed(body: bytes, asked: operations.Listing) -> list[JobView]:
    return [job.view() for job in _page(body).jobs]


def _show(asked: operations.OneJob) -> Ask:
    return Ask("GET", path_of(asked.job))


def _shown(body: bytes, asked: operations.OneJob) -> JobView:
    return _job(body).view()


def _explain(asked: operations.OneJob) -> Ask:
    return Ask("GET", path_of(asked.job, "explain"))


def _explanation(body: bytes, asked: operations.OneJob) -> ExplainView:
    told = _explained(body)
    return ExplainView(
        told.job.view(),
        told.events,
        told.history_from,
        told.as_of_seq,
        told.lagging,
        told.waiting,
        told.waiting_until_ms,
        told.held_by,
        told.near_tasks,
        told.disk_full,
    )


def _ask_history(asked: operations.OneJob) -> Ask:
    return Ask("GET", path_of(asked.job, "history"))


def _events(body: bytes, asked: operations.OneJob) -> list[EventView]:
    return _history(body).events


# -- the end of a job --------------------------------------------------------------------------


class _Ended(msgspec.Struct):
    state: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    cause: str = ""
    error: str = ""


_ended: Final = msgspec.json.Decoder(_Ended).decode


def _wait(asked: operations.Wait) -> Ask:
    left_ms = POLL_MS if asked.timeout_ms < 0 else min(asked.timeout_ms, POLL_MS)
    path = path_of(asked.job, f"result?wait={left_ms}")
    return Ask("GET", path, hold_s=left_ms / 1000)


def _result(body: bytes, asked: operations.Wait) -> ResultView:
    told = _ended(body)
    return ResultView(asked.job, told.state, told.result, told.cause, told.error)


# -- changes -----------------------------------------------------------------------------------


class _Changed(msgspec.Struct):
    state: str


_changed: Final = msgspec.json.Decoder(_Changed).decode


def _cancel(asked: operations.OneJob) -> Ask:
    return Ask("POST", path_of(asked.job, "cancel"))


def _retry(asked: operations.Again) -> Ask:
    body = b"" if asked.payload is None else b'{"payload":' + asked.payload + b"}"
    return Ask("POST", path_of(asked.job, "retry"), body)


def _discard(asked: operations.OneJob) -> Ask:
    return Ask("POST", path_of(asked.job, "discard"))


def _word(body: bytes, asked: Any) -> str:
    return _changed(body).state


def _cancelled(body: bytes, asked: operations.OneJob) -> str:
    state = _word(body, asked)
    return "cancel_requested" if state == "in_flight" else state


def _set_queue(asked: operations.QueueSettings) -> Ask:
    path = f"/v1/queues/{quote(asked.queue, safe='')}"
    fields = ("paused", "weight", "bytes_max", "durable_dispatch")
    given = {name: value for name in fields if (value := getattr(asked, name)) is not None}
    # Where there is nothing to change, its settings are asked for.
    return Ask("PATCH", path, msgspec.json.encode(given)) if given else Ask("GET", path)


class _Begun(msgspec.Struct):
    matched: int
    bulk: str = ""


_begun: Final = msgspec.json.Decoder(_Begun).decode


def _bulk(asked: operations.Many) -> Ask:
    where = {
        name: value
        for name in asked.where.__struct_fields__
        if (value := getattr(asked.where, name)) is not None
    }
    body = {"action": asked.action, "where": where, "dry_run": asked.dry_run}
    return Ask("POST", "/v1/bulk", msgspec.json.encode(body), hold_s=BULK_S)


def _bulk_begun(body: bytes, asked: operations.Many) -> BulkView:
    told = _begun(body)
    state = "counted" if asked.dry_run else "running"
    return BulkView(asked.action, told.matched, state, told.bulk)


def _bulk_status(asked: operations.OneBulk) -> Ask:
    return Ask("GET", f"/v1/bulk/{quote(asked.bulk, safe='')}")


# -- the table ---------------------------------------------------------------------------------


def _status(asked: operations.Nothing) -> Ask:
    return Ask("GET", "/v1/status")


def _reload(asked: operations.Nothing) -> Ask:
    return Ask("POST", "/v1/reload", hold_s=RELOAD_S)


def _no_longer_kept(asked: operations.Wait) -> ResultView:
    return ResultView(asked.job, "expired")


def _idle_queue(asked: operations.QueueSettings) -> QueueView:
    return QueueView()


def _as(kind: Any) -> Callable[[bytes, Any], Any]:
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes, asked: Any) -> Any:
        return decode(body)

    return read


class Form(NamedTuple):
    """How one operation is asked, and how its answer is read."""

    ask: Callable[[Any], Ask]
    read: Callable[[bytes, Any], Any]
    instead: Mapping[str, Callable[[Any], Any]] = {}
    """What problems of these types come to, where others do not make errors of them."""


ASKED: Final[dict[Operation[Any], Form]] = {
    operations.ENQUEUE: Form(_enqueue, _accepted),
    operations.STATUS: Form(_status, _as(StatusView)),
    operations.LIST: Form(_list, _listed),
    operations.SHOW: Form(_show, _shown),
    operations.EXPLAIN: Form(_explain, _explanation),
    operations.HISTORY: Form(_ask_history, _events),
    operations.WAIT: Form(_wait, _result, {"expired": _no_longer_kept}),
    operations.CANCEL: Form(_cancel, _cancelled),
    operations.REQUEUE: Form(_retry, _word),
    operations.DISCARD: Form(_discard, _word),
    operations.SET_QUEUE: Form(_set_queue, _as(QueueView), {"not_found": _idle_queue}),
    operations.BULK: Form(_bulk, _bulk_begun),
    operations.BULK_STATUS: Form(_bulk_status, _as(BulkView)),
    operations.RELOAD: Form(_reload, _as(ReloadView)),
}


def ask(call: Call[Any]) -> Ask:
    """Returns the request that a call becomes."""
    return ASKED[call.operation].ask(call.body)


def read(call: Call[Any], answer: Answer, url: str) -> Any:
    """Returns what a call comes to by an answer that is no refusal.

    Raises:
        Pending: It was a wait, and the job goes on.
        StoreUnavailable: It is no answer of Beaver's.
    """
    if answer.status == 202 and call.operation is operations.WAIT:
        raise Pending  # Even where the job has ended just now: its result is not told here.
    try:
        if 200 <= answer.status < 300:
            return ASKED[call.operation].read(answer.body, call.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    raise stranger(answer, url)


# -- refusals ----------------------------------------------------------------------------------


class _Problem(msgspec.Struct):
    type: str
    detail: str = ""
    error: str = ""
    index: int | None = None
    job: str | None = None
    seq: int | None = None


_problem: Final = msgspec.json.Decoder(_Problem).decode

_CLASSES: Final[dict[str, type[BeaverError]]] = {
    "unauthenticated": errors.AccessDenied,
    "forbidden": errors.AccessDenied,
    "not_found": errors.NotFound,
    "expired": errors.NotFound,
    "conflict": errors.Conflict,
    "queue_full": errors.QueueFull,
    "too_many_requests": errors.StoreUnavailable,
    "request_timeout": errors.StoreUnavailable,
    "unavailable": errors.StoreUnavailable,
}
"""Class of the error by the type of a problem that does not name it; else `InvalidInput`."""

NOTHING_DONE: Final = (errors.QueueFull, errors.DiskFull, errors.ServerLeft, errors.LostLeadership)
"""Errors that say that nothing was carried out."""


class Refusal(NamedTuple):
    """An answer that says what is wrong."""

    type: str
    """Behind `urn:beaver:`; empty where what answered is not Beaver."""
    error: BeaverError
    """What the caller gets, unless it is asked again."""
    retry_after_s: float | None
    """When to ask again, where the answer says so."""


def refusal(answer: Answer, url: str, authorised: bool) -> Refusal | None:
    """Returns what is wrong by an answer; `None` where nothing is.

    Args:
        answer: The answer.
        url: The server's.
        authorised: A token was sent.
    """
    if answer.status < 400:
        return None
    later_s = _retry_after_s(answer)
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        problem = _problem(answer.body) if kind == PROBLEM else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        problem = None
    if problem is None or not problem.type.startswith(URN):
        return Refusal("", stranger(answer, url), later_s)
    name = problem.type.removeprefix(URN)
    named = problem.error or _CLASSES.get(name, InvalidInput).__name__
    detail = problem.detail or name
    if name == "unauthenticated" and not authorised:
        detail = f"{url}: a token is needed; give it as token=…, or in BEAVER_TOKEN"
    error = error_named(named, detail)
    facts = {"job": problem.job, "index": problem.index, "seq": problem.seq}
    error.facts = {key: value for key, value in facts.items() if value is not None}
    return Refusal(name, error, later_s)


def _retry_after_s(answer: Answer) -> float | None:
    """Returns the seconds of `Retry-After`; a date in it is left alone."""
    text = answer.headers.get("retry-after", "").strip()
    return float(text[:9]) if text.isascii() and text.isdigit() else None


def stranger(answer: Answer, url: str) -> StoreUnavailable:
    """Returns the error of an answer that is not of Beaver's."""
    text = answer.body[:_SHOWN_CHARS].decode("utf-8", "replace")
    shown = "".join(c if c.isprintable() else " " for c in text).strip()
    where = answer.headers.get("location", "")
    moved = f" to {where[:_SHOWN_CHARS]!r}" if 300 <= answer.status < 400 else ""
    return StoreUnavailable(
        f"{url}: what answers there is no Beaver server, or a proxy before it: status "
        f"{answer.status}{moved}{f', {shown!r}' if shown else ''}"
    )
