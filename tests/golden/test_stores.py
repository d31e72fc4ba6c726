"""Stores of every format that there ever was are opened, used on, restored: nothing is lost."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from beaver.backup import stream
from beaver.backup.restoring import restore_file
from beaver.cli.main import main
from beaver.client.opening import open_client
from beaver.journal.wal import format as wal
from beaver.replay.replaying import check
from beaver.shipping import ownership
from beaver.snapshot import lines
from beaver.store.log_source import Until
from beaver.store.recovery import read_store
from beaver.system.disk import SystemDisk
from beaver_model import fingerprint
from tests.golden.making import make, told
from tests.support.program import enqueue, serving

STORES = Path(__file__).parent / "stores"
NAMES = sorted(path.name for path in STORES.iterdir())
FORMATS = {
    "log": wal.VERSION,
    "snapshot": lines.VERSION,
    "backup": stream.VERSION,
    "ship": ownership.VERSION,
}


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STORES / name / "expected.json").read_text())
    return found


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def data(name: str, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    copy = tmp_path / "data"
    shutil.copytree(STORES / name / "data", copy)
    copy.chmod(0o700)
    return copy


def test_every_version_of_every_format_has_a_golden_store(request: pytest.FixtureRequest) -> None:
    """A new version needs a folder of its own: `pytest tests/golden --rewrite-golden` makes it."""
    newest = "-".join(f"{name}-{version}" for name, version in FORMATS.items())
    if request.config.getoption("--rewrite-golden") and newest not in NAMES:
        (STORES / newest).mkdir()
        make(STORES / newest)
        pytest.fail(f"{newest} was made; look at it, and commit it")
    assert newest in NAMES
    for kind, version in FORMATS.items():
        for number in range(1, version + 1):
            assert any(f"{kind}-{number}" in name for name in NAMES), (kind, number)


def test_an_old_store_gives_the_state_and_the_events_that_it_gave_then(
    name: str, data: Path
) -> None:
    """From its beginning, from each snapshot, and event by event."""
    then, now = expected(name), told(data)
    assert now["ok"]
    assert now["events"] == then["events"]
    assert [base["fingerprint"] for base in now["bases"]] == [
        base["fingerprint"] for base in then["bases"]
    ]
    assert now["log"]["counts"] == then["log"]["counts"]
    assert now["segments"] == then["segments"]
    assert len({line.split()[2] for line in then["events"]}) >= 14  # Events of nearly all kinds.


def test_an_old_store_is_recovered_from_its_snapshot_and_used_on(name: str, data: Path) -> None:
    state, report = read_store(SystemDisk(), str(data))
    assert report.base == "snapshot"
    assert fingerprint(state) == expected(name)["log"]["fingerprint"]
    last_seq = expected(name)["log"]["last_seq"]
    assert enqueue(data, {"id": "new", "task": "echo"})[0]["seq"] == last_seq + 1
    with closing(open_client(str(data))) as client:
        told_of = [event.event for event in client.explain("done").events]
    assert told_of == ["ENQUEUE", "DISPATCH", "ACK"]
    with serving(data, "--burst") as server:
        server.wait()
    with closing(open_client(str(data))) as client:
        assert client.status().pending == 1  # Its queue is paused.
        for job in ("new", "done", "dies", "child"):
            assert client.show(job).state == "completed", job
    assert check(SystemDisk(), str(data)).ok


def test_an_old_backup_and_an_old_target_are_restored(name: str, tmp_path: Path) -> None:
    found = restore_file(
        str(STORES / name / "backup.tar"), str(tmp_path / "a"), Until(), lambda done, of: None
    )
    assert found.fingerprint == expected(name)["log"]["fingerprint"]
    assert main(["restore", str(STORES / name / "shipped"), "--data", str(tmp_path / "b")]) == 0
    assert (
        told(tmp_path / "b")["events"]
        == expected(name)["events"][: len(told(tmp_path / "b")["events"])]
    )
    assert main(["ship", str(STORES / name / "shipped"), "--check"]) == 0
