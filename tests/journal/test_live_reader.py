"""A reader in another process sees a whole log at every moment, while it grows and is sealed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from beaver.errors import NotFound
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import read_commits, segments
from beaver.store.recovery import read_store
from beaver.system.disk import SystemDisk
from beaver_model import violations

COMMITS = 400
WRITER = f"""
import sys
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver.helper.work import prepare_segment
from beaver.journal.wal.layout import Layout
from beaver.store.recovery import open_store
from tests.worlds.journal import append, enqueued

path = sys.argv[1]
disk, layout = SystemDisk(), Layout(path)
wal = open_store(disk, path, clock=SystemClock(), create=True).journal
for number in range({COMMITS}):
    append(wal, enqueued(f"job-{{number}}", b'"' + b"x" * (number * 37 % 9_000) + b'"'))
    if number % 10 == 9:
        prepare_segment(disk, layout.next, 1 << 17)
        wal.adopt(layout.next)
        assert wal.seal()
wal.close()
"""


def test_log_that_grows_and_is_sealed_never_looks_damaged(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    disk, layout = SystemDisk(), Layout(path)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path])
    last_seq = reads = 0
    while writer.poll() is None:
        try:
            state, _ = read_store(disk, path)
        except NotFound:
            assert last_seq == 0
            continue
        assert state.last_seq >= last_seq, "what was seen once stays"
        assert len(state.jobs) == state.last_seq
        last_seq, reads = state.last_seq, reads + 1
        seqs = [first for first, _, _ in read_commits(disk, layout, 0)]
        assert seqs == list(range(1, len(seqs) + 1))
    assert writer.returncode == 0
    assert reads > 0, "the reader ran beside the writer"
    state, report = read_store(disk, path)
    assert (state.last_seq, violations(state)) == (COMMITS, [])
    assert report.rows == ["sealed-empty"]
    assert len(segments(disk, layout)) == COMMITS // 10 + 1
