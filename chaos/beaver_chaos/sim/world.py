"""The simulated machine with everything on it: how servers, keepers and clients come and go.

What may not live here: what befalls the machine (`sim.faults`), and the plan that is carried
out (`sim.course`).
"""

from __future__ import annotations

from typing import Final

from beaver.config.layers import Config
from beaver_chaos.sim.clients import SimClient
from beaver_chaos.sim.disk import Fault
from beaver_chaos.sim.hardware import MS
from beaver_chaos.sim.helper import SimHelperProcess
from beaver_chaos.sim.keeper import KeeperLife
from beaver_chaos.sim.loop import Choose
from beaver_chaos.sim.machine import Machine, RunningServer
from beaver_chaos.sim.plan import CLIENTS, Plan
from beaver_chaos.sim.server import ServerLife
from beaver_chaos.sim.worker import SimWorker

_RESTART_MS: Final = 40


class World(Machine):
    """One machine, over one run."""

    life: ServerLife | None
    workers: list[SimWorker]
    helpers: list[SimHelperProcess]

    def __init__(self, plan: Plan, config: Config, choose: Choose | None = None) -> None:
        super().__init__(plan, config, choose)
        self.loop.on_quiet = self.watch.quiet
        self.loop.on_error = self._unexpected
        self.clients = [SimClient(self, n) for n in range(CLIENTS)]
        self._lives = 0
        self.over = False
        """Nothing starts any more."""
        self.healed = False
        """No more faults: from here on everything has to recover by itself."""
        self.next_start: tuple[int, Fault, bool] | None = None
        """What goes wrong when the next server starts: the n-th operation, how, and whether
        the power goes."""

    @property
    def listening(self) -> ServerLife | None:
        return self.life if super().listening else None

    def _unexpected(self, message: str, error: BaseException | None) -> None:
        self.watch.wrong(f"{message}: {type(error).__name__}: {error}")

    def start_server(self) -> None:
        """Starts the next server, with what was planned for its start."""
        if self.over or self.life is not None:
            return
        self._lives += 1
        life = self.life = ServerLife(self, self._lives)
        self._begin_life("server", life)

    def start_keeper(self) -> None:
        """A producer finds nobody, and starts a keeper."""
        if self.over or self.life is not None:
            return
        self._lives += 1
        life = self.life = KeeperLife(self, self._lives)
        self._begin_life("keeper", life)

    def _begin_life(self, kind: str, life: ServerLife) -> None:
        self.note(kind, life.number, "starts")
        if self.next_start is not None:
            ahead, fault, power = self.next_start
            self.next_start = None
            life.power_goes = power
            life.disk.plan(ahead, fault)
        with self.loop.within(life.process):
            self.loop.create_task(life.main())

    def crash(self, server: RunningServer, *, power: bool) -> None:
        life = self.life
        if life is None or life is not server:
            return
        self.note("the power is cut" if power else f"server {life.number} is killed")
        if not life.listening:
            self.reach("a server is killed during its recovery")
        if not life.runs_jobs:
            self.reach("a keeper is killed")
        self._lose(life)
        if power:
            if life.writer is not None:
                self.loop.kill(life.writer.process)
            life.disk.end()
            for zygote in list(self.zygotes):
                self.loop.kill(zygote.process)
            for worker in list(self.workers):
                worker.die("lost with the machine")
            for subprocess in self.subprocesses:
                subprocess.is_gone = True
            self.subprocesses.clear()
            for zygote in list(self.zygotes):
                zygote.exit(-9)
            for helper in list(self.helpers):
                helper.die()
            self.disk.crash(self.chance.below)
            self.power_was_cut = True
            self.slots.reboot(survives=self.chance.one_in(2))
            self.clock.boot_ns = self.loop.now_ns
        elif self.chance.one_in(2):
            self.disk.evict(self.chance.below)
        self._restart()

    def server_died(self, server: RunningServer, why: str) -> None:
        life = self.life
        if life is not None and life is server:
            self.note("server", life.number, "ends itself:", why)
            self.reach("a server ends itself")
            self._lose(life)
            if self.chance.one_in(2):
                self.disk.evict(self.chance.below)
            self._restart()

    def server_ended(self, server: RunningServer, why: str) -> None:
        life = self.life
        if life is not None and life is server:
            self.note("server", life.number, why)
            self._lose(life)
            self._restart()

    def _lose(self, life: ServerLife) -> None:
        self.watch.detach()
        life.lose()
        for end in self.connections.of(life.process):
            end.process_died()
        for helper in self.helpers:
            self.after(self.loop.machine, self.chance.between(0, 30) * MS, helper.die)
        self.life = None

    def close(self) -> None:
        """The run is over: whatever is open is closed."""
        if self.life is not None:
            for pool in self.life.pools:
                pool.close()
        for worker in self.workers:
            worker.close()
        for zygote in list(self.zygotes):
            zygote.exit(0)
        self.slots.remove()

    def _restart(self) -> None:
        if not self.over:
            delay_ns = self.chance.between(1, _RESTART_MS) * MS
            keeps = self.plan.setup.keepers and not self.healed and self.chance.one_in(2)
            start = self.start_keeper if keeps else self.start_server
            self.after(self.loop.machine, delay_ns, start)
