"""Jobs that come in over HTTP: one, an array in one commit, or lines of any number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
from aiohttp import web

from beaver.access.roles import Right
from beaver.errors import BeaverError, InvalidInput
from beaver.limits import hint
from beaver.request.jobfile import CHUNK_BYTES, CHUNK_JOBS, LINE_SLACK_BYTES
from beaver.request.requests import TASK_DEFAULT, request_from_json
from beaver.server.http.problems import Problem, problem_of
from beaver.server.http.routing import JSON, NDJSON, HttpCall, Reply, Route, check_type
from beaver.structs.messages import Options, Request
from beaver.structs.views import Accepted
from beaver.task.programs import EXEC
from beaver.text.foreign import counted
from beaver_model.bounds import (
    ATTEMPTS_MAX,
    BATCH_BYTES_MAX,
    BATCH_JOBS_MAX,
    ID_BYTES_MAX,
    NAME_BYTES_MAX,
    PRIORITY_MAX,
    TAGS_MAX,
    TIMEOUT_MS_MAX,
)

SLICE_JOBS: Final = 250
"""Jobs parsed before the loop serves others."""
PAUSE_S: Final = 0.02
"""Seconds without another line after which those received are committed."""
_SPACE: Final = b" \t\r\n"

_decode_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode


_TEXT: Final = "^[^\\x00-\\x1f\\x7f-\\x9f]+$"
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_BYTES_MAX, pattern=_TEXT)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX, pattern=_TEXT)]


class Taken(msgspec.Struct, omit_defaults=True):
    """What became of a job that was taken in."""

    id: str
    seq: int
    """Seq of its ENQUEUE, also where it existed."""
    created: bool
    """False where the same job existed."""
    warning: str = ""
    """No worker of the server knows its task."""
    unknown_task: tuple[str, ...] = ()
    """That task, and known ones with a similar name."""


class ManyTaken(msgspec.Struct):
    """What became of an array of jobs, in order."""

    jobs: list[Taken]


class JobBody(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A job, as in a job file."""

    task: _Name = TASK_DEFAULT
    payload: Any = None
    id: _Id | msgspec.UnsetType = msgspec.UNSET
    """One is drawn where there is none; with one, sending again does no harm."""
    queue: _Name | msgspec.UnsetType = msgspec.UNSET
    priority: Annotated[int, msgspec.Meta(ge=0, le=PRIORITY_MAX)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    """0 (first) to 9 (last)."""
    run_at: str | int | msgspec.UnsetType = msgspec.UNSET
    """Not before this time: ISO 8601, or ms since the epoch."""
    delay: str | float | msgspec.UnsetType = msgspec.UNSET
    """Not before this long after it came in: as `5m`; a number means seconds."""
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=TIMEOUT_MS_MAX)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=ATTEMPTS_MAX)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    backoff: str | dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    """Wait between attempts: as `5s`, or an object."""
    tags: Annotated[list[_Name], msgspec.Meta(max_length=TAGS_MAX)] | msgspec.UnsetType = (
        msgspec.UNSET
    )


@lru_cache(1_024)
def task_of(options: bytes) -> str:
    """Returns the task that the options of a request name."""
    return msgspec.msgpack.decode(options, type=Options).task


def _read(call: HttpCall, raw: bytes, index: int | None, *, need_id: bool = False) -> Request:
    """Returns the request that one job of a body is.

    Raises:
        Problem: It is none, or the token may not send it.
    """
    try:
        request = request_from_json(
            raw, payload_bytes_max=call.site.service.payload_bytes_max, need_id=need_id
        )
        _check_right(call, request)
    except InvalidInput as error:
        raise _at(index, Problem("invalid", str(error))) from None
    except Problem as problem:
        problem.facts["job"] = request.id
        raise _at(index, problem) from None
    return request


def _check_right(call: HttpCall, request: Request) -> None:
    if task_of(request.options) == EXEC:
        call.check_program(request.payload)
    queues = call.token.queues
    if queues and call.site.queue_of(request) not in queues:
        raise Problem(
            "forbidden",
            f"queue: this token may use {', '.join(queues)} only; nothing was enqueued",
        )


def _at(index: int | None, problem: Problem) -> Problem:
    """Returns a problem with the place of its job, in an array or in lines."""
    if index is None:
        return problem
    return Problem(
        problem.name, f"index {index}: {problem.detail}", {**problem.facts, "index": index}
    )


async def _enqueue(call: HttpCall) -> Reply | web.StreamResponse:
    if call.request.headers.get("Content-Type", JSON) != JSON and (
        check_type(call.request, (JSON, NDJSON)) == NDJSON
    ):
        return await _Lines(call).run()
    async with call.site.room.reading(call.request, BATCH_BYTES_MAX) as raw:
        if raw.lstrip(_SPACE)[:1] == b"[":
            return await _enqueue_array(call, raw)
        taken = await _take_in(call, [_read(call, raw, None)])
    one = taken[0]
    where = {"Location": f"/v1/jobs/{quote(one.id, safe='')}"}
    return Reply(one, one.seq, 201 if one.created else 200, where)


