"""The Machine, the compiled table, `decide` and `apply` say the same of every cell."""

from __future__ import annotations

import pytest
from transitions import MachineError

from beaver_model.commands import Cancel, Complete, ConfirmCancel, Discard, Fail, Requeue
from beaver_model.events import JOB_EVENTS, JobEvent
from beaver_model.lifecycle import CELLS, Life, build_machine
from beaver_model.states import JobState, Trigger
from beaver_spec.explorer.cells import example
from tests.worlds.model import World, job

pytestmark = pytest.mark.invariants


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("state", JobState)
def test_the_compiled_table_equals_the_machine(trigger: Trigger, state: JobState) -> None:
    machine = build_machine()
    life = Life()
    machine.add_model(life, initial=state.name)
    try:
        life.trigger(trigger.name.lower())  # type: ignore[attr-defined]
        reached = JobState[life.state]
    except MachineError:
        reached = None
    assert CELLS[trigger][state] == reached


def world_with(state: JobState) -> World:
    """A world whose job `a` is in the given state."""
    world = World()
    if state == JobState.NEW:
        return world
    world.enqueue(job())
    if state == JobState.CANCELLED:
        world.do(Cancel("a"))
    if state == JobState.FORGOTTEN:
        world.do(Discard("a"))
    if state in (JobState.IN_FLIGHT, JobState.COMPLETED, JobState.DEAD):
        token = world.dispatch()
        if state == JobState.COMPLETED:
            world.do(Complete("a", token, b"null"))
        if state == JobState.DEAD:
            world.do(Fail("a", token, "broken", retry=False))
    return world


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("kind", JOB_EVENTS)
def test_an_event_is_legal_exactly_where_its_cell_is_filled(
    state: JobState, kind: type[JobEvent]
) -> None:
    world = world_with(state)
    row = world.state.jobs.get("a")
    fields = {"job": "a", "spec": job().spec, "digest": b"d" * 12, "token": row.token if row else 0}
    event = example(kind, {**fields, "run_at_ms": world.now_ms, "parent": ""})
    assert kind.TRIGGER is not None
    filled = CELLS[kind.TRIGGER][state] is not None
    assert (world.legal(event) is None) == filled


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.IN_FLIGHT, JobState.COMPLETED])
def test_requeue_is_refused_where_its_cell_is_empty(state: JobState) -> None:
    world = world_with(state)
    before = world.state.last_seq
    refusal = world.ask(Requeue("a"))
    assert not isinstance(refusal, list)
    assert world.state.last_seq == before


def test_a_cancelled_job_can_live_again_and_complete_once() -> None:
    world = world_with(JobState.CANCELLED)
    world.do(Requeue("a"))
    token = world.dispatch()
    assert world.do(Complete("a", token, b"1"))
    again = world.ask(Complete("a", token, b"1"))
    assert not isinstance(again, list)
    assert again.code == "finished"
    assert not isinstance(world.ask(ConfirmCancel("a", token)), list)
