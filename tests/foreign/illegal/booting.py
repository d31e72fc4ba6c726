"""A server that starts, and what it may say of attempts in flight."""

from __future__ import annotations

from typing import Any, Final

from tests.foreign.illegal.story import BEGIN_MS, Kind, Kinds, Story, enqueued

KINDS: Final = Kinds()


@KINDS.kind("epoch 3 does not follow 1")
def an_epoch_is_missing(s: Story) -> int:
    return s.boot(3)


@KINDS.kind("epoch 1 does not follow 1")
def an_epoch_again(s: Story) -> int:
    return s.boot(1)


@KINDS.kind("epoch 7 does not follow 0", boots=False)
def the_first_epoch_is_seven(s: Story) -> int:
    return s.boot(7)


@KINDS.kind("epoch 0 does not follow 0", boots=False)
def the_first_epoch_is_none(s: Story) -> int:
    return s.boot(0)


@KINDS.kind("in flight")
def boot_leaves_a_job_in_flight(s: Story) -> int:
    s.running()
    return s.boot(2)


@KINDS.kind("in flight")
def boot_leaves_one_of_two_in_flight(s: Story) -> int:
    token = s.running("a")
    s.running("b")
    return s.boot(2, [6, "a", token, 0, "never_started"])


@KINDS.kind("in flight")
def boot_resolves_in_the_next_frame(s: Story) -> int:
    token = s.running()
    seq = s.boot(2)
    s.tell([6, "a", token, 0, "never_started"])
    return seq


@KINDS.kind("in flight")
def boot_resolves_behind_another_event(s: Story) -> int:
    token = s.running()
    return s.boot(2, enqueued("b"), [6, "a", token, 0, "never_started"]) + 2


for _number, _event, _more in (
    (3, "ack", [b"null"]),
    (4, "retry", [BEGIN_MS + 60_000, "failed"]),
    (6, "release", [0, "drain"]),
    (7, "dead", ["not_retryable", "x"]),
    (5, "timeout", [BEGIN_MS + 60_000, "time_limit"]),
):

    def across_a_boot(s: Story, number: int = _number, more: list[Any] = _more) -> int:
        return s.boot(2, [number, "a", s.running(), *more]) + 1

    across_a_boot.__name__ = f"{_event}_across_a_boot"
    KINDS.append(Kind(across_a_boot.__name__, across_a_boot, "is not how a restart ends"))


@KINDS.kind("in flight")
def a_cancel_request_across_a_boot(s: Story) -> int:
    s.running()
    return s.boot(2, [8, "a"]) + 1


@KINDS.kind("is not how a power cut ends")
def a_power_cut_gives_back(s: Story) -> int:
    return s.boot(2, [6, "a", s.running(), 0, "never_started"], power_cut=True) + 1


@KINDS.kind("is a suspect exactly where")
def a_power_cut_without_a_suspect(s: Story) -> int:
    token = s.running()
    return s.boot(2, [5, "a", token, s.now_ms + 1_000, "node_lost", False], power_cut=True) + 1


@KINDS.kind("is a suspect exactly where")
def a_suspect_of_a_restart(s: Story) -> int:
    token = s.running()
    return s.boot(2, [5, "a", token, s.now_ms + 1_000, "node_lost", True]) + 1


@KINDS.kind("is a suspect exactly where")
def a_suspect_of_a_time_limit(s: Story) -> int:
    return s.tell([5, "a", s.running(), s.now_ms + 60_000, "time_limit", True])


@KINDS.kind("no attempt left")
def boot_tries_a_last_attempt_again(s: Story) -> int:
    token = s.running(max_attempts=1)
    return s.boot(2, [5, "a", token, s.now_ms + 1_000, "node_lost", False]) + 1


@KINDS.kind("attempt 1 of 5")
def boot_ends_a_job_with_attempts_left(s: Story) -> int:
    return s.boot(2, [7, "a", s.running(), "node_lost", "x"]) + 1


@KINDS.kind("was to be cancelled")
def boot_gives_back_what_was_to_be_cancelled(s: Story) -> int:
    token = s.running()
    s.tell([8, "a"])
    return s.boot(2, [6, "a", token, 0, "never_started"]) + 1
