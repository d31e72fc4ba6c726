"""Choosers: who decides which of the ready callbacks runs next.

A seed decides by itself (`plan.Chance`).  `Delays` keep to asyncio's order but for a few
callbacks, each of which has to wait while others go first; and these few are data.  Whoever
draws them, Hypothesis say, can leave them out one by one, so that a race shrinks to the
delays that make it.  Few are enough: most races need one or two (Burckhardt and others,
"A randomized scheduler with probabilistic guarantees of finding bugs", 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Delay(NamedTuple):
    """One callback that has to wait."""

    after: int
    """After this many choices the oldest one is delayed."""
    choices: int
    """How many choices it is delayed by."""


class Delays:
    """A chooser that departs from asyncio's order by some delays only."""

    def __init__(self, delays: Sequence[Delay]) -> None:
        self._left = list(reversed(delays))
        self._after = self._choices = 0
        self._next()
        self.made = 0
        """How many choices were others than asyncio's."""

    def _next(self) -> None:
        if self._left:
            self._after, self._choices = self._left.pop()

    def __call__(self, count: int) -> int:
        """See `loop.Choose`."""
        if self._after:
            self._after -= 1
            return 0
        if not self._choices:
            return 0
        self._choices -= 1
        if not self._choices:
            self._next()
        self.made += 1
        return 1
