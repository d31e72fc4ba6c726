"""Outcomes of attempts at remote workers: one, or many in one commit, and the same one again.

An outcome names its attempt by the token alone.  Where no remote worker holds it, it is the same
outcome once more (200 as before), or one that comes too late (409 `stale_token`): the answers that
are remembered say so, or the log (`reported`).

What may not live here: what an outcome leads to (`dispatch.reports`, the model).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal

import msgspec

from beaver.access.roles import Right
from beaver.dispatch.remote_workers import Progress
from beaver.dispatch.reports import Answer, Report
from beaver.errors import BeaverError, InvalidInput
from beaver.request.requests import request_from_json
from beaver.server.http.enqueueing import JobBody, task_of
from beaver.server.http.problems import Problem, problem_of
from beaver.server.http.reported import find_answer
from beaver.server.http.routing import Body, HttpCall, NoBody, Reply, Route, convert
from beaver.structs.messages import Outcome, OutcomeKind, Request
from beaver.task.programs import EXEC
from beaver.text import jsontext
from beaver_model.bounds import (
    BACKOFF_MS_MAX,
    BATCH_BYTES_MAX,
    CHILDREN_MAX,
    INTEGER_MAX,
    RESULT_BYTES_MAX,
)
from beaver_model.states import JobState

OUTCOMES_MAX: Final = 1_000
"""Outcomes of one request."""
ERROR_REQUEST_BYTES: Final = 1 << 20
"""Longest body of an outcome that has no result; of an error the head and the tail are kept."""
NOTE_CHARS_MAX: Final = 1_000
MARK_BYTES: Final = 12

Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=BACKOFF_MS_MAX)]

# -- what is sent and answered -----------------------------------------------------------------


class Ack(Body):
    """It has completed."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """Null, where there is none."""
    children: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=CHILDREN_MAX)] = ()
    """Jobs that are enqueued in the same commit."""


class AckBody(Body):
    """It has completed."""

    result: Any = None
    children: Annotated[tuple[JobBody, ...], msgspec.Meta(max_length=CHILDREN_MAX)] = ()
    """Jobs that are enqueued in the same commit."""


class Failure(Body):
    """It has failed."""

    error: str
    """Its head and tail are kept."""
    retry_in_ms: Milliseconds | None = None
    """When it is tried again; by the job's backoff, where it does not say."""
    final: bool = False
    """It is not tried again."""


class Snooze(Body):
    """It wants to run later, and no attempt is spent."""

    delay_ms: Milliseconds


class ProgressBody(Body):
    """How far it is."""

    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    note: Annotated[str, msgspec.Meta(max_length=NOTE_CHARS_MAX)] = ""


class OutcomeItem(Body):
    """One outcome of many: the members are those of its kind."""

    token: Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
    outcome: Literal["ack", "fail", "snooze", "release"]
    result: Any = None
    children: Annotated[tuple[JobBody, ...], msgspec.Meta(max_length=CHILDREN_MAX)] = ()
    error: str | msgspec.UnsetType = msgspec.UNSET
    retry_in_ms: Milliseconds | None = None
    final: bool = False
    delay_ms: Milliseconds | msgspec.UnsetType = msgspec.UNSET


class OutcomesBody(Body):
    """Many outcomes."""

    outcomes: Annotated[list[OutcomeItem], msgspec.Meta(max_length=OUTCOMES_MAX)]


class _Outcomes(Body):
    outcomes: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=OUTCOMES_MAX)]


class Reported(msgspec.Struct):
    """What has become of the job."""

    state: str
    seq: int
    """Seq of the event that ended the attempt."""


class ReportedOne(msgspec.Struct, omit_defaults=True):
    """What has become of the job of one outcome, or why it was refused."""

    token: int
    state: str = ""
    seq: int = 0
    error: dict[str, Any] | None = None


class AllReported(msgspec.Struct):
    """What has become of each, in order."""

    outcomes: list[ReportedOne]


# -- reading -----------------------------------------------------------------------------------


def _mark(kind: str, members: dict[str, Any]) -> bytes:
    """Returns what tells an outcome from another one of its attempt."""
    return blake2b(kind.encode() + jsontext.canonical(members), digest_size=MARK_BYTES).digest()


