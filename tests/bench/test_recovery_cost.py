"""What a start costs: linear in the jobs that are alive, whatever has gone through the store.

Ratios of processor time, the best of a few: no machine is asked how fast it is.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from beaver.bench import inside
from beaver.bench.stores import write_history
from beaver.client.compaction import shorten_log
from beaver.journal.wal.layout import Layout
from beaver.snapshot.files import FileSnapshots
from beaver.store.recovery import open_store
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from tests.bench.ratios import PENDING, Pin, judge

LIVE = 20_000
HISTORY = 200_000
REMEMBERED = 1_000
TRIES = 4


def written(data: Path, live: int, *, history: int = 0, shortened: bool = True) -> str:
    """Writes a store of so many live jobs, behind a history; sealed and with a snapshot."""
    write_history(str(data), live + history, live=live, tombstones_max=REMEMBERED)
    if shortened:
        disk = SystemDisk()
        opened = open_store(disk, str(data), clock=SystemClock(), create=False)
        snapshots = FileSnapshots(disk, Layout(str(data)))
        assert shorten_log(disk, opened.journal, snapshots, opened.state)
        opened.journal.close()
    return str(data)


def start_s(data: str) -> float:
    """Returns the processor's seconds that recovery takes, the best of a few."""
    times = []
    for _ in range(TRIES):
        before_s = time.process_time()
        opened = open_store(SystemDisk(), data, clock=SystemClock(), create=False)
        times.append(time.process_time() - before_s)
        opened.journal.abandon()
    return min(times)


@pytest.mark.bench
def test_a_start_costs_what_is_alive_and_not_what_has_been(tmp_path: Path) -> None:
    """Half as much again is allowed; a start that reads the history takes several times as long."""
    few = written(tmp_path / "few", LIVE)
    behind = written(tmp_path / "behind", LIVE, history=HISTORY)
    many = written(tmp_path / "many", 4 * LIVE)
    level, linear = Pin(1.0, 0.5, False), Pin(4.0, 0.5, False)
    assert len(judge(level, lambda: start_s(behind) / start_s(few))) < 3
    assert len(judge(linear, lambda: start_s(many) / start_s(few))) < 3
    # The same history in the log above the snapshot is seen by the measurement.
    unread = written(tmp_path / "unread", LIVE, history=HISTORY, shortened=False)
    assert not level.holds(start_s(unread) / start_s(few))


@pytest.mark.bench
def test_jobs_that_wait_for_whatever_reason_cost_the_others_nothing() -> None:
    """A hundred thousand scheduled, in a paused queue, of an unknown task, or in 100 queues."""
    level, worse = Pin(1.0, 0.5, False), dict[str, list[float]]()
    for _ in range(3):
        values = inside.measure_shapes(PENDING)
        failing = {name for name, value in values.items() if not level.holds(value)}
        for name in failing:
            worse.setdefault(name, []).append(values[name])
        if not failing:
            return
    assert not [name for name, failed in worse.items() if len(failed) == 3], worse
