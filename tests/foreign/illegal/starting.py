"""Jobs that start when they may not: their time, their queue, their attempts."""

from __future__ import annotations

from typing import Final

from tests.foreign.illegal.story import Kinds, Story

KINDS: Final = Kinds()


# -- time ----------------------------------------------------------------------------------------


@KINDS.kind("before its time")
def start_before_run_at(s: Story) -> int:
    s.enqueue("a", s.now_ms + 60_000)
    return s.dispatch()


@KINDS.kind("before its time")
def start_before_the_backoff_is_over(s: Story) -> int:
    s.tell([4, "a", s.running(), s.now_ms + 60_000, "failed", "x"])
    return s.dispatch()


@KINDS.kind("before its time")
def start_before_the_snooze_is_over(s: Story) -> int:
    s.tell([6, "a", s.running(), s.now_ms + 60_000, "snooze"])
    return s.dispatch()


@KINDS.kind("before its time")
def start_before_the_backoff_of_a_timeout_is_over(s: Story) -> int:
    s.tell([5, "a", s.running(), s.now_ms + 60_000, "time_limit"])
    return s.dispatch()


@KINDS.kind("the time goes back")
def a_stamp_goes_back(s: Story) -> int:
    s.enqueue()
    s.now_ms -= 5_000
    return s.dispatch()


@KINDS.kind("which has passed")
def a_retry_waits_for_the_past(s: Story) -> int:
    return s.tell([4, "a", s.running(), s.now_ms - 60_000, "failed"])


@KINDS.kind("which has passed")
def a_timeout_waits_for_the_past(s: Story) -> int:
    return s.tell([5, "a", s.running(), 0, "time_limit"])


# -- who may start -------------------------------------------------------------------------------


@KINDS.kind("the paused queue")
def dispatch_from_a_paused_queue(s: Story) -> int:
    s.tell([12, "mail", True, 10, 0, True])
    s.enqueue("a", queue="mail")
    return s.dispatch()


@KINDS.kind("no attempt left")
def dispatch_after_all_attempts(s: Story) -> int:
    s.tell([4, "a", s.running(max_attempts=2), s.now_ms + 10_000, "failed"])
    s.now_ms += 60_000
    s.tell([4, "a", s.dispatch(), s.now_ms + 10_000, "failed"])
    return s.log.next_seq - 1


@KINDS.kind("in_flight")
def dispatch_twice(s: Story) -> int:
    s.running()
    return s.dispatch()


@KINDS.kind("not known")
def dispatch_of_a_completed_job(s: Story) -> int:
    s.tell([3, "a", s.running(), b"null"])
    return s.dispatch()


@KINDS.kind("dead")
def dispatch_of_a_dead_job(s: Story) -> int:
    s.tell([7, "a", s.running(), "not_retryable", "x"])
    return s.dispatch()


@KINDS.kind("not known")
def dispatch_of_nobody(s: Story) -> int:
    return s.dispatch("nobody")


def two_suspects(s: Story) -> None:
    tokens = [s.running("a"), s.running("b")]
    at_ms = s.now_ms + 1_000
    fates = [[5, job, t, at_ms, "node_lost", True] for job, t in zip("ab", tokens, strict=True)]
    s.boot(2, *fates, power_cut=True)
    s.now_ms += 10_000


@KINDS.kind("starts beside another")
def a_second_suspect(s: Story) -> int:
    two_suspects(s)
    s.dispatch("a")
    return s.dispatch("b")


@KINDS.kind("starts beside another")
def a_second_suspect_in_one_frame(s: Story) -> int:
    two_suspects(s)
    return s.tell([2, "a", 1], [2, "b", 1]) + 1
