"""Attempts of remote workers: no BOOT ends them, their leases do, at once and fenced."""

from __future__ import annotations

import pytest

from beaver_model import Rejection, State, apply, decide, freeze, replay, thaw
from beaver_model.bounds import CHILDREN_MAX, REMOTE_WORKERS_FROM
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    Dispatch,
    Enqueue,
    Expire,
    NewJob,
    Release,
)
from beaver_model.events import AnyEvent, Booted, Cause, TimedOut
from beaver_model.invariants import violations
from beaver_model.legality import JudgedFrame, legal
from beaver_model.rows import Spec, encode_spec
from beaver_model.states import JobState

NOW_MS = 1_000_000
REMOTE = REMOTE_WORKERS_FROM + 1


def new_job(job: str, attempts: int = 2) -> NewJob:
    spec = Spec("t", max_attempts=attempts, backoff_base_ms=60_000, backoff_jitter=0.0)
    return NewJob(job, encode_spec(spec), b"null", b"d" * 12)


class World:
    """A state, and its log frame by frame."""

    def __init__(self) -> None:
        self.state, self.frames = State(), list[tuple[int, list[AnyEvent]]]()

    def refused(self, command: AnyCommand) -> Rejection:
        found = decide(self.state, command, NOW_MS)
        assert isinstance(found, Rejection), found
        return found

    def ask(self, command: AnyCommand) -> list[AnyEvent]:
        events = decide(self.state, command, NOW_MS)
        assert not isinstance(events, Rejection), events
        frame = JudgedFrame(NOW_MS, self.state.last_seq + 1, events)
        self.frames.append((self.state.last_seq + 1, events))
        for event in events:
            assert legal(self.state, event, frame) is None
            apply(self.state, event, NOW_MS)
        assert not violations(self.state)
        return events

    def dispatch(self, job: str, worker: int) -> int:
        self.ask(Dispatch(job, worker))
        return self.state.last_seq

    def again(self, *, indexed: bool) -> State:
        """Returns the state that its log gives."""
        state = State()
        if not indexed:
            state.defer_indexes()
        for first_seq, events in self.frames:
            replay(state, first_seq, NOW_MS, events, run_min=1)
        return state


@pytest.fixture
def world() -> World:
    world = World()
    world.ask(Enqueue([new_job(job) for job in "abc"]))
    return world


@pytest.mark.parametrize("power_cut", [False, True])
def test_a_boot_ends_local_attempts_and_leaves_remote_ones(world: World, power_cut: bool) -> None:
    """The worker of a remote attempt may be alive: only its lease ends it."""
    world.dispatch("a", REMOTE)
    local = world.dispatch("b", REMOTE_WORKERS_FROM - 1)
    token = world.dispatch("c", REMOTE_WORKERS_FROM)
    events = world.ask(Boot(frozenset({local}), power_cut=power_cut))
    assert [getattr(event, "job", "") for event in events] == ["", "b"]
    assert list(world.state.in_flight.values()) == [world.state.jobs["a"], world.state.jobs["c"]]
    assert not world.state.jobs["a"].suspect
    world.ask(Complete("c", token, b"1"))
    for indexed in (False, True):
        assert freeze(world.again(indexed=indexed)) == freeze(world.state)


@pytest.mark.parametrize("indexed", [False, True])
def test_a_log_whose_boot_leaves_a_local_attempt_behind_remote_ones_is_illegal(
    world: World, indexed: bool
) -> None:
    world.dispatch("a", REMOTE)
    world.dispatch("b", 1)
    world.frames.append((world.state.last_seq + 1, [Booted(1, False)]))
    with pytest.raises(Exception, match="leaves job b in flight"):
        world.again(indexed=indexed)


@pytest.mark.parametrize("worker", [REMOTE_WORKERS_FROM - 1, REMOTE_WORKERS_FROM])
def test_what_outlives_a_boot_is_told_by_the_number_of_the_worker(
    world: World, worker: int
) -> None:
    """An ACK, and a cancel, behind the frame of BOOT: legal for a remote worker alone."""
    token = world.dispatch("a", worker)
    apply(world.state, Booted(1, False), NOW_MS)
    for command in (Complete("a", token, b"1"), Cancel("a")):
        events = decide(world.state, command, NOW_MS)
        assert not isinstance(events, Rejection)
        reason = legal(
            world.state, events[0], JudgedFrame(NOW_MS, world.state.last_seq + 1, events)
        )
        assert (reason is None) == (worker >= REMOTE_WORKERS_FROM)


def test_an_attempt_of_a_remote_worker_is_no_suspect_after_a_power_cut(world: World) -> None:
    token = world.dispatch("a", REMOTE)
    first_seq = world.state.last_seq + 1
    events = decide(world.state, Boot(power_cut=True), NOW_MS)
    assert not isinstance(events, Rejection)
    frame = JudgedFrame(NOW_MS, first_seq, events)
    assert legal(world.state, events[0], frame) is None
    apply(world.state, events[0], NOW_MS)
    for suspect in (False, True):
        end = TimedOut("a", token, NOW_MS, Cause.LEASE_EXPIRED, suspect)
        assert (legal(world.state, end, frame) is None) != suspect


def test_a_job_whose_lease_has_expired_is_at_once_available_again(world: World) -> None:
    """Its backoff is for failures; a worker that is gone says nothing of the job."""
    token = world.dispatch("a", REMOTE)
    world.ask(Expire("a", token, Cause.LEASE_EXPIRED))
    row = world.state.jobs["a"]
    assert (row.state, row.attempt, row.ready_ms) == (JobState.PENDING, 1, NOW_MS)
    for late in (Complete("a", token, b"1"), Release("a", token, Cause.DRAIN)):
        assert world.refused(late).code == "stale_token"
    again = world.dispatch("a", REMOTE)
    world.ask(Expire("a", again, Cause.LEASE_EXPIRED))
    assert world.state.jobs["a"].state == JobState.DEAD, "the attempts are spent"


def test_an_attempt_over_its_limit_still_waits_for_its_backoff(world: World) -> None:
    token = world.dispatch("a", REMOTE)
    world.ask(Expire("a", token))
    assert world.state.jobs["a"].ready_ms == NOW_MS + 60_000


def test_a_lease_that_ends_after_a_cancel_cancels(world: World) -> None:
    token = world.dispatch("a", REMOTE)
    world.ask(Cancel("a"))
    world.ask(Expire("a", token, Cause.LEASE_EXPIRED))
    assert world.state.jobs["a"].state == JobState.CANCELLED


def test_children_that_are_refused_end_nothing_where_it_may_be_said_otherwise(
    world: World,
) -> None:
    token = world.dispatch("a", REMOTE)
    other = NewJob("b", encode_spec(Spec("t")), b"1", b"x" * 12)
    report = Complete("a", token, b"1", (other,), may_send_again=True)
    assert world.refused(report).code == "conflict"
    many = tuple(new_job(f"n{number}") for number in range(CHILDREN_MAX + 1))
    assert world.refused(Complete("a", token, b"1", many, may_send_again=True)).code == "bad_value"
    assert world.state.jobs["a"].state == JobState.IN_FLIGHT
    world.ask(Complete("a", token, b"1", (new_job("n"),), may_send_again=True))


def test_a_snapshot_keeps_whose_an_attempt_is(world: World) -> None:
    world.dispatch("a", REMOTE)
    state = thaw(*freeze(world.state))
    assert state.jobs["a"].is_remote
    events = decide(state, Boot(), NOW_MS)
    assert isinstance(events, list)
    assert len(events) == 1
