"""The ladder from a bare server to Beaver: each rung does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.bench.subject import LoopBudget
from beaver.client.blocking import connect
from beaver.journal.codec import decode_commit
from beaver.journal.wal.format import FRAME_HEADER_BYTES, unpack_frame_header
from tests.bench.ladder import Found, Sizes, measure, running, table
from tests.bench.rungs import QUEUE, Rung, send

pytestmark = pytest.mark.bench

FEW = LoopBudget(20, 20.0)


RUNGS = [
    pytest.param(
        rung,
        id=rung.name,
        marks=[] if rung in (Rung.LOG, Rung.ENGINE, Rung.BEAVER) else pytest.mark.nightly,
    )
    for rung in Rung
]


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_acknowledges_what_it_says_that_it_has_written(rung: Rung, tmp_path: Path) -> None:
    """Jobs, from the rung of the log on; below it as many bytes, without a meaning."""
    with running(rung, str(tmp_path)) as (_, where):
        assert send(rung, where, 1, FEW).jobs == 20
        assert send(rung, where, 10, FEW).jobs == 20
        home = Path(where).parent
        if rung == Rung.BEAVER:
            with connect(where) as client:
                assert client.status().queues[QUEUE].pending == 40
        elif rung < Rung.ENGINE:
            written = (home / "file").read_bytes()
            assert (jobs_in(written) == 40) == (rung >= Rung.LOG)
        else:
            assert jobs_in((home / "data" / "wal.log").read_bytes()[64:]) == 40


def jobs_in(log: bytes) -> int:
    """Returns how many ENQUEUEs stand in the frames that a log begins with."""
    at = count = 0
    while log[at : at + 1] not in (b"", b"\0"):
        size = unpack_frame_header(log, at)[4]
        body = log[at + FRAME_HEADER_BYTES : at + FRAME_HEADER_BYTES + size]
        count += sum(event.NAME == "ENQUEUE" for event in decode_commit(body)[1]) if body else 0
        at += -(-(FRAME_HEADER_BYTES + size) // 8) * 8
    return count


def test_the_table_says_what_each_rung_adds(tmp_path: Path) -> None:
    """One lone client, eight processes and batches of a rung; of several rounds the best."""
    few = LoopBudget(16, 20.0)
    sizes = Sizes(few, few, LoopBudget(200, 20.0))
    found = measure(Rung.FRAMES, str(tmp_path), sizes)
    assert all(value >= 0 for value in found)
    assert found.batch < found.lone
    lines = table(
        {
            Rung.BARE: [Found(100.0, 50.0, 40.0, 2.0), Found(90.0, 60.0, 45.0, 3.0)],
            Rung.LOOKS: [Found(80.0, 55.0, 41.0, 2.5)],
        }
    ).splitlines()
    assert lines[-2].endswith("| 90 |  | 50 |  | 40 | 2.0 |  |")
    assert lines[-1].endswith("| 80 | -10.0 | 55 | +5.0 | 41 | 2.5 | +0.5 |")
