"""What each command leads to, and each reason for which it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beaver_model import Rejection, decide, fingerprint, violations
from beaver_model.bounds import BATCH_JOBS_MAX, CHILDREN_MAX, QUEUES_MAX, SNOOZES_MAX, WEIGHT_MAX
from beaver_model.commands import (
    REJECTIONS,
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
from beaver_model.events import Cancelled, Cause, QueueSet, TimedOut
from beaver_model.states import JobState
from tests.worlds.model import World, job

pytestmark = pytest.mark.invariants


@pytest.fixture
def world() -> World:
    return World()


def refused(decision: object) -> Rejection:
    assert isinstance(decision, Rejection)
    assert decision.code in REJECTIONS
    return decision


def code(decision: object) -> str:
    return refused(decision).code


def names(events: object) -> list[str]:
    assert isinstance(events, list)
    return [event.NAME for event in events]


# -- enqueue --------------------------------------------------------------------------------


def test_the_same_job_again_is_a_no_op(world: World) -> None:
    world.enqueue(job())
    assert world.do(Enqueue([job()])) == []
    assert world.state.seq_of("a") == 1


def test_the_same_id_with_other_content_refuses_the_whole_batch(world: World) -> None:
    world.enqueue(job())
    refusal = refused(world.ask(Enqueue([job("b"), job(digest=b"x" * 12)])))
    assert refusal.code == "conflict"
    assert refusal.facts == {"job": "a", "index": 1, "seq": 1}
    assert "b" not in world.state.jobs


def test_a_finished_job_is_still_found_by_its_tombstone(world: World) -> None:
    world.enqueue(job())
    world.do(Complete("a", world.dispatch(), b"null"))
    assert world.do(Enqueue([job()])) == []
    assert code(world.ask(Enqueue([job(digest=b"x" * 12)]))) == "conflict"
    assert world.state.seq_of("a") == 1


def test_after_its_tombstone_is_evicted_the_id_is_a_new_job(world: World) -> None:
    world.do(SetBounds(1))
    for name in ("a", "b"):
        world.enqueue(job(name))
        world.do(Complete(name, world.dispatch(name), b"null"))
    assert names(world.do(Enqueue([job("a", digest=b"x" * 12)]))) == ["ENQUEUE"]
    assert world.do(Enqueue([job("b")])) == []


def test_tombstones_are_evicted_by_age_of_event_time(world: World) -> None:
    world.do(SetBounds(1_000, tombstones_age_ms=60_000))
    world.enqueue(job("old"))
    world.do(Complete("old", world.dispatch("old"), b"null"))
    world.now_ms += 60_000
    world.enqueue(job("mid"))
    world.do(Complete("mid", world.dispatch("mid"), b"null"))
    assert "old" in world.state.tombstones
    world.now_ms += 1
    world.enqueue(job("new"))
    world.do(Complete("new", world.dispatch("new"), b"null"))
    assert "old" not in world.state.tombstones
    assert violations(world.state) == []


def test_an_id_twice_in_one_batch_is_refused(world: World) -> None:
    assert code(world.ask(Enqueue([job(), job("b"), job()]))) == "repeated"
    assert world.state.last_seq == 0


@pytest.mark.parametrize("extra", [0, 1])
def test_a_batch_holds_ten_thousand_jobs_and_not_one_more(world: World, extra: int) -> None:
    decision = world.ask(Enqueue([job(str(n)) for n in range(BATCH_JOBS_MAX + extra)]))
    assert isinstance(decision, Rejection) == bool(extra)
    if extra:
        assert code(decision) == "batch_too_large"


def test_a_store_knows_so_many_queues_and_not_one_more(world: World) -> None:
    world.enqueue(*(job(str(n), queue=f"q{n}") for n in range(QUEUES_MAX)))
    assert code(world.ask(Enqueue([job("more", queue="more")]))) == "too_many_queues"
    assert code(world.ask(SetQueue("more", paused=True))) == "too_many_queues"
    world.enqueue(job("same", queue="q1"))


# -- dispatch ---------------------------------------------------------------------------------


def test_dispatch_spends_an_attempt_and_its_seq_is_the_token(world: World) -> None:
    world.enqueue(job())
    token = world.dispatch()
    row = world.row()
    assert (row.state, row.attempt, row.token, token) == (JobState.IN_FLIGHT, 1, 2, 2)


def test_no_job_starts_before_its_time(world: World) -> None:
    world.enqueue(job(run_at_ms=5_000))
    world.now_ms = 4_999
    assert code(world.ask(Dispatch("a", 1))) == "not_ready"
    world.now_ms = 5_000
    world.dispatch()


def test_a_paused_queue_dispatches_nothing(world: World) -> None:
    world.enqueue(job())
    world.do(SetQueue("default", paused=True))
    assert code(world.ask(Dispatch("a", 1))) == "paused"
    world.do(SetQueue("default", paused=False))
    world.dispatch()


def test_a_last_attempt_is_never_prefetched(world: World) -> None:
    world.enqueue(job(max_attempts=1))
    assert code(world.ask(Dispatch("a", 1, prefetched=True))) == "last_attempt"
    world.dispatch()


@pytest.mark.parametrize("command", [Dispatch("a", 1), Cancel("a"), Requeue("a"), Discard("a")])
def test_a_job_that_nobody_enqueued_is_refused_by_name(world: World, command: AnyCommand) -> None:
    refusal = refused(world.ask(command))
    assert refusal.code == "no_such_job"
    assert refusal.facts == {"job": "a"}


# -- outcomes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        lambda token: Complete("a", token, b"null"),
        lambda token: Fail("a", token, "error"),
        lambda token: Expire("a", token),
        lambda token: Release("a", token, Cause.DRAIN),
        lambda token: ConfirmCancel("a", token),
    ],
)
def test_an_outcome_with_any_other_token_is_refused(
    world: World, outcome: Callable[[int], AnyCommand]
) -> None:
    world.enqueue(job())
    old = world.dispatch()
    world.do(Release("a", old, Cause.NEVER_STARTED))
    new = world.dispatch()
    for token in (0, old, new + 1):
        assert code(world.ask(outcome(token))) == "stale_token"
    assert names(world.ask(outcome(new)))


def test_a_token_of_another_job_is_refused(world: World) -> None:
    world.enqueue(job("a"), job("b"))
    token = world.dispatch("a")
    world.dispatch("b")
    assert code(world.ask(Complete("b", token, b"null"))) == "stale_token"


def test_a_failure_is_retried_with_backoff_until_no_attempt_is_left(world: World) -> None:
    world.enqueue(job(max_attempts=3, backoff_base_ms=1_000, backoff_jitter=0.0))
    waits = []
    for _ in range(2):
        (event,) = world.do(Fail("a", world.dispatch(), "broken"))
        waits.append(world.row().ready_ms - world.now_ms)
        world.now_ms = world.row().ready_ms
        assert event.NAME == "RETRY"
    assert waits == [1_000, 2_000]
    assert names(world.do(Fail("a", world.dispatch(), "broken"))) == ["DEAD"]
    row = world.row()
    assert (row.state, row.attempt) == (JobState.DEAD, 3)
    assert row.extra is not None
    assert (row.extra.cause, row.extra.error) == ("failed", "broken")


def test_jitter_spreads_a_backoff_evenly_around_its_value(world: World) -> None:
    spec = job(backoff_base_ms=10_000, backoff_jitter=0.1)
    waits = []
    for jitter in (0.0, 0.5, 0.999999):
        one = World()
        one.enqueue(spec)
        one.do(Fail("a", one.dispatch(), "", jitter=jitter))
        waits.append(one.row().ready_ms - one.now_ms)
    assert waits[0] == 9_000
    assert waits[1] == 10_000
    assert 10_990 <= waits[2] <= 11_000


def test_a_failure_that_says_so_is_not_retried(world: World) -> None:
    world.enqueue(job())
    fail = Fail("a", world.dispatch(), "bad input", cause=Cause.NOT_RETRYABLE, retry=False)
    assert names(world.do(fail)) == ["DEAD"]


def test_a_timeout_costs_an_attempt_and_the_last_one_kills(world: World) -> None:
    world.enqueue(job(max_attempts=2))
    assert names(world.do(Expire("a", world.dispatch()))) == ["TIMEOUT"]
    world.now_ms = world.row().ready_ms
    assert names(world.do(Expire("a", world.dispatch()))) == ["DEAD"]


def test_a_release_gives_the_attempt_and_the_place_in_the_order_back(world: World) -> None:
    world.enqueue(job("a"), job("b"))
    world.do(Release("a", world.dispatch("a"), Cause.DRAIN))
    assert world.row().attempt == 0
    assert world.start_next() == "a"


def test_snoozes_are_bounded(world: World) -> None:
    world.enqueue(job(max_attempts=2))
    for _ in range(SNOOZES_MAX):
        world.do(Release("a", world.dispatch(), Cause.SNOOZE))
    assert names(world.do(Release("a", world.dispatch(), Cause.SNOOZE))) == ["DEAD"]
    extra = world.row().extra
    assert extra is not None
    assert extra.cause == Cause.SNOOZE_LIMIT


def test_a_snooze_waits_and_a_give_back_counts_towards_nothing(world: World) -> None:
    world.enqueue(job())
    world.do(Release("a", world.dispatch(), Cause.SNOOZE, delay_ms=500))
    assert world.row().ready_ms == world.now_ms + 500
    world.now_ms += 500
    for _ in range(20):
        world.do(Release("a", world.dispatch(), Cause.NEVER_STARTED))
    extra = world.row().extra
    assert extra is not None
    assert extra.snoozes == 1


# -- children -----------------------------------------------------------------------------------


def test_children_come_in_with_their_parents_ack(world: World) -> None:
    world.enqueue(job())
    complete = Complete("a", world.dispatch(), b"null", (job("b"), job("c")))
    assert names(world.do(complete)) == ["ACK", "ENQUEUE", "ENQUEUE"]
    extra = world.row("b").extra
    assert extra is not None
    assert extra.parent == "a"


def test_a_failed_attempt_leaks_no_children_and_a_conflict_fails_it_for_good(world: World) -> None:
    world.enqueue(job(), job("b"))
    complete = Complete("a", world.dispatch(), b"null", (job("c"), job("b", digest=b"x" * 12)))
    assert names(world.do(complete)) == ["DEAD"]
    assert "c" not in world.state.jobs
    extra = world.row().extra
    assert extra is not None
    assert extra.cause == Cause.CHILD_CONFLICT
    assert "b" in extra.error


@pytest.mark.parametrize(("count", "expected"), [(CHILDREN_MAX, "ACK"), (CHILDREN_MAX + 1, "DEAD")])
def test_an_ack_carries_so_many_children(world: World, count: int, expected: str) -> None:
    world.enqueue(job())
    children = tuple(job(f"child-{n}") for n in range(count))
    assert names(world.do(Complete("a", world.dispatch(), b"null", children)))[0] == expected


# -- operators ------------------------------------------------------------------------------------


def test_a_pending_job_is_cancelled_at_once(world: World) -> None:
    world.enqueue(job())
    assert names(world.do(Cancel("a"))) == ["CANCEL"]
    assert world.do(Cancel("a")) == []


def test_an_ack_wins_over_a_cancel_request_and_anything_else_becomes_cancel(world: World) -> None:
    world.enqueue(job("a"), job("b"), job("c"), job("d"))
    tokens = {name: world.dispatch(name) for name in "abcd"}
    for name in "abcd":
        assert names(world.do(Cancel(name))) == ["CANCEL_REQUESTED"]
        assert world.do(Cancel(name)) == []
    assert names(world.do(Complete("a", tokens["a"], b"1"))) == ["ACK"]
    assert names(world.do(Fail("b", tokens["b"], ""))) == ["CANCEL"]
    assert names(world.do(Release("c", tokens["c"], Cause.DRAIN))) == ["CANCEL"]
    assert names(world.do(Expire("d", tokens["d"]))) == ["CANCEL"]
    assert violations(world.state) == []


def test_a_job_that_cancels_itself_says_why(world: World) -> None:
    """Its reason stands in the event and in the row; an error before is not taken for it."""
    world.enqueue(job("a"), job("b"))
    world.do(Fail("a", world.dispatch("a"), "no answer", delay_ms=0))
    token = world.dispatch("a")
    (event,) = world.do(ConfirmCancel("a", token, Cause.JOB, "no longer wanted"))
    assert event == Cancelled("a", token, Cause.JOB, "no longer wanted")
    extra = world.row("a").extra
    assert extra is not None
    assert (extra.cause, extra.error) == (Cause.JOB, "no longer wanted")


def test_an_operator_who_asked_first_has_cancelled_the_job(world: World) -> None:
    """The stop that a cancel request leads to is not told as the job's own wish."""
    world.enqueue(job())
    token = world.dispatch()
    world.do(Cancel("a"))
    (event,) = world.do(ConfirmCancel("a", token, Cause.JOB))
    assert event == Cancelled("a", token, Cause.OPERATOR)