async def _enqueue_array(call: HttpCall, raw: bytes) -> Reply:
    try:
        jobs = _decode_array(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("invalid", f"the body is not JSON: {error}") from None
    if len(jobs) > BATCH_JOBS_MAX:
        raise Problem(
            "too_large",
            f"{counted(len(jobs), 'job')} in one commit; at most {BATCH_JOBS_MAX} fit; "
            f"send them as {NDJSON}, which takes any number",
        )
    if not jobs:
        return Reply(ManyTaken([]), call.site.engine.durable_seq)
    requests: list[Request] = []
    for index, job in enumerate(jobs):
        requests.append(_read(call, bytes(job), index))
        if index % SLICE_JOBS == SLICE_JOBS - 1:
            await asyncio.sleep(0)
    taken = await _take_in(call, requests)
    return Reply(ManyTaken(taken), max(one.seq for one in taken))


async def _take_in(call: HttpCall, requests: Sequence[Request]) -> list[Taken]:
    """Takes jobs in with one commit.

    Raises:
        BeaverError: They were refused, all of them.
    """
    # Without a name, which would cost its bytes once a job.
    by = f"token:{call.token.id}"
    return [
        Taken(one.id, one.seq, one.created, one.warning, one.unknown_task)
        if isinstance(one, Accepted)
        else Taken(one.id, one.seq, one.created)
        for one in await call.site.take_in(requests, by)
    ]


# -- lines -------------------------------------------------------------------------------------


class _Lines:
    """Takes lines in, chunk by chunk, and answers each as its chunk is durable."""

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._response = web.StreamResponse(headers={"Content-Type": NDJSON})
        self._index = 0
        """Index of the next line that holds a job."""
        self._chunk: list[Request] = []
        self._chunk_bytes = 0
        self._line_bytes_max = call.site.service.payload_bytes_max + LINE_SLACK_BYTES

    async def run(self) -> web.StreamResponse:
        """Reads to the end, or to the first line that is wrong."""
        response = self._response
        response.headers["Beaver-Seq"] = str(self._call.site.engine.durable_seq)
        await response.prepare(self._call.request)
        try:
            async for line in self._lines():
                if line is None or (self._chunk and self._is_full(line)):
                    await self._commit()
                if line is not None:
                    self._chunk.append(_read(self._call, line, self._index, need_id=True))
                    self._chunk_bytes += len(line)
                    self._index += 1
            await self._commit()
        except Problem as problem:
            await self._end_with(problem)
        except BeaverError as error:
            await self._end_with(problem_of(error))
        await response.write_eof()
        return response

    def _is_full(self, line: bytes) -> bool:
        return len(self._chunk) >= CHUNK_JOBS or self._chunk_bytes + len(line) > CHUNK_BYTES

    async def _commit(self) -> None:
        chunk, self._chunk, self._chunk_bytes = self._chunk, [], 0
        if not chunk:
            return
        first = self._index - len(chunk)
        self._call.site.gate.check_again(self._call.request)
        try:
            taken = await _take_in(self._call, chunk)
        except BeaverError as error:
            problem = problem_of(error)
            problem.facts["index"] = first + int(problem.facts.get("index", 0))
            raise problem from None
        await self._response.write(b"".join(_encode(one) + b"\n" for one in taken))

    async def _end_with(self, problem: Problem) -> None:
        problem.facts.setdefault("index", self._index)
        await self._response.write(_encode({"error": problem.members()}) + b"\n")
        # What the client still sends is read by nobody.
        self._response.force_close()

    async def _lines(self) -> AsyncIterator[bytes | None]:
        """Yields lines that are not empty, and `None` where none comes for a while.

        Raises:
            Problem: A line is too long.
        """
        content, rest = self._call.request.content, b""
        reading: asyncio.Task[bytes] | None = None
        try:
            while True:
                if reading is None:
                    reading = asyncio.ensure_future(content.readany())
                done, _ = await asyncio.wait((reading,), timeout=PAUSE_S if self._chunk else None)
                if not done:
                    yield None
                    continue
                piece, reading = reading.result(), None
                if not piece:
                    break
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if text := self._checked(line):
                        yield text
                self._checked(rest)
            if text := self._checked(rest):
                yield text
        finally:
            if reading is not None:
                reading.cancel()

    def _checked(self, line: bytes) -> bytes:
        if len(line) > self._line_bytes_max:
            raise Problem(
                "too_large",
                f"index {self._index}: a line of more than {self._line_bytes_max} bytes; "
                f"{hint('payload')}",
                {"index": self._index},
            )
        return line.strip(_SPACE)


ROUTES: Final = (
    Route(
        "POST", "/v1/jobs", Right.ENQUEUE, _enqueue,
        "Enqueue a job, an array of jobs in one commit, or lines of them in as many as it takes",
        {201: Taken, 200: (Taken, ManyTaken)}, body=JobBody | list[JobBody],
        problems=("invalid", "conflict", "queue_full", "too_large", "unsupported_media_type"),
        takes=(JSON, NDJSON), gives=(JSON, NDJSON),
    ),
)  # fmt: skip
