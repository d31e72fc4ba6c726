"""Submits what the pool returns to the engine: outcomes, and attempts that never started.

A command that finds no room in the log waits here, and goes before any new dispatch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from beaver.dispatch.slots_view import WorkerState
from beaver.engine.engine import Engine
from beaver.engine.event_sizes import events_bytes_max
from beaver.errors import BeaverError, StorageFailed
from beaver.text.foreign import counted
from beaver_model.commands import AnyCommand, Complete, CompleteBatch, Release

log: Final = logging.getLogger("beaver")

_NAMED_MAX: Final = 5
"""Jobs that are named in a line about several."""


class Submitter:
    """Submits commands about attempts, and keeps those for which the log has no room."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.unwritten: list[AnyCommand] = []
        """Commands that wait for room in the log, the oldest first."""
        self._told = False
        """That they wait."""

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
        self._tell()
        for worker in workers:  # Among these is what was given back.
            worker.returned_seq = self._engine.state.last_seq
        self._engine.touch()

    def _tell(self) -> None:
        """Says once that outcomes wait, and once that none does any more."""
        if self.unwritten and not self._told:
            state = self._engine.state
            log.warning(
                "the disk is full, and the log has no room for how %s ended, up to %s: that "
                "waits until there is room, and no other job starts before. Free some of the "
                "disk of the data directory; a job whose end is not written runs again after a "
                "restart",
                self._jobs(),
                counted(sum(events_bytes_max(c, state) for c in self.unwritten), "byte"),
            )
        elif self._told and not self.unwritten:
            log.warning("the log has room again: how jobs ended is written")
        self._told = bool(self.unwritten)

    def tell_of_lost(self) -> None:
        """Says, at the end, which outcomes will not be written any more."""
        if self.unwritten:
            log.error(
                "the disk is full, and how %s ended was not written: the next start takes up "
                "what had started as lost with this server, which costs an attempt",
                self._jobs(),
            )

    def _jobs(self) -> str:
        """Returns which jobs wait, in words."""
        jobs = list(
            dict.fromkeys(command.job for command in self.unwritten if hasattr(command, "job"))
        )
        named = ", ".join(jobs[:_NAMED_MAX])
        more = f" and {len(jobs) - _NAMED_MAX} more" if len(jobs) > _NAMED_MAX else ""
        return f"{'job' if len(jobs) == 1 else 'jobs'} {named}{more}"

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
