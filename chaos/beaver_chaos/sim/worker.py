"""One worker process of a simulated machine: scripts instead of user code, the rest is real.

Attempts are taken by the real inbox and end in the real stream of outcomes (`sim.mailbox`), and
the server may act, or the worker end, between permit, body and slot.  Some attempts start a
subprocess, which stays behind in the worker's group when that ends, and takes a while to die.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from beaver.structs.messages import Attempt, Outcome
from beaver.workers import wire
from beaver_chaos.sim.hardware import MS
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.mailbox import ServerGone, WorkerEnds
from beaver_chaos.sim.plan import Script
from beaver_chaos.sim.scripts import outcome_of

_PAUSE_MS: Final = 80
_SLOW_DEATH_MS: Final = 300
"""How long a killed subprocess may hang in the kernel."""


class Deaths(Protocol):
    """Hears of the ends of a zygote's processes."""

    def died(self, pid: int, how: str) -> None: ...


class Parent(Protocol):
    """The zygote of a worker; `sim.zygote.SimZygote`."""

    world: Machine
    server: Process
    generation: str

    @property
    def family(self) -> Deaths: ...


class Subprocess:
    """What a job has started, and what its worker may leave behind."""

    def __init__(self, worker: SimWorker, attempt: Attempt) -> None:
        self.world, self.zygote, self.worker = worker.world, worker.zygote, worker
        self.pid = self.world.next_pid()
        self.attempt = attempt
        self.dies_ns = 0
        """When it is gone; 0 while nobody has killed it."""
        self.is_gone = False
        self.is_cut_off = False
        """Its worker died while the attempt ran that had started it."""
        self.world.subprocesses.append(self)

    def kill(self) -> None:
        """It was sent a signal, and dies as soon as the kernel is done with it."""
        if not self.dies_ns:
            chance, world = self.world.chance, self.world
            slow = chance.one_in(4)
            delay_ns = chance.between(1, _SLOW_DEATH_MS) * MS if slow else world.latency_ns()
            self.dies_ns = world.loop.now_ns + delay_ns + 1
            world.after(world.loop.machine, delay_ns + 1, self.settle)

    def settle(self) -> None:
        """Is gone if its time has come."""
        if self.dies_ns and not self.is_gone and self.world.loop.now_ns >= self.dies_ns:
            self.is_gone = True
            self.world.subprocesses.remove(self)
            self.zygote.family.died(self.pid, "killed by signal 9")


class SimAttempt:
    """An attempt whose user code runs."""

    __slots__ = ("attempt", "script", "timer")

    def __init__(self, attempt: Attempt, script: Script) -> None:
        self.attempt, self.script = attempt, script
        self.timer: Any = None


