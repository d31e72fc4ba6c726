"""Single jobs over HTTP: what is known of one, its result, its story, and changing it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Final

import msgspec

from beaver.access.roles import Right
from beaver.dispatch.remote_workers import Progress
from beaver.errors import Conflict, NotFound, WaitTimeout
from beaver.inspect import queries
from beaver.inspect.explaining import why_sentence
from beaver.server.http.problems import Problem
from beaver.server.http.routing import Body, HttpCall, NoBody, Reply, Route
from beaver.structs.views import ABSENT, EventView, ExplainView, JobView, ResultView, View
from beaver.task.programs import EXEC
from beaver.text import jsontext
from beaver_model import State
from beaver_model.bounds import PAYLOAD_BYTES_CEILING
from beaver_model.commands import Cancel, Discard, Requeue
from beaver_model.rows import Origin, Spec

WAIT_MS_MAX: Final = 60_000
"""Longest time that one request for a result waits."""
CHANGE_BYTES_MAX: Final = PAYLOAD_BYTES_CEILING + (64 << 10)
"""Longest body of a change: a payload, and what stands around it."""

_decode_explained: Final = msgspec.json.Decoder(ExplainView).decode
_decode_job: Final = msgspec.json.Decoder(JobView).decode
_decode_result: Final = msgspec.json.Decoder(ResultView).decode


# -- what is answered --------------------------------------------------------------------------


class JobData(View, omit_defaults=True, kw_only=True):
    """A job; a member that does not apply is left out.  Times are ms since the epoch."""

    id: str
    seq: int
    """Seq of its ENQUEUE."""
    state: str
    """`pending`, `in_flight`, `completed`, `dead`, `cancelled` or `discarded`."""
    task: str | None = None
    queue: str | None = None
    priority: int | None = None
    payload: msgspec.Raw = ABSENT
    attempt: int | None = None
    max_attempts: int | None = None
    timeout_ms: int | None = None
    run_at_ms: int = 0
    """Time from which it may run; of a job that waits."""
    waiting: str = ""
    """Why a pending job does not run now."""
    worker: int = 0
    token: int = 0
    started_ms: int = 0
    """When the attempt that runs was handed out."""
    result: msgspec.Raw = ABSENT
    cause: str = ""
    error: str = ""
    """Error of the last attempt that did not complete."""
    tags: tuple[str, ...] = ()
    parent: str = ""
    cancel_requested: bool = False
    generation: int = 0
    """How often it was retried by an operator."""
    suspect: bool = False
    """The machine went down while it ran."""
    enqueued_ms: int = 0
    ended_ms: int = 0
    progress: Progress | None = None
    """What a remote worker said of the attempt that runs."""
    ended_seq: int = 0
    """In a list in the order of the ends: seq of the event that ended it."""
    as_of_seq: int = 0
    """In such a list: how far in the log was looked."""


class History(msgspec.Struct):
    """The events of a job."""

    events: list[EventView]
    history_from: int
    """Events before this seq are no longer kept."""
    as_of_seq: int
    """None is missing up to here."""


class Explained(History):
    """The events of a job, and why it does not run now."""

    waiting: str
    because: str
    """The same as a sentence."""
    blocked_by: list[str]
    """Jobs that it waits for."""
    job: JobData
    """The job, as it was with these events."""
    lagging: bool = False
    """There may be later events, which are not known yet."""
    waiting_until_ms: int = 0
    held_by: int = 0
    """Worker that holds it, or 0."""
    near_tasks: tuple[str, ...] = ()
    """Known tasks with a similar name, where no worker knows the job's."""
    disk_full: bool = False
    """Jobs run, and their ends are written, only as the log has room."""


class Ended(msgspec.Struct, omit_defaults=True):
    """How a job ended; of one that has not, its state."""

    state: str
    result: msgspec.Raw = ABSENT
    cause: str = ""
    error: str = ""


class Changed(msgspec.Struct):
    """What a change has led to."""

    state: str
    seq: int
    """Seq of the event that made it so."""


_ENDS: Final = {"completed": "ACK", "dead": "DEAD", "cancelled": "CANCEL", "discarded": "DISCARD"}


