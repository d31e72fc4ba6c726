"""What goes back from the pool to the engine: outcomes, and attempts that never started.

A command that finds no room in the log waits here, and goes before any new dispatch.
"""

from __future__ import annotations

from collections.abc import Iterable

from beaver.dispatch.slots_view import WorkerState
from beaver.engine.engine import Engine
from beaver.errors import BeaverError, StorageFailed
from beaver_model.commands import AnyCommand, Complete, CompleteBatch, Release


class Submitter:
    """Submits commands about attempts, and keeps those for which the log has no room."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.unwritten: list[AnyCommand] = []
        """Commands that wait for room in the log, the oldest first."""

    def submit(self, *commands: AnyCommand) -> None:
        """Submits outcomes; one that finds no room in the log waits for it."""
        self._engine.submit_each(commands, self._keep)

    def _keep(self, command: AnyCommand, error: BeaverError) -> None:
        if not isinstance(error, StorageFailed):
            return
        if isinstance(command, CompleteBatch):
            # One by one they need no more room at once than the largest of them.
            self.unwritten += [Complete(d.job, d.token, d.result) for d in command.done]
        else:
            self.unwritten.append(command)

    def retry(self, workers: Iterable[WorkerState]) -> None:
        """Tries again what found no room in the log: outcomes first, then dispatches."""
        waiting, self.unwritten = self.unwritten, []
        self.submit(*waiting)
        for worker in workers:  # Among these is what was given back.
            worker.returned_seq = self._engine.state.last_seq
        self._engine.touch()

    def take_back(self, worker: WorkerState, command: AnyCommand) -> None:
        """Submits what becomes of an attempt that has not started and now never will."""
        self.submit(command)
        worker.returned_seq = self._engine.state.last_seq

    def give_back(self, worker: WorkerState, token: int, cause: str) -> None:
        """Releases an attempt that the worker has not started."""
        held = worker.held.pop(token, None)
        if held is not None:
            self.take_back(worker, Release(held.attempt.job, token, cause))

    def recall(self, worker: WorkerState, cause: str) -> bool:
        """Releases all that a worker has not started; false where that is nothing."""
        taken = worker.crew.pool.recall(worker.number)
        for token in taken:
            self.give_back(worker, token, cause)
        return bool(taken)
