"""Attempts that end as none can."""

from __future__ import annotations

from typing import Any, Final

from tests.foreign.illegal.story import Kind, Kinds, Story

KINDS: Final = Kinds()


@KINDS.kind("in flight with token")
def an_ack_with_another_token(s: Story) -> int:
    return s.tell([3, "a", s.running() + 1, b"null"])


@KINDS.kind("not known")
def an_ack_twice(s: Story) -> int:
    token = s.running()
    s.tell([3, "a", token, b"null"])
    return s.tell([3, "a", token, b"null"])


@KINDS.kind("is pending")
def an_ack_of_a_pending_job(s: Story) -> int:
    s.enqueue()
    return s.tell([3, "a", 0, b"null"])


@KINDS.kind("in flight with token")
def a_retry_with_the_token_before(s: Story) -> int:
    old = s.running()
    s.tell([6, "a", old, 0, "drain"])
    s.dispatch()
    return s.tell([4, "a", old, s.now_ms + 60_000, "failed"])


@KINDS.kind("no attempt left")
def a_retry_of_the_last_attempt(s: Story) -> int:
    return s.tell([4, "a", s.running(max_attempts=1), s.now_ms + 60_000, "failed"])


@KINDS.kind("no attempt left")
def a_timeout_of_the_last_attempt(s: Story) -> int:
    return s.tell([5, "a", s.running(max_attempts=1), s.now_ms + 60_000, "time_limit"])


@KINDS.kind("no cause of RETRY")
def a_retry_of_a_time_limit(s: Story) -> int:
    return s.tell([4, "a", s.running(), s.now_ms + 60_000, "time_limit"])


@KINDS.kind("no cause of TIMEOUT")
def a_timeout_of_a_failure(s: Story) -> int:
    return s.tell([5, "a", s.running(), s.now_ms + 60_000, "failed"])


@KINDS.kind("no cause of CANCEL")
def a_cancel_of_a_failure(s: Story) -> int:
    s.enqueue()
    return s.tell([9, "a", 0, "failed"])


for _cause in ("failed", "worker_lost", "time_limit", "lease_expired", "node_lost"):

    def dead_with_attempts_left(s: Story, cause: str = _cause) -> int:
        return s.tell([7, "a", s.running(), cause, "x"])

    dead_with_attempts_left.__name__ += f"_of_{_cause}"
    KINDS.append(Kind(dead_with_attempts_left.__name__, dead_with_attempts_left, "attempt 1 of 5"))

    def release_that_charges(s: Story, cause: str = _cause) -> int:
        return s.tell([6, "a", s.running(), 0, cause])

    release_that_charges.__name__ += f"_for_{_cause}"
    KINDS.append(Kind(release_that_charges.__name__, release_that_charges, "no cause of RELEASE"))


@KINDS.kind("no cause of DEAD")
def dead_of_a_drain(s: Story) -> int:
    return s.tell([7, "a", s.running(), "drain", "x"])


@KINDS.kind("is not in flight")
def dead_of_a_pending_job_with_a_token(s: Story) -> int:
    s.enqueue()
    return s.tell([7, "a", 2, "not_retryable", "x"])


@KINDS.kind("is not in flight")
def cancel_of_a_pending_job_with_a_token(s: Story) -> int:
    s.enqueue()
    return s.tell([9, "a", 2, "operator"])


@KINDS.kind("in flight with token")
def cancel_of_a_running_job_without_a_token(s: Story) -> int:
    s.running()
    return s.tell([9, "a", 0, "operator"])


@KINDS.kind("has snoozed 10000 times")
def a_snooze_too_many(s: Story) -> int:
    s.enqueue()
    events: list[Any] = []
    first_seq = s.log.next_seq
    for number in range(10_001):
        events += [[2, "a", 1], [6, "a", first_seq + 2 * number, 0, "snooze"]]
    return s.tell(*events) + len(events) - 1


for _number, _event in (
    (4, "RETRY"),
    (5, "TIMEOUT"),
    (6, "RELEASE"),
    (7, "DEAD"),
):

    def after_a_cancel_request(s: Story, number: int = _number) -> int:
        token = s.running()
        s.tell([8, "a"])
        later_ms = s.now_ms + 60_000
        return s.tell(
            {
                4: [4, "a", token, later_ms, "failed"],
                5: [5, "a", token, later_ms, "time_limit"],
                6: [6, "a", token, 0, "drain"],
                7: [7, "a", token, "not_retryable", "x"],
            }[number]
        )

    after_a_cancel_request.__name__ = f"{_event.lower()}_after_a_cancel_request"
    KINDS.append(
        Kind(after_a_cancel_request.__name__, after_a_cancel_request, "was to be cancelled")
    )


@KINDS.kind("a second time")
def a_cancel_request_twice(s: Story) -> int:
    s.running()
    s.tell([8, "a"])
    return s.tell([8, "a"])


@KINDS.kind("is pending")
def a_cancel_request_of_a_pending_job(s: Story) -> int:
    s.enqueue()
    return s.tell([8, "a"])


@KINDS.kind("in_flight")
def discard_of_a_running_job(s: Story) -> int:
    s.running()
    return s.tell([11, "a"])


@KINDS.kind("is pending")
def requeue_of_a_pending_job(s: Story) -> int:
    s.enqueue()
    return s.tell([10, "a", None])


@KINDS.kind("is cancelled")
def cancel_twice(s: Story) -> int:
    s.enqueue()
    s.tell([9, "a", 0, "operator"])
    return s.tell([9, "a", 0, "operator"])
