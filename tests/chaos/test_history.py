"""The history checker sees: each rule is broken once, and a good history breaks none."""

from __future__ import annotations

import time

import pytest

from beaver.structs.views import Accepted
from beaver_chaos.checker.attempts import RunLine
from beaver_chaos.checker.client_record import ClientRecord
from beaver_chaos.checker.history import VIOLATIONS_MAX, HistoryCheck
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    Cancelled,
    CancelRequested,
    Cause,
    Died,
    Discarded,
    Dispatched,
    Enqueued,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.rows import Spec, encode_spec

TWICE = encode_spec(Spec("work", max_attempts=2))
PID = 7


def job(name: str = "a", parent: str = "") -> Enqueued:
    return Enqueued(name, TWICE, b"null", b"d" * 12, parent=parent)


def log_of(*events: AnyEvent) -> HistoryCheck:
    """A log with one event a commit: the first event has seq 1."""
    history = HistoryCheck()
    history.read((seq, 1_000 + seq, [event]) for seq, event in enumerate(events, 1))
    return history


def witness_of(**acknowledged: int) -> ClientRecord:
    witness = ClientRecord()
    witness.sending(list(acknowledged)[:1])
    witness.sent.update(acknowledged)
    witness.acknowledge(Accepted(name, seq, True) for name, seq in acknowledged.items())
    return witness


def begins(token: int, name: str = "a", pid: int = PID) -> RunLine:
    return RunLine(False, token, pid, name)


def ends(token: int, name: str = "a", pid: int = PID) -> RunLine:
    return RunLine(True, token, pid, name)


def only(history: HistoryCheck) -> str:
    (violation,) = history.violations
    return violation


def test_a_life_with_every_event_breaks_no_rule() -> None:
    history = log_of(
        Booted(1, False),
        job("a"),
        Dispatched("a", 1),
        Retried("a", 3, 0, Cause.FAILED),
        Dispatched("a", 1),
        Released("a", 5, 0, Cause.NEVER_STARTED),
        Dispatched("a", 2),
        Died("a", 7, Cause.FAILED),
        Requeued("a"),
        Dispatched("a", 1),
        TimedOut("a", 10, 0, Cause.TIME_LIMIT),
        Dispatched("a", 1),
        CancelRequested("a"),
        Acked("a", 12, b"null"),
        job("a/1", parent="a"),
        job("b"),
        Cancelled("b", 0),
        Discarded("b"),
        Dispatched("a/1", 1),
        Acked("a/1", 19, b"null"),
    )
    witness = witness_of(a=2, b=16)
    for event, name in (("REQUEUE", "a"), ("CANCEL_REQUESTED", "a"), ("CANCEL", "b")):
        witness.change(event, name)
    witness.sending(["never"])
    witness.refuse(["never"])
    history.compare(witness)
    runs = [begins(3), ends(3), begins(7), begins(10), begins(12), ends(12), begins(19, "a/1")]
    history.attempts.compare(runs)
    history.attempts.compare_charges(runs)
    history.settle(witness)
    assert history.violations == []


# -- queues that have opted out of a durable DISPATCH -------------------------------------


def eager(queue: str, *, durable: bool = False) -> QueueSet:
    return QueueSet(queue, False, 10, 0, durable)


def test_a_crash_may_take_the_dispatch_of_a_queue_that_has_opted_out() -> None:
    """Token 4 had started; the server died before its sync, and the next one used the seq anew."""
    history = log_of(
        eager("default"),
        job("a"),
        job("b"),
        Booted(1, False),
        Dispatched("b", 1),
        Acked("b", 5, b"null"),
        Dispatched("a", 1),
        Acked("a", 7, b"null"),
    )
    runs = [begins(4), begins(5, "a"), begins(5, "b", 8), ends(5, "b", 8), begins(7, "a", 8)]
    history.attempts.compare(runs)
    history.attempts.compare_charges(runs)
    assert history.violations == []


def test_the_job_of_a_lost_dispatch_may_be_lost_with_it() -> None:
    history = log_of(eager("mail"), Booted(1, False))
    history.attempts.compare([begins(3, "ghost")])
    assert history.violations == []


