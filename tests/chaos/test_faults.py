"""What experiments tell becomes the table of faults and outcomes, and a loss fails the report."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import msgspec
import pytest

from beaver_chaos.__main__ import main
from beaver_chaos.faults.report import included, markdown, write_faults
from beaver_chaos.faults.table import (
    REPORTS_VARIABLE,
    Experiment,
    FaultResult,
    experiment,
    read_faults,
    tell_fault,
)
from beaver_chaos.program.process import ChaosFailure, PromiseBroken
from beaver_spec import checking
from beaver_spec.report import rendering
from beaver_spec.results import Verdict


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Records of our own: what is told here never happened."""
    monkeypatch.setenv(REPORTS_VARIABLE, str(tmp_path / "reports"))
    return tmp_path / "reports"


def _tell_many(number: int) -> None:
    for place in range(200):
        tell_fault(Experiment(fault=f"fault {number}", where=f"place {place} " + "x" * 3000))


def test_records_of_several_processes_do_not_mix(reports: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_tell_many, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    told = read_faults(reports)
    assert len(told) == 800
    for number in range(4):
        own = [each.where.split()[1] for each in told if each.fault == f"fault {number}"]
        assert own == [str(place) for place in range(200)]


def test_nothing_is_written_where_nobody_collects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REPORTS_VARIABLE)
    monkeypatch.chdir(tmp_path)
    with experiment("power cut"):
        pass
    assert list(tmp_path.iterdir()) == []
    assert read_faults(tmp_path) == []


def test_an_experiment_tells_what_was_lost_what_was_broken_and_what_failed(reports: Path) -> None:
    with experiment("held", "here") as told:
        told.times, told.acknowledged, told.recovery_s = 3, 40, [0.5, 0.25]
    for error in (PromiseBroken("two are gone\nmore", 2), PromiseBroken("twice"), OSError("hm")):
        with pytest.raises(type(error)), experiment("fails"):
            raise error
    with experiment("refused") as told:
        told.refused += 1
    assert [each.outcome for each in read_faults(reports)] == [
        FaultResult.HELD,
        FaultResult.LOST,
        FaultResult.BROKEN,
        FaultResult.FAILED,
        FaultResult.REFUSED,
    ]
    held, lost, *_ = read_faults(reports)
    assert (held.times, held.acknowledged, held.recovery_s) == (3, 40, [0.5, 0.25])
    assert (lost.lost, lost.broken) == (2, ["two are gone", "more"])


def test_an_interrupted_experiment_is_not_told_as_if_it_had_held(reports: Path) -> None:
    with pytest.raises(KeyboardInterrupt), experiment("fault"):
        raise KeyboardInterrupt
    assert read_faults(reports) == []


def test_a_sown_bug_is_caught_or_missed_and_its_loss_is_no_finding(reports: Path) -> None:
    with experiment("cut", sown="no sync") as told:
        told.note(PromiseBroken("one is gone", 1))
    with experiment("cut", sown="no rename"):
        pass
    with pytest.raises(ChaosFailure), experiment("cut", sown="it does not run"):
        raise ChaosFailure("not ready")
    assert [each.outcome for each in read_faults(reports)] == [
        FaultResult.CAUGHT,
        FaultResult.MISSED,
        FaultResult.FAILED,
    ]
    found = included(read_faults(reports)[:2])
    assert [result.verdict for result in found.results] == [Verdict.CAUGHT, Verdict.MISSED]


def test_the_table_has_a_row_for_each_fault_with_what_was_injected_and_lost() -> None:
    found = included(
        [
            Experiment(fault="kill", where="a", times=2, acknowledged=1000, recovery_s=[0.1, 0.9]),
            Experiment(fault="rot", where="segment", refused=1),
            Experiment(fault="kill", where="b", acknowledged=500, recovery_s=[0.3]),
        ]
    )
    (table,) = found.tables
    assert [row[:6] for row in table.rows] == [
        ["kill", "3", "1,500", "0", "0", "0"],
        ["rot", "1", "0", "0", "0", "1"],
    ]
    assert table.rows[0][6:] == ["0.30 s", "0.90 s", "held"]
    assert found.results[0].details == ["a: 2 times", "b"]
    assert "| kill | 3 | 1,500 |" in markdown(found)


def test_one_lost_job_among_many_experiments_fails_the_report(
    reports: Path, tmp_path: Path
) -> None:
    for number in range(50):
        tell_fault(Experiment(fault="kill", where="seed 1", acknowledged=9, lost=int(number == 20)))
    tell_fault(Experiment(fault="stop", acknowledged=9))
    write_faults(reports)
    found = checking.run([], included=[checking.read_included(reports / "faults.json")])
    assert not found.ok
    assert found.findings == ["chaos: kill: nothing acknowledged is lost: violated"]
    for path in rendering.write(found, tmp_path / "check"):
        assert "1 of 9 acknowledged are lost" in path.read_text()
    assert "| kill | 50 | 450 | 1 |" in (tmp_path / "check" / "model-check.md").read_text()
    assert '<td class="bad">LOST</td>' in (tmp_path / "check" / "model-check.html").read_text()


@pytest.mark.parametrize(
    ("first", "holds"),
    [
        (Experiment(fault="kill", where="seed 1", failed=["not ready in time"]), True),
        (Experiment(fault="kill", where="seed 2", failed=["not ready in time"]), False),
        (Experiment(fault="kill", where="seed 1", broken=["completed twice"]), False),
        (Experiment(fault="kill", where="seed 1", lost=1), False),
    ],
)
def test_what_failed_may_be_tried_again_but_a_broken_promise_stays(
    first: Experiment, holds: bool
) -> None:
    again = Experiment(fault="kill", where="seed 1")
    (result,) = included([first, again]).results
    assert result.ok is holds


def test_what_was_skipped_is_told_with_its_reason() -> None:
    (result,) = included([Experiment(fault="power cut", times=0, skipped="not root")]).results
    assert (result.verdict, result.skipped) == (Verdict.SKIPPED, "not root")


def test_the_command_writes_the_table(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell_fault(Experiment(fault="kill", times=7))
    assert main(["table", str(reports)]) == 0
    assert "| kill | 7 |" in capsys.readouterr().out
    assert msgspec.json.decode((reports / "faults.json").read_bytes())["tables"]
