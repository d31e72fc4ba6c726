"""The hardware of a simulated machine: clock, disk, time that passes, and the notes of a run.

What may not live here: processes.  `sim.machine` adds them.
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
from beaver_chaos.checker.client_record import ClientRecord
from beaver_chaos.sim.loop import Choose, Process, SimHandle, SimLoop
from beaver_chaos.sim.mailbox import SlotsFile
from beaver_chaos.sim.plan import QUEUES, Chance, Plan, Script
from beaver_chaos.sim.sometimes import SOMETIMES
from beaver_chaos.sim.store_disk import MachineDisk

DATA: Final = "data"
STORE: Final = b"simulated-store!"
MS: Final = 1_000_000
STEPS_MAX: Final = 200_000
_WALL_MS: Final = 1_900_000_000_000


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


class Hardware:
    """The base of every part of the simulation; it knows no process of Beaver."""

    def __init__(self, plan: Plan, config: Config, choose: Choose | None = None) -> None:
        self.plan, self.config = plan, config
        self.chance = Chance(plan.seed, "run")
        self.loop = SimLoop(  # type: ignore[abstract] # as asyncio's own, it need not do all
            choose or Chance(plan.seed, "order").below,
            steps_max=STEPS_MAX,
            in_order=plan.setup.in_order,
        )
        self.loop.descriptors.latency_ns = self.latency_ns
        self.notes: list[tuple[Any, ...]] = []
        self.clock = SimClock(self.loop)
        self.entropy = self.chance
        self.disk = MachineDisk(DATA)
        self.store = STORE
        self.witness = ClientRecord()
        self.slots = SlotsFile()
        self.applied_seq = 0
        self.was_full = False
        self.power_was_cut = False
        self.capacity = self.disk.capacity
        self._pids = 100
        self.slowness = 1
        self.last_sync_ns = 0
        self.hanging_starts: dict[int, tuple[int, int]] = {}
        """By worker: how many of its next starts hang, and for how many ms (0 for ever)."""
        self.sometimes: Counter[str] = Counter(dict.fromkeys(SOMETIMES, 0))
        """How often each of `SOMETIMES` came to be."""
        self._scripts: dict[bytes, list[Script]] = {}
        self._begun: dict[str, int] = {}

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


def _resolve(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