def test_a_dead_job_cannot_be_cancelled(world: World) -> None:
    world.enqueue(job())
    world.do(Fail("a", world.dispatch(), "", retry=False))
    assert code(world.ask(Cancel("a"))) == "wrong_state"


def test_requeue_starts_a_generation_afresh_and_may_carry_a_payload(world: World) -> None:
    world.enqueue(job(max_attempts=1))
    world.do(Fail("a", world.dispatch(), "broken"))
    world.do(Requeue("a", b'{"better": true}'))
    row = world.row()
    assert (row.state, row.attempt, row.payload) == (JobState.PENDING, 0, b'{"better": true}')
    assert row.extra is not None
    assert (row.extra.generation, row.extra.error) == (1, "")
    world.dispatch()


def test_a_discarded_job_leaves_a_tombstone(world: World) -> None:
    world.enqueue(job())
    world.do(Discard("a"))
    assert "a" not in world.state.jobs
    tombstone = world.state.tombstone("a")
    assert tombstone is not None
    assert tombstone.outcome == JobState.FORGOTTEN
    world.enqueue(job("b"))
    world.dispatch("b")
    assert code(world.ask(Discard("b"))) == "wrong_state"


@pytest.mark.parametrize(
    ("weight", "ok"), [(0, False), (1, True), (WEIGHT_MAX, True), (WEIGHT_MAX + 1, False)]
)
def test_a_queues_weight_is_bounded(world: World, weight: int, ok: bool) -> None:
    assert isinstance(world.ask(SetQueue("default", weight=weight)), list) == ok


