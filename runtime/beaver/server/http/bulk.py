"""Many jobs at once over HTTP: cancel, retry, discard by filters, and emptying a queue.

The set of jobs is fixed, and on disk, before the answer; carrying it out takes as long as it takes
(`server.bulk`).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import msgspec

from beaver.access.roles import Right
from beaver.errors import InvalidInput, NotFound
from beaver.inspect.finding import STATES
from beaver.server.bulk import matching, sets
from beaver.server.bulk.carrying_out import TooManyBulks
from beaver.server.http.listing import State
from beaver.server.http.problems import Problem
from beaver.server.http.routing import Body, Call, Reply, Route
from beaver.structs.questions import CameIn, Wanted
from beaver.text.names import check_name
from beaver_model.bounds import INTEGER_MAX, NAME_BYTES_MAX
from beaver_model.states import JobState

BODY_BYTES_MAX: Final = 64 << 10
JOBS_MAX: Final = 1_000_000
"""Jobs that one action may be for."""

_decode_came_in: Final = msgspec.json.Decoder(CameIn).decode

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]
Time = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Action = Literal["cancel", "retry", "discard"]
assert set(matching.STATES) == {"cancel", "retry", "discard"}


class Where(Body):
    """Which jobs, as the list's filters; at least one is needed."""

    state: State | msgspec.UnsetType = msgspec.UNSET
    queue: Name | msgspec.UnsetType = msgspec.UNSET
    task: Name | msgspec.UnsetType = msgspec.UNSET
    tag: Name | msgspec.UnsetType = msgspec.UNSET
    parent: Text | msgspec.UnsetType = msgspec.UNSET
    text: Text | msgspec.UnsetType = msgspec.UNSET
    """Stands in the payload or the error."""
    since_ms: Time | msgspec.UnsetType = msgspec.UNSET
    """Those that came in then or later."""
    until_ms: Time | msgspec.UnsetType = msgspec.UNSET
    """Those that came in before."""


class BulkAction(Body):
    """What is to be done to which jobs.  Those whose state forbids it are not matched."""

    action: Action
    where: Where
    dry_run: bool = False
    """Only count them."""


class Purge(Body):
    """How to empty a queue."""

    dry_run: bool = False
    """Only count the jobs."""


class Matched(msgspec.Struct):
    """How many jobs are meant."""

    matched: int


class BulkStarted(msgspec.Struct):
    """An action that is under way."""

    bulk: str
    matched: int


class BulkData(msgspec.Struct):
    """How far an action is.  In the end `done` and `refused` are together `matched`."""

    bulk: str
    action: str
    state: str
    """`running` or `done`."""
    matched: int
    done: int
    refused: int
    """Jobs that had changed meanwhile so that the action was not possible."""
    by: str
    created_ms: int


async def _act(call: Call) -> Reply:
    body = await call.body(BulkAction, BODY_BYTES_MAX)
    given = {
        name: value
        for name in Where.__struct_fields__
        if not isinstance(value := getattr(body.where, name), msgspec.UnsetType)
    }
    if not given:
        raise InvalidInput(
            "where: at least one filter is needed, since none would match every job; known are "
            + ", ".join(Where.__struct_fields__)
        )
    states = matching.STATES[body.action]
    word = given.pop("state", "")
    if word:
        states &= {JobState[word.upper()]} if word in _ROWS else set()
    since_ms, until_ms = given.pop("since_ms", None), given.pop("until_ms", None)
    last_seq = call.site.engine.state.last_seq
    first_seq = 0 if since_ms is None else await _seq_at(call, since_ms, last_seq)
    if until_ms is not None:
        last_seq = await _seq_at(call, until_ms, last_seq) - 1
    filters = matching.Filters(states, **given, first_seq=first_seq, last_seq=last_seq)
    return await _begin(call, body.action, filters, dry_run=body.dry_run)


_ROWS: Final = frozenset(STATES) - {"completed", "discarded"}
"""States of jobs that the state holds."""