class SimWorker:
    """One worker process."""

    def __init__(self, zygote: Parent, add: wire.Add, ends: wire.Ends) -> None:
        world = self.world = zygote.world
        self.zygote, self.number, self.birth = zygote, add.worker, add.birth
        self.pid = world.next_pid()
        self.process = Process(f"worker {self.number} ({self.pid})")
        self.ends = WorkerEnds(ends)
        self._inbox, self._outbox = self.ends.open(self.number, world.clock.monotonic_ns)
        self._token = 0
        """Its permit was read, and it has not begun."""
        self._found: Attempt | None = None
        """What that permit is for, as soon as it is found."""
        self._booted = False
        self.running: dict[int, SimAttempt] = {}
        self.how = ""
        """How it ended; empty while it lives."""
        self.dies_ns = 0
        """When a signal ends it; 0 while it was sent none."""
        self.stuck = False
        """It was stopped, and nobody will let it go on."""
        self.starves = False
        """It is ready to run, and gets no time."""
        self._places = max(1, world.plan.setup.concurrency)
        world.workers.append(self)
        hangs_ms = world.start_hangs(self.number)
        if hangs_ms is None:
            world.after(self.process, world.chance.between(1, 8_000) * 1_000, self._boot)
        elif hangs_ms:
            world.after(self.process, hangs_ms * MS, self._boot)

    def _boot(self) -> None:
        self._booted = True
        try:
            self._outbox.say_pid(self.pid)
        except ServerGone:
            self.die("ended without its server")
            return
        if self.world.plan.setup.concurrency:
            # Executors of many attempts listen for what is to be stopped.
            with self.world.loop.within(self.process):
                self.world.loop.add_reader(self.ends.stream, self._listen)
        self.wake()

    def _listen(self) -> None:
        try:
            for token in self._outbox.cancelled_tokens():
                self._cancel(token)
        except ServerGone:
            self.die("ended without its server")

    def wake(self) -> None:
        """Takes attempts as long as there is a place for them: in one go, or step by step."""
        if self.how:
            return
        inbox = self._inbox
        try:
            while self._booted and not self._token and len(self.running) < self._places:
                if inbox.closed:
                    break
                if self.world.chance.one_in(2):
                    attempt = inbox.take(wait=False)
                    if attempt is not None:
                        self._start(attempt)
                elif (token := inbox.read_permit()) == wire.END:
                    inbox.closed = True
                else:
                    self._token = token
                    self.world.after(self.process, self._step_ns(), self._find_body)
        except BlockingIOError:
            return
        except ServerGone:
            self.die("ended without its server")
            return
        if inbox.closed and not self.running:
            self.die("exited with 0")

    @property
    def booted(self) -> bool:
        """It has said who it is."""
        return self._booted

    @property
    def takes(self) -> bool:
        """It has read a permit, and what that is for has not begun."""
        return bool(self._token)

    def _step_ns(self) -> int:
        """Draws how long one step of a start takes; now and then the process gets no time."""
        chance = self.world.chance
        return chance.between(1, _PAUSE_MS) * MS if chance.one_in(8) else chance.between(1, 100_000)

    def _find_body(self) -> None:
        try:
            attempt = self._inbox.find_body(self._token)
        except BlockingIOError:
            self.world.after(self.process, self._step_ns(), self._find_body)
        except ServerGone:
            self.die("ended without its server")
        else:
            self._found = attempt
            self.world.after(self.process, self._step_ns(), self._begin, attempt)

    def _hurry(self) -> None:
        """Takes what is left of the way from a permit to its slot in one go."""
        try:
            attempt = self._found or self._inbox.find_body(self._token)
        except BlockingIOError:
            return
        except ServerGone:
            self.die("ended without its server")
        else:
            self._begin(attempt)

    def _begin(self, attempt: Attempt) -> None:
        self._inbox.begin(attempt.token)
        self._token, self._found = 0, None
        self._start(attempt)
        self.wake()

    def go_on(self) -> None:
        """Works on to the very moment in which it is killed: what runs ends, the next begins."""
        if self.how or (self.process.stopped and not self.starves):
            return
        begun = self._inbox.started
        for running in list(self.running.values()):
            if running.timer is not None and running.script.how != "die":
                running.timer.cancel()
                self._end(running)
        if self._token and not self.how:
            self._hurry()
        self.wake()
        if not self.how and self._inbox.started > begun:
            self.world.reach("a leftover begins an attempt as it is killed")

    def feed(self) -> None:
        """Gets time again."""
        self.starves = False
        self.world.loop.continue_process(self.process)

    def retire(self) -> None:
        """Reads the permit that ends it, behind all others."""
        if self.running:
            self.world.reach("a former worker ends its job")
        self.wake()

    def _start(self, attempt: Attempt) -> None:
        world = self.world
        script = world.script_of(attempt)
        running = self.running[attempt.token] = SimAttempt(attempt, script)
        world.watch.began(self.number, self.pid, attempt)
        for left in world.subprocesses:
            if left.attempt.job == attempt.job and left.is_cut_off:
                world.watch.wrong(
                    f"job {attempt.job} runs again beside what its attempt {left.attempt.token} "
                    "has started"
                )
        if world.chance.one_in(8):
            Subprocess(self, attempt)
        ms = script.ms
        if script.how == "hang":
            ms = 0
        if world.plan.setup.concurrency and (not ms or ms > attempt.timeout_ms):
            # Executors of many attempts stop them softly at their limit, unless they hang.
            if script.how == "hang":
                return
            script = running.script = Script("time out", attempt.timeout_ms)
            ms = script.ms
        if script.how != "hang":
            ns = ms * MS + world.chance.between(0, 400) * 1_000
            running.timer = world.after(self.process, ns, self._end, running)

    def _end(self, running: SimAttempt) -> None:
        """The user code of an attempt comes to its end."""
        attempt, script, world = running.attempt, running.script, self.world
        if script.how == "die":
            self.die("killed by signal 11")
            return
        self.running.pop(attempt.token, None)
        world.watch.ended(self.number, self.pid, attempt)
        self.report(outcome_of(attempt, script))
        world.after(self.process, world.latency_ns() // 8, self.wake)

    def report(self, outcome: Outcome) -> None:
        """Writes an outcome to the server, if there is one."""
        try:
            self._outbox.send(outcome)
            self.world.watch.reported(outcome.token)
        except ServerGone:
            self.die("ended without its server")

    def _cancel(self, token: int) -> None:
        """Is told softly to stop an attempt."""
        running = self.running.get(token)
        if running is None or running.timer is None or running.script.how == "die":
            return
        running.timer.cancel()
        running.script = Script("cancel", 0)
        running.timer = self.world.after(self.process, MS, self._end, running)

    def close(self) -> None:
        """What the process held open is closed."""
        self.world.loop.remove_reader(self.ends.stream)
        self.ends.close()
        del self._inbox

    def die(self, how: str) -> None:
        """The process ends, and with it whatever it ran."""
        if self.how:
            return
        self.how = how
        world = self.world
        world.note("worker", self.number, "dies", how)
        world.loop.kill(self.process)
        self.close()
        if self._token:
            world.reach("a worker ends between permit and slot")
        for running in self.running.values():
            world.watch.stopped(running.attempt)
        for left in world.subprocesses:
            if left.worker is self and left.attempt.token in self.running:
                left.is_cut_off = True
                world.reach("a dead worker leaves a subprocess behind")
        self.running.clear()
        world.workers.remove(self)
        self.zygote.family.died(self.pid, how)

    def kill(self) -> None:
        """It was sent a signal."""
        if not self.dies_ns:
            delay_ns = self.world.latency_ns()
            self.dies_ns = self.world.loop.now_ns + delay_ns
            self.world.after(self.world.loop.machine, delay_ns, self.settle)

    def settle(self) -> None:
        """Is gone if its time has come."""
        if self.dies_ns and self.world.loop.now_ns >= self.dies_ns:
            self.die("killed by signal 9")
