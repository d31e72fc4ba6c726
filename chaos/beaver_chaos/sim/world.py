"""The simulated machine: clock, disk, network, processes, and what befalls them.

`simulator` runs it; the parts that stand on it are `sim.server`, `sim.pool`, `sim.helper`
and `sim.clients`.  Here the acts of a plan become what happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from beaver.config.layers import Config, load_config
from beaver.config.setting import QueueConfig
from beaver.structs.messages import Attempt
from beaver_chaos.checker.history import Witness
from beaver_chaos.sim.clients import SimClient
from beaver_chaos.sim.disk import Fault
from beaver_chaos.sim.faults import FAULTS, strike
from beaver_chaos.sim.helper import HelperProcess
from beaver_chaos.sim.keeper import KeeperLife
from beaver_chaos.sim.loop import Choose, Process, SimHandle, SimLoop
from beaver_chaos.sim.net import Connections
from beaver_chaos.sim.plan import CLIENTS, QUEUES, Act, Chance, JobPlan, Plan, Script
from beaver_chaos.sim.pool import MS, Worker
from beaver_chaos.sim.server import Life
from beaver_chaos.sim.sometimes import SOMETIMES
from beaver_chaos.sim.store_disk import MachineDisk
from beaver_chaos.sim.watch import Watch

DATA: Final = "data"
STORE: Final = b"simulated-store!"
STEPS_MAX: Final = 200_000
_WALL_MS: Final = 1_900_000_000_000
_RESTART_MS: Final = 40
_SETTLE_MS: Final = 600_000
"""So long after the last fault everything must have come to rest."""
_POLL_S: Final = 0.05


class SimClock:
    """`ports.Clock` of the machine."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self.offset_ms = 0
        self.boot_ns = 0

    def wall_ms(self) -> int:
        return _WALL_MS + self._loop.now_ns // MS + self.offset_ms

    def monotonic_ns(self) -> int:
        return self._loop.now_ns - self.boot_ns


def config_of(plan: Plan) -> Config:
    """Returns the configuration of the simulated server."""
    setup = plan.setup
    config = load_config({"data": DATA, "http": "off"}, environ={})
    return msgspec.structs.replace(
        config,
        workers=setup.workers,
        executor="async" if setup.concurrency else "process",
        concurrency=max(1, setup.concurrency),
        prefetch=setup.prefetch,
        commit=setup.commit,
        grace_ms=setup.grace_ms,
        segment_bytes=setup.segment_bytes,
        state_bytes_max=1 << 30,
        retention_bytes=1 << 40 if setup.keep_archive else 0,
        tombstones_max=setup.tombstones_max,
        tombstones_age_ms=setup.tombstones_age_ms,
        start_timeout_ms=setup.start_ms,
        queues={QUEUES[1]: QueueConfig(durable_dispatch=False)} if setup.eager else {},
    )


