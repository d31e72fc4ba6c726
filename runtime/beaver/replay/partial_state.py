"""What is known of jobs in a log whose beginning is gone, and there is no snapshot before it."""

from __future__ import annotations

from beaver_model import State, apply, legal
from beaver_model.events import AnyEvent, Booted, BoundsSet, Enqueued, JobEvent, QueueForgotten
from beaver_model.legality import JudgedFrame
from beaver_model.state import Header


class PartialState:
    """Follows jobs in a log without its beginning: those enqueued in the part that is kept.

    A throw-away state for checking: events of jobs that it does not know pass, and seqs are
    set from outside, so this is the one place that writes to a state beside `apply`.
    """

    def __init__(self, first_seq: int) -> None:
        # No tombstones: whether an id may come again depends on what is not known here.
        self.state = State(Header(first_seq - 1, 0, 0, 0, 0))
        self._epoch_known = False

    def step(self, seq: int, event: AnyEvent, frame: JudgedFrame) -> str | None:
        """Applies an event as far as it is known what it means; returns why it is illegal."""
        state = self.state
        state.last_seq = seq - 1
        if isinstance(event, BoundsSet) or self._is_strange(event):
            if frame.fates_end == seq - 1:
                frame.fates_end = seq  # It may have been in flight.
            state.last_seq, state.time_ms = seq, frame.time_ms
            return None
        if isinstance(event, Booted) and not self._epoch_known:
            state.epoch, self._epoch_known = event.epoch - 1, True
        reason = legal(state, event, frame)
        if reason is None:
            apply(state, event, frame.time_ms)
        return reason

    def _is_strange(self, event: AnyEvent) -> bool:
        if isinstance(event, QueueForgotten):
            return event.queue not in self.state.queues
        return (
            isinstance(event, JobEvent)
            and not isinstance(event, Enqueued)
            and event.job not in self.state.jobs
        )
