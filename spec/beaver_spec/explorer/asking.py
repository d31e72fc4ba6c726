"""From the explorer's words to commands of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    CompleteBatch,
    ConfirmCancel,
    Discard,
    Dispatch,
    DispatchBatch,
    Done,
    Enqueue,
    Expire,
    Fail,
    NewJob,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import Cause
from beaver_spec.explorer.rows import NAMES, QUEUE


class Meanings(Protocol):
    """What the words of a question mean in the model: tokens, times and requests of a space."""

    too_many: tuple[NewJob, ...]

    def token(self, job: int, label: int) -> int: ...
    def due_ms(self, job: int) -> int: ...
    def now_ms(self) -> int: ...
    def job(self, place: int, variant: str) -> NewJob: ...
    def jitter(self, job: int) -> float: ...


def command_of(space: Meanings, ask: Any, worker: int) -> AnyCommand:
    """Returns the command that a question stands for, with the tokens and times of a space."""
    return _COMMANDS[str(ask[0])](space, ask, worker)


def _boot(space: Meanings, ask: Any, worker: int) -> AnyCommand:
    started = frozenset(space.token(job, label) for job, label in ask[1])
    return Boot(started, bool(ask[2]))


def _complete(space: Meanings, ask: Any, worker: int) -> AnyCommand:
    children = (space.job(ask[3], "same"),) if ask[3] >= 0 else ()
    return Complete(NAMES[ask[1]], space.token(ask[1], ask[2]), b"null", children)


def _complete_several(space: Meanings, ask: Any, worker: int) -> AnyCommand:
    return CompleteBatch([Done(NAMES[j], space.token(j, label), b"null") for j, label in ask[1]])


def _fail(space: Meanings, ask: Any, worker: int) -> AnyCommand:
    job, token = NAMES[ask[1]], space.token(ask[1], ask[2])
    retry = ask[3] != "not_retryable"
    return Fail(job, token, "broken", space.jitter(ask[1]), ask[3], retry)


def _lease(space: Meanings, ask: Any, worker: int) -> AnyCommand:
    return Expire(NAMES[ask[1]], space.token(ask[1], ask[2]), Cause.LEASE_EXPIRED)


def _release(space: Meanings, ask: Any, worker: int) -> AnyCommand:
    delay_ms = space.due_ms(ask[1]) - space.now_ms() if ask[3] == "snooze" else 0
    return Release(NAMES[ask[1]], space.token(ask[1], ask[2]), ask[3], delay_ms)


_COMMANDS: Final[dict[str, Callable[[Meanings, Any, int], AnyCommand]]] = {
    "enqueue": lambda s, a, _w: Enqueue((s.job(a[1], a[2]),)),
    "repeated": lambda s, _a, _w: Enqueue((s.job(0, "same"), s.job(0, "other"))),
    "too-large": lambda s, _a, _w: Enqueue(s.too_many),
    "bad-weight": lambda _s, _a, _w: SetQueue(QUEUE, weight=0),
    "bad-bounds": lambda _s, _a, _w: SetBounds(-1),
    "dispatch": lambda _s, a, w: Dispatch(NAMES[a[1]], w, bool(a[3])),
    "dispatch-several": lambda _s, a, w: DispatchBatch([NAMES[j] for j in a[1]], w, bool(a[3])),
    "complete": _complete,
    "complete-several": _complete_several,
    "fail": _fail,
    "expire": lambda s, a, _w: Expire(NAMES[a[1]], s.token(a[1], a[2]), jitter=s.jitter(a[1])),
    "lease": _lease,
    "release": _release,
    "confirm": lambda s, a, _w: ConfirmCancel(NAMES[a[1]], s.token(a[1], a[2])),
    "cancel": lambda _s, a, _w: Cancel(NAMES[a[1]]),
    "requeue": lambda _s, a, _w: Requeue(NAMES[a[1]]),
    "discard": lambda _s, a, _w: Discard(NAMES[a[1]]),
    "pause": lambda _s, a, _w: SetQueue(QUEUE, paused=bool(a[1])),
    "boot": _boot,
}
