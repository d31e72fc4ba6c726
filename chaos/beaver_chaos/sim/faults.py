"""Faults of the simulated machine: each act of a plan that is not a client's request.

A fault that finds nothing to strike does nothing.  What may not live here: which faults
strike, and when (`sim.plan`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import try_acquire
from beaver.structs.messages import Outcome, OutcomeKind
from beaver_chaos.sim.disk import Fault
from beaver_chaos.sim.hardware import MS
from beaver_chaos.sim.loop import Process
from beaver_chaos.sim.worker import SimWorker
from beaver_chaos.sim.world import World


def strike(world: World, kind: str, args: tuple[Any, ...]) -> None:
    """Lets one of `FAULTS` happen."""
    world.note("fault", kind, *args)
    FAULTS[kind](world, *args)


# -- the server, and the power -----------------------------------------------------------------


def _stop_server(world: World, power: bool, ahead: int, done: bool, done_bytes: int) -> None:
    life = world.life
    if life is None:
        return
    if not ahead:
        world.crash(life, power=power)
        return
    life.arm_stop(ahead, Fault(0, done_bytes, done), power_goes=power)


def _kill_server(world: World, ahead: int, done: bool, done_bytes: int) -> None:
    _stop_server(world, False, ahead, done, done_bytes)


def _kill_behind_dispatch(world: World, ms: int) -> None:
    """The server is killed as soon as it has sent a job; so long nobody whom it started runs."""
    if world.life is not None:
        world.life.arm_kill_behind_dispatch(ms)


def _power_cut(world: World, ahead: int, done: bool, done_bytes: int) -> None:
    _stop_server(world, True, ahead, done, done_bytes)


def _double_crash(world: World, power: bool, ahead: int, error: int) -> None:
    """A crash, and another one or an error while the next server recovers."""
    world.next_start = (ahead, Fault(error, -1, done=False), power)
    if world.life is not None:
        world.crash(world.life, power=power)


def _hold(world: World, process: Process, ms: int) -> None:
    world.loop.stop_process(process)
    world.after(world.loop.machine, ms * MS, world.loop.continue_process, process)


def _stop_server_process(world: World, ms: int) -> None:
    if world.life is not None:
        _hold(world, world.life.process, ms)


def _restart(world: World) -> None:
    if world.life is not None:
        world.life.stop()


# -- the disk ----------------------------------------------------------------------------------


def _disk_error(world: World, ahead: int, error: int, done_bytes: int) -> None:
    if world.life is not None:
        world.was_full = True
        world.life.disk.plan(ahead, Fault(error, done_bytes))


def _failed_sync(world: World, ahead: int, ms: int) -> None:
    """A sync fails and what it should have written lives in the page cache alone; soon
    afterwards, when another server may have built on it, the power goes.
    """
    _disk_error(world, ahead, errno.EIO, -1)

    def cut() -> None:
        if world.life is not None:
            world.crash(world.life, power=True)

    world.after(world.loop.machine, ms * MS, cut)


def _read_error(world: World, ahead: int) -> None:
    if world.life is not None:
        world.life.disk.plan_read_error(ahead)


def _disk_full(world: World, ms: int, left_bytes: int) -> None:
    world.was_full = True
    world.disk.capacity = world.capacity - world.disk.free_bytes("") + left_bytes
    world.after(world.loop.machine, ms * MS, world.empty_disk)


def _slow_disk(world: World, times: int, ms: int) -> None:
    world.slowness = times

    def quick() -> None:
        world.slowness = 1

    world.after(world.loop.machine, ms * MS, quick)


def _rot_snapshot(world: World, part: float, bit: int) -> None:
    """A bit of the newest snapshot rots; the older one and the archive have to do."""
    path = Layout(world.config.data).snapshot
    if world.bare_disk().exists(path):
        size = len(world.disk.contents(path))
        world.disk.flip(path, int(part * size), bit)
        if world.life is not None:
            world.crash(world.life, power=False)


def _remove_lock(world: World) -> None:
    """Somebody removes the lock file, and starts another process at once."""
    life, disk, data = world.listening, world.bare_disk(), world.config.data
    if life is None or life.log_is_replaced or not disk.exists(Layout(data).lock):
        return
    disk.unlink(Layout(data).lock)
    if try_acquire(disk, data) is not None:
        world.watch.wrong("another process comes in while a server runs")


def _replace_log(world: World) -> None:
    """Somebody puts a copy of the log in its place, as an editor or a restore does."""
    life, disk, path = world.listening, world.bare_disk(), Layout(world.config.data).log
    if life is None:
        return
    life.log_is_replaced = True
    disk.put(path, disk.contents(path))
    world.reach("the log is replaced under a server")


# -- helper and writer -------------------------------------------------------------------------


def _helper_error(world: World, ahead: int, error: int, done_bytes: int) -> None:
    for helper in world.helpers:
        world.was_full = True
        helper.disk.plan(ahead, Fault(error, done_bytes))


def _kill_helper(world: World, ahead: int) -> None:
    for helper in list(world.helpers):
        if ahead:
            helper.disk.plan(ahead, Fault(0, -1, done=True))
        else:
            helper.die()


def _kill_writer(world: World) -> None:
    if world.life is not None and world.life.writer is not None:
        world.life.writer.die()


def _snapshot(world: World) -> None:
    if world.life is not None:
        world.life.take_snapshot()


def _prepare(world: World) -> None:
    if world.life is not None:
        world.life.prepare()


# -- workers -----------------------------------------------------------------------------------


def _with_number(world: World, number: int) -> list[SimWorker]:
    return [worker for worker in world.workers if worker.number == number]


def _kill_worker(world: World, number: int) -> None:
    for worker in _with_number(world, number):
        worker.die("killed by signal 9")


def _stop_worker(world: World, number: int, ms: int) -> None:
    for worker in _with_number(world, number):
        if ms:
            _hold(world, worker.process, ms)
        else:
            # For ever: whoever waits for it must help himself.
            worker.stuck = True
            world.reach("a worker is stopped for ever")
            world.loop.stop_process(worker.process)


def _hang_start(world: World, number: int, starts: int, ms: int) -> None:
    """The next starts of a worker hang, in an import say; and it has to be started anew."""
    world.hanging_starts[number] = (starts, ms)
    _kill_worker(world, number)


def _late_outcome(world: World, number: int, part: float) -> None:
    """An outcome of an attempt that is long over comes once more: it must be refused."""
    life, runs = world.listening, world.watch.runs
    if life is None or not runs or not life.runs_jobs:
        return
    run = runs[int(part * len(runs))]
    if run.token not in life.parts.engine.state.in_flight:
        for worker in _with_number(world, number):
            if not worker.booted:
                continue
            worker.report(Outcome(run.token, run.job, OutcomeKind.OK, b"0"))


def _reload(world: World, how: str, workers: int) -> None:
    if world.life is not None:
        world.life.reload(how, workers)


def _lose_zygote(world: World) -> None:
    if world.life is not None and world.life.pools:
        pools = world.life.pools
        pool = pools[world.chance.below(len(pools))] if len(pools) > 1 else pools[0]
        pool.lose_zygote()


# -- clock and network -------------------------------------------------------------------------


def _turn_clock(world: World, ms: int) -> None:
    world.clock.offset_ms += ms


def _cut(world: World, client: int) -> None:
    for end in world.connections.of(world.clients[client].process):
        end.cut()


FAULTS: Final[dict[str, Callable[..., None]]] = {
    "kill_server": _kill_server,
    "kill_behind_dispatch": _kill_behind_dispatch,
    "power_cut": _power_cut,
    "double_crash": _double_crash,
    "disk_error": _disk_error,
    "failed_sync": _failed_sync,
    "read_error": _read_error,
    "helper_error": _helper_error,
    "kill_helper": _kill_helper,
    "disk_full": _disk_full,
    "kill_writer": _kill_writer,
    "kill_worker": _kill_worker,
    "stop_worker": _stop_worker,
    "hang_start": _hang_start,
    "late_outcome": _late_outcome,
    "lose_zygote": _lose_zygote,
    "stop_server": _stop_server_process,
    "clock": _turn_clock,
    "slow_disk": _slow_disk,
    "cut": _cut,
    "rot_snapshot": _rot_snapshot,
    "remove_lock": _remove_lock,
    "replace_log": _replace_log,
    "snapshot": _snapshot,
    "prepare": _prepare,
    "restart": _restart,
    "reload": _reload,
}
"""The effect of each act that is not a client's request."""
