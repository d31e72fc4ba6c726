"""Jobs that may not come in, and queues that may not be set or forgotten."""

from __future__ import annotations

from typing import Any, Final

from tests.foreign.illegal.story import Kind, Kinds, Story, enqueued
from tests.foreign.wire import pack

KINDS: Final = Kinds()


# -- jobs come in --------------------------------------------------------------------------------


@KINDS.kind("is a child of a")
def a_child_of_a_failed_attempt(s: Story) -> int:
    token = s.running()
    return s.tell([4, "a", token, s.now_ms + 60_000, "failed"], enqueued("b", parent="a")) + 1


@KINDS.kind("is a child of a")
def a_child_before_its_ack(s: Story) -> int:
    return s.tell(enqueued("b", parent="a"), [3, "a", s.running(), b"null"])


@KINDS.kind("is a child of a")
def a_child_in_a_later_frame(s: Story) -> int:
    s.tell([3, "a", s.running(), b"null"])
    return s.tell(enqueued("b", parent="a"))


@KINDS.kind("is a child of nobody")
def a_child_of_nobody(s: Story) -> int:
    return s.tell(enqueued("b", parent="nobody"))


@KINDS.kind("is a child of a")
def a_child_behind_other_events(s: Story) -> int:
    token = s.running()
    return s.tell([3, "a", token, b"null"], enqueued("c"), enqueued("b", parent="a")) + 2


@KINDS.kind("more than 1000 children")
def a_child_too_many(s: Story) -> int:
    token = s.running()
    children = [enqueued(f"child-{number}", parent="a") for number in range(1_001)]
    return s.tell([3, "a", token, b"null"], *children) + 1_001


@KINDS.kind("exists")
def an_id_twice(s: Story) -> int:
    s.enqueue()
    return s.enqueue()


@KINDS.kind("exists")
def an_id_twice_in_one_frame(s: Story) -> int:
    return s.tell(*(enqueued(job) for job in ("a", "b", "c", "a"))) + 3


@KINDS.kind("exists")
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


@KINDS.kind("has tags that are none")
def a_tag_with_a_newline(s: Story) -> int:
    return s.enqueue(tags=["a\nb"])


@KINDS.kind("there is no room for queue q10000")
def a_queue_too_many(s: Story) -> int:
    seq = s.tell(*(enqueued(f"j{n}", queue=f"q{n}") for n in range(10_001)))
    return seq + 10_000


# -- settings ------------------------------------------------------------------------------------


@KINDS.kind("is no name of a queue")
def settings_of_a_queue_without_a_name(s: Story) -> int:
    return s.tell([12, "", False, 10, 0, True])


@KINDS.kind("is not known")
def a_queue_forgotten_that_nobody_knows(s: Story) -> int:
    return s.tell([15, "nobody"])


@KINDS.kind("it has jobs")
def a_queue_forgotten_that_has_jobs(s: Story) -> int:
    s.enqueue(queue="mail")
    return s.tell([15, "mail"])


@KINDS.kind("it has settings")
def a_queue_forgotten_that_has_settings(s: Story) -> int:
    s.tell([12, "mail", False, 20, 0, True])
    return s.tell([15, "mail"])


@KINDS.kind("it is the default queue")
def the_default_queue_forgotten(s: Story) -> int:
    s.tell([3, "a", s.running(), b"null"])
    return s.tell([15, "default"])
