"""`dev.py`: the names in the Makefile, and a night that no failure ends early."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
from collections.abc import Collection
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.mark.expression import Expression, ExpressionMatcher
from typer.main import get_command

from beaver.cli.commands import Group, build
from beaver.cli.main import COMMANDS
from tests.docs.markdown import ROOT


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("beaver_dev", ROOT / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Else the faults that this very run has told of so far would be forgotten.
    monkeypatch.setattr(module, "REPORTS", tmp_path)
    # It starts this program anew.
    monkeypatch.setattr(module, "pythons", lambda arguments: module.run(["others", *arguments]))
    for name in ("HYPOTHESIS_PROFILE", "BEAVER_EXAMPLES", "BEAVER_FAULT_REPORTS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return module


def test_the_makefile_has_the_names_of_all_tasks(dev: ModuleType) -> None:
    line = re.search(r"^TASKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    assert sorted(line[1].split()) == sorted(dev.TASKS)


@pytest.mark.parametrize(("minutes", "examples"), [("3", 100), ("360", 5040)])
def test_each_step_of_the_night_runs_whatever_became_of_the_others(
    minutes: str,
    examples: int,
    dev: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran: list[list[str]] = []

    def broken(*commands: list[str]) -> int:
        ran.extend(commands[:1])
        return 1 if commands else 0

    monkeypatch.setattr(dev, "run", broken)
    assert dev.main(["nightly", "--minutes", minutes, "-x"]) == 1
    assert int(os.environ["BEAVER_EXAMPLES"]) == examples, "no fewer than in CI"
    told = [" ".join(command) for command in ran]
    for step in (
        "pytest -m invariants -x",
        "python -m tests.fuzz.run --seconds",
        "beaver simulate --minutes",
        "pytest -m mutants -x",
        "pytest -m chaos -x",
        "python -m beaver_chaos rounds --minutes",
        "python -m beaver_chaos power --cuts",
        "beaver check --spec --report reports --deep",
    ):
        assert any(line.startswith(step) for line in told), step
    lines = capsys.readouterr().out.splitlines()[-11:]
    assert all(line.endswith("FAILED") for line in lines), lines


def commands_run(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Returns the commands that tasks come to; none of them runs."""
    ran: list[list[str]] = []

    def run(*commands: list[str]) -> int:
        ran.extend(commands)
        return 0

    monkeypatch.setattr(dev, "run", run)
    return ran


def has_one_of(marks: Collection[str]) -> ExpressionMatcher:
    """Says of an expression what pytest says of it for a test with these marks."""
    return lambda name, /, **_: name in marks


def test_each_test_runs_once_in_check_and_what_check_leaves_out_at_night(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever marks a test has; `beaver check --spec` runs what is marked `spec`."""
    ran = commands_run(dev, monkeypatch)
    monkeypatch.setattr(dev, "failed_tests", set)

    def asked(task: str) -> list[Expression]:
        ran.clear()
        assert dev.main([task]) == 0
        return [
            Expression.compile(command[command.index("-m") + 1])
            for command in ran
            if command[0] == "pytest"
        ]

    check, night = asked("check"), asked("nightly")
    assert ["beaver", "check", "--spec"] in [command[:3] for command in ran]
    marks = ("side_by_side", "nightly", "chaos", "mutants", "invariants", "bench")
    for count in range(len(marks) + 1):
        for chosen in itertools.combinations(marks, count):
            in_check = [e for e in check if e.evaluate(has_one_of(chosen))]
            at_night = [e for e in night if e.evaluate(has_one_of(chosen))]
            assert len(in_check) == ("nightly" not in chosen), chosen
            assert at_night or "nightly" not in chosen, chosen


def test_what_the_night_asks_of_beaver_are_options_that_it_has(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = commands_run(dev, monkeypatch)
    assert dev.main(["nightly", "--minutes", "1"]) == 0
    program = get_command(build(COMMANDS))
    assert isinstance(program, Group)
    context = program.make_context("beaver", ["--help"], resilient_parsing=True)
    asked = [command[1:] for command in ran if command[0] == "beaver"]
    assert {name for name, *_ in asked} == {"simulate", "check"}
    for name, *arguments in asked:
        command = program.get_command(context, name)
        assert command is not None
        command.make_context(name, arguments)
