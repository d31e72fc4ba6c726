"""Text of others: what cannot be seen is escaped, at a cost that user code cannot drive up."""

from __future__ import annotations

import time
from collections.abc import Callable
from unicodedata import category

import pytest

from beaver.texts import one_line, printable

UNSEEN = "\0\x1b\x07\x7f\x85\xad\u200b\u202e\u2028\u2029\ufeff\ud800\U000e0001"


def test_what_cannot_be_seen_is_escaped_and_the_rest_stays() -> None:
    """Of every character that there is: categories decide, and what is kept stays."""
    for number in range(0x110000):
        character = chr(number)
        shown = one_line(character)
        if category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert shown.isascii(), hex(number)
            assert shown.isprintable(), hex(number)
        else:
            assert shown == character, hex(number)
    assert printable("a\tb\nc\rd") == "a\tb\nc\\x0dd"
    assert one_line("a\tb\nc") == "a\\x09b\\x0ac"
    assert one_line(f"é{UNSEEN}ü") == "é" + "".join(map(one_line, UNSEEN)) + "ü"


def cost(call: Callable[[], object]) -> float:
    """The least processor time of some calls."""
    costs = []
    for _ in range(5):
        begun = time.thread_time()
        call()
        costs.append(time.thread_time() - begun)
    return min(costs)


@pytest.mark.parametrize("what", ["\0", "\u202e", UNSEEN])
def test_a_text_of_unseen_characters_costs_little_more_than_looking_at_each(what: str) -> None:
    """A job may print megabytes of them: 30 MB of zero bytes held a worker for 40 s."""
    text = what * (200_000 // len(what))
    looked = cost(lambda: [ord(character) for character in text])
    assert cost(lambda: printable(text)) < 12 * looked
