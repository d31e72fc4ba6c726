"""`GET /v1/jobs`: jobs in the order in which they came in, by what they are and were.

Where only jobs that the state holds are wanted, the state is asked; else the log is gone through
by its ENQUEUEs, and each job is told as it is now.  Both stop after a bounded number of jobs and
say how far they came, so a page may be short, or empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final, Literal, NamedTuple, get_args

import msgspec

from beaver.access.roles import Right
from beaver.errors import InvalidInput, NotFound
from beaver.inspect.finding import FINISHED, STATES
from beaver.server.http.jobs import JobData, job_data
from beaver.server.http.routing import Body, HttpCall, Reply, Route
from beaver.structs.questions import CameIn, Wanted
from beaver.structs.views import ExplainView, JobView

LIMIT_MAX: Final = 1_000
LIMIT_DEFAULT: Final = 100
LOOKED_MAX: Final = 5_000
"""Maximum number of jobs that one request examines."""
STEP_JOBS: Final = 500
"""Jobs fetched in one step."""
TOLD_AT_ONCE: Final = 64
"""Jobs whose events are fetched at once."""
PAGE_BYTES: Final = 8 << 20
"""Maximum bytes of payloads and results in a page; a single larger job still fits."""
_SEQ_MAX: Final = (1 << 62) - 1

State = Literal["", "pending", "in_flight", "completed", "dead", "cancelled", "discarded"]
assert {"", *STATES} == set(get_args(State))

_decode_views: Final = msgspec.json.Decoder(list[JobView]).decode
_decode_explained: Final = msgspec.json.Decoder(ExplainView).decode
_decode_came_in: Final = msgspec.json.Decoder(CameIn).decode


class ListQuery(Body):
    """Which jobs."""

    id: tuple[str, ...] = ()
    """These, in this order, and no filter; may be repeated.  Where there is a cursor, go on with
    it and the same ids."""
    state: State = ""
    queue: str = ""
    task: str = ""
    tag: str = ""
    parent: str = ""
    text: str = ""
    """Stands in the payload or the error."""
    since_ms: Annotated[int, msgspec.Meta(ge=0, le=_SEQ_MAX)] = 0
    """Those that came in then or later."""
    until_ms: Annotated[int, msgspec.Meta(ge=0, le=_SEQ_MAX)] = 0
    """Those that came in before."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT
    cursor: Annotated[int, msgspec.Meta(ge=0, le=_SEQ_MAX)] = 0
    """Cursor of the previous page."""
    view: Literal["", "brief"] = ""
    """`brief`: as `beaver list` gives them."""


class JobPage(msgspec.Struct):
    """Jobs, and where to go on."""

    jobs: list[JobData]
    cursor: str | None
    """Null where all was looked at."""
    scanned_to: int
    """Every job up to this seq was looked at."""


class _Candidate(NamedTuple):
    """A job that may be one, or, with an empty id, only how far was looked."""

    seq: int
    job: str


async def _list(call: HttpCall) -> Reply:
    query: ListQuery = call.query
    if query.id:
        return await _by_id(call, query)
    if query.view:
        return await _brief(call, query)
    seq = call.site.engine.durable_seq
    page = JobPage([], None, seq)
    looked = size = 0
    waiting: list[_Candidate] = []
    come_to = query.cursor

    async def take() -> bool:
        """Adds those of the candidates that are wanted; false where the page is full."""
        nonlocal size, come_to
        for view in await _tell(call, waiting):
            if view is None or not _fits(query, view):
                continue
            job = job_data(view.job, view.events)
            size += _size_of(job)
            if len(page.jobs) == query.limit or (page.jobs and size > PAGE_BYTES):
                return False
            page.jobs.append(job)
            come_to = view.job.seq
        come_to = waiting[-1].seq
        waiting.clear()
        return True

    async for candidate in _candidates(call, query, seq):
        looked += bool(candidate.job)
        waiting.append(candidate)
        full = False
        if len(waiting) >= TOLD_AT_ONCE or not candidate.job:
            full = not await take()
        if full or looked >= LOOKED_MAX:
            page.cursor = ""
            break
    if waiting and page.cursor is None and not await take():
        page.cursor = ""
    if page.cursor is not None:
        page.cursor, page.scanned_to = str(come_to), come_to
    return Reply(page, seq)


