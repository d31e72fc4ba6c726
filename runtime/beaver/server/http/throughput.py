"""`GET /v1/throughput`: how many jobs came and went, in steps, since the server started."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from beaver.access.roles import Right
from beaver.errors import InvalidInput
from beaver.server.http.routing import Body, HttpCall, Reply, Route

STEPS_MAX: Final = 1_000
_MS_MAX: Final = (1 << 62) - 1


class ThroughputQuery(Body):
    """Which time, and how finely."""

    since_ms: Annotated[int, msgspec.Meta(ge=0, le=_MS_MAX)] = 0
    """Begin of the first step, in ms since the epoch; 0 for a hundred steps before now."""
    step: Annotated[int, msgspec.Meta(ge=1_000, le=_MS_MAX)] = 1_000
    """Length of a step in ms, or as `10s`; at least a second."""


class Step(msgspec.Struct):
    """What happened from `at_ms` on, for a step."""

    at_ms: int
    enqueued: int
    completed: int
    failed: int
    """Attempts, those that are tried again included."""


class ThroughputData(msgspec.Struct):
    """Counts of a stretch of time."""

    since_ms: int
    until_ms: int
    """Now."""
    step_ms: int
    steps: list[Step]
    """In order of time; those in which nothing happened are left out."""


async def _throughput(call: HttpCall) -> Reply:
    query: ThroughputQuery = call.query
    seq, now_ms = call.site.engine.durable_seq, call.site.served.clock.wall_ms()
    since_ms = query.since_ms or max(0, now_ms - 100 * query.step)
    if now_ms - since_ms > STEPS_MAX * query.step:
        raise InvalidInput(
            f"since_ms, step: at most {STEPS_MAX} steps up to now can be had; "
            "take a longer step or a later begin"
        )
    found = call.site.served.throughput(since_ms, now_ms + 1, query.step)
    steps = [Step(at_ms, *counts) for at_ms, counts in sorted(found.items())]
    return Reply(ThroughputData(since_ms, now_ms, query.step, steps), seq)


ROUTES: Final = (
    Route(
        "GET", "/v1/throughput", Right.READ, _throughput,
        "How many jobs came and went in each step of time, since the server started",
        {200: ThroughputData}, query=ThroughputQuery, problems=("invalid",),
    ),
)  # fmt: skip
