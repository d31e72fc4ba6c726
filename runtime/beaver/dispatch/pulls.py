"""Pulls: remote workers that ask for work, and are free slots for the scheduler while they do.

Just before every commit `dispatches` gives ready jobs to those that wait, one each in turn, those
first that hold least.  A pull is answered once the DISPATCH of all that it got is durable.

What may not live here: which job is next (`beaver_model.policy`), and how long a worker may hold
it (`leases`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

import msgspec

from beaver.dispatch.outcomes import attempt_of
from beaver.dispatch.remote_workers import Given, Lease, Pull, RemoteWorker
from beaver.engine.engine import Engine
from beaver.ports import Clock
from beaver.structs.messages import Attempt
from beaver_model import Offer, State, select
from beaver_model.commands import AnyCommand, Dispatch, Release
from beaver_model.events import Cause
from beaver_model.states import JobState

_IN_FLIGHT: Final = JobState.IN_FLIGHT


class Pulls:
    """The requests for work that wait."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        store: str,
        on_sent: Callable[[Sequence[Attempt]], None],
    ) -> None:
        """Takes the engine, and what is told which attempts have gone out."""
        self._engine, self._clock, self._store = engine, clock, store
        self._on_sent = on_sent
        self.waiting: set[Pull] = set()
        """Those that have got nothing yet."""
        self._filled: list[Pull] = []

    def add(self, worker: RemoteWorker, count: int, given: Given, *, waits: bool) -> Pull:
        """Takes in a request for work.

        Args:
            worker: Who asks.
            count: Attempts that it wants.
            given: Called once with what it gets, when that is durable.
            waits: Nothing is no answer.  Else it is one, where there is nothing to do now.
        """
        pull = Pull(worker, count, given, waits=waits)
        worker.pulls.add(pull)
        self.waiting.add(pull)
        self._engine.touch()
        return pull

    def dispatches(self, state: State, now_ms: int) -> Generator[Dispatch, None, bool]:
        """Yields a DISPATCH for each job that a pull gets.

        False where the log has no room for more.
        """
        barren: set[Offer] = set()
        turns = sorted(self.waiting, key=_held)
        while turns:
            again = []
            for pull in turns:
                worker = pull.worker
                if not pull.wants or worker.offer in barren:
                    continue
                row = select(state, worker.offer, now_ms)
                if row is None:
                    barren.add(worker.offer)
                    continue
                yield Dispatch(row.id, worker.number)
                row = state.jobs[row.id]
                if row.state != _IN_FLIGHT:
                    return False
                attempt = attempt_of(row, self._store)
                worker.held[row.token] = Lease(msgspec.structs.replace(attempt, payload=b""))
                if not pull.attempts:
                    self._filled.append(pull)
                    self.waiting.discard(pull)
                pull.attempts.append(attempt)
                pull.room -= 1
                pull.bytes += len(attempt.payload)
                again.append(pull)
            turns = again
        return True

    def answer(self) -> None:
        """Answers, once it is durable, who has got something, and who does not wait."""
        for pull in self._filled:
            self._engine.once_durable(partial(self._give, pull))
        self._filled.clear()
        for pull in [pull for pull in self.waiting if not pull.waits]:
            self.waiting.discard(pull)
            self._engine.once_durable(partial(self._give, pull))

    def end(self, worker: RemoteWorker) -> None:
        """Answers what waits of a worker: it gets nothing more."""
        for pull in [pull for pull in worker.pulls if pull in self.waiting]:
            self.waiting.discard(pull)
            self._engine.once_durable(partial(self._give, pull))

    def _give(self, pull: Pull) -> None:
        if pull.is_over:
            return
        self._over(pull)
        held, now_ns = pull.worker.held, self._clock.monotonic_ns()
        attempts = []
        for attempt in pull.attempts:
            lease = held.get(attempt.token)
            if lease is not None:
                lease.since_ns = lease.named_ns = now_ns
                attempts.append(attempt)
        if attempts:
            self._on_sent(attempts)
        pull.given(attempts)

    def drop(self, pull: Pull) -> list[AnyCommand]:
        """Nobody waits for the answer: returns what becomes of what it got, which never left."""
        self._over(pull)
        return [
            Release(attempt.job, attempt.token, Cause.NEVER_STARTED)
            for attempt in pull.attempts
            if pull.worker.held.pop(attempt.token, None) is not None
        ]

    def _over(self, pull: Pull) -> None:
        pull.is_over = True
        self.waiting.discard(pull)
        pull.worker.pulls.discard(pull)
        pull.worker.heard_ns = self._clock.monotonic_ns()


def _held(pull: Pull) -> int:
    return len(pull.worker.held)
