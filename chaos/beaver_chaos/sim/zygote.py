"""Zygotes of a simulated machine: the real protocol over processes that are played.

The real `Zygote` reads what the server says from a real socket, and hears of deaths; what it
does to its children is done to `sim.worker` here, and takes time.  `SimHost` is the machine that
a pool sees.  Replaced are the kernel's part (fork, signals, PDEATHSIG, the subreaper) and the
import of an application, which succeeds or fails as the plan says.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from beaver.structs.messages import Options, TaskInfo
from beaver.workers import wire
from beaver.workers.zygote import LINGER_POLL_MS, Zygote
from beaver_chaos.sim.hardware import MS
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.plan import TASK
from beaver_chaos.sim.worker import SimWorker, Subprocess

_EXIT_IMPORT: Final = 71
_LEFT_MS: Final = 500
"""Some zygotes hear so late that their server was killed, or are killed by the next one first."""
_LOOK_S: Final = 0.002
_SIGKILL: Final = 9


class SimFamily:
    """`workers.family.Family`: the children of one zygote."""

    def __init__(self, zygote: SimZygote) -> None:
        self._zygote, self._world = zygote, zygote.world
        self._workers: dict[int, SimWorker] = {}
        self._dead: list[tuple[int, str]] = []
        """Children that are dead and not reaped."""

    @property
    def subprocesses(self) -> list[Subprocess]:
        """What jobs have started here and is not gone."""
        return [each for each in self._world.subprocesses if each.zygote is self._zygote]

    @property
    def alive(self) -> list[SimWorker]:
        return [worker for worker in self._workers.values() if not worker.how]

    def start(self, add: wire.Add, ends: wire.Ends) -> int:
        worker = SimWorker(self._zygote, add, ends)
        self._workers[worker.pid] = worker
        return worker.pid

    def kill(self, pid: int) -> None:
        self.kill_group(pid)
        self._workers[pid].kill()

    def kill_group(self, pid: int) -> None:
        for member in self.subprocesses:
            if member.worker.pid == pid:
                member.kill()

    def next_dead(self) -> tuple[int, str] | None:
        return self._dead[0] if self._dead else None

    def reap(self, pid: int) -> None:
        self._dead = [dead for dead in self._dead if dead[0] != pid]
        self._workers.pop(pid, None)

    def pids(self) -> list[int]:
        orphans = [each.pid for each in self.subprocesses if each.worker.how]
        return [*self._workers, *orphans]

    def belongs(self, pid: int, leader: int, birth: int) -> bool | None:
        return any(each.pid == pid and each.worker.pid == leader for each in self.subprocesses)

    def kill_orphan(self, pid: int) -> None:
        for each in self.subprocesses:
            if each.pid == pid:
                each.kill()

    def now_s(self) -> float:
        return self._world.loop.time()

    def sleep(self, seconds: float) -> None:
        self._world.loop.pass_ns(int(seconds * 1e9))
        dying: list[SimWorker | Subprocess] = [*self.alive, *self.subprocesses]
        for process in dying:
            process.settle()

    def died(self, pid: int, how: str) -> None:
        """A worker is dead, or an orphan: SIGCHLD.  A subprocess of a living worker is its own."""
        zygote = self._zygote
        if zygote.poll() is None:
            self._dead.append((pid, how))
            self._world.after(zygote.process, self._world.latency_ns(), zygote.turn)


class SimZygote:
    """One zygote process; to its server a `workers.host.Child`."""

    def __init__(
        self, world: Machine, server: Process, control: socket.socket, generation: str, how: str
    ) -> None:
        self.world, self.server, self.generation = world, server, generation
        self.pid = world.next_pid()
        self.process = Process(f"zygote {self.pid}")
        self._family = SimFamily(self)
        self._how = how
        self._code: int | None = None
        self._control = socket.socket(fileno=os.dup(control.fileno()))
        self._zygote = Zygote(self._control, self.family, self._claim)
        self._looks = False
        self.has_imported = False
        world.zygotes.append(self)
        world.after(self.process, world.latency_ns(), self._import)

    @property
    def family(self) -> SimFamily:
        return self._family

    def _claim(self, mark: str) -> None:
        self.mark = mark

    def _import(self) -> None:
        broken = self._how == "broken"
        failed = wire.ImportFailed("cannot import 'shop:app'")
        message = failed if broken else wire.ZygoteReady((TaskInfo(Options(TASK)),))
        try:
            self._control.sendall(wire.frame(message))
        except ConnectionError:
            self.exit(0)
            return
        if broken:
            self.exit(_EXIT_IMPORT)
            return
        self.has_imported = True
        with self.world.loop.within(self.process):
            self.world.loop.add_reader(self._control, self.turn, True)

    def turn(self, is_readable: bool = False) -> None:
        """Something has happened: one turn of its loop."""
        if self._code is not None:
            return
        try:
            self._zygote.turn(is_readable=is_readable)
        except ConnectionError:
            self._zygote.kill_everything()
            self.exit(0)
            return
        if self._zygote.lingers and not self._looks:
            self.world.reach("a death is told late, for what the worker has left")
            self._looks = True
            self.world.after(self.process, LINGER_POLL_MS * MS, self._look)

    def _look(self) -> None:
        self._looks = False
        self.turn()

    def lose_server(self) -> None:
        """Its server was killed; it hears of that from its socket, at once or late."""
        world = self.world
        if not world.busy_ms and not world.chance.one_in(4):
            return
        world.reach("a zygote hears late that its server is dead")
        ns = (world.busy_ms or world.chance.between(1, _LEFT_MS)) * MS
        world.loop.stop_process(self.process)
        world.after(world.loop.machine, ns, world.loop.continue_process, self.process)
        for worker in self.family.alive:
            if not worker.process.stopped and (world.busy_ms or world.chance.one_in(2)):
                # Nor does this worker get any time; what was sent to it lies there still.
                worker.starves = True
                world.loop.stop_process(worker.process)
                world.after(world.loop.machine, ns, worker.feed)

    def exit(self, code: int) -> None:
        """The process ends, and its workers with it (PDEATHSIG)."""
        if self._code is not None:
            return
        self._code = code
        world = self.world
        world.loop.remove_reader(self._control)
        world.loop.kill(self.process)
        world.zygotes.remove(self)
        for fd in self._zygote.fds:
            os.close(fd)
        self._control.close()
        for worker in self.family.alive:
            worker.kill()

    # -- workers.host.Child ----------------------------------------------------------------------

    def poll(self) -> int | None:
        return self._code

    def kill(self) -> None:
        self.exit(-_SIGKILL)

    def wait(self) -> int:
        assert self._code is not None, "it was killed"
        return self._code


class SimHost:
    """`workers.host.Host`: the machine, as the pools of one server see it."""

    def __init__(self, world: Machine, server: Process) -> None:
        self._world, self._server = world, server
        self.next_import = "ok"
        """`ok`, or `broken`: the application cannot be imported."""

    def new_generation(self) -> str:
        return f"generation {self._world.next_pid()}"

    def start_zygote(
        self, config: wire.WorkerConfig, control: socket.socket, mark: str, generation: str
    ) -> SimZygote:
        how = self.next_import
        return SimZygote(self._world, self._server, control, generation, how)

    def kill_leftovers(self, mark: str) -> int:
        """Kills what dead servers left, and waits for it; some works on to the very moment."""
        world, killed = self._world, set[int]()
        for zygote in list(world.zygotes):
            if zygote.server is not self._server:
                killed.add(zygote.pid)
                zygote.exit(-_SIGKILL)
        while left := self._left():
            # A signal takes its time, and what it has not ended yet goes on: so look anew.
            killed |= {each.pid for each in left}
            for each in left:
                each.kill()
            for each in left:
                if isinstance(each, SimWorker) and world.chance.one_in(2):
                    each.go_on()
            world.loop.pass_ns(int(_LOOK_S * 1e9))
            for each in left:
                each.settle()
        world.kill_old_helpers()
        return len(killed)

    def _left(self) -> list[SimWorker | Subprocess]:
        """Returns what lives and was started below another server."""
        world = self._world
        return [
            each
            for each in (*world.workers, *world.subprocesses)
            if each.zygote.server is not self._server
        ]

    async def kill_generation(self, mark: str, generation: str, wait_s: float) -> None:
        """Kills what a dead zygote left, and waits until it is gone."""
        world = self._world
        while True:
            left = [
                each
                for each in [*world.workers, *world.subprocesses]
                if each.zygote.generation == generation
            ]
            if not left:
                return
            for each in left:
                each.kill()
            await asyncio.sleep(_LOOK_S)