def _report(call: HttpCall, kind: str, token: int, raw: bytes) -> Report:
    """Returns an outcome that a body holds.

    Raises:
        InvalidInput: It is none.
    """
    mark = _mark(kind, jsontext.parse_object(raw))  # A repeated key is refused here.
    if kind == "release":
        convert(raw, NoBody)
        return Report(Outcome(token, "", OutcomeKind.FAILED), is_given_back=True, mark=mark)
    if kind == "snooze":
        snooze = convert(raw, Snooze)
        outcome = Outcome(token, "", OutcomeKind.SNOOZE, delay_ms=snooze.delay_ms)
    elif kind == "fail":
        failure = convert(raw, Failure)
        how = OutcomeKind.DEAD if failure.final else OutcomeKind.FAILED
        outcome = Outcome(token, "", how, error=failure.error, delay_ms=failure.retry_in_ms)
    else:
        ack = convert(raw, Ack)
        result = b"null" if isinstance(ack.result, msgspec.UnsetType) else bytes(ack.result)
        if len(result) > RESULT_BYTES_MAX:
            raise Problem("too_large", f"result: at most {RESULT_BYTES_MAX} bytes are kept")
        result = jsontext.check(result, RESULT_BYTES_MAX, "result")
        children = tuple(_child(call, index, child) for index, child in enumerate(ack.children))
        outcome = Outcome(token, "", OutcomeKind.OK, result, children=children)
    return Report(outcome, mark=mark)


def _child(call: HttpCall, index: int, raw: msgspec.Raw) -> Request:
    where = f"children: index {index}"
    bytes_max = call.site.service.payload_bytes_max
    child = request_from_json(bytes(raw), where=where, payload_bytes_max=bytes_max)
    if task_of(child.options) == EXEC:
        raise InvalidInput(f"{where}: task: exec runs programs, and no job of a worker may ask it")
    return child


# -- requests ----------------------------------------------------------------------------------


def _token(call: HttpCall) -> int:
    """Returns the token in the path.

    Raises:
        InvalidInput: It is no number.
    """
    token = call.number("token")
    if token is None:
        raise InvalidInput("token: the number that came with the attempt is expected")
    return token


def _stale(token: int) -> Problem:
    return Problem(
        "stale_token",
        f"token {token} does not answer the attempt in flight: it has ended, and its job may run "
        "elsewhere; nothing was changed",
        {"token": token},
    )


def _take(call: HttpCall, report: Report) -> Awaitable[Answer] | None:
    """Carries an outcome out, at once; returns the wait for its answer.

    `None` where no remote worker holds the attempt.

    Raises:
        InvalidInput: It is out of bounds.
    """
    told = call.site.waiting()

    def done(answer: Answer | BeaverError) -> None:
        if told.done():
            return
        if isinstance(answer, BeaverError):
            told.set_exception(answer)
        else:
            told.set_result(answer)

    try:
        taken = call.site.reports.take(report, done)
    except BaseException:
        call.site.forget(told)
        raise
    if not taken:
        call.site.forget(told)
        return None
    return call.site.answer(told)


async def _again(call: HttpCall, kind: str, report: Report) -> Answer:
    """Returns the answer to an outcome whose attempt nobody holds.

    Raises:
        Problem: It is another outcome than the one that ended the attempt, or none has.
    """
    token = report.outcome.token
    found = call.site.reports.answered(token)
    if found is not None:
        answer, _ = await call.site.read(lambda _: found)
        if answer.mark == report.mark:
            return answer
    else:
        told = await find_answer(call.site, kind, report)
        if told is not None:
            return told
    call.site.leases.refused(token)
    raise _stale(token)


async def _outcome(call: HttpCall, kind: str, bytes_max: int) -> Reply:
    token = _token(call)
    async with call.site.room.reading(call.request, bytes_max) as raw:
        report = _report(call, kind, token, raw if raw.strip() else b"{}")
        taking = _take(call, report)
        answer = await (taking if taking is not None else _again(call, kind, report))
    return Reply(Reported(answer.state, answer.seq), answer.seq)


async def _ack(call: HttpCall) -> Reply:
    return await _outcome(call, "ack", BATCH_BYTES_MAX)


async def _fail(call: HttpCall) -> Reply:
    return await _outcome(call, "fail", ERROR_REQUEST_BYTES)


async def _snooze(call: HttpCall) -> Reply:
    return await _outcome(call, "snooze", ERROR_REQUEST_BYTES)


async def _release(call: HttpCall) -> Reply:
    return await _outcome(call, "release", ERROR_REQUEST_BYTES)