def job_data(view: JobView, events: list[EventView]) -> JobData:
    """Returns a job as HTTP gives it.

    Args:
        view: What is known of it.
        events: Its story, as far as it is kept.
    """
    pending, running = view.state == "pending", view.state == "in_flight"
    data = JobData(
        id=view.id,
        seq=view.seq,
        state=view.state,
        task=view.task,
        queue=view.queue,
        priority=view.priority,
        payload=view.payload,
        attempt=view.attempt,
        max_attempts=view.max_attempts,
        timeout_ms=view.timeout_ms,
        run_at_ms=(view.ready_ms or 0) if pending else 0,
        waiting=(view.waiting or "") if pending else "",
        worker=(view.worker or 0) if running else 0,
        token=(view.token or 0) if running else 0,
        result=view.result,
        cause=view.cause or "",
        error=view.error or "",
        tags=view.tags or (),
        parent=view.parent or "",
        cancel_requested=bool(view.cancel_requested),
        generation=view.generation or 0,
        suspect=bool(view.suspect),
        enqueued_ms=view.enqueued_ms or 0,
        ended_ms=view.finished_ms or 0,
        ended_seq=view.end_seq or 0,
        as_of_seq=view.as_of_seq or 0,
    )
    end = _ENDS.get(view.state)
    for event in events:
        if event.event == "ENQUEUE":
            data.enqueued_ms = event.time_ms
        elif event.event == "DISPATCH" and running and event.seq == view.token:
            data.started_ms = event.time_ms
        elif event.event == end:
            data.ended_ms = event.time_ms
    return data


# -- questions ---------------------------------------------------------------------------------


async def _explain(call: HttpCall) -> ExplainView:
    """Returns all that is known of the job in the path.

    Raises:
        NotFound: There is none, or it is in a queue that the token may not use.
    """
    view = _decode_explained(await call.site.ask("explain", [call.job]))
    _check_queue(call, view.job.queue)
    return view


def _check_queue(call: HttpCall, queue: str | None) -> None:
    if call.token.queues and queue not in call.token.queues:
        raise NotFound(f"no job {call.job}")


def _seen(call: HttpCall, view: ExplainView) -> int:
    return max(view.as_of_seq, view.job.seq)


async def _show(call: HttpCall) -> Reply:
    view = await _explain(call)
    data = job_data(view.job, view.events)
    if data.token and (lease := call.site.leases.lease(data.token)) is not None:
        data.progress = lease.progress
    return Reply(data, _seen(call, view))


async def _history(call: HttpCall) -> Reply:
    view = await _explain(call)
    return Reply(History(view.events, view.history_from_seq, view.as_of_seq), _seen(call, view))


async def _explained(call: HttpCall) -> Reply:
    view = await _explain(call)
    body = Explained(
        view.events,
        view.history_from_seq,
        view.as_of_seq,
        view.waiting,
        why_sentence(view),
        [],
        job_data(view.job, view.events),
        view.lagging,
        view.waiting_until_ms,
        view.held_by,
        view.near_tasks,
        view.disk_full,
    )
    return Reply(body, _seen(call, view))


class ResultQuery(Body):
    """How long to wait."""

    wait: Annotated[int, msgspec.Meta(ge=0, le=WAIT_MS_MAX)] = 0
    """In ms, or as `20s`; at most 60 s."""


async def _result(call: HttpCall) -> Reply:
    wait_ms = call.query.wait
    seq = call.site.engine.durable_seq
    if call.token.queues:
        _check_queue(call, _decode_job(await call.site.ask("show", [call.job])).queue)
    try:
        with call.site.holding(call.token) if wait_ms else nullcontext():
            found = _decode_result(await call.site.ask("wait", [call.job, wait_ms]))
    except WaitTimeout:
        state, seq = await call.site.read(lambda state: queries.show(state, call.job).state)
        return Reply(Ended(state), seq, 202)
    if found.state == "expired":
        raise Problem(
            "expired", f"the result of job {call.job} is no longer kept", {"job": call.job}
        )
    if found.state == "completed":
        return Reply(Ended(found.state, found.result), seq)
    return Reply(Ended(found.state, cause=found.cause, error=found.error), seq)


# -- changes -----------------------------------------------------------------------------------


