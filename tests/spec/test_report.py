"""The report says how far was looked, and a finding fails the check."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from beaver.cli.main import main
from beaver_spec import checking
from beaver_spec.explorer.scopes import NOT_EXPLORED, Scope
from beaver_spec.report import drawing, rendering, report
from beaver_spec.report.diagrams import state_diagram, transitions
from beaver_spec.results import CheckResult, Verdict
from tests.spec.sown import BUGS, SCOPE_OF

pytestmark = pytest.mark.invariants

TINY = Scope(name="tiny", claim="a scope of two jobs", jobs=2, workers=1, attempts=1, crashes=1)


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Counts of their own, so that a test may pin."""
    path = tmp_path / "counts.json"
    monkeypatch.setattr(checking, "load_counts", lambda: report.load_counts(path))
    monkeypatch.setattr(checking, "pin_counts", lambda rows: report.pin_counts(rows, path))
    return path


def with_bug(name: str) -> report.ScopeRow:
    (bug,) = [bug for bug in BUGS if bug.name == name]
    return checking.check_scope(
        SCOPE_OF[bug.scope], model=bug.model, rules=bug.rules, ignore=bug.ignore
    )


def test_a_run_without_findings_says_its_bounds_and_what_it_did_not_look_at(
    pinned: Path, tmp_path: Path
) -> None:
    found = checking.run([TINY], pin=True)
    assert found.ok, found.findings
    assert found.partial
    paths = rendering.write(found, tmp_path / "reports")
    assert [path.name for path in paths] == [
        "model-check.md",
        "model-check.html",
        "model-check.json",
        "model-check.xml",
    ]
    text = paths[0].read_text()
    assert "Checked within the bounds below, never proved." in text
    assert all(line in text for line in NOT_EXPLORED)
    (row,) = found.scopes
    for value in (row.states, row.transitions):
        assert f"| {value:,} |" in text
    assert "jobs 2, workers 1, attempts 1" in text
    assert "stateDiagram-v2" in text
    assert found.commit in text
    page = paths[1].read_text()
    assert "never proved" in page
    assert not re.search(r'src=|href="(?!#)|url\((?!#)', page), "the page loads nothing"
    again = msgspec.json.decode(paths[2].read_bytes(), type=report.Report)
    assert again == found
    suite = ET.parse(paths[3]).getroot()
    assert suite.get("failures") == "0"
    assert {case.get("name") for case in suite} >= {"fenced", "exclusive", "no_job_stuck"}


def test_counts_that_drift_from_the_pinned_ones_are_a_finding(pinned: Path) -> None:
    assert checking.run([TINY]).findings == ["scope tiny: no counts are pinned"]
    assert checking.run([TINY], pin=True).ok
    assert checking.run([TINY]).ok
    pinned.write_text(pinned.read_text().replace('"diameter": ', '"diameter": 1'))
    assert checking.run([TINY], pin=True).ok, "pinned anew"
    counts = json.loads(pinned.read_text())
    counts["tiny"]["states"] += 1
    pinned.write_text(json.dumps(counts))
    found = checking.run([TINY])
    assert not found.ok
    assert "pin them anew" in found.findings[-1]


def test_a_counterexample_stands_in_every_form_of_the_report(tmp_path: Path) -> None:
    row = with_bug("stale token accepted")
    results = [report.result_of(row)]
    witnesses = report.witnesses_of([row])
    found = report.Report(
        ok=False,
        commit="not known",
        versions={},
        machine="",
        started="2030-01-01T00:00:00+00:00",
        seconds=1.0,
        results=results,
        scopes=[row],
        properties=report.properties_of([row]),
        witnesses=witnesses,
        not_explored=list(NOT_EXPLORED),
        findings=report.findings_of(results, [row], witnesses, partial=True),
        partial=True,
    )
    assert found.properties[0].name == "fenced"
    assert found.properties[0].verdict == Verdict.VIOLATED
    text, page = rendering.markdown(found), rendering.page(found)
    assert "## Counterexample: fenced (scope core)" in text
    assert "1. A client enqueues `a`: ENQUEUE of `a` (seq 1)." in text
    assert "sequenceDiagram" in text
    assert "def test_fenced() -> None:" in text
    assert "<li>A client enqueues <code>a</code>" in page
    assert row.story is not None
    drawn = drawing.draw(row.story.diagram)
    assert drawn in page
    told = re.findall(r"<text[^>]*>(.*?)</text>", drawn)
    assert [t for t in told if t.isdigit()] == [str(n) for n in range(1, len(row.story.steps) + 1)]
    assert "wrong, fenced" in told
    suite = ET.fromstring(rendering.junit(found))
    assert int(suite.get("failures", "0")) >= 2
    assert "led to ACK" in "".join(suite.itertext())


