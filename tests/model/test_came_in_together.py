"""Replaying jobs that came in with one commit: what one by one gives as well."""

from __future__ import annotations

import msgspec
import pytest

from beaver_model import IllegalEvent, Spec, State, freeze, replay, violations
from beaver_model.bounds import DIGEST_BYTES
from beaver_model.events import Discarded, Enqueued
from beaver_model.rows import encode_spec


def _came_in(count: int, **changed: object) -> list[Enqueued]:
    """Events of one commit; the one in the middle is changed."""
    spec = encode_spec(Spec("send"))
    events = [
        Enqueued(f"job-{n}", spec, b'{"n":1}', bytes([n]) * DIGEST_BYTES) for n in range(count)
    ]
    events[count // 2] = msgspec.structs.replace(events[count // 2], **changed)
    return events


def _replayed(commits: list[list[Enqueued]], *, one_by_one: bool) -> State:
    state = State()
    state.defer_indexes()
    for number, events in enumerate(commits):
        if one_by_one:
            for event in events:
                replay(state, state.last_seq + 1, 1_000 + number, [event])
        else:
            replay(state, state.last_seq + 1, 1_000 + number, events)
    state.index()
    return state


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"run_at_ms": 5_000},
        {"run_at_ms": 1_000},
        {"tags": ("eu",)},
        {"parent": "job-0"},
        {"spec": encode_spec(Spec("send", queue="other"))},
    ],
)
def test_jobs_that_came_in_together_are_replayed_as_one_by_one(changed: dict[str, object]) -> None:
    first = [msgspec.structs.replace(event, job=f"early-{event.job}") for event in _came_in(5)]
    commits = [first[:1], first[1:], _came_in(7, **changed)]
    together, singly = (_replayed(commits, one_by_one=how) for how in (False, True))
    assert freeze(together) == freeze(singly)
    assert violations(together) == []
    assert (together.ledger, together.bytes, together.time_ms) == (
        singly.ledger, singly.bytes, singly.time_ms,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"job": "job-0"}, "exists"),
        ({"job": "early"}, "exists"),
        ({"job": "finished"}, "exists"),
        ({"digest": b"short"}, "digest"),
        ({"spec": b"\xc1"}, "spec"),
    ],
)
def test_one_that_cannot_have_come_in_is_named_with_its_seq(
    changed: dict[str, object], reason: str
) -> None:
    state = State()
    state.defer_indexes()
    early = [msgspec.structs.replace(event, job=name) for event, name in zip(
        _came_in(3), ("early", "other", "finished"), strict=True
    )]  # fmt: skip
    replay(state, 1, 1_000, [early[0]])
    replay(state, 2, 1_000, early[1:])
    replay(state, 4, 1_000, [Discarded("finished")])
    with pytest.raises(IllegalEvent, match=reason) as told:
        replay(state, 5, 1_000, _came_in(9, **changed))
    assert told.value.seq == 5 + 4