@pytest.mark.parametrize(
    ("settings", "before"),
    [
        ([], []),
        ([eager("mail")], []),
        ([eager("default"), eager("default", durable=True)], []),
        ([eager("default")], [begins(6, "b")]),
    ],
    ids=["no queue opted out", "another queue did", "it no longer does", "no crash came between"],
)
def test_any_other_token_that_is_not_in_the_log_is_seen(
    settings: list[QueueSet], before: list[RunLine]
) -> None:
    fill = [Booted(1, False) for _ in range(3 - len(settings))]
    history = log_of(*settings, *fill, job("a"), job("b"), Dispatched("b", 1))
    history.attempts.compare([*before, begins(9)], closed=True)
    assert only(history) == (
        "process 7 ran job a with token 9, which is no DISPATCH of that job in the log"
    )


def test_at_the_end_of_a_log_that_goes_on_a_dispatch_may_be_on_its_way() -> None:
    """Or a server was killed there, and no other one has started yet."""
    history = log_of(eager("default"), Booted(1, False), job("a"), Dispatched("a", 1), job("b"))
    history.attempts.compare([begins(4), begins(6, "b")])
    assert history.violations == []
    history.attempts.compare([begins(4), begins(6, "b")], closed=True)
    assert "no DISPATCH of that job" in only(history)


def test_a_job_of_a_queue_that_waits_is_not_on_its_way_before_its_dispatch() -> None:
    history = log_of(Booted(1, False), job("a"), Dispatched("a", 1), job("b"))
    history.attempts.compare([begins(3), begins(5, "b")])
    assert "no DISPATCH of that job" in only(history)


def test_one_process_that_runs_a_token_twice_is_seen_in_such_a_queue_too() -> None:
    history = log_of(eager("default"), job("a"), Booted(1, False), Dispatched("a", 1))
    history.attempts.compare([begins(4), begins(4)])
    assert only(history) == "token 4 of job a ran twice, in processes 7 and 7"


# -- the log by itself ---------------------------------------------------------------------


def test_a_gap_between_commits_is_seen() -> None:
    history = log_of(job("a"))
    history.read([(3, 1_003, [Booted(1, False)])])
    assert only(history) == "a commit begins with seq 3; 2 was next"


def test_a_second_enqueue_of_a_job_is_seen() -> None:
    assert "was enqueued at seq 1 and again at 2" in only(log_of(job(), job()))


def test_an_event_of_a_job_that_was_never_enqueued_is_seen() -> None:
    assert "which was never enqueued" in only(log_of(Dispatched("a", 1)))


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([Dispatched("a", 1), Acked("a", 2, b"1"), Dispatched("a", 1)], "after its ACK"),
        ([Dispatched("a", 1), Dispatched("a", 2)], "while its attempt with token 2 was in flight"),
        ([Died("a", 0, "expired"), Dispatched("a", 1)], "was dispatched while it was dead"),
        ([Cancelled("a", 0), Dispatched("a", 1)], "was dispatched while it was cancelled"),
    ],
)
def test_a_dispatch_of_what_is_not_pending_is_seen(events: list[AnyEvent], said: str) -> None:
    assert said in only(log_of(job(), *events))


def test_a_second_ack_is_seen() -> None:
    history = log_of(job(), Dispatched("a", 1), Acked("a", 2, b"1"), Acked("a", 2, b"1"))
    assert "completed already: two ends of generation 0" in only(history)


def test_two_ends_of_one_generation_are_seen() -> None:
    history = log_of(job(), Dispatched("a", 1), Acked("a", 2, b"1"), Died("a", 2, Cause.FAILED))
    assert "DEAD of job a, which was completed already" in only(history)


@pytest.mark.parametrize(
    "outcome",
    [
        Acked("a", 2, b"1"),
        Retried("a", 2, 0, Cause.FAILED),
        TimedOut("a", 2, 0, Cause.TIME_LIMIT),
        Released("a", 2, 0, Cause.DRAIN),
        Died("a", 2, Cause.FAILED),
        Cancelled("a", 2),
    ],
)
def test_an_outcome_with_a_stale_token_is_seen(outcome: AnyEvent) -> None:
    released: list[AnyEvent] = [job(), Dispatched("a", 1), Released("a", 2, 0, Cause.DRAIN)]
    assert "the job is pending with no token" in log_of(*released, outcome).violations[0]
    again = log_of(*released, Dispatched("a", 1), outcome)
    assert "with token 2; the job is in flight with token 4" in again.violations[0]


