"""Pools of workers on this machine, as an assembly sees them, and where their events go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from beaver.dispatch.controller import Controller
from beaver.ports import Pool
from beaver.structs.messages import Outcome


class LocalPool(Pool, Protocol):
    """A pool whose workers run on this machine, beside what a dead server left."""

    @property
    def app_store(self) -> str:
        """Where the application says that its store is, once `start` has imported it."""
        ...

    def claim(self, mark: str) -> int:
        """Marks its workers as the store's, kills what a dead server left; returns how many."""
        ...

    def attach(self, slots_path: str, last_seq: int) -> None:
        """Makes the slots afresh, before the first worker is added.

        The log is durable up to `last_seq`: every token to come is above.
        """
        ...

    def join(self, former: Any) -> None:
        """Uses the slots of another pool of the same server, instead of `attach`."""
        ...

    def leave(self) -> None:
        """No worker is added any more: nothing that is lost is replaced."""
        ...


class PoolSink:
    """Passes a pool's events on once there is a controller."""

    controller: Controller

    def __init__(self) -> None:
        self.on_failed: Callable[[str], None] | None = None
        """Told in the controller's place that the pool has failed."""

    def worker_ready(self, worker: int, pid: int) -> None:
        self.controller.worker_ready(worker, pid)

    def outcomes(self, worker: int, outcomes: Sequence[Outcome]) -> None:
        self.controller.outcomes(worker, outcomes)

    def worker_exited(self, worker: int, started: int, detail: str) -> None:
        self.controller.worker_exited(worker, started, detail)

    def pool_failed(self, message: str) -> None:
        if self.on_failed is not None:
            self.on_failed(message)
        else:
            self.controller.pool_failed(message)