def test_settings_that_change_nothing_lead_to_no_event(world: World) -> None:
    world.do(SetQueue("default", weight=3))
    assert world.do(SetQueue("default", weight=3)) == []
    bounds = SetBounds(world.state.tombstones_max, world.state.tombstones_age_ms)
    assert world.do(bounds) == []
    assert world.do(SetQueue("default", durable_dispatch=True)) == [], "the default"
    assert code(world.ask(SetQueue("default", bytes_max=-1))) == "bad_value"
    assert code(world.ask(SetBounds(-1))) == "bad_value"


def test_a_queue_opts_out_of_a_durable_dispatch_and_keeps_its_other_settings(world: World) -> None:
    world.do(SetQueue("mail", weight=3))
    (event,) = world.do(SetQueue("mail", durable_dispatch=False))
    assert event == QueueSet("mail", False, 3, 0, False)
    (event,) = world.do(SetQueue("mail", paused=True))
    assert event == QueueSet("mail", True, 3, 0, False)
    assert not world.state.queues["mail"].row.durable_dispatch
    world.do(SetQueue("mail", durable_dispatch=True))
    assert world.state.queues["mail"].row.durable_dispatch


# -- boot -----------------------------------------------------------------------------------------


def test_boot_charges_what_had_started_and_gives_back_what_had_not(world: World) -> None:
    world.enqueue(job("a"), job("b"), job("last", max_attempts=1))
    started, _, last = (world.dispatch(name) for name in ("a", "b", "last"))
    events = world.do(Boot(frozenset({started, last})))
    assert names(events) == ["BOOT", "TIMEOUT", "RELEASE", "DEAD"]
    assert isinstance(events[1], TimedOut)
    assert events[1].cause == Cause.NODE_LOST
    assert (world.row("a").attempt, world.row("b").attempt) == (1, 0)
    assert world.row("a").ready_ms == world.now_ms, "at once, without backoff"
    assert world.state.epoch == 1


