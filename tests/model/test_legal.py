"""What may stand in a log beyond the cells: tokens that fence, and bounds that hold (P3, P6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beaver_model.bounds import SNOOZES_MAX
from beaver_model.commands import Release
from beaver_model.events import (
    Acked,
    AnyEvent,
    Cancelled,
    CancelRequested,
    Cause,
    Died,
    Dispatched,
    Released,
    Retried,
    TimedOut,
)
from tests.worlds.model import World, job

pytestmark = pytest.mark.invariants


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        (Acked, (b"null",)),
        (Retried, (1_000, Cause.FAILED)),
        (TimedOut, (1_000, Cause.TIME_LIMIT)),
        (Released, (0, Cause.DRAIN)),
        (Died, (Cause.NOT_RETRYABLE,)),
        (Cancelled, ()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_only_the_token_in_flight_may_end_an_attempt(
    kind: Callable[..., AnyEvent], facts: tuple[object, ...]
) -> None:
    world = World()
    world.enqueue(job())
    old = world.dispatch()
    world.do(Release("a", old, Cause.NEVER_STARTED))
    new = world.dispatch()
    for token in (0, old, new + 1):
        reason = world.legal(kind("a", token, *facts))
        assert reason == f"job a is in flight with token {new}, not {token}"
    assert world.legal(kind("a", new, *facts)) is None
    assert world.legal(CancelRequested("a")) is None, "a request carries no token"


def test_no_attempt_beyond_the_limit_is_legal() -> None:
    world = World()
    world.enqueue(job(max_attempts=1))
    token = world.dispatch()
    for event in (Retried("a", token, 0, Cause.FAILED), TimedOut("a", token, 0, Cause.TIME_LIMIT)):
        assert world.legal(event) == "job a has no attempt left after 1"
    world.row().state = world.row().state.PENDING
    assert world.legal(Dispatched("a", 1)) == "job a has no attempt left of 1"


def test_no_snooze_beyond_the_bound_is_legal() -> None:
    world = World()
    world.enqueue(job(max_attempts=2))
    world.do(Release("a", world.dispatch(), Cause.SNOOZE))
    token = world.dispatch()
    extra = world.row().extra
    assert extra is not None
    extra.snoozes = SNOOZES_MAX
    reason = world.legal(Released("a", token, 0, Cause.SNOOZE))
    assert reason == f"job a has snoozed {SNOOZES_MAX} times"
    assert world.legal(Released("a", token, 0, Cause.DRAIN)) is None
