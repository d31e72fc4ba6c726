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

from beaver.views import ResultView
from beaver_model.events import Acked, AnyEvent, Cancelled, Died, Discarded

Waiter = Callable[[ResultView], None]

RESULTS_BYTES_MAX: Final = 256 << 20
"""Results that wait for their projection; beyond, the older half leaves the memory."""

RESULT_BYTES: Final = 260
"""Bytes of memory charged for a result beside what it holds (measured, rounded up)."""

_NULL: Final = msgspec.Raw(b"null")


class Results:
    """Observes the engine's commits."""

    def __init__(self) -> None:
        self._ended: dict[str, bytes] = {}
        """Results of completed jobs."""
        self._order: deque[tuple[int, str]] = deque()
        self._waiters: dict[str, dict[object, Waiter]] = {}
        """By job, each under a key of its own: a hundred thousand may wait for one."""
        self.bytes = 0
        """Memory of the results that wait for their projection."""

    @property
    def waiting(self) -> int:
        """How many wait for the end of a job."""
        return sum(map(len, self._waiters.values()))

    def observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """Takes in a commit and tells those who wait for its jobs."""
        ended, order, waiters = self._ended, self._order, self._waiters
        for seq, event in enumerate(events, first_seq):
            kind = type(event)
            if kind is Acked:
                # One of every three events: a view is made only for who asks.
                assert isinstance(event, Acked)
                job, result = event.job, event.result
                if job in ended:
                    # The id was used again; what was said of it first is history.
                    self.bytes -= RESULT_BYTES + len(ended[job])
                ended[job] = result
                order.append((seq, job))
                self.bytes += RESULT_BYTES + len(result)
                if self.bytes > RESULTS_BYTES_MAX:
                    # The projection lags: the log has them, and readers wait for it.
                    self.projected(order[len(order) // 2][0])
                if job in waiters:
                    self._tell(_completed(job, result))
            elif kind is Died:
                assert isinstance(event, Died)
                self._tell(ResultView(event.job, "dead", _NULL, event.cause, event.error))
            elif kind is Cancelled:
                assert isinstance(event, Cancelled)
                self._tell(ResultView(event.job, "cancelled", _NULL, event.cause))
            elif kind is Discarded:
                assert isinstance(event, Discarded)
                self._tell(ResultView(event.job, "discarded"))

    def _tell(self, view: ResultView) -> None:
        # A copy: who is told takes its wish back.
        for waiter in list(self._waiters.pop(view.id, {}).values()):
            waiter(view)

    def projected(self, applied_seq: int) -> None:
        """The history holds everything up to this seq now."""
        while self._order and self._order[0][0] <= applied_seq:
            _, job = self._order.popleft()
            result = self._ended.pop(job, None)
            if result is not None:
                self.bytes -= RESULT_BYTES + len(result)

    def get(self, job: str) -> ResultView | None:
        """Returns how a completed job ended, where that still stands in memory."""
        result = self._ended.get(job)
        return None if result is None else _completed(job, result)

    def wait(self, job: str, waiter: Waiter) -> Callable[[], None]:
        """Calls `waiter` once the job has ended; returns what takes the wish back."""
        key = object()
        self._waiters.setdefault(job, {})[key] = waiter

        def forget() -> None:
            waiters = self._waiters.get(job)
            if waiters is not None and waiters.pop(key, None) is not None and not waiters:
                del self._waiters[job]

        return forget


def _completed(job: str, result: bytes) -> ResultView:
    return ResultView(job, "completed", msgspec.Raw(result))
