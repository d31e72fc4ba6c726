"""The store as a whole over HTTP: status, queues, a snapshot."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from beaver.access.roles import Right
from beaver.errors import InvalidInput, NotFound
from beaver.inspect import queries
from beaver.server.http.routing import Body, HttpCall, NoBody, Reply, Route
from beaver.structs.views import QueueView, ReloadView, StatusView
from beaver.text.names import check_name
from beaver.text.near import unknown_name
from beaver_model import State
from beaver_model.bounds import WEIGHT_MAX
from beaver_model.commands import SetQueue

BODY_BYTES_MAX: Final = 64 << 10
BYTES_MAX: Final = (1 << 63) - 1
_NEAR_MAX: Final = 256


class QueueData(QueueView, kw_only=True):
    """A queue."""

    name: str
    bytes_max: int = 0
    """Bound on the bytes of its unfinished jobs; 0 for none."""


class Queues(msgspec.Struct):
    """All queues, by name."""

    queues: list[QueueData]


class QueuePatch(Body):
    """Settings of a queue; what is left out stays."""

    paused: bool | msgspec.UnsetType = msgspec.UNSET
    weight: Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_MAX)] | msgspec.UnsetType = msgspec.UNSET
    bytes_max: Annotated[int, msgspec.Meta(ge=0, le=BYTES_MAX)] | msgspec.UnsetType = msgspec.UNSET
    durable_dispatch: bool | msgspec.UnsetType = msgspec.UNSET


class SnapshotTaken(msgspec.Struct):
    """A snapshot."""

    seq: int
    """It holds everything up to here."""


async def _status(call: HttpCall) -> Reply:
    seq = call.site.engine.durable_seq
    return Reply(await call.site.ask("status", []), seq)


def _queue_data(state: State, name: str, now_ms: int) -> QueueData:
    queue = state.queues.get(name)
    if queue is None:
        hint = unknown_name(name, tuple(state.queues)[:_NEAR_MAX])
        raise NotFound(f"no queue {name}{hint}")
    view = queries.queue_view(queue, now_ms)
    return QueueData(*msgspec.structs.astuple(view), name=name, bytes_max=queue.row.bytes_max)


async def _queues(call: HttpCall) -> Reply:
    now_ms = call.site.engine.now_ms()

    def ask(state: State) -> Queues:
        return Queues([_queue_data(state, name, now_ms) for name in sorted(state.queues)])

    return Reply(*await call.site.read(ask))


async def _queue(call: HttpCall) -> Reply:
    now_ms, name = call.site.engine.now_ms(), call.name
    return Reply(*await call.site.read(lambda state: _queue_data(state, name, now_ms)))


async def _patch_queue(call: HttpCall) -> Reply:
    patch, name = await call.body(QueuePatch, BODY_BYTES_MAX), check_name(call.name, "queue")
    given = {
        key: value
        for key in QueuePatch.__struct_fields__
        if not isinstance(value := getattr(patch, key), msgspec.UnsetType)
    }
    if not given:
        known = ", ".join(QueuePatch.__struct_fields__)
        raise InvalidInput(f"there is nothing to set; give some of {known}")
    now_ms = call.site.engine.now_ms()

    def answer(state: State, seq: int) -> tuple[QueueData, int]:
        if name not in state.queues:
            return QueueData(name=name), state.last_seq  # Idle, and as if it had never been there.
        return _queue_data(state, name, now_ms), seq or state.last_seq

    return Reply(*await call.site.change(SetQueue(name, **given, by=call.token.by), answer))


async def _snapshot(call: HttpCall) -> Reply:
    await call.body(NoBody, BODY_BYTES_MAX)
    seq = await call.site.snapshot()
    return Reply(SnapshotTaken(seq), seq)


async def _reload(call: HttpCall) -> Reply:
    await call.body(NoBody, BODY_BYTES_MAX)
    return Reply(await call.site.ask("reload", []), call.site.engine.durable_seq)


_CHANGE: Final = ("invalid", "unsupported_media_type", "too_large")

ROUTES: Final = (
    Route(
        "GET", "/v1/status", Right.READ, _status, "The whole queue at a glance", {200: StatusView}
    ),
    Route("GET", "/v1/queues", Right.READ, _queues, "All queues", {200: Queues}),
    Route(
        "GET", "/v1/queues/{name}", Right.READ, _queue, "A queue", {200: QueueData},
        problems=("not_found",),
    ),
    Route(
        "PATCH", "/v1/queues/{name}", Right.OPERATE, _patch_queue,
        "Change settings of a queue, which need not have had a job", {200: QueueData},
        body=QueuePatch, problems=_CHANGE,
    ),
    Route(
        "POST", "/v1/snapshot", Right.OPERATE, _snapshot, "Take a snapshot now",
        {200: SnapshotTaken}, body=NoBody, problems=_CHANGE,
    ),
    Route(
        "POST", "/v1/reload", Right.ADMIN, _reload,
        "Start workers with code and settings as they are now", {200: ReloadView}, body=NoBody,
        problems=_CHANGE,
    ),
)  # fmt: skip
