"""What the machines draw: jobs, commands, times.

Commands that answer an attempt are drawn with a *pick* in place of a token; `aim` turns it
into the token of an attempt that is in flight, or of one that is long over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from hypothesis import strategies as st

from beaver_model import State
from beaver_model.commands import (
    AnyCommand,
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
from beaver_model.rows import BackoffKind, Spec, encode_spec

Aimed = TypeVar("Aimed", bound=msgspec.Struct)
Token = tuple[str, int]
"""A job and the token of one of its attempts."""

NOW_MS = 1_000_000
"""Where the wall clock begins."""

JOBS = st.sampled_from([f"job-{n}" for n in range(8)])
QUEUES = st.sampled_from([*["default"] * 6, "mail", "mail", "news"])
"""Mostly the same, as tasks and priorities are: so that several jobs stand in one lane."""
TASKS = st.sampled_from(["send", "send", "send", "fetch"])
PICKS = st.integers(0, 3) | st.integers(0, 1 << 10)
CHANCE = st.randoms(use_true_random=False)
"""Answers to `SimDisk.crash` and its like."""

SPECS = st.builds(
    lambda task, queue, priority, attempts, kind: encode_spec(
        Spec(
            task,
            queue,
            priority,
            max_attempts=attempts,
            timeout_ms=5_000,
            backoff_kind=kind,
            backoff_base_ms=100,
            backoff_max_ms=1_000,
        )
    ),
    TASKS,
    QUEUES,
    st.sampled_from([5, 5, 5, 0, 9]),
    st.sampled_from([3, 3, 2, 1]),
    st.sampled_from(list(BackoffKind)),
)


def jobs(payload_bytes_max: int = 40) -> st.SearchStrategy[NewJob]:
    """Requests for a job, some of which differ from an earlier one of the same id."""
    return st.builds(
        lambda name, spec, size, content, run_at_ms, tags: NewJob(
            name, spec, b'"' + b"x" * size + b'"', b"digest-%05d" % content, run_at_ms, tags
        ),
        JOBS,
        SPECS,
        st.integers(0, payload_bytes_max),
        st.sampled_from([0] * 9 + [1]),
        st.sampled_from([0] * 9 + [NOW_MS + 50, NOW_MS + 5_000, NOW_MS + 100_000]),
        st.sampled_from([(), (), ("blue",)]),
    )


def batches(payload_bytes_max: int = 40) -> st.SearchStrategy[list[NewJob]]:
    """Jobs of one request, with ids of their own."""
    return st.lists(jobs(payload_bytes_max), min_size=1, max_size=4, unique_by=lambda job: job.id)


FIRST_BATCH = batches().filter(lambda batch: len(batch) > 1)
"""What a run begins with, so that there is something to do."""

CHILDREN = st.one_of(
    st.just(()), jobs().map(lambda job: (job,)), jobs().map(lambda job: (job,) * 2)
)

ENQUEUES = st.builds(Enqueue, batches())
DISPATCHES = st.builds(Dispatch, JOBS, st.integers(1, 3), st.booleans())
DISPATCH_BATCHES = st.builds(
    DispatchBatch, st.lists(JOBS, min_size=1, max_size=4), st.integers(1, 3), st.booleans()
)
COMPLETE_BATCHES = st.builds(
    CompleteBatch,
    st.lists(
        st.builds(Done, JOBS, PICKS, st.sampled_from([b"1", b'{"ok":true}'])),
        min_size=1,
        max_size=5,
    ),
)
"""Some answer one attempt twice, or one that is long over."""
OUTCOMES = st.one_of(
    st.builds(Complete, JOBS, PICKS, st.sampled_from([b"1", b'{"ok":true}']), CHILDREN),
    st.builds(
        Fail,
        JOBS,
        PICKS,
        st.just("boom"),
        jitter=st.sampled_from([0.0, 0.5, 0.999]),
        cause=st.sampled_from([Cause.FAILED, Cause.WORKER_LOST]),
        delay_ms=st.sampled_from([None, None, 0, 50]),
    ),
    st.builds(
        Fail, JOBS, PICKS, st.just("boom"), cause=st.just(Cause.NOT_RETRYABLE), retry=st.just(False)
    ),
    st.builds(Expire, JOBS, PICKS),
    st.builds(
        Release,
        JOBS,
        PICKS,
        st.sampled_from([Cause.SNOOZE, Cause.DRAIN, Cause.NEVER_STARTED]),
        st.sampled_from([0, 50]),
    ),
    st.builds(
        ConfirmCancel,
        JOBS,
        PICKS,
        cause=st.sampled_from([Cause.OPERATOR, Cause.JOB]),
        error=st.sampled_from(["", "why"]),
    ),
)
OPERATIONS = st.one_of(
    st.builds(Cancel, JOBS),
    st.builds(Requeue, JOBS, st.sampled_from([None, b'{"edited":true}'])),
    st.builds(Discard, JOBS),
    st.builds(
        SetQueue,
        QUEUES,
        st.sampled_from([None, True, False, False]),
        st.sampled_from([None, 0, 1, 9]),
        st.sampled_from([None, 0, -1, 2_000]),
        st.sampled_from([None, None, True, False]),
    ),
    st.builds(SetBounds, st.sampled_from([-1, 0, 1, 3, 100]), st.sampled_from([0, 1_000])),
)
WRONG = st.sampled_from(
    [
        Enqueue([NewJob("job-0", encode_spec(Spec("send")), b"1", b"d" * 12)] * 2),
        Enqueue([NewJob("job-0", encode_spec(Spec("send")), b"1", b"d" * 12)] * 10_001),
        Cancel("nobody"),
    ]
)
ENDS = OUTCOMES.map(lambda command: msgspec.structs.replace(command, token=0))
"""Outcomes of the attempt that was dispatched last."""
COMMANDS: st.SearchStrategy[AnyCommand] = st.one_of(
    ENQUEUES,
    DISPATCHES,
    DISPATCHES,
    OUTCOMES,
    OUTCOMES,
    OPERATIONS,
    DISPATCH_BATCHES | COMPLETE_BATCHES,
)


def aim(command: AnyCommand, tokens: Sequence[Token]) -> AnyCommand:
    """Turns the pick of an outcome into a token of `tokens`, rather one of the last.

    One in eight names another job than the token's.  Of a batch each is aimed.
    """
    if isinstance(command, CompleteBatch):
        return CompleteBatch([_aimed(done, tokens) for done in command.done])
    return _aimed(command, tokens)


def _aimed(command: Aimed, tokens: Sequence[Token]) -> Aimed:
    pick = getattr(command, "token", None)
    if pick is None or not tokens:
        return command
    job, token = tokens[-1 - pick % len(tokens)]
    changes = {"token": token} if pick % 8 == 7 else {"job": job, "token": token}
    return msgspec.structs.replace(command, **changes)


class Tokens:
    """Every token that was given, those that are in flight last."""

    def __init__(self) -> None:
        self._over: list[Token] = []
        self._live: list[Token] = []

    def note(self, state: State) -> None:
        """Looks at what is in flight now."""
        live = [(row.id, token) for token, row in state.in_flight.items()]
        self._over += [each for each in self._live if each not in live]
        self._live = live

    def aim(self, command: AnyCommand) -> AnyCommand:
        return aim(command, [*self._over, *self._live])
