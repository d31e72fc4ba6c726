"""The machine as its processes see it: who else runs on it, and who watches.

Servers, helpers, writers, workers and clients are given a `Machine`.  What may not live here:
how they begin and end (`sim.world`), and what befalls them (`sim.faults`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

from beaver.config.layers import Config
from beaver.server.connection import Connection
from beaver_chaos.sim.hardware import Hardware
from beaver_chaos.sim.loop import Choose
from beaver_chaos.sim.net import Connections
from beaver_chaos.sim.plan import Plan
from beaver_chaos.sim.watch import RunWatch, Watched


class RunningServer(Watched, Protocol):
    """A server or keeper, as the other processes see it."""

    def accept(self) -> Connection:
        """Returns the server's side of a new connection."""
        ...

    def dispatched(self) -> None:
        """Its pool has sent a job to a worker."""


class Machine(Hardware, ABC):
    """Hardware with the processes that run on it."""

    def __init__(self, plan: Plan, config: Config, choose: Choose | None = None) -> None:
        super().__init__(plan, config, choose)
        self.watch = RunWatch(self)
        self.connections = Connections(self)
        self.life: RunningServer | None = None
        """The server or keeper that runs now."""
        self.workers: list[Any] = []
        """Every `sim.worker.SimWorker` that lives, of whichever server."""
        self.subprocesses: list[Any] = []
        """Every `sim.worker.Subprocess` that is not gone."""
        self.zygotes: list[Any] = []
        """Every `sim.zygote.SimZygote` that lives."""
        self.helpers: list[Any] = []
        """Every `sim.helper.HelperProcess`."""
        self.busy_ms = 0
        """How long nobody gets any time whom the server has started that is killed just now."""

    @property
    def listening(self) -> RunningServer | None:
        life = self.life
        return life if life is not None and life.listening and life.process.alive else None

    def kill_old_helpers(self) -> None:
        """The scan for leftovers finds an old helper, or it is not quite fast enough."""
        for helper in list(self.helpers):
            if self.chance.one_in(2):
                helper.die()

    @abstractmethod
    def crash(self, server: RunningServer, *, power: bool) -> None:
        """A server is killed, or the machine loses power."""

    @abstractmethod
    def server_died(self, server: RunningServer, why: str) -> None:
        """A server ended itself, since it could not trust its log."""

    @abstractmethod
    def server_ended(self, server: RunningServer, why: str) -> None:
        """A server has come to its end in good order, or could not start."""
