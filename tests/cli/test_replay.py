"""`beaver replay` and `verify`: the contract's fields, exit codes, and damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.fixture
def store(beaver: Command) -> None:
    jobs = "\n".join(f'{{"id": "job-{n}", "payload": {n}}}' for n in range(5))
    beaver("enqueue", "--file", "-", stdin=jobs)
    beaver("enqueue", "echo", "--id", "last")


def test_events_are_listed_one_a_line(beaver: Command, store: None) -> None:
    lines = beaver("replay", "data").out.splitlines()
    assert len(lines) == 6
    seq, time, event, job, *_ = lines[0].split()
    assert (seq, event, job, time[-1]) == ("1", "ENQUEUE", "job-0", "Z")


def test_json_events_have_the_fields_of_the_contract(beaver: Command, store: None) -> None:
    events = beaver("replay", "data/wal.log", "--json").json
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert {"seq", "time_ms", "event", "job", "task", "queue", "payload", "max_attempts"} <= set(
        events[3]
    )
    assert events[3]["payload"] == 3


def test_a_replay_ends_where_it_is_told_to(beaver: Command, store: None) -> None:
    assert len(beaver("replay", "data", "--until", 3).out.splitlines()) == 3
    assert beaver("replay", "data", "--until", "1990-01-01").out == ""


def test_the_verdict_has_exactly_the_fields_of_the_contract(beaver: Command, store: None) -> None:
    report = beaver("replay", "data", "--check", "--json").one
    assert set(report) == {
        "ok", "base", "frames", "events", "first_seq", "last_seq", "counts", "fingerprint",
        "violations", "torn_tail_bytes", "error",
    }  # fmt: skip
    assert (report["ok"], report["events"], report["last_seq"]) == (True, 6, 6)
    assert beaver("verify", "data", "--json").one["log"]["fingerprint"] == report["fingerprint"]
    assert report["fingerprint"] in beaver("replay", "--check").out


def damage() -> None:
    path = Path("data/wal.log")
    content = bytearray(path.read_bytes())
    place = content.index(b"job-2")
    content[place] ^= 0x40
    path.write_bytes(content)


def test_damage_before_a_valid_frame_ends_with_4_and_is_named(beaver: Command, store: None) -> None:
    damage()
    told = beaver("replay", "data", "--check", "--json")
    assert told.code == 4
    assert told.one["ok"] is False
    assert set(told.one["error"]) == {"file", "offset", "seq", "reason"}
    assert told.one["error"]["file"].endswith("wal.log")
    assert beaver("replay", "data").code == 4
    told = beaver("verify", "data")
    assert (told.code, told.out.splitlines()[0]) == (4, "NOT OK")
    for reader in (["status"], ["list"], ["enqueue", "echo"]):
        told = beaver(*reader)
        assert told.code == 4, reader
        assert "wal.log at offset" in told.err
        assert len(told.err.splitlines()) <= 3
