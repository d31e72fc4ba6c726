"""Many jobs at once over HTTP: cancel, retry, discard by filters, and emptying a queue."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import msgspec

from beaver.access.roles import Right
from beaver.errors import NotFound
from beaver.inspect.matching import ACTIONS, TEXT_CHARS_MAX
from beaver.server.bulk.carrying_out import TooManyBulks
from beaver.server.bulk.choosing import TooManyMatch
from beaver.server.http.listing import State
from beaver.server.http.problems import Problem
from beaver.server.http.routing import Body, HttpCall, Reply, Route
from beaver.structs.questions import Where
from beaver.structs.views import BulkView
from beaver.text.names import check_name
from beaver_model.bounds import INTEGER_MAX, NAME_BYTES_MAX

BODY_BYTES_MAX: Final = 64 << 10

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]
Time = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Action = Literal["cancel", "retry", "discard"]
assert set(ACTIONS) == set(get_args(Action))


class Filters(Body):
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
    where: Filters
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


async def _act(call: HttpCall) -> Reply:
    body = await call.body(BulkAction, BODY_BYTES_MAX)
    given = {
        name: value
        for name in Filters.__struct_fields__
        if not isinstance(value := getattr(body.where, name), msgspec.UnsetType)
    }
    return await _begin(call, body.action, Where(**given), dry_run=body.dry_run)


async def _begin(call: HttpCall, action: str, where: Where, *, dry_run: bool) -> Reply:
    try:
        begun = await call.site.choosing.begin(action, where, call.token.by, dry_run=dry_run)
    except TooManyBulks as error:
        raise Problem("too_many_requests", str(error)) from None
    except TooManyMatch as error:
        raise Problem("too_large", str(error)) from None
    seq = call.site.engine.durable_seq
    if dry_run:
        return Reply(Matched(begun.matched), seq)
    path = {"Location": f"/v1/bulk/{begun.bulk}"}
    return Reply(BulkStarted(begun.bulk, begun.matched), seq, 202, path)


async def _tell(call: HttpCall) -> Reply:
    found = call.site.choosing.find(call.request.match_info["bulk"])
    return Reply(found, call.site.engine.durable_seq)


async def _purge(call: HttpCall) -> Reply:
    body, name = await call.body(Purge, BODY_BYTES_MAX), check_name(call.name, "queue")
    await call.site.read(lambda state: _known(name in state.queues, name))
    return await _begin(call, "discard", Where("pending", name), dry_run=body.dry_run)


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
        {200: BulkView}, problems=("not_found",),
    ),
    Route(
        "POST", "/v1/queues/{name}/purge", Right.OPERATE, _purge,
        "Discard every pending job of a queue", {200: Matched, 202: BulkStarted}, body=Purge,
        problems=(*_PROBLEMS, "not_found"),
    ),
)  # fmt: skip
