"""Trace validation: what the real model logs is accepted, what was spoilt is found at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from beaver.errors import Corruption
from beaver.journal.codec import encode_commit
from beaver.journal.port import append_now
from beaver.journal.wal.format import frame_bytes
from beaver.journal.wal.layout import Layout
from beaver.system.disk import SystemDisk
from beaver_chaos.program.process import PromiseBroken
from beaver_chaos.program.session import refuse_drift
from beaver_model.bounds import ATTEMPTS_MAX, CHILDREN_MAX, SNOOZES_MAX, TOMBSTONES_MAX_DEFAULT
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    ConfirmCancel,
    Discard,
    Dispatch,
    Enqueue,
    Expire,
    Fail,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import ALL_EVENTS, Acked, Cause, Dispatched, Retried
from beaver_model.lifecycle import CELLS
from beaver_model.states import JobState, Trigger
from beaver_spec.traces import fields, lifecycle
from beaver_spec.traces.following import SHAPES, steps_of, validate_store
from beaver_spec.traces.rules import LogStep, validate
from tests.spec_tools.traces import (
    WAYS,
    TracedWorld,
    at,
    changed,
    long_trace,
    renumbered,
)
from tests.support.program import Server, beaver, enqueue, serving, status
from tests.worlds.model import job
from tests.worlds.stores import LoggedWorld

pytestmark = pytest.mark.invariants


# -- two specifications that were written apart ---------------------------------------------------


def test_the_lifecycle_written_twice_is_one_table() -> None:
    mine = {
        (event, before): after
        for event, row in lifecycle.LIFE.items()
        for before, after in row.items()
    }
    models = {
        (trigger.name, state.name.lower()): after.name.lower()
        for trigger in Trigger
        for state in JobState
        if (after := CELLS[trigger][state]) is not None
    }
    assert mine == models


def test_the_shapes_written_twice_are_one() -> None:
    models = {
        event.__struct_config__.tag: (event.NAME, list(event.__struct_fields__))
        for event in ALL_EVENTS
    }
    assert {tag: (name, list(shape)) for tag, (name, shape) in SHAPES.items()} == models


def test_the_bounds_written_twice_are_equal() -> None:
    assert fields.ATTEMPTS_MAX == ATTEMPTS_MAX
    assert lifecycle.SNOOZES_MAX == SNOOZES_MAX
    assert lifecycle.CHILDREN_MAX == CHILDREN_MAX
    assert lifecycle.TOMBSTONES_MAX == TOMBSTONES_MAX_DEFAULT


# -- what the model logs --------------------------------------------------------------------------


def test_a_trace_with_every_event_follows_the_specification() -> None:
    steps = long_trace()
    assert {step.name for step in steps} == {name for name, _ in SHAPES.values()}
    verdict = validate(steps)
    assert (verdict.ok, verdict.reason) == (True, "")
    assert (verdict.index, verdict.seq) == (len(steps), steps[-1].seq)


def test_a_trace_may_begin_anywhere_as_that_of_a_pruned_log_does() -> None:
    """Also in the middle of a life: a job requeued there may die, however few its attempts."""
    world = TracedWorld()
    world.enqueue(job("a", max_attempts=1))
    for _ in range(2):
        world.dispatch("a")
        world.do(Expire("a", world.token("a"), Cause.TIME_LIMIT))
        world.do(Requeue("a"))
    for steps in (world.steps, long_trace()):
        for first, step in enumerate(steps):
            if step.seq == step.commit:
                verdict = validate(steps[first:], first_seq=step.seq)
                assert verdict.ok, f"from seq {step.seq}: {verdict.reason}"


NAMES = st.sampled_from("abc")
TOKENS = st.integers(0, 60)
COMMANDS = st.one_of(
    st.builds(lambda n: Enqueue((job(n, max_attempts=2),)), NAMES),
    st.builds(Dispatch, NAMES, st.just(1), st.booleans()),
    st.builds(Complete, NAMES, TOKENS, st.just(b"1")),
    st.builds(
        lambda n, t, c: Complete(n, t, b"1", (job(c, max_attempts=1),)), NAMES, TOKENS, NAMES
    ),
    st.builds(Fail, NAMES, TOKENS, st.just("boom"), retry=st.booleans()),
    st.builds(Expire, NAMES, TOKENS, st.just("time_limit")),
    st.builds(
        Release, NAMES, TOKENS, st.sampled_from(["drain", "snooze"]), st.sampled_from([0, 9])
    ),
    st.builds(Cancel, NAMES),
    st.builds(ConfirmCancel, NAMES, TOKENS),
    st.builds(Requeue, NAMES),
    st.builds(Discard, NAMES),
    st.builds(SetQueue, st.just("default"), st.booleans(), durable_dispatch=st.booleans()),
    st.builds(SetBounds, st.integers(0, 2), st.sampled_from([0, 5_000])),
    st.builds(Boot, st.frozensets(TOKENS, max_size=3), st.booleans()),
)


def _answering(world: TracedWorld, command: AnyCommand) -> AnyCommand:
    """Lets most outcomes carry the right token, so that lives go on."""
    token = getattr(command, "token", None)
    row = world.state.jobs.get(getattr(command, "job", ""))
    if token is None or row is None or token % 4 == 0:
        return command
    return type(command)(
        **{name: getattr(command, name) for name in command.__struct_fields__}
        | {"token": row.token}
    )


@given(st.lists(st.tuples(COMMANDS, st.sampled_from([0, 1, 3_000])), max_size=60))
def test_whatever_the_model_decides_follows_the_specification(
    commands: list[tuple[AnyCommand, int]],
) -> None:
    world = TracedWorld()
    for command, passes_ms in commands:
        world.now_ms += passes_ms
        world.try_to(_answering(world, command))
    verdict = validate(world.steps)
    assert verdict.ok, (verdict, world.steps[max(0, verdict.index - 5) : verdict.index + 1])


# -- what was spoilt ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_spoilt_trace_is_rejected_at_the_wrong_event(way: str) -> None:
    spoilt = WAYS[way](long_trace())
    verdict = validate(spoilt.steps)
    assert not verdict.ok, way
    assert verdict.index == spoilt.index
    assert verdict.seq == (spoilt.steps[spoilt.index].seq)
    assert spoilt.says in verdict.reason


def test_any_lost_event_is_missed_at_its_place() -> None:
    steps = long_trace()
    for index in range(len(steps) - 1):
        verdict = validate([*steps[:index], *steps[index + 1 :]])
        assert (verdict.ok, verdict.index) == (False, index), steps[index]


def test_any_forged_token_is_refused_at_its_event() -> None:
    steps = long_trace()
    outcomes = [n for n, step in enumerate(steps) if step.fields.get("token")]
    assert len(outcomes) >= 10
    for index in outcomes:
        for forged in (0, steps[index].fields["token"] - 1, steps[index].fields["token"] + 1):
            verdict = validate(changed(steps, index, token=forged))
            assert (verdict.ok, verdict.index) == (False, index), (steps[index], forged)


def test_any_doubled_job_event_is_refused_at_the_second() -> None:
    steps = long_trace()
    for index, step in enumerate(steps):
        if step.name in lifecycle.LIFE:
            doubled = renumbered([*steps[: index + 1], step, *steps[index + 1 :]])
            verdict = validate(doubled)
            assert (verdict.ok, verdict.index) == (False, index + 1), step


def test_a_boot_that_ends_the_trace_must_resolve_what_was_in_flight() -> None:
    steps = long_trace()
    boot = at(steps, "BOOT", 1)
    verdict = validate(steps[: boot + 1])
    assert (verdict.ok, verdict.index) == (False, boot + 1)
    assert "in flight" in verdict.reason


def test_a_finished_id_comes_back_once_its_tombstone_may_be_gone() -> None:
    world = TracedWorld()
    world.do(SetBounds(1, 0))
    for name in "aba":
        world.enqueue(job(name))
        world.dispatch(name)
        world.do(Complete(name, world.token(name), b"1"))
    assert validate(world.steps).ok
    unbounded = [step for step in world.steps if step.name != "BOUNDS"]
    verdict = validate(_shifted(unbounded, -1))
    assert (verdict.ok, verdict.index) == (False, 6)
    assert "is not forgotten" in verdict.reason


def _shifted(steps: list[LogStep], by: int) -> list[LogStep]:
    """Moves seqs, commits and tokens alike."""
    return [
        replace(
            step,
            seq=step.seq + by,
            commit=step.commit + by,
            fields={n: v + by if n == "token" and v else v for n, v in step.fields.items()},
        )
        for step in steps
    ]


# -- logs -----------------------------------------------------------------------------------------


def test_a_log_on_disk_is_checked_over_all_its_segments(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path)
    world.run("a")
    world.seal()
    world.fail_and_wait("b")
    world.seal()
    world.run("c")
    world.wal.close()
    verdict = validate_store(str(tmp_path))
    assert (verdict.ok, verdict.seq) == (True, world.state.last_seq)


def test_a_log_whose_beginning_was_pruned_is_checked_from_there(tmp_path: Path) -> None:
    """What came before is believed; what comes after is not."""
    world = LoggedWorld(tmp_path)
    world.enqueue(job("a"))
    world.dispatch("a")
    token = world.state.jobs["a"].token
    world.seal()
    world.complete("a")
    world.enqueue(job("b"))
    layout = Layout(str(tmp_path))
    SystemDisk().unlink(layout.archived(1))
    assert validate_store(str(tmp_path)).ok
    _append_unchecked(world, [Retried("b", token, world.now_ms, "failed")])
    verdict = validate_store(str(tmp_path))
    assert (verdict.ok, verdict.seq) == (False, 5)
    assert "job b is pending" in verdict.reason


def test_what_only_a_wrong_program_writes_is_found_in_its_log(tmp_path: Path) -> None:
    """Frames and CRCs are good, the second ACK is not."""
    world = LoggedWorld(tmp_path)
    world.run("a")
    _append_unchecked(world, [Acked("a", 2, b"null"), Dispatched("a", 1)])
    world.wal.close()
    verdict = validate_store(str(tmp_path))
    assert (verdict.ok, verdict.index, verdict.seq) == (False, 3, 4)
    assert "ACK: job a does not exist" in verdict.reason
    with pytest.raises(PromiseBroken, match="rejects the log at seq 4: ACK: job a does not exist"):
        refuse_drift(tmp_path)


def _append_unchecked(world: LoggedWorld, events: list[Retried | Acked | Dispatched]) -> None:
    payload = encode_commit(world.now_ms, events)
    assert world.wal.reserve(frame_bytes(len(payload)))
    append_now(world.wal, payload, len(events))


@pytest.mark.parametrize(
    ("raw", "says"),
    [([99, "a"], "tag 99 is no event"), ([3, "a"], "ACK with 1 fields is no event")],
)
def test_what_is_no_event_is_rejected_by_name(raw: list[object], says: str) -> None:
    steps = long_trace()
    seq = steps[-1].seq + 1
    verdict = validate([*steps, *steps_of(seq, 10**6, [raw])])
    assert (verdict.ok, verdict.index, verdict.seq) == (False, seq - 1, seq)
    assert says in verdict.reason


def test_a_payload_that_is_no_commit_is_corruption(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path)
    world.run("a")
    assert world.wal.reserve(200)
    append_now(world.wal, b"\x01", 1)
    with pytest.raises(Corruption, match="the payload is no commit"):
        validate_store(str(tmp_path))


def test_commits_in_memory_are_steps_too() -> None:
    (step,) = steps_of(7, 1_000, [Dispatched("a", 3)])
    assert step == LogStep(7, 1_000, 7, "DISPATCH", {"job": "a", "worker": 3})


def test_the_log_of_a_killed_and_restarted_program_follows_the_specification(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    enqueue(
        data,
        *({"id": f"quick-{n}"} for n in range(20)),
        {"id": "slow", "payload": {"sleep_ms": 600_000}, "timeout_ms": 100, "max_attempts": 2,
         "backoff": 1},
        {"id": "cancelled", "payload": {"sleep_ms": 600_000}},
    )  # fmt: skip
    server = Server(data, "--workers", "2")
    server.ready()
    server.drained(10)
    server.kill()
    with serving(data, "--workers", "2") as server:
        beaver("cancel", "cancelled", "--data", str(data))
        server.drained(20)
    verdict = validate_store(str(data))
    assert verdict.ok, verdict
    assert verdict.seq == status(data)["last_seq"]