async def _seq_at(call: Call, time_ms: int, until_seq: int) -> int:
    """Returns the seq of the first job that came in at a time or later; one above all for none."""
    after_seq = 0
    wanted = Wanted(since_ms=time_ms)
    while after_seq < until_seq:
        found = _decode_came_in(await call.site.enqueued(wanted, after_seq, until_seq, 1))
        if found.jobs:
            return found.jobs[0][0]
        if after_seq + 1 < found.first_seq:
            after_seq = found.first_seq - 1  # What the log no longer tells of came in before.
        elif found.come_to <= after_seq:
            break
        else:
            after_seq = found.come_to
    return until_seq + 1


async def _begin(call: Call, action: str, filters: matching.Filters, *, dry_run: bool) -> Reply:
    """Counts the jobs that are meant, and begins.

    Raises:
        Problem: They are too many, or as many actions as may be are under way.
    """
    site = call.site
    try:
        if not dry_run:
            site.bulks.check_room()
        async with site.scanning:
            lines: list[bytes] = []
            count = size = 0
            for found in matching.matching(site.engine.state, filters):
                count += len(found)
                if not dry_run:
                    fresh = list(map(sets.line_of, found))
                    lines += fresh
                    size += sum(map(len, fresh))
                    if size > sets.SET_BYTES_MAX or count > JOBS_MAX:
                        raise Problem(
                            "too_large",
                            f"more than {JOBS_MAX} jobs, or {sets.SET_BYTES_MAX} bytes of their "
                            "ids, match; narrow the filters, and act several times",
                        )
                await asyncio.sleep(0)
        _, seq = await site.read(lambda _: None)  # All that was looked at is durable by now.
        if dry_run:
            return Reply(Matched(count), seq)
        bulk = await site.bulks.start(action, call.token.by, lines)
    except TooManyBulks as error:
        raise Problem("too_many_requests", str(error)) from None
    where = {"Location": f"/v1/bulk/{bulk.bulk}"}
    return Reply(BulkStarted(bulk.bulk, bulk.matched), seq, 202, where)


async def _tell(call: Call) -> Reply:
    name = call.request.match_info["bulk"]
    bulk = call.site.bulks.find(name)
    if bulk is None:
        raise NotFound(f"no bulk action {name!r:.80}; the last hundred that are done are kept")
    told = BulkData(
        bulk.bulk, bulk.action, bulk.state, bulk.matched, bulk.done, bulk.refused, bulk.by,
        bulk.created_ms,
    )  # fmt: skip
    return Reply(told, call.site.engine.durable_seq)


async def _purge(call: Call) -> Reply:
    body, name = await call.body(Purge, BODY_BYTES_MAX), check_name(call.name, "queue")
    _, last_seq = await call.site.read(lambda state: _known(name in state.queues, name))
    pending = frozenset({JobState.PENDING})
    filters = matching.Filters(pending, queue=name, last_seq=last_seq)
    return await _begin(call, "discard", filters, dry_run=body.dry_run)


def _known(is_known: bool, name: str) -> None:
    if not is_known:
        raise NotFound(f"no queue {name}")


_PROBLEMS: Final = (
    "invalid", "too_large", "too_many_requests", "unsupported_media_type",
)  # fmt: skip

ROUTES: Final = (
    Route(
        "POST", "/v1/bulk", Right.OPERATE, _act,
        "Cancel, retry or discard all jobs that fit filters; the set is fixed by the answer",
        {200: Matched, 202: BulkStarted}, body=BulkAction, problems=_PROBLEMS,
    ),
    Route(
        "GET", "/v1/bulk/{bulk}", Right.READ, _tell, "How far an action on many jobs is",
        {200: BulkData}, problems=("not_found",),
    ),
    Route(
        "POST", "/v1/queues/{name}/purge", Right.OPERATE, _purge,
        "Discard every pending job of a queue", {200: Matched, 202: BulkStarted}, body=Purge,
        problems=(*_PROBLEMS, "not_found"),
    ),
)  # fmt: skip
