"""`beaver compact`: a snapshot now, and no more of the archive than the retention keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.replay.verifying import verify
from beaver.system.disk import SystemDisk
from tests.backup.stores import make_store
from tests.cli.conftest import Command, serving


def test_without_a_server_the_archive_is_pruned_and_the_state_stays(
    beaver: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are of 1970, older than any retention, and two snapshots make them needless."""
    make_store(tmp_path / "data", 6).wal.close()
    monkeypatch.setenv("BEAVER_RETENTION_AGE", "1000000h")
    kept = told = beaver("compact", "--data", "data", "--json").one
    assert told["archive_bytes"] >= told["archive_bytes_before"] > 0
    assert told["first_seq"] == 1
    monkeypatch.delenv("BEAVER_RETENTION_AGE")
    for _ in range(2):  # The older snapshot has to follow.
        beaver("enqueue", "echo", "1", "--data", "data")
        told = beaver("compact", "--data", "data", "--json").one
    assert told["archive_bytes"] < kept["archive_bytes"]
    assert told["first_seq"] > 1
    assert verify(SystemDisk(), "data").ok
    assert "snapshot up to seq" in beaver("compact", "--data", "data").out


def test_through_a_server_and_only_where_it_listens(beaver: Command) -> None:
    beaver("enqueue", "echo", "1", "--id", "a")
    with serving():
        refused = beaver("compact")
        assert (refused.code, "POST /v1/snapshot" in refused.err) == (3, True)
    with serving("--http", "127.0.0.1:0", "--burst"):
        pass
    assert beaver("compact", "--data", "none").code == 6
