"""What a server asks its helper about the past: many questions at once are one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import msgspec
import pytest

from beaver.errors import BeaverError, HelperFailed
from beaver.journal.wal.layout import Layout
from beaver.server.past import ASKED_MAX, Past
from beaver.structs.questions import Ending, Endings, Known, Stories

T = TypeVar("T")


class Helper:
    """Tells of each job and each token; counts what it is asked."""

    def __init__(self, at_once: int = ASKED_MAX) -> None:
        self.at_once, self.asked = at_once, [0]
        self.fails = False

    def _takes(self, count: int) -> int:
        self.asked.append(count)
        if self.fails:
            raise HelperFailed("the helper process died")
        return min(count, self.at_once)

    async def tell(self, known: Sequence[Known], until_seq: int) -> bytes:
        count = self._takes(len(known))
        by_job: dict[str, Any] = {one.job: [] for one in known[:count]}
        return msgspec.json.encode(Stories(by_job, until_seq, 1, False))

    async def endings(self, tokens: Sequence[int], until_seq: int) -> bytes:
        count = self._takes(len(tokens))
        rest = sorted(tokens)[count:]
        found = [Ending(token, "j", 1) for token in sorted(tokens)[:count] if token % 2]
        return msgspec.json.encode(Endings(found, False, rest[0] if rest else 0))


def ask(helper: Helper, questions: Callable[[Past], list[Awaitable[T]]]) -> list[Any]:
    async def run() -> list[Any]:
        past = Past(Layout("/nowhere"), cast("Any", helper), cast("Any", None))
        answers = await asyncio.gather(*questions(past), return_exceptions=True)
        await past.close()
        return answers

    return asyncio.run(run())


@pytest.mark.parametrize("what", ["jobs", "tokens"])
@pytest.mark.parametrize(("count", "asked"), [(1, 1), (ASKED_MAX, 1), (ASKED_MAX + 1, 2)])
def test_questions_that_come_together_are_one(what: str, count: int, asked: int) -> None:
    """A thousand outcomes, or ids, cost one reading of the log, and no more than so many do."""
    helper = Helper()
    numbers = range(1, count + 1)
    if what == "jobs":
        told = ask(helper, lambda past: [past.tell(Known(str(n)), 9) for n in numbers])
        assert [one.as_of_seq for one in told] == [9] * count
    else:
        found = ask(helper, lambda past: [past.ending(n, 9) for n in numbers])
        assert [one and one.token for one in found] == [n if n % 2 else None for n in numbers]
    assert len(helper.asked) - 1 == asked


def test_what_an_answer_has_no_room_for_is_asked_again() -> None:
    helper = Helper(at_once=3)
    found = ask(helper, lambda past: [past.ending(n, 9) for n in (7, 1, 5, 2, 9, 8, 3)])
    assert [one and one.token for one in found] == [7, 1, 5, None, 9, None, 3]
    assert helper.asked == [0, 7, 4, 1]
    assert len(ask(helper, lambda past: [past.tell(Known(n), 9) for n in "abcde"])) == 5


def test_a_helper_that_dies_answers_all_who_asked_and_nobody_waits() -> None:
    helper = Helper()
    helper.fails = True
    told = ask(helper, lambda past: [past.ending(n, 9) for n in (1, 2)])
    assert all(isinstance(one, BeaverError) for one in told)
