"""Counts by the second and the minute: every event is counted once, wherever one looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver.server.throughput import (
    MINUTE_MS,
    MINUTES_KEPT,
    SECOND_MS,
    SECONDS_KEPT,
    Counts,
    Throughput,
)
from beaver_model.events import ALL_EVENTS, Acked, Enqueued, Retried

START_MS = 1_800_000_000_000


class Counted:
    """What is counted, fed as `Metrics` feeds it."""

    def __init__(self) -> None:
        self.totals: dict[type, int] = dict.fromkeys(ALL_EVENTS, 0)
        self.throughput = Throughput()

    def commit(self, at_ms: int, **kinds: int) -> None:
        if at_ms >= self.throughput.due_ms:
            self.throughput.turn(at_ms, self.totals)
        self.totals[Enqueued] += kinds.get("enqueued", 0)
        self.totals[Acked] += kinds.get("completed", 0)
        self.totals[Retried] += kinds.get("failed", 0)

    def between(self, since_ms: int, until_ms: int, step_ms: int) -> dict[int, Counts]:
        return self.throughput.between(since_ms, until_ms, step_ms, self.totals)


@given(
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 3)), max_size=60),
    st.sampled_from([SECOND_MS, 7_000, MINUTE_MS]),
)
def test_each_event_is_counted_in_its_step(commits: list[tuple[int, int]], step_ms: int) -> None:
    """At the resolution of a second, whatever the step."""
    counted, expected, now_ms = Counted(), dict[int, int](), START_MS
    for later_ms, jobs in commits:
        now_ms += later_ms
        counted.commit(now_ms, enqueued=jobs)
        if jobs:
            second_ms = now_ms - now_ms % SECOND_MS
            begin_ms = second_ms - (second_ms - START_MS) % step_ms
            expected[begin_ms] = expected.get(begin_ms, 0) + jobs
    found = counted.between(START_MS, now_ms + 1, step_ms)
    assert {at_ms: counts.enqueued for at_ms, counts in found.items() if any(counts)} == expected


@pytest.mark.parametrize("seconds", [SECONDS_KEPT - 1, SECONDS_KEPT, SECONDS_KEPT + 1, 10_000])
def test_nothing_is_lost_or_counted_twice_where_seconds_end(seconds: int) -> None:
    """Below, at and above the hour that is kept by the second."""
    counted = Counted()
    for second in range(seconds):
        counted.commit(START_MS + second * SECOND_MS, enqueued=1, completed=2, failed=3)
    until_ms = START_MS + seconds * SECOND_MS
    found = counted.between(START_MS, until_ms, MINUTE_MS)
    total = [sum(column) for column in zip(*found.values(), strict=True)]
    assert total == [seconds, 2 * seconds, 3 * seconds]


def test_a_week_is_kept_and_no_more() -> None:
    counted = Counted()
    for minute in range(MINUTES_KEPT + 100):
        counted.commit(START_MS + minute * MINUTE_MS, enqueued=1)
    until_ms = START_MS + (MINUTES_KEPT + 100) * MINUTE_MS
    found = counted.between(START_MS, until_ms, MINUTE_MS)
    assert MINUTES_KEPT <= len(found) <= MINUTES_KEPT + 1


def test_what_happens_now_is_told_at_once() -> None:
    counted = Counted()
    counted.commit(START_MS, enqueued=5)
    assert counted.between(START_MS, START_MS + 1, SECOND_MS) == {START_MS: Counts(5, 0, 0)}