def test_an_attempt_over_the_limit_is_seen() -> None:
    history = log_of(
        job(),
        Dispatched("a", 1),
        Retried("a", 2, 0, Cause.FAILED),
        Dispatched("a", 1),
        TimedOut("a", 4, 0, Cause.NODE_LOST),
        Dispatched("a", 1),
    )
    assert history.violations == [
        "seq 5: TIMEOUT of job a after attempt 2 of 2, which is DEAD",
        "seq 6: attempt 3 of job a; 2 allowed",
    ]


@pytest.mark.parametrize("event", [Requeued("a"), CancelRequested("a")])
def test_a_change_in_the_wrong_state_is_seen(event: AnyEvent) -> None:
    assert f"{event.NAME} of job a while it was pending" in only(log_of(job(), event))


def test_a_discard_of_a_running_job_is_seen() -> None:
    history = log_of(job(), Dispatched("a", 1), Discarded("a"))
    assert "DISCARD of job a while it was in flight" in only(history)


# -- what producers saw ----------------------------------------------------------------------


def test_an_acknowledged_job_that_is_not_in_the_log_is_seen() -> None:
    history = log_of(job("a"))
    history.compare(witness_of(a=1, lost=2))
    assert only(history) == "job lost was acknowledged with seq 2 and is not in the log"
    assert history.lost == ["lost"]


def test_an_acknowledgement_with_another_seq_is_seen() -> None:
    history = log_of(Booted(1, False), job("a"))
    history.compare(witness_of(a=1))
    assert only(history) == "job a was acknowledged with seq 1; the log has it at 2"


def test_two_acknowledgements_that_differ_are_seen() -> None:
    witness = witness_of(a=1)
    witness.acknowledge([Accepted("a", 2, False)])
    history = log_of(job("a"))
    history.compare(witness)
    assert only(history) == "job a was acknowledged with seq 1, then with 2"


def test_a_job_that_was_created_twice_is_seen() -> None:
    witness = witness_of(a=1)
    witness.acknowledge([Accepted("a", 1, True)])
    history = log_of(job("a"))
    history.compare(witness)
    assert only(history) == "job a was said to be created twice"


def test_a_refused_job_in_the_log_is_seen_unless_an_outcome_of_it_was_lost() -> None:
    witness = ClientRecord()
    witness.sending(["a"])
    witness.refuse(["a"])
    history = log_of(job("a"))
    history.compare(witness)
    assert only(history) == "job a was refused, and is in the log at seq 1"
    witness.lose(["a"])
    witness.refuse(["a"])
    history = log_of(job("a"))
    history.compare(witness)
    assert history.violations == []


def test_a_job_that_nobody_sent_is_seen() -> None:
    history = log_of(job("stranger"))
    history.compare(ClientRecord())
    assert only(history) == "job stranger is in the log at seq 1, and nobody sent it"


def test_a_child_of_a_job_that_did_not_complete_is_seen() -> None:
    history = log_of(job("a"), job("a/1", parent="a"))
    history.compare(witness_of(a=1))
    assert only(history) == "job a/1 is a child of a, which never completed"


def test_half_a_batch_is_seen() -> None:
    witness = ClientRecord()
    witness.sending(["a", "b", "c"])
    witness.lose(["a", "b", "c"])
    history = log_of(job("a"), job("b"))
    history.compare(witness)
    assert only(history) == "of the 3 jobs that came together with a, 2 are in the log"


@pytest.mark.parametrize("event", ["CANCEL", "CANCEL_REQUESTED", "REQUEUE", "DISCARD"])
def test_an_acknowledged_change_that_is_not_in_the_log_is_seen(event: str) -> None:
    witness = witness_of(a=1)
    witness.change(event, "a")
    history = log_of(job("a"))
    history.compare(witness)
    assert only(history) == f"{event} of job a was acknowledged 1 times and is in the log 0 times"


def test_each_acknowledged_requeue_counts_and_a_repeated_cancel_does_not() -> None:
    witness = witness_of(a=1)
    for event in ("REQUEUE", "REQUEUE", "CANCEL", "CANCEL"):
        witness.change(event, "a")
    history = log_of(job("a"), Cancelled("a", 0), Requeued("a"))
    history.compare(witness)
    assert only(history) == "REQUEUE of job a was acknowledged 2 times and is in the log 1 times"