def test_after_a_power_cut_all_are_charged_and_suspects_run_one_at_a_time(world: World) -> None:
    world.enqueue(job("a"), job("b"), job("c"))
    world.dispatch("a")
    world.dispatch("b")
    world.do(Boot(power_cut=True))
    assert [world.row(name).suspect for name in "abc"] == [True, True, False]
    assert code(world.ask(Dispatch("a", 1, prefetched=True))) == "suspect_waits"
    token = world.dispatch("a")
    assert code(world.ask(Dispatch("b", 2))) == "suspect_waits"
    assert world.select(idle=True).id == "c"  # type: ignore[union-attr]
    world.do(Fail("a", token, "broken"))
    assert not world.row("a").suspect, "it ended otherwise than by node loss"
    world.dispatch("b")


def test_a_poison_job_that_takes_the_machine_down_ends_in_dead(world: World) -> None:
    world.enqueue(job(max_attempts=3))
    for _ in range(3):
        world.dispatch()
        world.do(Boot(power_cut=True))
    assert world.row().state == JobState.DEAD


def test_boot_turns_a_requested_cancel_into_cancel(world: World) -> None:
    world.enqueue(job("a"), job("b"))
    started = world.dispatch("a")
    world.dispatch("b")
    for name in "ab":
        world.do(Cancel(name))
    assert names(world.do(Boot(frozenset({started})))) == ["BOOT", "CANCEL", "CANCEL"]


def test_decide_changes_nothing(world: World) -> None:
    world.enqueue(job("a"), job("b"))
    token = world.dispatch("a")
    before = fingerprint(world.state), world.state.ledger
    for command in (
        Enqueue([job("c")]),
        Dispatch("b", 1),
        Complete("a", token, b"null"),
        Cancel("b"),
        Boot(),
        SetQueue("new", paused=True),
    ):
        assert decide(world.state, command, world.now_ms)
    assert (fingerprint(world.state), world.state.ledger) == before


def test_a_finished_job_can_be_neither_cancelled_nor_requeued(world: World) -> None:
    world.enqueue(job())
    world.do(Complete("a", world.dispatch(), b"null"))
    for command in (Cancel("a"), Requeue("a"), Discard("a"), Dispatch("a", 1)):
        refusal = refused(world.ask(command))
        assert refusal.code == "finished"
        assert refusal.facts["outcome"] == "COMPLETED"
