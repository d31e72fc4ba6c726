"""Commands without a server keep recovery short: a long log becomes a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.client import embedded as embedded_module
from beaver.client.embedded import EmbeddedClient
from beaver.errors import DiskFull
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.replay.replaying import check
from beaver.request.requests import make_request
from beaver.snapshot.files import inspect_snapshot
from beaver.store.recovery import read_store
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver_model import fingerprint

LONG = 20


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedClient:
    monkeypatch.setattr(embedded_module, "REPLAYED_MAX", LONG)
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "0")
    return EmbeddedClient(str(tmp_path / "data"))


def fill(embedded: EmbeddedClient, first: int, count: int) -> None:
    for n in range(first, first + count):
        embedded.enqueue([make_request("echo", {"n": n}, id=f"job-{n}")])


def test_whoever_finds_a_long_log_seals_it_and_leaves_a_snapshot(embedded: EmbeddedClient) -> None:
    disk, layout = SystemDisk(), Layout(embedded.data)
    fill(embedded, 0, LONG)
    assert not Path(layout.snapshot).exists()
    fill(embedded, LONG, 3)
    state, report = read_store(disk, embedded.data, clock=SystemClock())
    assert (report.base, report.snapshot_seq, report.events) == ("snapshot", LONG + 1, 2)
    assert [info.archived for info in segments(disk, layout)] == [True, False]
    assert sorted(state.jobs) == sorted(f"job-{n}" for n in range(LONG + 3))
    verdict = check(SystemDisk(), embedded.data)
    assert verdict.ok
    assert verdict.fingerprint == fingerprint(state)


def test_the_work_is_done_once_per_long_log_and_the_older_snapshot_stays(
    embedded: EmbeddedClient,
) -> None:
    fill(embedded, 0, 3 * LONG + 5)
    disk, layout = SystemDisk(), Layout(embedded.data)
    newest = inspect_snapshot(disk, layout.snapshot).last_seq
    older = inspect_snapshot(disk, layout.snapshot_old).last_seq
    assert (older, newest) == (2 * LONG + 2, 3 * LONG + 3)
    assert len(segments(disk, layout)) == 4
    # Nothing rests on them: without any the log alone gives the same state.
    state, _ = read_store(disk, embedded.data)
    for path in (layout.snapshot, layout.snapshot_old):
        Path(path).unlink()
    again, report = read_store(disk, embedded.data)
    assert report.base == "none"
    assert fingerprint(again) == fingerprint(state)


def test_a_damaged_snapshot_does_not_replace_the_good_older_one(embedded: EmbeddedClient) -> None:
    fill(embedded, 0, 2 * LONG + 2)
    disk, layout = SystemDisk(), Layout(embedded.data)
    older = inspect_snapshot(disk, layout.snapshot_old).last_seq
    damaged = bytearray(Path(layout.snapshot).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path(layout.snapshot).write_bytes(damaged)
    fill(embedded, 2 * LONG + 2, 1)
    assert inspect_snapshot(disk, layout.snapshot).last_seq == 2 * LONG + 3
    assert inspect_snapshot(disk, layout.snapshot_old).last_seq == older


def test_on_a_full_disk_the_change_is_made_all_the_same(
    embedded: EmbeddedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beaver.client import compaction

    def full(*_: object) -> None:
        raise DiskFull("no room")

    fill(embedded, 0, LONG)
    monkeypatch.setattr(compaction, "prepare_segment", full)
    fill(embedded, LONG, 1)
    assert embedded.show(f"job-{LONG}").state == "pending"
    assert not Path(Layout(embedded.data).snapshot).exists()