# -- what workers ran --------------------------------------------------------------------------


def ran(*runs: RunLine) -> HistoryCheck:
    """Compares runs with a job that was dispatched with the tokens 2, 4 and 6."""
    history = log_of(
        job(),
        Dispatched("a", 1),
        Released("a", 2, 0, Cause.DRAIN),
        Dispatched("a", 1),
        Released("a", 4, 0, Cause.NEVER_STARTED),
        Dispatched("a", 1),
    )
    history.attempts.compare(runs)
    return history


def test_a_token_that_is_not_in_the_log_is_seen() -> None:
    assert "with token 9, which is no DISPATCH of that job in the log" in only(ran(begins(9)))
    assert "with token 2, which is no DISPATCH of that job" in only(ran(begins(2, "b")))


def test_a_token_that_ran_twice_is_seen() -> None:
    history = ran(begins(2), begins(2, pid=8))
    assert only(history) == "token 2 of job a ran twice, in processes 7 and 8"


def test_a_token_that_ran_and_was_given_back_as_not_started_is_seen() -> None:
    assert only(ran(begins(4))) == "token 4 of job a ran, and was given back as not started"


def test_two_attempts_at_once_are_seen() -> None:
    history = ran(begins(2), begins(6, pid=8), ends(2))
    assert only(history) == ("token 2 of job a still ran when its attempt with token 6 had begun")


def test_a_worker_that_starts_out_of_order_is_seen() -> None:
    assert only(ran(begins(6), begins(2))) == "process 7 began token 2 after token 6"


def test_a_completion_that_no_worker_ran_is_seen() -> None:
    history = log_of(job(), Dispatched("a", 1), Acked("a", 2, b"1"))
    history.attempts.compare_charges([])
    assert only(history) == "job a completed with token 2, which no worker ran"


def test_attempts_that_are_charged_at_a_start_and_never_ran_are_seen() -> None:
    """One of each worker may have been killed on its way to its first line."""
    history = log_of(
        *(job(name) for name in "abc"),
        *(Dispatched(name, worker) for name, worker in (("a", 1), ("b", 1), ("c", 2))),
        Booted(2, False),
        TimedOut("a", 4, 0, Cause.NODE_LOST),
        Died("b", 5, Cause.NODE_LOST),
        TimedOut("c", 6, 0, Cause.NODE_LOST),
    )
    history.attempts.compare_charges([])
    assert only(history) == "the BOOT at seq 7 charged 2 attempts of worker 1 that never ran"
    history.violations.clear()
    history.attempts.compare_charges([begins(4)])
    assert history.violations == []


def test_a_power_cut_that_was_none_is_seen() -> None:
    history = log_of(Booted(1, True))
    history.attempts.compare_charges([])
    assert only(history) == "the BOOT at seq 1 says that the machine went down; it did not"


# -- at rest -------------------------------------------------------------------------------------


def test_a_job_that_has_not_ended_when_all_is_quiet_is_seen() -> None:
    history = log_of(job("a"), job("b"), Dispatched("b", 1))
    history.settle(witness_of(a=1, b=2))
    assert history.violations == [
        "job a is still pending when all is quiet",
        "job b is still in flight when all is quiet",
    ]


def test_a_request_without_an_answer_is_seen_when_all_is_quiet() -> None:
    witness = ClientRecord()
    witness.sending(["a"])
    history = log_of()
    history.settle(witness)
    assert only(history) == "job a was sent again until it was answered, and has no answer"


def test_violations_are_bounded() -> None:
    history = log_of(*(job(f"j{n}") for n in range(1_000)))
    history.compare(ClientRecord())
    assert len(history.violations) == VIOLATIONS_MAX


def test_the_check_takes_linear_time() -> None:
    """Four times the jobs take about four times as long, and not sixteen times."""

    def seconds(count: int) -> float:
        events = [job(f"j{n}") for n in range(count)]
        started_s = time.process_time()
        log_of(*events).compare(ClientRecord())
        return time.process_time() - started_s

    few, many = (min(seconds(count) for _ in range(3)) for count in (5_000, 20_000))
    assert many < 9 * few, (few, many)
