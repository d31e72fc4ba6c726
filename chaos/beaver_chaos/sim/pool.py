"""Workers without processes: `assembly.LocalPool` on a simulated machine.

The machine holds the worker processes and the slots; a server's pool holds only its ends of
their sockets.  So workers outlive a killed server for a moment, go on with what lies in
their pipes, and report to nobody, until the kernel's signal or the next start ends them.

Attempts are sent, taken and taken back by the real code (`sim.mailbox`), and the server may
act, or the worker end, between permit, body and slot.  What is kept of the real pool's ways
beside that: what was written before a worker's death is delivered before its end is reported;
a kill takes a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from beaver.dispatch.slots_view import WorkerState
from beaver.errors import AppImportError
from beaver.ports import PoolEvents
from beaver.structs.messages import (
    Attempt,
    Options,
    Outcome,
    TaskInfo,
)
from beaver.workers import wire
from beaver.workers.mailbox import Mailbox
from beaver.workers.slots import Slots
from beaver.workers.starts import Starts
from beaver_chaos.sim.hardware import MS
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.machine import Machine
from beaver_chaos.sim.mailbox import PipeClosed, SimMailbox, WorkerEnds
from beaver_chaos.sim.plan import TASK, Script
from beaver_chaos.sim.scripts import outcome_of
from beaver_chaos.sim.sometimes import KILLS

_PAUSE_MS: Final = 80
_ORPHAN_MS: Final = 30
"""A worker whose server was killed lives for at most so long, mostly."""
_LEFT_MS: Final = 500
"""Some live for so long, or until the next server kills them as leftovers."""


class SimAttempt:
    """An attempt whose user code runs."""

    __slots__ = ("attempt", "script", "timer")

    def __init__(self, attempt: Attempt, script: Script) -> None:
        self.attempt, self.script = attempt, script
        self.timer: Any = None


class SimWorker:
    """One worker process."""

    def __init__(
        self, world: Machine, number: int, pool: SimPool, ends: WorkerEnds, slots: Slots
    ) -> None:
        self.world, self.number = world, number
        self.pool: SimPool | None = pool
        """The server's end; `None` once the server is gone."""
        self.pid = world.next_pid()
        self.process = Process(f"worker {number} ({self.pid})")
        self.ends = ends
        self._inbox = ends.open(slots, number, world.clock.monotonic_ns)
        self._token = 0
        """Its permit was read, and it has not begun."""
        self._booted = False
        self.running: dict[int, SimAttempt] = {}
        self.outbox: list[Outcome] = []
        self.ready = False
        self.how = ""
        """How it ended; empty while it lives."""
        self.killed = False
        self.stuck = False
        """It was stopped, and nobody will let it go on."""
        self._places = max(1, world.plan.setup.concurrency)
        world.workers.append(self)
        hangs_ms = world.start_hangs(number)
        if hangs_ms is None:
            world.after(self.process, world.chance.between(1, 8_000) * 1_000, self._boot)
        elif hangs_ms:
            world.after(self.process, hangs_ms * MS, self._boot)

    def _boot(self) -> None:
        world = self.world
        self._booted = True
        if self.pool is not None:
            world.after(self.pool.process, world.latency_ns(), self.pool.is_ready, self)
        self.wake()

    def wake(self) -> None:
        """Takes attempts as long as there is a place for them: in one go, or step by step."""
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
        except PipeClosed:
            self.die("ended without its server")
            return
        if inbox.closed and not self.running:
            self.die("exited with 0")

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
        except PipeClosed:
            self.die("ended without its server")
        else:
            self.world.after(self.process, self._step_ns(), self._begin, attempt)

    def _begin(self, attempt: Attempt) -> None:
        self._inbox.begin(attempt.token)
        self._token = 0
        self._start(attempt)
        self.wake()

    def go_on(self) -> None:
        """Works on to the very moment in which it is killed: what runs ends, the next begins."""
        for running in list(self.running.values()):
            if running.timer is not None and running.script.how != "die":
                running.timer.cancel()
                self._end(running)
        self.wake()
        if self.running:
            self.world.reach("a leftover begins an attempt as it is killed")

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
        self.outbox.append(outcome)
        if self.pool is not None:
            world = self.world
            world.after(self.pool.process, world.latency_ns(), self.pool.deliver, self)

    def cancel(self, token: int) -> None:
        """Is told softly to stop an attempt."""
        running = self.running.get(token)
        if running is None or running.timer is None or running.script.how == "die":
            return
        running.timer.cancel()
        running.script = Script("cancel", 0)
        running.timer = self.world.after(self.process, MS, self._end, running)

    def close(self) -> None:
        """What the process held open is closed."""
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
        self.running.clear()
        world.workers.remove(self)
        if self.pool is not None:
            world.after(self.pool.process, world.latency_ns() + MS, self.pool.reaped, self)


