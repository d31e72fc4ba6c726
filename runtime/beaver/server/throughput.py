"""How many jobs came and went, by the second for an hour and by the minute for a week.

Counted from commits, so an idle server does nothing for it, and a busy one a comparison a
commit: totals are looked at when a second is over.  It begins with the server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from beaver_model.events import Acked, Died, Enqueued, Retried, TimedOut

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
SECONDS_KEPT: Final = 3_600
MINUTES_KEPT: Final = 7 * 24 * 60


class Counts(NamedTuple):
    """What happened in a stretch of time."""

    enqueued: int = 0
    completed: int = 0
    failed: int = 0
    """Attempts, those that are tried again included."""


class Throughput:
    """The counts of the last hour and week."""

    def __init__(self) -> None:
        self.due_ms = 0
        """From this time on a commit has to `turn` first."""
        self._since_ms = 0
        """When the second began that is counted now."""
        self._before = Counts()
        """All that happened before it."""
        self._seconds: deque[tuple[int, Counts]] = deque(maxlen=SECONDS_KEPT)
        self._minutes: deque[tuple[int, Counts]] = deque(maxlen=MINUTES_KEPT)

    def turn(self, now_ms: int, totals: Mapping[type, int]) -> None:
        """Ends the second that was counted; the next one begins with the commit at `now_ms`.

        Args:
            now_ms: Time of a commit, in ms since the epoch.
            totals: How many events of each kind there were before it.
        """
        self._close(_counts(totals))
        self._since_ms = now_ms - now_ms % SECOND_MS
        self.due_ms = self._since_ms + SECOND_MS

    def _close(self, now: Counts) -> None:
        gained, self._before = _less(now, self._before), now
        if not any(gained):
            return
        self._seconds.append((self._since_ms, gained))
        minute_ms = self._since_ms - self._since_ms % MINUTE_MS
        if self._minutes and self._minutes[-1][0] == minute_ms:
            gained = _more(self._minutes.pop()[1], gained)
        self._minutes.append((minute_ms, gained))

    def between(
        self, since_ms: int, until_ms: int, step_ms: int, totals: Mapping[type, int]
    ) -> dict[int, Counts]:
        """Returns the counts of each step in which something happened, by its begin.

        Args:
            since_ms: Begin of the first step, in ms since the epoch.
            until_ms: What came then or later is left out.
            step_ms: Length of a step.  One of less than a minute is fine as far back as seconds
                are kept; before that a minute counts where it begins.
            totals: How many events of each kind there are now.
        """
        found: dict[int, Counts] = {}
        for at_ms, counts in self._kept(since_ms, totals):
            if since_ms <= at_ms < until_ms:
                begin_ms = at_ms - (at_ms - since_ms) % step_ms
                found[begin_ms] = _more(found.get(begin_ms, Counts()), counts)
        return found

    def _kept(self, since_ms: int, totals: Mapping[type, int]) -> Iterable[tuple[int, Counts]]:
        """Yields seconds as far as whole minutes of them are kept, and minutes before."""
        from_ms = 0
        if len(self._seconds) == SECONDS_KEPT:
            from_ms = self._seconds[0][0] + MINUTE_MS - 1
            from_ms -= from_ms % MINUTE_MS
        for at_ms, counts in self._minutes:
            if since_ms - MINUTE_MS < at_ms < from_ms:
                yield at_ms, counts
        for at_ms, counts in self._seconds:
            if at_ms >= from_ms:
                yield at_ms, counts
        yield self._since_ms, _less(_counts(totals), self._before)


def _counts(totals: Mapping[type, int]) -> Counts:
    failed = totals[Retried] + totals[TimedOut] + totals[Died]
    return Counts(totals[Enqueued], totals[Acked], failed)


def _more(one: Counts, other: Counts) -> Counts:
    return Counts(*(a + b for a, b in zip(one, other, strict=True)))


def _less(one: Counts, other: Counts) -> Counts:
    return Counts(*(a - b for a, b in zip(one, other, strict=True)))
