"""Machine, table, `legal`, `apply` and `decide` agree on every cell, and drift is seen."""

from __future__ import annotations

import pytest
from transitions import Machine

import beaver_model
from beaver_model import State
from beaver_model.events import AnyEvent, Released, Retried
from beaver_model.legality import JudgedFrame
from beaver_model.lifecycle import CELLS, build_machine
from beaver_model.states import JobState, Trigger
from beaver_spec.explorer.cells import cells_result, check_cells, shapes
from beaver_spec.explorer.model_under_test import ModelUnderTest
from beaver_spec.results import Verdict

pytestmark = pytest.mark.invariants


def test_all_agree_on_every_cell_reachable_or_not() -> None:
    report = check_cells()
    assert report.wrong == []
    assert len(report.cells) == len(Trigger) * len(JobState)
    assert report.events > 1_500
    assert report.commands > 2_000
    assert cells_result(report).verdict == Verdict.HOLDS


def test_the_shapes_of_a_row_cover_every_flag_in_the_states_that_can_have_it() -> None:
    in_flight = [row for row, _ in shapes(JobState.IN_FLIGHT)]
    assert {(row.cancel, row.suspect) for row in in_flight} == {
        (cancel, suspect) for cancel in (False, True) for suspect in (False, True)
    }
    assert {row.attempt for row in in_flight} == {1, 2}
    assert {row.waiting for row, _ in shapes(JobState.PENDING)} == {False, True}


def test_a_table_that_drifted_from_the_machine_is_seen() -> None:
    table = [list(row) for row in CELLS]
    table[Trigger.DISCARD][JobState.IN_FLIGHT] = JobState.FORGOTTEN
    report = check_cells(table=table)
    assert report.wrong == ["DISCARD in IN_FLIGHT: the Machine says illegal, the table FORGOTTEN"]
    assert cells_result(report).verdict == Verdict.VIOLATED


def test_a_machine_with_another_arrow_is_seen() -> None:
    machine: Machine = build_machine()
    machine.add_transition("ack", JobState.CANCELLED.name, JobState.COMPLETED.name)
    assert any("ACK in CANCELLED" in line for line in check_cells(machine).wrong)


def legal_without_the_attempts(state: State, event: AnyEvent, frame: JudgedFrame) -> str | None:
    reason = beaver_model.legal(state, event, frame)
    if isinstance(event, Retried) and reason is not None and "no attempt left" in reason:
        return None
    return reason


def test_a_guard_that_is_missing_is_seen() -> None:
    wrong = check_cells(model=ModelUnderTest(legal=legal_without_the_attempts)).wrong
    assert any(line.startswith("RETRY on") and line.endswith("says legal") for line in wrong)


def apply_that_releases_to_dead(state: State, event: AnyEvent, time_ms: int) -> None:
    beaver_model.apply(state, event, time_ms)
    if isinstance(event, Released):
        row = state.take(state.jobs[event.job])
        row.state = JobState.DEAD
        state.put(row)


def test_an_apply_that_leads_elsewhere_is_seen() -> None:
    wrong = check_cells(model=ModelUnderTest(apply=apply_that_releases_to_dead)).wrong
    assert any("`apply` led to DEAD, the Machine to PENDING" in line for line in wrong)