async def _by_id(call: HttpCall, query: ListQuery) -> Reply:
    ids = query.id
    if len(ids) > LIMIT_MAX:
        raise InvalidInput(f"id: at most {LIMIT_MAX} can be asked for, found {len(ids)}")
    if query != ListQuery(id=ids, cursor=query.cursor):
        raise InvalidInput("id: jobs that are named cannot be filtered")
    seq = call.site.engine.durable_seq
    page, size = JobPage([], None, seq), 0
    for start in range(query.cursor, len(ids), TOLD_AT_ONCE):
        asked = [_Candidate(0, job) for job in ids[start : start + TOLD_AT_ONCE]]
        for place, view in enumerate(await _tell(call, asked), start):
            if view is None:
                continue
            job = job_data(view.job, view.events)
            size += _size_of(job)
            if page.jobs and size > PAGE_BYTES:
                page.cursor = str(place)
                return Reply(page, seq)
            page.jobs.append(job)
    return Reply(page, seq)


def _size_of(job: JobData) -> int:
    return len(bytes(job.payload)) + len(bytes(job.result)) + len(job.error)


async def _brief(call: HttpCall, query: ListQuery) -> Reply:
    """Answers as `list` on the local socket does.

    Without a state: those that have neither completed nor been discarded.  The others come in the
    order in which they ended, and times are those of their ends.
    """
    if query.parent or query.text:
        raise InvalidInput("view: a brief list has no filter by parent or text")
    seq = call.site.engine.durable_seq
    asked = [
        query.state, query.queue, query.task, query.cursor, query.limit, query.tag,
        query.since_ms, query.until_ms,
    ]  # fmt: skip
    views = _decode_views(await call.site.ask("list", asked))
    last = views[-1] if views else None
    come_to = seq if last is None else last.end_seq or last.seq
    cursor = None if last is None else str(come_to)
    return Reply(JobPage([job_data(view, []) for view in views], cursor, come_to), seq)


async def _tell(call: HttpCall, asked: list[_Candidate]) -> list[ExplainView | None]:
    """Returns what is known of jobs; `None` for one that is not known any more."""

    async def one(candidate: _Candidate) -> ExplainView | None:
        if not candidate.job:
            return None
        try:
            view = _decode_explained(await call.site.ask("explain", [candidate.job]))
        except NotFound:
            return None
        # An id that was used again stands where it came in last.
        return view if candidate.seq in (0, view.job.seq) else None

    return await asyncio.gather(*map(one, asked))


def _fits(query: ListQuery, view: ExplainView) -> bool:
    job = view.job
    if query.state and job.state != query.state:
        return False
    if query.since_ms or query.until_ms:
        came_ms = view.events[0].time_ms if view.events else 0
        if came_ms < query.since_ms or (query.until_ms and came_ms >= query.until_ms):
            return False
    text = query.text
    return (
        (not query.queue or job.queue == query.queue)
        and (not query.task or job.task == query.task)
        and (not query.tag or query.tag in (job.tags or ()))
        and (not query.parent or job.parent == query.parent)
        and (not text or text.encode() in bytes(job.payload) or text in (job.error or ""))
    )


async def _candidates(
    call: HttpCall, query: ListQuery, until_seq: int
) -> AsyncIterator[_Candidate]:
    """Yields jobs that may be wanted, in the order in which they came in."""
    after_seq = query.cursor
    if query.state and query.state not in FINISHED and not (query.since_ms or query.until_ms):
        async for candidate in _held(call, query, after_seq, until_seq):
            yield candidate
        return
    wanted = Wanted(
        query.queue, query.task, query.tag, query.parent, query.since_ms, query.until_ms
    )
    while after_seq < until_seq:
        raw = await call.site.enqueued(wanted, after_seq, until_seq, STEP_JOBS)
        came_in = _decode_came_in(raw)
        if after_seq + 1 < came_in.first_seq:
            # What the log no longer tells of came in before; the state holds what is left of it.
            if query.state not in FINISHED:
                async for candidate in _held(call, query, after_seq, came_in.first_seq - 1):
                    yield candidate
            after_seq = came_in.first_seq - 1
            continue
        for seq, job in came_in.jobs:
            yield _Candidate(seq, job)
        if came_in.come_to <= after_seq:
            return
        after_seq = came_in.come_to
        yield _Candidate(after_seq, "")


async def _held(
    call: HttpCall, query: ListQuery, after_seq: int, until_seq: int
) -> AsyncIterator[_Candidate]:
    """Yields jobs that the state holds."""
    while True:
        asked = [query.state, query.queue, query.task, after_seq, STEP_JOBS, query.tag]
        try:
            views = _decode_views(await call.site.ask("list", asked))
        except NotFound:
            return  # A queue that has no jobs.
        for view in views:
            if view.seq > until_seq:
                return
            yield _Candidate(view.seq, view.id)
        if not views:
            return
        after_seq = views[-1].seq


ROUTES: Final = (
    Route(
        "GET", "/v1/jobs", Right.READ, _list,
        "Jobs in the order in which they came in, a page at a time", {200: JobPage}, ListQuery,
        problems=("not_found",),
    ),
)  # fmt: skip
