"""Stride order: how many jobs in a row a queue may give before it is another one's turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver_model.index import QueueIndex
from beaver_model.rows import QueueRow
from beaver_model.stride import STRIDE, StrideOrder

pytestmark = pytest.mark.invariants


def queue_at(number: int, stride_pass: int, weight: int = 1) -> QueueIndex:
    queue = QueueIndex(QueueRow(f"q{number}", weight=weight), number)
    queue.stride_pass = stride_pass
    return queue


def turns_of(*queues: QueueIndex) -> StrideOrder:
    turns = StrideOrder(prefetched=False)
    for queue in queues:
        turns.enter(queue)
    return turns


@pytest.mark.parametrize(
    ("number", "gap", "weight", "expected"),
    [
        (0, 3 * STRIDE, 1, 4),
        (2, 3 * STRIDE, 1, 3),
        (0, 3 * STRIDE + 1, 1, 4),
        (2, 3 * STRIDE + 1, 1, 4),
        (0, 3 * STRIDE - 1, 1, 3),
        (2, 3 * STRIDE - 1, 1, 3),
        (0, 0, 1, 1),
        (0, STRIDE, 1, 2),
        (2, STRIDE, 1, 1),
        (2, 1, 1, 1),
        (0, STRIDE // 4, 4, 2),
        (2, STRIDE, 4, 4),
        (0, STRIDE, 4, 5),
    ],
)
def test_a_queue_has_its_turns_up_to_the_time_of_the_next_one(
    number: int, gap: int, weight: int, expected: int
) -> None:
    """At a tie the lower number goes first; a part of a stride is a turn."""
    queue, other = queue_at(number, 5, weight), queue_at(1, 5 + gap)
    farther = queue_at(3, 5 + gap + 7)
    for queues in ((queue, other), (other, queue, farther), (farther, other, queue)):
        assert turns_of(*queues).in_a_row(queue) == expected


def test_a_queue_that_is_alone_has_no_end_of_turns() -> None:
    queue = queue_at(0, 5)
    assert turns_of(queue).in_a_row(queue) > 1_000_000


def test_what_stands_too_early_in_the_heap_makes_a_run_shorter_and_never_longer() -> None:
    queue, other = queue_at(0, 0), queue_at(1, 2 * STRIDE)
    turns = turns_of(queue, other)
    other.stride_pass = 9 * STRIDE
    assert turns.in_a_row(queue) == 3
    queue.stride_pass = 4 * STRIDE
    assert turns.in_a_row(queue) == 1


def test_a_queue_that_is_passed_over_at_the_top_leaves_one_turn() -> None:
    """What a slot may not take stays first in the heap, and says nothing of whose turn is next."""
    first, queue, other = queue_at(0, 0), queue_at(1, STRIDE), queue_at(2, 9 * STRIDE)
    first.row.paused = True
    assert turns_of(first, queue, other).in_a_row(queue) == 1


def itself(queue: QueueIndex) -> QueueIndex:
    return queue


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), min_size=1, max_size=6))
def test_turns_in_a_row_are_those_that_the_heap_gives_in_turn(
    drawn: list[tuple[int, int]],
) -> None:
    queues = [
        queue_at(number, half * STRIDE // 2, weight) for number, (half, weight) in enumerate(drawn)
    ]
    turns = turns_of(*queues)
    for _ in range(4):
        queue = turns.first(itself)
        assert queue is not None
        count = min(turns.in_a_row(queue), 50)
        assert count >= 1
        for _ in range(count):
            assert turns.first(itself) is queue
            queue.stride_pass += STRIDE // queue.row.weight