async def _progress(call: HttpCall) -> Reply:
    token = _token(call)
    body = await call.body(ProgressBody, ERROR_REQUEST_BYTES)
    leases, now_ms = call.site.leases, call.site.engine.now_ms()

    def note() -> Reported | None:
        lease = leases.progress(token, Progress(body.fraction, body.note, now_ms))
        return None if lease is None else Reported(JobState.IN_FLIGHT.name.lower(), token)

    taken, seq = await call.site.read(lambda _: note())
    if taken is None:
        raise _stale(token)
    return Reply(taken, seq)


async def _many(call: HttpCall) -> Reply:
    async with call.site.room.reading(call.request, BATCH_BYTES_MAX) as raw:
        jsontext.parse_object(raw)
        items = convert(raw, _Outcomes).outcomes
        reports = [_item(call, index, bytes(item)) for index, item in enumerate(items)]
        # All are decided before anything is waited for, so one commit holds them.
        takings: list[Any] = []
        for kind, report in reports:
            try:
                taking = _take(call, report)
            except BeaverError as error:
                takings.append(problem_of(error))
            else:
                takings.append(_again(call, kind, report) if taking is None else taking)
        told = await asyncio.gather(*map(_settled, takings))
    taken = [
        _told(report.outcome.token, one) for (_, report), one in zip(reports, told, strict=True)
    ]
    seqs = [one.seq for one in taken]
    return Reply(AllReported(taken), max(seqs, default=0) or call.site.engine.durable_seq)


async def _settled(taking: Problem | Awaitable[Answer]) -> Problem | Answer:
    if isinstance(taking, Problem):
        return taking
    try:
        return await taking
    except Problem as problem:
        return problem
    except BeaverError as error:
        return problem_of(error)


def _told(token: int, told: Problem | Answer) -> ReportedOne:
    if isinstance(told, Problem):
        return ReportedOne(token, error=told.members())
    return ReportedOne(token, told.state, told.seq)


_MEMBERS: Final = {
    "ack": frozenset({"result", "children"}),
    "fail": frozenset({"error", "retry_in_ms", "final"}),
    "snooze": frozenset({"delay_ms"}),
    "release": frozenset[str](),
}


def _item(call: HttpCall, index: int, raw: bytes) -> tuple[str, Report]:
    """Returns kind and report of one of many outcomes.

    Raises:
        Problem: It is none; nothing of the body is carried out.
    """
    try:
        return _read_item(call, raw)
    except InvalidInput as error:
        raise Problem("invalid", f"index {index}: {error}", {"index": index}) from None


def _read_item(call: HttpCall, raw: bytes) -> tuple[str, Report]:
    jsontext.parse_object(raw)
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    head = convert(
        msgspec.json.encode({k: members[k] for k in ("token", "outcome") if k in members}), _Head
    )
    rest = {key: value for key, value in members.items() if key not in ("token", "outcome")}
    return head.outcome, _report(call, head.outcome, head.token, msgspec.json.encode(rest))


class _Head(Body):
    token: Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
    outcome: Literal["ack", "fail", "snooze", "release"]


_CHANGE: Final = ("unsupported_media_type", "too_large")
_ONE: Final = (*_CHANGE, "stale_token")

ROUTES: Final = (
    Route(
        "POST", "/v1/attempts/{token}/ack", Right.WORK, _ack,
        "Report that an attempt has completed", {200: Reported}, body=AckBody,
        problems=(*_ONE, "conflict"),
    ),
    Route(
        "POST", "/v1/attempts/{token}/fail", Right.WORK, _fail,
        "Report that an attempt has failed", {200: Reported}, body=Failure, problems=_ONE,
    ),
    Route(
        "POST", "/v1/attempts/{token}/snooze", Right.WORK, _snooze,
        "Have the job run later; no attempt is spent", {200: Reported}, body=Snooze, problems=_ONE,
    ),
    Route(
        "POST", "/v1/attempts/{token}/release", Right.WORK, _release,
        "Give an attempt back; it is not spent", {200: Reported}, body=NoBody, problems=_ONE,
    ),
    Route(
        "POST", "/v1/attempts/{token}/progress", Right.WORK, _progress,
        "Say how far an attempt is", {200: Reported}, body=ProgressBody, problems=_ONE,
    ),
    Route(
        "POST", "/v1/attempts", Right.WORK, _many,
        "Report the outcomes of many attempts in one commit", {200: AllReported}, body=OutcomesBody,
        problems=_CHANGE,
    ),
)  # fmt: skip
