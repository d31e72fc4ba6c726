"""Logs with right checksums that no server has ever written, one for each rule of the law.

Each is forged from `docs/reference/wal.md` alone.  `seq` and `words` are what has to be said of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tests.foreign.wire import CLOSE, MARK, Log, Raw, pack

STORE: Final = bytes(range(16))
BEGIN_MS: Final = 1_700_000_000_000
DIGEST: Final = b"digest-of-12"
OPTIONS: Final[dict[str, Any]] = {
    "task": "echo", "queue": "default", "priority": 5, "timeout_ms": 600_000, "max_attempts": 5,
    "backoff_kind": 2, "backoff_base_ms": 1_000, "backoff_max_ms": 3_600_000,
    "backoff_jitter": 0.1, "origin": 0,
}  # fmt: skip


class Story:
    """A log that is told event by event; it begins as every store does."""

    def __init__(self, *, boot: bool = True) -> None:
        self.log = Log(STORE)
        self.now_ms = BEGIN_MS
        if boot:
            self.boot(1)

    def tell(self, *events: Any, **how: Any) -> int:
        """Adds a commit, a second after the last one; returns the seq of its first event."""
        first_seq, self.now_ms = self.log.next_seq, self.now_ms + 1_000
        self.log.commit(self.now_ms, *events, **how)
        return first_seq

    def boot(self, epoch: int, *fates: Any, power_cut: bool = False) -> int:
        return self.tell(booted(epoch, power_cut=power_cut), *fates)

    def enqueue(self, job: str = "a", run_at_ms: int = 0, **options: Any) -> int:
        return self.tell(enqueued(job, run_at_ms, **options))

    def dispatch(self, job: str = "a", worker: int = 1) -> int:
        """Returns the token."""
        return self.tell([2, job, worker])

    def running(self, job: str = "a", **options: Any) -> int:
        """Enqueues and dispatches a job; returns the token."""
        self.enqueue(job, **options)
        return self.dispatch(job)


def enqueued(
    job: Any, run_at_ms: Any = 0, parent: Any = "", tags: Any = (), **options: Any
) -> list[Any]:
    spec = options.pop("spec", None)
    digest, payload = options.pop("digest", DIGEST), options.pop("payload", b"null")
    if spec is None:
        spec = pack(list({**OPTIONS, **options}.values()))
    return [1, job, spec, payload, digest, run_at_ms, parent, list(tags)]


def booted(epoch: int, *, power_cut: bool = False) -> list[Any]:
    return [13, epoch, power_cut, "host:1"]


Forge = Callable[[Story], int]


class Kind(NamedTuple):
    """One way to break the law."""

    name: str
    forge: Forge
    """Tells the story to its break; returns the seq at which that has to be found."""
    words: str
    """Part of the reason."""
    boots: bool = True


KINDS: Final[list[Kind]] = []


def kind(words: str, *, boots: bool = True) -> Callable[[Forge], Forge]:
    def keep(forge: Forge) -> Forge:
        KINDS.append(Kind(forge.__name__, forge, words, boots))
        return forge

    return keep


# -- time ---------------------------------------------------------------------------------------


@kind("before its time")
def start_before_run_at(s: Story) -> int:
    s.enqueue("a", s.now_ms + 60_000)
    return s.dispatch()


@kind("before its time")
def start_before_the_backoff_is_over(s: Story) -> int:
    s.tell([4, "a", s.running(), s.now_ms + 60_000, "failed", "x"])
    return s.dispatch()


@kind("before its time")
def start_before_the_snooze_is_over(s: Story) -> int:
    s.tell([6, "a", s.running(), s.now_ms + 60_000, "snooze"])
    return s.dispatch()


@kind("before its time")
def start_before_the_backoff_of_a_timeout_is_over(s: Story) -> int:
    s.tell([5, "a", s.running(), s.now_ms + 60_000, "time_limit"])
    return s.dispatch()


@kind("the time goes back")
def a_stamp_goes_back(s: Story) -> int:
    s.enqueue()
    s.now_ms -= 5_000
    return s.dispatch()


@kind("which has passed")
def a_retry_waits_for_the_past(s: Story) -> int:
    return s.tell([4, "a", s.running(), s.now_ms - 60_000, "failed"])


@kind("which has passed")
def a_timeout_waits_for_the_past(s: Story) -> int:
    return s.tell([5, "a", s.running(), 0, "time_limit"])


# -- who may start ------------------------------------------------------------------------------


@kind("the paused queue")
def dispatch_from_a_paused_queue(s: Story) -> int:
    s.tell([12, "mail", True, 10, 0, True])
    s.enqueue("a", queue="mail")
    return s.dispatch()


@kind("no attempt left")
def dispatch_after_all_attempts(s: Story) -> int:
    s.tell([4, "a", s.running(max_attempts=2), s.now_ms + 10_000, "failed"])
    s.now_ms += 60_000
    s.tell([4, "a", s.dispatch(), s.now_ms + 10_000, "failed"])
    return s.log.next_seq - 1


@kind("in_flight")
def dispatch_twice(s: Story) -> int:
    s.running()
    return s.dispatch()


@kind("not known")
def dispatch_of_a_completed_job(s: Story) -> int:
    s.tell([3, "a", s.running(), b"null"])
    return s.dispatch()


@kind("dead")
def dispatch_of_a_dead_job(s: Story) -> int:
    s.tell([7, "a", s.running(), "not_retryable", "x"])
    return s.dispatch()


@kind("not known")
def dispatch_of_nobody(s: Story) -> int:
    return s.dispatch("nobody")


def two_suspects(s: Story) -> None:
    tokens = [s.running("a"), s.running("b")]
    at_ms = s.now_ms + 1_000
    fates = [[5, job, t, at_ms, "node_lost", True] for job, t in zip("ab", tokens, strict=True)]
    s.boot(2, *fates, power_cut=True)
    s.now_ms += 10_000


@kind("starts beside another")
def a_second_suspect(s: Story) -> int:
    two_suspects(s)
    s.dispatch("a")
    return s.dispatch("b")


@kind("starts beside another")
def a_second_suspect_in_one_frame(s: Story) -> int:
    two_suspects(s)
    return s.tell([2, "a", 1], [2, "b", 1]) + 1


# -- what ends an attempt -----------------------------------------------------------------------


@kind("in flight with token")
def an_ack_with_another_token(s: Story) -> int:
    return s.tell([3, "a", s.running() + 1, b"null"])


@kind("not known")
def an_ack_twice(s: Story) -> int:
    token = s.running()
    s.tell([3, "a", token, b"null"])
    return s.tell([3, "a", token, b"null"])


@kind("is pending")
def an_ack_of_a_pending_job(s: Story) -> int:
    s.enqueue()
    return s.tell([3, "a", 0, b"null"])


@kind("in flight with token")
def a_retry_with_the_token_before(s: Story) -> int:
    old = s.running()
    s.tell([6, "a", old, 0, "drain"])
    s.dispatch()
    return s.tell([4, "a", old, s.now_ms + 60_000, "failed"])


@kind("no attempt left")
def a_retry_of_the_last_attempt(s: Story) -> int:
    return s.tell([4, "a", s.running(max_attempts=1), s.now_ms + 60_000, "failed"])


@kind("no attempt left")
def a_timeout_of_the_last_attempt(s: Story) -> int:
    return s.tell([5, "a", s.running(max_attempts=1), s.now_ms + 60_000, "time_limit"])


@kind("no cause of RETRY")
def a_retry_of_a_time_limit(s: Story) -> int:
    return s.tell([4, "a", s.running(), s.now_ms + 60_000, "time_limit"])


@kind("no cause of TIMEOUT")
def a_timeout_of_a_failure(s: Story) -> int:
    return s.tell([5, "a", s.running(), s.now_ms + 60_000, "failed"])


@kind("no cause of CANCEL")
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


@kind("no cause of DEAD")
def dead_of_a_drain(s: Story) -> int:
    return s.tell([7, "a", s.running(), "drain", "x"])


@kind("is not in flight")
def dead_of_a_pending_job_with_a_token(s: Story) -> int:
    s.enqueue()
    return s.tell([7, "a", 2, "not_retryable", "x"])


@kind("is not in flight")
def cancel_of_a_pending_job_with_a_token(s: Story) -> int:
    s.enqueue()
    return s.tell([9, "a", 2, "operator"])


@kind("in flight with token")
def cancel_of_a_running_job_without_a_token(s: Story) -> int:
    s.running()
    return s.tell([9, "a", 0, "operator"])


@kind("has snoozed 10000 times")
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


@kind("a second time")
def a_cancel_request_twice(s: Story) -> int:
    s.running()
    s.tell([8, "a"])
    return s.tell([8, "a"])


@kind("is pending")
def a_cancel_request_of_a_pending_job(s: Story) -> int:
    s.enqueue()
    return s.tell([8, "a"])


@kind("in_flight")
def discard_of_a_running_job(s: Story) -> int:
    s.running()
    return s.tell([11, "a"])


@kind("is pending")
def requeue_of_a_pending_job(s: Story) -> int:
    s.enqueue()
    return s.tell([10, "a", None])


@kind("is cancelled")
def cancel_twice(s: Story) -> int:
    s.enqueue()
    s.tell([9, "a", 0, "operator"])
    return s.tell([9, "a", 0, "operator"])


# -- a server starts ----------------------------------------------------------------------------


@kind("epoch 3 does not follow 1")
def an_epoch_is_missing(s: Story) -> int:
    return s.boot(3)


@kind("epoch 1 does not follow 1")
def an_epoch_again(s: Story) -> int:
    return s.boot(1)


@kind("epoch 7 does not follow 0", boots=False)
def the_first_epoch_is_seven(s: Story) -> int:
    return s.boot(7)


@kind("epoch 0 does not follow 0", boots=False)
def the_first_epoch_is_none(s: Story) -> int:
    return s.boot(0)


@kind("in flight")
def boot_leaves_a_job_in_flight(s: Story) -> int:
    s.running()
    return s.boot(2)


@kind("in flight")
def boot_leaves_one_of_two_in_flight(s: Story) -> int:
    token = s.running("a")
    s.running("b")
    return s.boot(2, [6, "a", token, 0, "never_started"])


@kind("in flight")
def boot_resolves_in_the_next_frame(s: Story) -> int:
    token = s.running()
    seq = s.boot(2)
    s.tell([6, "a", token, 0, "never_started"])
    return seq


@kind("in flight")
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


@kind("in flight")
def a_cancel_request_across_a_boot(s: Story) -> int:
    s.running()
    return s.boot(2, [8, "a"]) + 1


@kind("is not how a power cut ends")
def a_power_cut_gives_back(s: Story) -> int:
    return s.boot(2, [6, "a", s.running(), 0, "never_started"], power_cut=True) + 1


@kind("is a suspect exactly where")
def a_power_cut_without_a_suspect(s: Story) -> int:
    token = s.running()
    return s.boot(2, [5, "a", token, s.now_ms + 1_000, "node_lost", False], power_cut=True) + 1


@kind("is a suspect exactly where")
def a_suspect_of_a_restart(s: Story) -> int:
    token = s.running()
    return s.boot(2, [5, "a", token, s.now_ms + 1_000, "node_lost", True]) + 1


@kind("is a suspect exactly where")
def a_suspect_of_a_time_limit(s: Story) -> int:
    return s.tell([5, "a", s.running(), s.now_ms + 60_000, "time_limit", True])


@kind("no attempt left")
def boot_tries_a_last_attempt_again(s: Story) -> int:
    token = s.running(max_attempts=1)
    return s.boot(2, [5, "a", token, s.now_ms + 1_000, "node_lost", False]) + 1


@kind("attempt 1 of 5")
def boot_ends_a_job_with_attempts_left(s: Story) -> int:
    return s.boot(2, [7, "a", s.running(), "node_lost", "x"]) + 1


@kind("was to be cancelled")
def boot_gives_back_what_was_to_be_cancelled(s: Story) -> int:
    token = s.running()
    s.tell([8, "a"])
    return s.boot(2, [6, "a", token, 0, "never_started"]) + 1


# -- jobs come in -------------------------------------------------------------------------------


@kind("is a child of a")
def a_child_of_a_failed_attempt(s: Story) -> int:
    token = s.running()
    return s.tell([4, "a", token, s.now_ms + 60_000, "failed"], enqueued("b", parent="a")) + 1


@kind("is a child of a")
def a_child_before_its_ack(s: Story) -> int:
    return s.tell(enqueued("b", parent="a"), [3, "a", s.running(), b"null"])


@kind("is a child of a")
def a_child_in_a_later_frame(s: Story) -> int:
    s.tell([3, "a", s.running(), b"null"])
    return s.tell(enqueued("b", parent="a"))


@kind("is a child of nobody")
def a_child_of_nobody(s: Story) -> int:
    return s.tell(enqueued("b", parent="nobody"))


@kind("is a child of a")
def a_child_behind_other_events(s: Story) -> int:
    token = s.running()
    return s.tell([3, "a", token, b"null"], enqueued("c"), enqueued("b", parent="a")) + 2


@kind("more than 1000 children")
def a_child_too_many(s: Story) -> int:
    token = s.running()
    children = [enqueued(f"child-{number}", parent="a") for number in range(1_001)]
    return s.tell([3, "a", token, b"null"], *children) + 1_001


@kind("exists")
def an_id_twice(s: Story) -> int:
    s.enqueue()
    return s.enqueue()


@kind("exists")
def an_id_twice_in_one_frame(s: Story) -> int:
    return s.tell(*(enqueued(job) for job in ("a", "b", "c", "a"))) + 3


@kind("exists")
def an_id_that_is_remembered(s: Story) -> int:
    s.tell([3, "a", s.running(), b"null"])
    return s.enqueue()


for _name, _id in (
    ("an_empty_id", ""),
    ("an_id_of_256_bytes", "x" * 256),
    ("an_id_of_256_bytes_in_128_characters", "ä" * 128),
    ("an_id_with_a_newline", "a\nb"),
    ("an_id_with_an_escape", "a\x1b[31m"),
    ("an_id_with_a_c1_control", "a\x85b"),
):

    def bad_id(s: Story, job: str = _id) -> int:
        return s.enqueue(job)

    KINDS.append(Kind(_name, bad_id, "is no id"))


for _name, _options in (
    ("priority_ten", {"priority": 10}),
    ("priority_below_zero", {"priority": -1}),
    ("no_attempts", {"max_attempts": 0}),
    ("attempts_beyond_the_bound", {"max_attempts": 10_001}),
    ("a_timeout_below_zero", {"timeout_ms": -1}),
    ("a_timeout_beyond_all_time", {"timeout_ms": 1 << 62}),
    ("a_backoff_of_no_kind", {"backoff_kind": 7}),
    ("a_backoff_below_zero", {"backoff_base_ms": -5}),
    ("a_jitter_of_two", {"backoff_jitter": 2.0}),
    ("a_jitter_that_is_no_number", {"backoff_jitter": float("nan")}),
    ("an_origin_that_is_none", {"origin": 9}),
    ("a_task_without_a_name", {"task": ""}),
    ("a_task_with_a_newline", {"task": "a\nb"}),
    ("a_queue_without_a_name", {"queue": ""}),
    ("a_queue_with_a_long_name", {"queue": "q" * 201}),
    ("a_queue_with_a_control_character", {"queue": "q\0"}),
    ("options_that_are_no_messagepack", {"spec": b"\xc1"}),
    ("options_that_are_no_array", {"spec": pack("echo")}),
    ("no_options", {"spec": b""}),
):

    def bad_options(s: Story, options: dict[str, Any] = _options) -> int:
        return s.enqueue(**options)

    KINDS.append(Kind(_name, bad_options, "has an unreadable spec"))


@kind("has tags that are none")
def a_tag_with_a_newline(s: Story) -> int:
    return s.enqueue(tags=["a\nb"])


@kind("there is no room for queue q10000")
def a_queue_too_many(s: Story) -> int:
    seq = s.tell(*(enqueued(f"j{n}", queue=f"q{n}") for n in range(10_001)))
    return seq + 10_000


# -- settings -----------------------------------------------------------------------------------


@kind("is no name of a queue")
def settings_of_a_queue_without_a_name(s: Story) -> int:
    return s.tell([12, "", False, 10, 0, True])


@kind("is not known")
def a_queue_forgotten_that_nobody_knows(s: Story) -> int:
    return s.tell([15, "nobody"])


@kind("it has jobs")
def a_queue_forgotten_that_has_jobs(s: Story) -> int:
    s.enqueue(queue="mail")
    return s.tell([15, "mail"])


@kind("it has settings")
def a_queue_forgotten_that_has_settings(s: Story) -> int:
    s.tell([12, "mail", False, 20, 0, True])
    return s.tell([15, "mail"])


@kind("it is the default queue")
def the_default_queue_forgotten(s: Story) -> int:
    s.tell([3, "a", s.running(), b"null"])
    return s.tell([15, "default"])


# -- fields out of range, and what is no commit -------------------------------------------------


_OUT_OF_RANGE: Final[dict[str, list[Any]]] = {
    "a_weight_of_zero": [[12, "mail", False, 0, 0, True]],
    "a_weight_of_1001": [[12, "mail", False, 1_001, 0, True]],
    "a_weight_below_zero": [[12, "mail", False, -1, 0, True]],
    "a_bound_of_bytes_below_zero": [[12, "mail", False, 10, -1, True]],
    "a_pause_that_is_a_number": [[12, "mail", 1, 10, 0, True]],
    "tombstones_below_zero": [[14, -1, 0]],
    "an_age_of_tombstones_below_zero": [[14, 10, -1]],
    "a_time_of_a_job_below_zero": [enqueued("a", -1)],
    "a_time_of_a_job_beyond_all_time": [enqueued("a", 1 << 60)],
    "a_digest_of_5_bytes": [enqueued("a", digest=b"short")],
    "seventeen_tags": [enqueued("a", tags=["t"] * 17)],
    "a_worker_below_zero": [enqueued("a"), [2, "a", -1]],
    "a_worker_beyond_64_bits": [enqueued("a"), [2, "a", (1 << 64) - 1]],
    "a_token_below_zero": [enqueued("a"), [2, "a", 1], [3, "a", -3, b""]],
    "an_epoch_below_zero": [[13, -1, False]],
    "an_epoch_beyond_all_numbers": [[13, 1 << 63, False]],
    "a_result_that_is_text": [enqueued("a"), [2, "a", 1], [3, "a", 3, "null"]],
    "an_event_without_its_fields": [[2, "a"]],
    "an_event_that_is_no_array": ["ENQUEUE"],
    "an_event_with_tag_zero": [[0, "a"]],
    "an_empty_event": [[]],
}
for _name, _events in _OUT_OF_RANGE.items():

    def out_of_range(s: Story, events: list[Any] = _events) -> int:
        return s.tell(*events)

    KINDS.append(Kind(_name, out_of_range, "the payload is no commit"))


@kind("the payload is no commit")
def a_stamp_below_zero(s: Story) -> int:
    seq = s.log.next_seq
    s.log.commit(-1, enqueued("a"))
    return seq


@kind("the payload is no commit")
def a_stamp_behind_the_year_9999(s: Story) -> int:
    seq = s.log.next_seq
    s.log.commit(253_402_300_799_001, enqueued("a"))
    return seq


@kind("the payload is no commit")
def a_stamp_that_is_a_fraction(s: Story) -> int:
    seq = s.log.next_seq
    s.log.commit(float(s.now_ms), enqueued("a"))
    return seq


@kind("the payload is no commit")
def bytes_behind_a_commit(s: Story) -> int:
    seq = s.log.next_seq
    s.log.frame(pack([s.now_ms, [enqueued("a")]]) + b"\0", 1)
    return seq


@kind("the payload is no commit")
def an_id_that_is_no_utf_8(s: Story) -> int:
    return s.tell([2, Raw(b"\xa2\xff\xfe"), 1])


@kind("and holds 1")
def a_frame_that_counts_wrong(s: Story) -> int:
    seq = s.log.next_seq
    s.log.frame(pack([s.now_ms, [enqueued("a")]]), 2)
    return seq


# -- frames -------------------------------------------------------------------------------------


@kind("0 events")
def an_empty_commit(s: Story) -> int:
    return s.tell()


@kind("0 events in 0 bytes")
def an_empty_frame_without_a_flag(s: Story) -> int:
    seq = s.log.next_seq
    s.log.frame(b"", 0)
    return seq


for _flag, _word in ((MARK, "mark"), (CLOSE, "close"), (MARK | CLOSE, "mark_and_close")):

    def flagged_with_events(s: Story, flag: int = _flag) -> int:
        return s.tell(enqueued("a"), flags=flag)

    KINDS.append(Kind(f"a_{_word}_with_events", flagged_with_events, "a MARK or CLOSE holds 1"))

    def flagged_with_a_payload(s: Story, flag: int = _flag) -> int:
        seq = s.log.next_seq
        s.log.frame(pack([s.now_ms, []]), 0, flags=flag)
        return seq

    KINDS.append(
        Kind(f"a_{_word}_with_a_payload", flagged_with_a_payload, "a MARK or CLOSE holds 0")
    )


@kind("padding of the frame is not zero")
def padding_that_is_not_zero(s: Story) -> int:
    events = [enqueued("a")]
    size = -(36 + len(pack([s.now_ms + 1_000, events]))) % 8
    assert size, "this payload needs some"
    return s.tell(*events, padding=b"\x01" * size)


@kind("padding of the frame is not zero")
def padding_that_is_not_zero_before_others(s: Story) -> int:
    seq = padding_that_is_not_zero(s)
    s.enqueue("b")
    return seq


@kind("padding of the frame is not zero")
def padding_of_a_mark_that_is_not_zero(s: Story) -> int:
    seq = s.log.next_seq
    s.log.frame(b"", 0, flags=MARK, padding=b"mark")
    return seq


@kind("the frame begins with seq")
def a_seq_is_left_out(s: Story) -> int:
    seq = s.log.next_seq
    s.tell(enqueued("a"), first_seq=seq + 1)
    return seq


@kind("the frame begins with seq")
def a_seq_twice(s: Story) -> int:
    seq = s.log.next_seq
    s.tell(enqueued("a"), first_seq=seq - 1)
    return seq
