"""`beaver doctor`: each check on both sides of its threshold."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.cli.main import COMMANDS
from beaver.config.layers import load_config
from beaver.doctor.checks import CHECKS, examine
from beaver.doctor.facts import Facts, Limits, file_system_of, take
from beaver.journal.wal.format import FileHeader, encode_file_header, first_seed
from beaver.structs.views import ShipView, StatusView, StorageView
from beaver.system.descriptors import CLIENTS_MIN, OWN_MIN, PER_WORKER
from tests.support.program import BEAVER, Server, enqueue, environment, in_shell, run_beaver

MIB, GIB = 1 << 20, 1 << 30
CONFIG = load_config({"workers": 4, "retention_size": 10 * GIB, "segment_size": 64 * MIB})


def status(**changes: Any) -> StatusView:
    return msgspec.structs.replace(
        StatusView(0, 0, 0, 0, 0, True, 0, 0.0, version="1.0"), **changes
    )


WELL = Facts(
    data="data",
    place="data",
    exists=True,
    system="Linux",
    python=(3, 12),
    file_system="ext4",
    sync_ms=1.0,
    limits=Limits(65_536, None, None),
    crc="instruction",
    now_ms=10_000_000,
    last_ms=9_000_000,
    clock_synchronised=True,
    free_bytes=100 * GIB,
    free_inodes=1_000_000,
    storage=StorageView(GIB, 16, 1, 1, 64 * MIB, 10 * MIB, MIB),
    version="1.0",
    status=status(),
    config=CONFIG,
)
"""A machine that is fit."""
NEEDED = 2 * (OWN_MIN + PER_WORKER * 4 + CLIENTS_MIN)

SIDES: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    # check, level, what is said; facts that are wrong, and those just right beside them
    ("system", "bad", "not supported", {"system": "Windows"}, {"system": "Darwin"}),
    ("system", "bad", "too old", {"python": (3, 10)}, {"python": (3, 11)}),
    ("disk", "bad", "Read-only", {"sync_error": "Read-only", "sync_ms": None}, {}),
    ("disk", "bad", "tmpfs", {"file_system": "tmpfs"}, {"file_system": "xfs"}),
    ("disk", "bad", "overlay", {"file_system": "overlay"}, {"file_system": ""}),
    ("disk", "bad", "network", {"file_system": "nfs4"}, {"file_system": "ext4"}),
    ("disk", "note", "writes each block anew", {"file_system": "btrfs"}, {"file_system": "apfs"}),
    ("sync", "bad", "100 ms", {"sync_ms": 100.0}, {"sync_ms": 9.99}),
    ("sync", "note", "10 ms", {"sync_ms": 10.0}, {"sync_ms": 9.99}),
    ("sync", "note", "faster than any disk", {"sync_ms": 0.009}, {"sync_ms": 0.01}),
    (
        "limits", "bad", "open files",
        {"limits": Limits(NEEDED - 1, None, None)}, {"limits": Limits(4096, None, None)},
    ),
    (
        "limits", "note", "half as many clients",
        {"limits": Limits(NEEDED, None, None)}, {"limits": Limits(None, None, None)},
    ),
    (
        "limits", "bad", "processes",
        {"limits": Limits(None, 35, None)}, {"limits": Limits(None, 36, None)},
    ),
    (
        "limits", "bad", "a segment has",
        {"limits": Limits(None, None, 64 * MIB - 1)}, {"limits": Limits(None, None, 64 * MIB)},
    ),
    ("crc", "bad", "in Python", {"crc": "python"}, {"crc": "extension"}),
    ("clock", "bad", "behind", {"last_ms": 10_300_001}, {"last_ms": 10_300_000}),
    (
        "clock", "note", "keeps the clock",
        {"clock_synchronised": False}, {"clock_synchronised": None},
    ),
    ("permissions", "bad", "others may write", {"foreign": "others may write\nchmod"}, {}),
    ("permissions", "bad", "token", {"open_to_others": ["token (0644)"]}, {"open_to_others": []}),
    ("space", "bad", "two segments", {"free_bytes": 128 * MIB - 1}, {"free_bytes": 20 * GIB}),
    ("space", "bad", "inodes", {"free_inodes": 999}, {"free_inodes": None}),
    (
        "space", "note", "before it is pruned",
        {"free_bytes": 9 * GIB + 148 * MIB - 1}, {"free_bytes": 9 * GIB + 148 * MIB},
    ),
    ("versions", "bad", "newer", {"store_error": "newer", "store_error_code": 8}, {}),
    ("versions", "bad", "corrupt", {"store_error": "corrupt", "store_error_code": 4}, {}),
    ("versions", "bad", "no permission", {"store_error": "no permission"}, {"store_error": ""}),
    (
        "versions", "note", "runs version 0.9",
        {"status": status(version="0.9")}, {"status": None},
    ),
    ("server", "bad", "does not answer", {"status": status(running=False, silent=7)}, {}),
    ("server", "bad", "nothing is dispatched", {"status": status(halted="at seq 3")}, {}),
    ("server", "bad", "the disk is full", {"status": status(disk_full=True)}, {}),
    (
        "server", "bad", "its shipper does not run",
        {"status": status(ships=[ShipView("s3://b", 1)])},
        {"status": status(ships=[ShipView("s3://b", 1, running=True)])},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "level", "said", "wrong", "right"), SIDES, ids=[f"{c}-{s}" for c, _, s, _, _ in SIDES]
)
def test_each_check_finds_its_trouble_and_nothing_beside_it(
    check: str, level: str, said: str, wrong: dict[str, Any], right: dict[str, Any]
) -> None:
    found = examine(msgspec.structs.replace(WELL, **wrong))
    (trouble,) = [one for one in found if one.level != "ok"]
    assert (trouble.check, trouble.level) == (check, level)
    assert said in trouble.said
    assert trouble.advice
    assert {one.level for one in examine(msgspec.structs.replace(WELL, **right))} == {"ok"}


def test_every_check_has_both_sides_tried() -> None:
    assert {check for check, *_ in SIDES} == set(CHECKS)
    assert [one.check for one in examine(WELL)] == list(CHECKS)
    assert "doctor" in COMMANDS


# -- on the real machine -----------------------------------------------------------------


def examined(data: Path, first: str = ":") -> tuple[int, dict[str, Any]]:
    """Runs the command; returns its exit code, and what is not well by check."""
    done = subprocess.run(
        in_shell(first, *BEAVER, "doctor", "--json", "--data", str(data)),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert not done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    return done.returncode, {one["check"]: one for one in told["findings"] if one["level"] == "bad"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    enqueue(tmp_path / "data", {"id": "a", "task": "echo"})
    return tmp_path / "data"


def spoil_mode(data: Path) -> None:
    data.chmod(0o777)


def spoil_token(data: Path) -> None:
    (data / "token").write_text("secret")
    (data / "token").chmod(0o644)


def spoil_version(data: Path) -> None:
    store = bytes(range(16))
    header = FileHeader(store, 1, first_seed(store, 1), version=9)
    (data / "wal.log").write_bytes(encode_file_header(header))


def spoil_header(data: Path) -> None:
    (data / "wal.log").write_bytes(b"nonsense" * 100)


@pytest.mark.parametrize(
    ("spoil", "check", "said"),
    [
        (spoil_mode, "permissions", "may write in"),
        (spoil_token, "permissions", "token (0644)"),
        (spoil_version, "versions", "log format 9"),
        (spoil_header, "versions", "corrupt"),
    ],
)
def test_a_spoilt_directory_is_found(
    data: Path, spoil: Callable[[Path], None], check: str, said: str
) -> None:
    assert examined(data)[1].keys() <= {"disk"}  # Tests may run on a disk that is none.
    spoil(data)
    code, found = examined(data)
    assert code == 1
    assert said in found[check]["said"]


@pytest.mark.parametrize(
    ("limit", "said"), [("ulimit -n 60", "open files"), ("ulimit -f 1024", "a segment has")]
)
def test_low_limits_are_found(data: Path, limit: str, said: str) -> None:
    code, found = examined(data, limit)
    assert code == 1
    assert said in found["limits"]["said"]


def test_a_directory_without_a_store_is_examined_where_it_would_be_made(tmp_path: Path) -> None:
    facts = take(load_config({"data": str(tmp_path / "not" / "yet")}))
    assert (facts.place, facts.exists) == (str(tmp_path), False)
    assert facts.sync_ms
    assert facts.sync_ms > 0
    assert not list(tmp_path.iterdir())
    assert all(one.said for one in examine(facts))


def test_the_file_system_is_the_one_that_is_mounted_there(tmp_path: Path) -> None:
    told = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    found = file_system_of(tmp_path)
    assert found
    if found in ("tmpfs", "xfs", "btrfs"):
        assert told.strip() == found
    if os.path.ismount("/dev/shm"):
        assert file_system_of(Path("/dev/shm")) == "tmpfs"


def test_a_server_is_asked_for_its_version(data: Path) -> None:
    server = Server(data, "--workers", "1")
    try:
        server.ready()
        facts = take(load_config({"data": str(data)}))
        assert facts.status is not None
        assert facts.status.version == facts.version != ""
        facts.version = "9.9"
        assert any(one.check == "versions" and one.level == "note" for one in examine(facts))
    finally:
        server.stop()


def test_strict_makes_notes_count(data: Path) -> None:
    usual = run_beaver("doctor", "--data", str(data), "--json")
    notes = any(one["level"] == "note" for one in json.loads(usual.stdout)["findings"])
    strict = run_beaver("doctor", "--data", str(data), "--strict")
    assert strict.returncode == (1 if notes else usual.returncode)
    for check in CHECKS:
        assert check in strict.stdout
