"""What a run measures: all rows, or only those that were asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beaver.bench import bare, documented, inside, over_http, subject
from beaver.bench.rows import BEAVER, COMPARED, MACHINE, ROWS, Figures, choose
from beaver.bench.run import FULL, QUICK, compiled_modules, large_parts, run
from beaver.bench.targets import GOALS, TARGETS
from beaver.errors import InvalidInput


def test_every_row_of_the_table_is_measured_by_one_part() -> None:
    """A row that nothing gives would be missing without a word."""
    measured = [row for measure in subject.MEASURES.values() for row in measure.rows]
    assert set(measured) == set(COMPARED)
    measured += [row for more in documented.MORE.values() for row in more.rows]
    measured += [*inside.ROWS, *bare.ROWS, *over_http.ROWS, *over_http.BARE_ROWS]
    measured += [row for part in large_parts(FULL, "") for row in part.rows]
    assert sorted(measured) == sorted(set(ROWS) - {"probe", "probe_p50", "loop"})


def test_every_target_and_goal_is_about_a_row() -> None:
    assert {target.key for target in TARGETS} <= set(ROWS)
    assert {key for goal in GOALS for key in (goal.key, goal.against)} <= set(ROWS)


def test_what_is_measured_keeps_its_modules_compiled_and_the_environment_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an installation has them; a tree that compiles at each start would be measured instead."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    program = "import beaver.errors; print(beaver.errors.__cached__)"
    with compiled_modules(str(tmp_path)):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert Path(done.stdout.strip()).is_relative_to(tmp_path)
        assert Path(done.stdout.strip()).exists()
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"
    assert "PYTHONPYCACHEPREFIX" not in os.environ


def test_rows_are_chosen_by_a_word_of_their_name_or_label() -> None:
    """None are all; a word that no row has is refused, with the names that there are."""
    assert choose([]) == set(ROWS)
    assert choose(["drain_one"]) == {"drain_one"}
    assert {"latency_p50", "latency_p99", "kill"} <= choose(["LATENCY", "kill"])
    assert "memory_job" in choose(["memory a pending"])
    with pytest.raises(InvalidInput, match=r"no row is called 'drian'; there are probe, .*drain"):
        choose(["drian"])


def test_only_what_was_asked_for_is_run_and_told(tmp_path: Path) -> None:
    """The other parts, which take minutes, are not even started."""
    told: list[tuple[int, int, str]] = []
    plan = QUICK._replace(pending=2_000, probes=20)
    result = run(str(tmp_path), plan, peers=False, tell=lambda *step: told.append(step),
                 only=["cost_dispatch"])  # fmt: skip
    assert told == [(0, 1, f"{BEAVER}: growth")]
    found = {(figure.subject, figure.key) for figure in result.figures}
    assert found == {(BEAVER, row) for row in inside.GROWTH_ROWS} | {
        (MACHINE, row) for row in ("probe", "probe_p50", "loop")
    }
    assert isinstance(result.figures, Figures)
    assert list(tmp_path.iterdir()) == []
