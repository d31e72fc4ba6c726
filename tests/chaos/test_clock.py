"""The clocks of the real program jump: nothing is lost, charged, early, or waits for ever.

A run checks by itself: the history of all jobs, that stamps never go back, that no job starts
before its time, that only what runs over its limit is stopped and that it is, and that what a
jump forwards makes due starts (`beaver_chaos.faults.clock.jumps`).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver_chaos.faults.clock.fakes import can_fake
from beaver_chaos.faults.clock.jumps import DAY_S, FAULT, SOWN, jump_about
from beaver_chaos.faults.clock.times import Times
from beaver_chaos.faults.table import experiment
from beaver_chaos.program.process import ChaosFailure
from beaver_model.events import Cause, Died, Dispatched, Enqueued, Released, Retried, TimedOut
from beaver_model.rows import Spec, encode_spec
from tests.support.needs import need

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("monotonic", [False, True], ids=["wall", "both"])
def test_clocks_that_jump_lose_charge_and_delay_nothing(monotonic: bool, tmp_path: Path) -> None:
    need(can_fake(monotonic=monotonic), FAULT)
    report = jump_about(tmp_path, monotonic=monotonic)
    print(report)
    assert report.jumps == (5 if monotonic else 7)
    assert report.acknowledged > 50
    # One probe a jump runs over its limit, however the clock jumps meanwhile.
    assert report.timeouts >= report.jumps - 2
    assert report.events["BOOT"] == 3
    assert report.log_ahead_s > 80 * DAY_S, "the server has seen the clock that was faked"


@pytest.mark.parametrize(
    ("bug", "seen"),
    [
        ("stamps follow the wall clock", "ms before the commit before it"),
        ("limits are measured by the wall clock", "is dead: ran longer than 3600 s"),
    ],
)
def test_a_bug_with_clocks_is_seen(bug: str, seen: str, tmp_path: Path) -> None:
    need(can_fake(monotonic=False))
    with experiment(FAULT, "wall clock", sown=bug) as told:
        with pytest.raises(ChaosFailure, match=seen) as caught:
            jump_about(tmp_path, sown=bug)
        told.note(caught.value)


def test_every_bug_is_tried() -> None:
    (marked,) = (m for m in test_a_bug_with_clocks_is_seen.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]
    assert {bug for bug, _ in marked.args[1]} == SOWN.keys()


# -- the checks themselves -----------------------------------------------------------------------


def enqueued(task: str = "work", run_at_ms: int = 0) -> Enqueued:
    spec = encode_spec(Spec(task=task, queue="default", priority=5, timeout_ms=1, max_attempts=3))
    return Enqueued("a", spec, b"null", bytes(12), run_at_ms)


def times_of(*commits: tuple[int, list[object]]) -> Times:
    times, seq = Times(), 1
    for time_ms, events in commits:
        times.read([(seq, time_ms, events)])  # type: ignore[list-item]
        seq += len(events)
    return times


def test_a_stamp_that_goes_back_is_seen() -> None:
    times = times_of((100, [enqueued()]), (100, [Dispatched("a", 1)]), (99, [Dispatched("a", 1)]))
    assert times.violations == ["seq 3 is stamped 99, 1 ms before the commit before it"]


@pytest.mark.parametrize(
    "event",
    [
        enqueued(run_at_ms=50),
        Retried("a", 2, 50, Cause.FAILED),
        TimedOut("a", 2, 50, Cause.NODE_LOST),
        Released("a", 2, 50, Cause.SNOOZE),
    ],
    ids=lambda event: event.NAME,
)
def test_a_job_that_starts_before_its_time_is_seen(event: object) -> None:
    early = times_of((1, [enqueued()]), (1, [event]), (49, [Dispatched("a", 1)]))
    assert early.violations == ["seq 3: job a starts 1 ms before its time"]
    assert not times_of((1, [enqueued()]), (1, [event]), (50, [Dispatched("a", 1)])).violations


@pytest.mark.parametrize(
    "event", [TimedOut("a", 2, 0, Cause.TIME_LIMIT), Died("a", 2, Cause.TIME_LIMIT)]
)
def test_a_limit_that_is_shortened_is_seen(event: object) -> None:
    times = times_of((1, [enqueued(), Dispatched("a", 1), event]))
    assert times.violations == ["seq 3: an attempt of job a ran over its limit; work never does"]
    assert not times_of((1, [enqueued("overrun"), Dispatched("a", 1), event])).violations
