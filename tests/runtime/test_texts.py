"""Text of others: what cannot be seen is escaped, at a cost that user code cannot drive up."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from unicodedata import category

import pytest

import beaver
from beaver.text.foreign import counted, one_line, printable

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


# -- counts ---------------------------------------------------------------------------------------

COUNTED = (
    "acknowledgements acts attempts callbacks connections events files frames jobs lines others "
    "processes queues settings sockets specs tasks threads times workers"
)
PACKAGE = Path(beaver.__file__).parent
MODULES = [p for p in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "bench" not in p.parents]


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (0, "job", "0 jobs"),
        (1, "job", "1 job"),
        (2, "job", "2 jobs"),
        (1, "process", "1 process"),
        (2, "process", "2 processes"),
    ],
)
def test_one_thing_has_no_plural(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said


def uncounted(tree: ast.AST) -> Iterator[int]:
    """Yields the lines of texts that put a number before a plural, whatever the number."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in pairwise(node.values):
                if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                    continue
                assert isinstance(text.value, str)
                is_bound = re.search(r"_max\b|_MAX\b|^_?[A-Z_]+$", ast.unparse(value.value))
                word = re.match(r" (?:more |other |new )?([a-z]+)", text.value)
                if word and word[1] in COUNTED.split() and not is_bound:
                    yield node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            word = re.search(r"%d (?:more |other |new )?([a-z]+)", node.value)
            if word and word[1] in COUNTED.split():
                yield node.lineno


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_message_says_1_jobs(module: Path) -> None:
    """What is counted is told by `counted`; bounds, which are above 1, excepted."""
    assert list(uncounted(ast.parse(module.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("text", ['f"{n} jobs"', 'f"left: {len(x)} more lines"', '"%d workers"'])
def test_such_a_message_is_found(text: str) -> None:
    assert list(uncounted(ast.parse(text))) == [1]