def test_the_page_draws_every_transition_and_says_the_rest_in_words() -> None:
    drawn = drawing.draw(state_diagram())
    labels = re.findall(r'class="label">(\w+)</text>', drawn)
    assert sorted(labels) == sorted(trigger.name for trigger, _, _ in transitions())
    assert drawing.draw("stateDiagram-v2\n    pending --> asleep: DOZE") == "", "it stays a text"
    assert drawing.draw("graph TD\n    a --> b") == ""


def test_a_witness_that_is_never_met_is_a_finding_of_a_whole_run() -> None:
    witnesses = report.witnesses_of([])
    missing = report.findings_of([], [], witnesses, partial=False)
    assert "transition never met: ACK: in_flight to completed" in missing
    assert "refusal never met: stale_token" in missing
    assert "action never met: crash" in missing
    assert not any("too_many_queues" in line for line in missing), "it has a reason"
    assert report.findings_of([], [], witnesses, partial=True) == []


def test_results_of_other_checkers_join_the_report(pinned: Path, tmp_path: Path) -> None:
    result = CheckResult(
        name="a mutant", kind="mutants", tool="pytest -m mutants", verdict=Verdict.MISSED
    )
    path = tmp_path / "mutants.json"
    path.write_bytes(msgspec.json.encode([result]))
    found = checking.run([TINY], included=[checking.read_included(path)], pin=True)
    assert found.findings == ["mutants: a mutant: missed"]
    assert "pytest -m mutants" in rendering.markdown(found)


def test_scopes_run_side_by_side_and_report_how_far_they_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    done: list[str] = []
    seen: set[str] = set()
    events = checking.Events(
        lambda name, states, left: seen.add(name), lambda row: done.append(row.name), lambda _: None
    )
    scopes = checking.chosen(["pause", "prefetch"])
    found = checking.run(scopes, processes=2, events=events)
    assert found.ok, found.findings
    assert [row.name for row in found.scopes] == ["pause", "prefetch"]
    assert sorted(done) == ["pause", "prefetch"]
    assert seen == {"pause", "prefetch"}


# -- the command ---------------------------------------------------------------------------------


def test_the_command_writes_the_report_and_ends_with_0(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["check", "--scope", "pause", "--report", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "nothing found within these bounds; that is no proof" in shown
    assert (tmp_path / "model-check.xml").exists()


def test_the_command_ends_with_1_where_something_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missed = CheckResult(name="m", kind="mutants", tool="t", verdict=Verdict.MISSED)
    path = tmp_path / "mutants.json"
    path.write_bytes(msgspec.json.encode([missed]))
    arguments = ["check", "--scope", "pause", "--report", str(tmp_path), "--json"]
    assert main([*arguments, "--include", str(path)]) == 1
    assert json.loads(capsys.readouterr().out)["findings"] == ["mutants: m: missed"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scope", "nothing"], "no scope is named nothing; there are core, pause"),
        (["--include", "missing.json"], "missing.json: No such file or directory"),
        (["--processes", "-1"], "--processes is 1 or more"),
    ],
)
def test_a_wrong_use_ends_with_2_and_explores_nothing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["check", "--report", str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_program_says_so_where_its_checkers_are_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beaver.cli.checking.find_spec", lambda name: None)
    assert main(["check"]) == 2
    assert "beaver_spec is not installed here" in capsys.readouterr().err