def _changed(state: State, job: str) -> str:
    row = state.jobs.get(job)
    return "discarded" if row is None else queries.state_word(row.state)


async def _change(call: HttpCall, command: Cancel | Requeue | Discard) -> Reply:
    job = command.job

    def answer(state: State, seq: int) -> Changed:
        return Changed(_changed(state, job), seq)

    changed = await call.site.change(command, answer)
    if not changed.seq:
        changed.seq = await _seq_of(call, ("CANCEL", "CANCEL_REQUESTED"))
    return Reply(changed, changed.seq)


async def _seq_of(call: HttpCall, names: tuple[str, ...]) -> int:
    """Returns the seq of the newest event of the job with one of these names."""
    view = _decode_explained(await call.site.ask("explain", [call.job]))
    return next(
        (event.seq for event in reversed(view.events) if event.event in names), view.job.seq
    )


async def _cancel(call: HttpCall) -> Reply:
    await call.body(NoBody, CHANGE_BYTES_MAX)
    return await _change(call, Cancel(call.job, call.token.by))


class Retry(Body):
    """A job that is to run again."""

    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """In place of its own."""


async def _retry(call: HttpCall) -> Reply:
    body = await call.body(Retry, CHANGE_BYTES_MAX)
    payload = None
    if not isinstance(body.payload, msgspec.UnsetType):
        bytes_max = call.site.service.payload_bytes_max
        payload = jsontext.check(bytes(body.payload), bytes_max, "payload")
        await _check_edit(call, payload)
    return await _change(call, Requeue(call.job, payload, call.token.by))


async def _check_edit(call: HttpCall, payload: bytes) -> None:
    """Refuses another payload for a job that runs a program, which would run another one.

    Raises:
        Problem: The token may not do that, or nobody may over HTTP.
    """

    def ask(state: State) -> Spec | None:
        row = state.jobs.get(call.job)
        return None if row is None else row.spec

    spec, _ = await call.site.read(ask)
    if spec is None or spec.task != EXEC:
        return
    if spec.origin != Origin.HTTP:
        raise Problem(
            "forbidden",
            "payload: this job of exec did not come over HTTP, so it is only edited over the local "
            "socket",
            {"job": call.job},
        )
    call.check_program(payload)


async def _discard(call: HttpCall) -> Reply:
    await call.body(NoBody, CHANGE_BYTES_MAX)
    try:
        return await _change(call, Discard(call.job, call.token.by))
    except Conflict as error:
        if error.facts.get("outcome") != "FORGOTTEN":
            raise
        seq = await _seq_of(call, ("DISCARD",))
        return Reply(Changed("discarded", seq), seq)


_PROBLEMS: Final = ("not_found",)
_CHANGE: Final = ("invalid", "not_found", "conflict", "unsupported_media_type", "too_large")

ROUTES: Final = (
    Route(
        "GET", "/v1/jobs/{id}", Right.JOB, _show, "A job", {200: JobData}, problems=_PROBLEMS
    ),
    Route(
        "GET", "/v1/jobs/{id}/result", Right.JOB, _result, "How a job ended, once it has",
        {200: Ended, 202: Ended}, ResultQuery, problems=("not_found", "expired"),
    ),
    Route(
        "GET", "/v1/jobs/{id}/history", Right.JOB, _history, "The events of a job",
        {200: History}, problems=_PROBLEMS,
    ),
    Route(
        "GET", "/v1/jobs/{id}/explain", Right.JOB, _explained,
        "The events of a job, and why it does not run now", {200: Explained}, problems=_PROBLEMS,
    ),
    Route(
        "POST", "/v1/jobs/{id}/cancel", Right.OPERATE, _cancel,
        "Cancel a job; one that runs is stopped first", {200: Changed}, body=NoBody,
        problems=_CHANGE,
    ),
    Route(
        "POST", "/v1/jobs/{id}/retry", Right.OPERATE, _retry,
        "Run a dead or cancelled job again, with all its attempts", {200: Changed}, body=Retry,
        problems=_CHANGE,
    ),
    Route(
        "POST", "/v1/jobs/{id}/discard", Right.OPERATE, _discard,
        "Remove a pending, dead or cancelled job for good", {200: Changed}, body=NoBody,
        problems=_CHANGE,
    ),
)  # fmt: skip
