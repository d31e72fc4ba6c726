"""What the benchmark says: tables, verdicts, JSON, a plot, and a page that keeps its prose."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from beaver.bench import report
from beaver.bench.plot import plot
from beaver.bench.records import Records, payload, write_record
from beaver.bench.rows import BEAVER, COMPARED, MACHINE, Figures
from beaver.bench.run import FULL, QUICK, Result
from beaver.bench.targets import judge_goals, judge_targets
from beaver.errors import InvalidInput


def result(peers: bool = True) -> Result:
    """A run of two rounds in which Beaver is ten times as fast as its only peer."""
    figures = Figures()
    for factor in (1.0, 1.2):
        figures.add(MACHINE, {"probe": 9_000 * factor, "probe_p50": 0.1, "loop": 1e7})
        rates = {"serial": 6_000, "clients_8": 30_000, "clients_64": 61_000, "drain": 90_000}
        figures.add(BEAVER, {key: rate * factor for key, rate in rates.items()})
        figures.add(BEAVER, {"latency_p50": 0.5, "memory_job": 410.0})
        if peers:
            figures.add("beanstalkd", {key: rate * factor / 10 for key, rate in rates.items()})
            figures.add("beanstalkd", {"latency_p50": 0.3})
    return Result(FULL, figures, {"beanstalkd": "greenstalk 2.1.1; `-f 0`"}, {"rq": "not there"})


def test_a_figure_is_the_median_with_its_spread() -> None:
    """Both ends are shown, so that a reader sees how noisy the machine was."""
    figure = result().figures.get(BEAVER, "serial")
    assert figure is not None
    assert (figure.median, figure.least, figure.most) == (6_600, 6_000, 7_200)
    assert "| enqueue, 1 client | 6,600 | jobs/s | 6,000 to 7,200 |" in report.to_markdown(result())


def test_verdicts_say_what_is_met_and_what_is_not() -> None:
    """A missed target is shown as missed."""
    targets = {verdict.label: verdict.met for verdict in judge_targets(result().figures)}
    assert targets["enqueue, 64 clients"]
    assert not targets["drain, 2 workers"]
    assert not targets["memory a pending job"]
    goals = {verdict.label: verdict for verdict in judge_goals(result().figures)}
    assert goals["enqueue, 64 clients"].met
    assert not goals["drain, 2 workers"].met
    assert goals["drain, 2 workers"].value == pytest.approx(10)


def test_without_peers_no_goal_is_judged() -> None:
    assert judge_goals(result(peers=False).figures) == []


def test_a_quick_run_judges_no_targets() -> None:
    """Its sizes are not those that the targets were set for."""
    quick = result()._replace(plan=QUICK)
    assert "Targets" not in report.to_markdown(quick)
    assert "targets" not in json.loads(report.to_json(quick))


def test_the_json_has_every_value_of_every_round() -> None:
    found = json.loads(report.to_json(result()))
    rows = {(row["subject"], row["row"]): row["values"] for row in found["figures"]}
    assert rows["beanstalkd", "serial"] == [600, 720]
    assert found["missing"] == {"rq": "not there"}


def test_the_plot_is_an_svg_with_a_bar_for_each_rate() -> None:
    root = ET.fromstring(plot(result().figures))
    titles = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "beaver: 6,600 jobs/s" in titles
    assert len(titles) == 2 * 4


def test_a_report_replaces_what_stands_between_the_marks_and_nothing_else(tmp_path: Path) -> None:
    """Prose around the tables stays, however often they are written."""
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\nBefore.\n\n{report.BEGIN}\nold\n{report.END}\n\nAfter.\n")
    for _ in range(2):
        report.write_report(result(), str(page))
    text = page.read_text()
    assert text.startswith("# Title\n\nBefore.")
    assert text.endswith("After.\n")
    assert "old" not in text
    assert text.count("| Beaver | median |") == 1
    assert (tmp_path / "page.svg").exists()
    assert json.loads((tmp_path / "page.json").read_text())["rounds"] == FULL.rounds


def test_a_page_without_marks_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Mine\n")
    with pytest.raises(InvalidInput, match="lacks the marks"):
        report.write_report(result(), str(page))
    assert page.read_text() == "# Mine\n"


def test_records_tell_which_jobs_ran_and_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there before is not counted."""
    path = tmp_path / "records"
    monkeypatch.setenv("BENCH_RECORDS", str(path))
    write_record(1)
    records = Records(str(path))
    write_record(1_000_002)
    write_record(1_000_001)
    assert records.count() == 2
    assert [record.number for record in records.read()] == [1_000_002, 1_000_001]
    assert records.wait(3, 0.05) == 2


def test_the_payload_has_thirty_bytes() -> None:
    """The same work for all: that is the size that was agreed on."""
    assert len(json.dumps(payload(1_000_000), separators=(",", ":"))) == 30
    assert set(COMPARED) >= {"serial", "drain", "concurrent"}