class SimPool:
    """A server's pool, over the machine's workers."""

    def __init__(self, world: Machine, process: Process, how: str = "ok") -> None:
        self._world = world
        self._how = how
        """`ok`, or `broken`: the application cannot be imported."""
        self.process = process
        """The server."""
        self.app_store = ""
        self._workers: dict[int, SimWorker] = {}
        self._mailboxes: dict[int, SimMailbox] = {}
        self._slots: Slots | None = None
        self._starts: Starts | None = None
        self._stopping = False

    async def start(self, events: PoolEvents) -> Sequence[TaskInfo]:
        self._events = events
        if self._how == "broken":
            raise AppImportError("cannot import 'shop:app'")
        return [TaskInfo(Options(TASK))]

    def join(self, former: SimPool) -> None:
        assert former._slots is not None, "it has been attached"
        self._use(former._slots)

    def leave(self) -> None:
        """Nothing is added any more: the controller sees to that."""

    def claim(self, mark: str) -> int:
        """Kills what a dead server left; what has ended since counts as well."""
        left = [worker for worker in self._world.workers if worker.pool is not self]
        for worker in left:
            if self._world.chance.one_in(2):
                worker.go_on()
            worker.die("killed as a leftover")
        self._world.kill_old_helpers()
        return len(left)

    def attach(self, slots_path: str, last_seq: int) -> None:
        world = self._world
        self._use(Slots.open(world.slots.path, world.config.workers, world.store, last_seq))

    def _use(self, slots: Slots) -> None:
        mailboxes = cast("Mapping[int, Mailbox]", self._mailboxes)
        self._slots, self._starts = slots, Starts(slots, mailboxes, self._broken)

    def _broken(self, mailbox: Mailbox, why: str) -> None:
        self._world.watch.wrong(f"worker {mailbox.worker} is not believed: {why}")

    # -- ports.Pool ------------------------------------------------------------------------------

    def add(self, worker: int) -> None:
        slots = self._slots
        assert slots is not None, "slots come first"
        assert worker not in self._workers, f"worker {worker} is there already"
        if self._stopping:
            return
        slots.make_room(worker)
        slots.reset(worker)
        mailbox = self._mailboxes[worker] = SimMailbox(self._world.loop, self.process, worker)
        ends = mailbox.hand_over()
        self._workers[worker] = SimWorker(self._world, worker, self, ends, slots)

    def dispatch(self, worker: int, attempts: Sequence[Attempt]) -> None:
        self._world.watch.sent(attempts)
        if self._seen_by_controller(worker).leaving:
            self._world.watch.wrong(f"worker {worker} is of a former crew, and is given jobs")
        process = self._workers.get(worker)
        if process is not None:
            self._mailboxes[worker].dispatch(attempts)
            self._world.after(process.process, self._world.latency_ns(), process.wake)

    def recall(self, worker: int) -> list[int]:
        process = self._workers.get(worker)
        if process is None:
            return []
        tokens = self._mailboxes[worker].recall()
        if tokens:
            self._world.reach("a prefetch is taken back from a living worker")
            if process.takes:
                self._world.reach("a prefetch is taken back behind a permit that was read")
        return tokens

    def started(self, worker: int) -> tuple[int, int]:
        return self._starts.of(worker) if self._starts is not None else (0, 0)

    def cancel(self, worker: int, token: int) -> None:
        process = self._workers.get(worker)
        if process is not None and self._world.plan.setup.concurrency:
            self._world.after(process.process, self._world.latency_ns(), process.cancel, token)

    def retire(self, worker: int) -> None:
        process = self._workers.get(worker)
        if process is not None:
            self._mailboxes[worker].end()
            self._world.after(process.process, self._world.latency_ns(), process.retire)

    def kill(self, worker: int) -> None:
        process = self._workers.get(worker)
        if process is not None and not process.killed:
            process.killed = True
            world = self._world
            cause = self._seen_by_controller(worker).killed
            if cause in KILLS:
                world.reach(f"a worker is killed: {cause.value}")
            elif cause is None:
                world.watch.wrong(f"worker {worker} is killed, and nothing says why")
            world.after(world.loop.machine, world.latency_ns(), process.die, "killed by signal 9")

    async def stop(self) -> None:
        self._stopping = True
        for process in list(self._workers.values()):
            process.die("ended with the pool")

    # -- what workers say ------------------------------------------------------------------------

    def is_ready(self, worker: SimWorker) -> None:
        if not worker.ready and self._workers.get(worker.number) is worker:
            worker.ready = True
            self._events.worker_ready(worker.number, worker.pid)

    def deliver(self, worker: SimWorker) -> None:
        """The server reads what a worker has written."""
        outcomes, worker.outbox = worker.outbox, []
        if outcomes:
            if not worker.ready:
                self.is_ready(worker)
            self._events.outcomes(worker.number, outcomes)

    def reaped(self, worker: SimWorker) -> None:
        """The zygote says that a worker has ended."""
        self.deliver(worker)
        if self._workers.get(worker.number) is worker:
            started, _ = self.started(worker.number)
            del self._workers[worker.number]
            self._mailboxes.pop(worker.number).close()
            if any(token > started for token in self._seen_by_controller(worker.number).held):
                self._world.reach("a dead worker's prefetch is given back")
            self._events.worker_exited(worker.number, started, worker.how)

    def _seen_by_controller(self, number: int) -> WorkerState:
        """Returns the controller's view of a worker, to read only."""
        life = self._world.life
        assert life is not None, "asked only while its server runs"
        return life.parts.controller.workers[number]

    # -- faults ------------------------------------------------------------------------------------

    def lose_server(self) -> None:
        """The server was killed: its workers follow, but not at once."""
        world = self._world
        for worker in self._workers.values():
            worker.pool = None
            if not worker.how:
                longest_ms = _LEFT_MS if world.chance.one_in(4) else _ORPHAN_MS
                delay_ns = world.chance.between(0, longest_ms) * MS
                world.after(world.loop.machine, delay_ns, worker.die, "killed with its server")
                world.after(worker.process, world.latency_ns(), worker.wake)
        self.close()

    def close(self) -> None:
        """All that the server's process held open is closed."""
        for mailbox in self._mailboxes.values():
            mailbox.close()
        if self._slots is not None:
            self._slots.users.clear()
            self._slots.close()

    def lose_zygote(self) -> None:
        for worker in list(self._workers.values()):
            worker.die("lost with the zygote")
