"""`beaver simulate` and `beaver audit`: exit codes, JSON, and what is said."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from beaver.cli.main import main
from beaver.helper.work import prune_archive, take_snapshot
from beaver_chaos.checker.audit import audit
from beaver_model.commands import Cancel, Discard, SetBounds
from tests.simulator.bugs import BUGS
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock
from tests.worlds.stores import LoggedWorld


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """Runs a command with `--json`; returns its exit code and what it says."""
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_simulate_says_what_it_ran(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = said(capsys, "simulate", "--seed", "5", "--seeds", "3")
    assert code == 0
    assert (report["runs"], report["first_seed"], report["failure"]) == (3, 5, None)
    assert report["events"] > 10


def test_simulate_tells_a_failure_and_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    BUGS["dispatch before sync"].sow(monkeypatch)
    code, report = said(capsys, "simulate", "--seed", "0", "--seeds", "20")
    assert code == 1
    failure = report["failure"]
    assert "before its DISPATCH is durable" in failure["violations"][0]
    _, *arguments = shlex.split(failure["shrunk_command"])
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert failure["violations"][0] in text
    assert "repeat it:" in text


def test_simulate_refuses_what_is_no_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--plan", "[]"]) == 2
    assert "--plan" in capsys.readouterr().err
    assert main(["simulate", "--seed", "1", "--plan", '{"seed":1,"acts":[]}']) == 2


def test_simulate_runs_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    code, report = said(capsys, "simulate", "--plan", '{"seed":1,"acts":[[5,"snapshot",[]]]}')
    assert (code, report["runs"], report["acts"]) == (0, 1, {"snapshot": 1})


# -- audit ----------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> LoggedWorld:
    """A store with a completed, a dead, a pending and a discarded job."""
    world = LoggedWorld(tmp_path / "data")
    world.run("done")
    world.enqueue(job("lost", max_attempts=1))
    world.dispatch("lost")
    world.fail("lost")
    world.enqueue(job("waits"))
    world.enqueue(job("gone"))
    world.do(Cancel("gone"))
    world.do(Discard("gone"))
    return world


def write_lines(path: Path, *lines: object) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_audit_finds_nothing_wrong_with_a_log_of_ours(
    world: LoggedWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    code, report = said(capsys, "audit", world.path)
    assert code == 0
    assert report["ok"]
    assert report["jobs"] == {"completed": 1, "dead": 1, "discarded": 1, "pending": 1}
    assert (report["first_seq"], report["last_seq"]) == (1, world.state.last_seq)


def test_audit_compares_what_clients_and_workers_saw(world: LoggedWorld, tmp_path: Path) -> None:
    clients = write_lines(
        tmp_path / "clients.jsonl",
        {"id": "done", "seq": 1, "created": True},
        [{"id": "waits", "seq": world.state.seq_of("waits"), "created": True}],
        {"sent": ["a", "b"]},
        {"lost": ["a", "b"]},
        {"refused": ["never"]},
        {"changed": "CANCEL", "id": "gone"},
    )
    workers = write_lines(
        tmp_path / "workers.jsonl",
        {"began": 2, "job": "done", "pid": 7},
        {"ended": 2, "job": "done", "pid": 7},
    )
    report = audit(world.path, clients=clients, workers=workers)
    assert (report.ok, report.violations) == (True, [])
    assert (report.acknowledged, report.runs) == (2, 2)


@pytest.mark.parametrize(
    ("line", "said_of_it"),
    [
        ({"id": "ghost", "seq": 3, "created": True}, "job ghost was acknowledged"),
        ({"id": "done", "seq": 9, "created": False}, "the log has it at 1"),
        ({"refused": ["done"]}, "was refused, and is in the log"),
        ({"sent": ["done", "ghost"]}, "of the 2 jobs"),
        ({"changed": "CANCEL", "id": "done"}, "was acknowledged 1 times"),
    ],
)
def test_audit_finds_what_the_log_does_not_hold(
    world: LoggedWorld, tmp_path: Path, line: dict[str, Any], said_of_it: str
) -> None:
    report = audit(world.path, clients=write_lines(tmp_path / "clients.jsonl", line))
    assert not report.ok
    assert said_of_it in report.violations[0]


def test_audit_finds_a_token_that_ran_twice_and_one_that_is_not_in_the_log(
    world: LoggedWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = write_lines(
        tmp_path / "workers.jsonl",
        {"began": 2, "job": "done", "pid": 7},
        {"began": 2, "job": "done", "pid": 8},
        {"began": 99, "job": "done", "pid": 8},
    )
    code, report = said(capsys, "audit", world.path, "--workers", workers)
    assert code == 4
    text = " ".join(report["violations"])
    assert "ran twice" in text
    assert "token 99" in text


def test_audit_reads_on_behind_a_snapshot_where_the_archive_was_pruned(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path / "data", segment_bytes=1 << 14)
    for n in range(3):
        world.run(f"early-{n}")
        world.seal()
        take_snapshot(world.disk, world.layout, world.state.last_seq, ManualClock())
    world.enqueue(job("late"))
    prune_archive(
        world.disk, world.layout, keep_bytes=0, keep_ms=0, now_ms=10_000, applied_seq=1 << 40
    )
    clients = write_lines(tmp_path / "clients.jsonl", {"id": "early-0", "seq": 1, "created": True})
    report = audit(world.path, clients=clients)
    assert (report.ok, report.base, report.violations) == (True, "snapshot", [])
    assert report.first_seq > 1
    assert report.jobs["completed"] == 3


def test_audit_knows_that_an_id_is_free_again_once_its_tombstone_is_gone(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path / "data")
    world.do(SetBounds(1))
    for name in ("a", "b", "a"):
        world.run(name)
    clients = write_lines(
        tmp_path / "clients.jsonl",
        {"id": "a", "seq": 2, "created": True},
        {"id": "a", "seq": 8, "created": True},
    )
    assert audit(world.path, clients=clients).violations == []


def test_audit_says_damage_and_refuses_what_it_cannot_read(
    world: LoggedWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Path(world.layout.log)
    data = bytearray(log.read_bytes())
    data[200] ^= 1
    log.write_bytes(data)
    code, report = said(capsys, "audit", world.path)
    assert code == 4
    assert "corrupt data" in report["error"]
    bad = write_lines(tmp_path / "clients.jsonl", {"what": 1})
    assert main(["audit", world.path, "--clients", bad]) in (2, 4)
    assert main(["audit", str(tmp_path / "nothing")]) == 6
