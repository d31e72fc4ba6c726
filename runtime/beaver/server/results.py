"""How jobs ended: kept in memory until the history has them, and told to whoever waits.

The log is the authority.  A result stays here from its commit until the projection into
`history.db` has passed its seq; later questions go to the history, and where that is gone
the answer is `expired`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from beaver.structs.views import ResultView
from beaver.text.jsontext import shown
from beaver_model.events import Acked, AnyEvent, Cancelled, Died, Discarded

Waiter = Callable[[ResultView], None]

RESULTS_BYTES_MAX: Final = 48 << 20
"""Bound on the results that wait for their projection; beyond it the older half is dropped.  The
memory they took lies between tombstones and is not returned to the system, so the bound is small.
"""

RESULT_BYTES: Final = 240
"""Bytes of memory charged for a result beside what it holds (measured, rounded up)."""

_NULL_BYTES: Final = b"null"
"""One for all: it is what most jobs return."""
_NULL: Final = msgspec.Raw(_NULL_BYTES)


_GROUP: Final = 64


class _Group(msgspec.Struct, gc=False):
    """Jobs that completed one after the other: those of a commit, or of a few small ones."""

    last_seq: int
    jobs: list[str]


class Results:
    """Observes the engine's commits."""

    def __init__(self) -> None:
        self._ended: dict[str, bytes] = {}
        """Results of completed jobs."""
        self._order: deque[_Group] = deque()
        self._waiters: dict[str, dict[object, Waiter]] = {}
        """By job, each under its own key, since a hundred thousand may wait for one job."""
        self.bytes = 0
        """Memory of the results that wait for their projection."""

    @property
    def waiting(self) -> int:
        """How many wait for the end of a job."""
        return sum(map(len, self._waiters.values()))

    def observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """Takes in a commit and tells those who wait for its jobs."""
        ended, waiters = self._ended, self._waiters
        completed: list[str] = []
        for event in events:
            kind = type(event)
            if kind is Acked:
                # One of every three events: a view is made only for who asks.
                assert isinstance(event, Acked)
                job, result = event.job, event.result
                if job in ended:
                    # The id was used again; what was said of it first is history.
                    self.bytes -= RESULT_BYTES + len(ended[job])
                ended[job] = _NULL_BYTES if result == _NULL_BYTES else result
                completed.append(job)
                self.bytes += RESULT_BYTES + len(result)
                if job in waiters:
                    self._tell(_completed(job, result))
            elif kind is Died:
                assert isinstance(event, Died)
                self._tell(ResultView(event.job, "dead", _NULL, event.cause, event.error))
            elif kind is Cancelled:
                assert isinstance(event, Cancelled)
                self._tell(ResultView(event.job, "cancelled", _NULL, event.cause, event.error))
            elif kind is Discarded:
                assert isinstance(event, Discarded)
                self._tell(ResultView(event.job, "discarded"))
        if completed:
            self._note(first_seq + len(events) - 1, completed)

    def _note(self, last_seq: int, completed: list[str]) -> None:
        """Notes which jobs a commit has completed, and keeps to the bound."""
        order = self._order
        if order and len(order[-1].jobs) < _GROUP:
            order[-1].jobs += completed
            order[-1].last_seq = last_seq
        else:
            order.append(_Group(last_seq, completed))
        while self.bytes > RESULTS_BYTES_MAX:
            # The log has them, for those who ask.
            self.projected(order[len(order) // 2].last_seq)

    def _tell(self, view: ResultView) -> None:
        # A copy: who is told takes its wish back.
        for waiter in list(self._waiters.pop(view.id, {}).values()):
            waiter(view)

    def projected(self, applied_seq: int) -> None:
        """The history holds everything up to this seq now."""
        while self._order and self._order[0].last_seq <= applied_seq:
            for job in self._order.popleft().jobs:
                result = self._ended.pop(job, None)
                if result is not None:
                    self.bytes -= RESULT_BYTES + len(result)

    def get(self, job: str) -> ResultView | None:
        """Returns how a completed job ended, where that still stands in memory."""
        result = self._ended.get(job)
        return None if result is None else _completed(job, result)

    def wait(self, job: str, waiter: Waiter) -> Callable[[], None]:
        """Calls `waiter` once the job has ended; returns a function that cancels the wait."""
        key = object()
        self._waiters.setdefault(job, {})[key] = waiter

        def forget() -> None:
            waiters = self._waiters.get(job)
            if waiters is not None and waiters.pop(key, None) is not None and not waiters:
                del self._waiters[job]

        return forget


def _completed(job: str, result: bytes) -> ResultView:
    return ResultView(job, "completed", shown(result))