class World:
    """One machine, over one run."""

    def __init__(self, plan: Plan, config: Config, choose: Choose | None = None) -> None:
        self.plan, self.config = plan, config
        self.chance = Chance(plan.seed, "run")
        self.loop = SimLoop(  # type: ignore[abstract] # as asyncio's own, it need not do all
            choose or Chance(plan.seed, "order").below,
            steps_max=STEPS_MAX,
            in_order=plan.setup.in_order,
        )
        self.notes: list[tuple[Any, ...]] = []
        self.clock = SimClock(self.loop)
        self.entropy = self.chance
        self.disk = MachineDisk(DATA)
        self.store = STORE
        self.witness = Witness()
        self.watch = Watch(self)
        self.loop.on_quiet = self.watch.quiet
        self.loop.on_error = self._unexpected
        self.connections = Connections()
        self.workers: list[Worker] = []
        self.helpers: list[HelperProcess] = []
        self.clients = [SimClient(self, n) for n in range(CLIENTS)]
        self.life: Life | None = None
        self.slots: dict[int, int] = {}
        self.slots_exist = False
        self.same_boot = True
        self.applied_seq = 0
        self.was_full = False
        self.power_was_cut = False
        self.capacity = self.disk.capacity
        self._lives = 0
        self._pids = 100
        self.slowness = 1
        self.last_sync_ns = 0
        self._healed = False
        self._acts_to_come = len(plan.acts)
        self._over = False
        self.next_start: tuple[int, Fault, bool] | None = None
        """What goes wrong when the next server starts: the n-th operation, how, and whether
        the power goes."""
        self.hanging_starts: dict[int, tuple[int, int]] = {}
        """By worker: how many of its next starts hang, and for how many ms (0 for ever)."""
        self.sometimes: Counter[str] = Counter(dict.fromkeys(SOMETIMES, 0))
        """How often each of `SOMETIMES` came to be."""
        self._scripts: dict[bytes, list[Script]] = {}
        self._begun: dict[str, int] = {}

    # -- what the parts use --------------------------------------------------------------------

    def note(self, *words: Any) -> None:
        """Writes into the trace of the run."""
        self.notes.append((self.loop.now_ns // 1000, *words))

    def after(
        self, process: Process, delay_ns: int, callback: Callable[..., object], *args: Any
    ) -> SimHandle:
        """Schedules what a process does."""
        return self.loop.call_in(process, delay_ns, callback, *args)

    def latency_ns(self) -> int:
        return self.chance.between(0, self.plan.setup.latency_us) * 1_000

    def sync_ns(self) -> int:
        """Draws how long a sync takes now."""
        us = self.chance.between(0, self.plan.setup.sync_us) * self.slowness
        self.last_sync_ns = us * 1_000
        return self.last_sync_ns

    def sync_takes_time(self) -> None:
        """The server waits for the disk."""
        self.loop.pass_ns(self.sync_ns())

    def empty_disk(self) -> None:
        """There is room again."""
        self.disk.capacity = self.capacity

    def reach(self, what: str) -> None:
        """Counts one of `SOMETIMES`."""
        assert what in self.sometimes, what
        self.sometimes[what] += 1

    def start_hangs(self, number: int) -> int | None:
        """For how many ms the start of a worker that begins now hangs; `None` where it does not."""
        starts, ms = self.hanging_starts.get(number, (0, 0))
        if not starts:
            return None
        self.hanging_starts[number] = (starts - 1, ms)
        self.reach("a worker hangs before it is ready")
        return ms

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def bare_disk(self) -> MachineDisk:
        """The disk for looking at it: no fault strikes."""
        self.disk.user = None
        return self.disk

    @property
    def listening(self) -> Life | None:
        life = self.life
        return life if life is not None and life.listening and life.process.alive else None

    def script_of(self, attempt: Attempt) -> Script:
        """Returns what an attempt does: the job's next script, as often as it is begun."""
        scripts = self._scripts.get(attempt.payload)
        if scripts is None:
            runs = msgspec.json.decode(attempt.payload)["runs"]
            scripts = self._scripts[attempt.payload] = [Script(*run) for run in runs]
        count = self._begun[attempt.job] = self._begun.get(attempt.job, 0) + 1
        return scripts[min(count, len(scripts)) - 1]

    def answer_in(self, process: Process, future: asyncio.Future[Any], answer: Any) -> None:
        """Ends a wait of a process."""
        self.after(process, self.latency_ns(), _resolve, future, answer)

    def attach_slots(self, last_seq: int) -> None:
        """A server makes the slots afresh; what this boot has started stays."""
        if not self.same_boot:
            self.slots.clear()
        self.slots = {worker: min(token, last_seq) for worker, token in self.slots.items()}
        self.slots_exist = self.same_boot = True

    def kill_old_helpers(self) -> None:
        """The scan for leftovers finds an old helper, or it is not quite fast enough."""
        for helper in list(self.helpers):
            if self.chance.one_in(2):
                helper.die()

    def _unexpected(self, message: str, error: BaseException | None) -> None:
        self.watch.wrong(f"{message}: {type(error).__name__}: {error}")

    # -- servers come and go -----------------------------------------------------------------------

    def start_server(self) -> None:
        """Starts the next server, with what was planned for its start."""
        if self._over or self.life is not None:
            return
        self._lives += 1
        life = self.life = Life(self, self._lives)
        self._begin_life("server", life)

    def start_keeper(self) -> None:
        """A producer finds nobody, and starts a keeper."""
        if self._over or self.life is not None:
            return
        self._lives += 1
        life = self.life = KeeperLife(self, self._lives)
        self._begin_life("keeper", life)

    def _begin_life(self, kind: str, life: Life) -> None:
        self.note(kind, life.number, "starts")
        if self.next_start is not None:
            ahead, fault, power = self.next_start
            self.next_start = None
            life.power_goes = power
            life.disk.plan(ahead, fault)
        with self.loop.within(life.process):
            self.loop.create_task(life.main())

    def crash(self, life: Life, *, power: bool) -> None:
        """A server is killed, or the machine loses power."""
        if life is not self.life:
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
            for worker in list(self.workers):
                worker.die("lost with the machine")
            for helper in list(self.helpers):
                helper.die()
            self.disk.crash(self.chance.below)
            self.same_boot, self.power_was_cut = False, True
            self.slots_exist = self.chance.one_in(2)
            self.clock.boot_ns = self.loop.now_ns
        elif self.chance.one_in(2):
            self.disk.evict(self.chance.below)
        self._restart()

    def server_died(self, life: Life, why: str) -> None:
        """A server ended itself, since it could not trust its log."""
        if life is self.life:
            self.note("server", life.number, "ends itself:", why)
            self.reach("a server ends itself")
            self._lose(life)
            if self.chance.one_in(2):
                self.disk.evict(self.chance.below)
            self._restart()

    def server_ended(self, life: Life, why: str) -> None:
        """A server has come to its end in good order, or could not start."""
        if life is self.life:
            self.note("server", life.number, why)
            self._lose(life)
            self._restart()

    def _lose(self, life: Life) -> None:
        self.watch.detach()
        life.lose()
        for end in self.connections.of(life.process):
            end.process_died()
        for helper in self.helpers:
            self.after(self.loop.machine, self.chance.between(0, 30) * MS, helper.die)
        self.life = None

    def _restart(self) -> None:
        if not self._over:
            delay_ns = self.chance.between(1, _RESTART_MS) * MS
            keeps = self.plan.setup.keepers and not self._healed and self.chance.one_in(2)
            start = self.start_keeper if keeps else self.start_server
            self.after(self.loop.machine, delay_ns, start)

    # -- the run -----------------------------------------------------------------------------------

    async def main(self) -> None:
        """Carries out the plan, heals everything, and waits for rest."""
        self.start_server()
        last_ms = 0
        for act in self.plan.acts:
            self.after(self.loop.machine, act.at_ms * MS, self._act, act)
            last_ms = max(last_ms, act.at_ms)
        await asyncio.sleep((last_ms + 1) / 1000)
        while self._acts_to_come:  # noqa: ASYNC110 - as everything else here
            # What is overdue behind a slow sync comes in any order, this task included.
            await asyncio.sleep(_POLL_S)
        self._heal()
        deadline_ns = self.loop.now_ns + _SETTLE_MS * MS
        while not self._at_rest():
            if self.loop.now_ns > deadline_ns:
                self.watch.wrong(f"no rest is reached; not ended: {self.watch.unfinished()}")
                return
            await asyncio.sleep(_POLL_S)
        self._over = True
        life = self.life
        assert life is not None, "at rest there is a server"
        life.stop()
        while self.life is not None:  # noqa: ASYNC110 - as everything else here
            await asyncio.sleep(_POLL_S)
        self.watch.finish()

    def _heal(self) -> None:
        """No more faults: whatever is wrong has to mend itself from here on."""
        self.note("no more faults")
        self._healed = True
        self.slowness = 1
        self.empty_disk()
        self.next_start = None
        self.hanging_starts.clear()
        if self.life is not None:
            self.life.disk.forget_plans()
            self.loop.continue_process(self.life.process)
        for helper in self.helpers:
            helper.disk.forget_plans()
        for worker in self.workers:
            if not worker.stuck:
                self.loop.continue_process(worker.process)

    def _at_rest(self) -> bool:
        life = self.listening
        if life is None or not life.runs_jobs or any(client.busy for client in self.clients):
            return False
        state = self.watch.shadow
        for name, queue in state.queues.items():
            if queue.row.paused:
                self._begin(0, "resume", (name,))
                return False
        workers = life.parts.controller.workers.values()
        if life.reloading or not all(worker.ready and worker.serving for worker in workers):
            return False  # P5: no slot stays without a worker, and no former worker stays.
        return not state.in_flight and not state.scheduled_live and not state.ready

    def _begin(self, client: int, kind: str, args: tuple[Any, ...]) -> None:
        place = self.clients[client]
        place.busy += 1
        self.after(place.process, 0, place.begin, kind, args)

    # -- acts --------------------------------------------------------------------------------

    def _act(self, act: Act) -> None:
        self._acts_to_come -= 1
        if act.kind in FAULTS:
            strike(self, act.kind, act.args)
            return
        client, *args = act.args
        jobs = (job.id for job in args[0] if isinstance(job, JobPlan))
        words = jobs if act.kind == "enqueue" else args[:1]
        self.note("client", client, "asks to", act.kind, *words)
        self._begin(client, act.kind, tuple(args))


def _resolve(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
