"""Commits and frames that no encoder makes."""

from __future__ import annotations

from typing import Any, Final

from tests.foreign.illegal.story import Kind, Kinds, Story, enqueued
from tests.foreign.wire import CLOSE, MARK, Raw, pack

KINDS: Final = Kinds()


# -- fields out of range, and what is no commit --------------------------------------------------


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


@KINDS.kind("the payload is no commit")
def a_stamp_below_zero(s: Story) -> int:
    seq = s.log.next_seq
    s.log.commit(-1, enqueued("a"))
    return seq


@KINDS.kind("the payload is no commit")
def a_stamp_behind_the_year_9999(s: Story) -> int:
    seq = s.log.next_seq
    s.log.commit(253_402_300_799_001, enqueued("a"))
    return seq


@KINDS.kind("the payload is no commit")
def a_stamp_that_is_a_fraction(s: Story) -> int:
    seq = s.log.next_seq
    s.log.commit(float(s.now_ms), enqueued("a"))
    return seq


@KINDS.kind("the payload is no commit")
def bytes_behind_a_commit(s: Story) -> int:
    seq = s.log.next_seq
    s.log.frame(pack([s.now_ms, [enqueued("a")]]) + b"\0", 1)
    return seq


@KINDS.kind("the payload is no commit")
def an_id_that_is_no_utf_8(s: Story) -> int:
    return s.tell([2, Raw(b"\xa2\xff\xfe"), 1])


@KINDS.kind("and holds 1")
def a_frame_that_counts_wrong(s: Story) -> int:
    seq = s.log.next_seq
    s.log.frame(pack([s.now_ms, [enqueued("a")]]), 2)
    return seq


# -- frames --------------------------------------------------------------------------------------


@KINDS.kind("0 events")
def an_empty_commit(s: Story) -> int:
    return s.tell()


@KINDS.kind("0 events in 0 bytes")
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


@KINDS.kind("padding of the frame is not zero")
def padding_that_is_not_zero(s: Story) -> int:
    events = [enqueued("a")]
    size = -(36 + len(pack([s.now_ms + 1_000, events]))) % 8
    assert size, "this payload needs some"
    return s.tell(*events, padding=b"\x01" * size)


@KINDS.kind("padding of the frame is not zero")
def padding_that_is_not_zero_before_others(s: Story) -> int:
    seq = padding_that_is_not_zero(s)
    s.enqueue("b")
    return seq


@KINDS.kind("padding of the frame is not zero")
def padding_of_a_mark_that_is_not_zero(s: Story) -> int:
    seq = s.log.next_seq
    s.log.frame(b"", 0, flags=MARK, padding=b"mark")
    return seq


@KINDS.kind("the frame begins with seq")
def a_seq_is_left_out(s: Story) -> int:
    seq = s.log.next_seq
    s.tell(enqueued("a"), first_seq=seq + 1)
    return seq


@KINDS.kind("the frame begins with seq")
def a_seq_twice(s: Story) -> int:
    seq = s.log.next_seq
    s.tell(enqueued("a"), first_seq=seq - 1)
    return seq
