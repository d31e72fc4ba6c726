"""A power cut at every operation, with any subset of what was not synced left behind.

The script goes through everything a writer does: making a store, commits small and large,
marks, extensions, sealing, closing, and recovering from a crash of all that.  Whatever is
left, recovery must give every acknowledged event, at most the one commit that was under
way beyond it, and a log that can be appended to.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from beaver.errors import BeaverError
from beaver.journal.wal.log import Wal
from beaver_chaos.sim.disk import Fault, SimDisk, Stopped
from beaver_chaos.sim.platter import Chooser
from tests.worlds.journal import append, enqueued, goes_on, open_sim, prepare

SEEDS = 12
EXTEND_BYTES = 1 << 14
"""Small files make for many crashes a second."""


class Client:
    """What a producer knows: the jobs that it was told are durable, and the one in doubt."""

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.in_doubt = ""

    def enqueue(self, wal: Wal, name: str, size: int = 10) -> None:
        self.in_doubt = name
        append(wal, enqueued(name, b'"' + b"x" * size + b'"'))
        self.acknowledged.append(name)
        self.in_doubt = ""


def script(disk: SimDisk, client: Client) -> Iterator[None]:
    """Everything that a writer does, in little steps."""
    for life in range(2):
        wal = open_sim(disk, segment_bytes=1 << 14, extend_bytes=EXTEND_BYTES).journal
        yield
        client.enqueue(wal, f"small-{life}")
        client.enqueue(wal, f"large-{life}", 5_000)
        wal.idle()
        client.enqueue(wal, f"marked-{life}", 700)
        prepare(disk, wal, 1 << 14)
        yield
        assert wal.seal()
        client.enqueue(wal, f"behind-the-seal-{life}", 700)
        assert wal.reserve(EXTEND_BYTES + 1)
        client.enqueue(wal, f"extended-{life}", 20_000)
        yield
        wal.close()


def run(disk: SimDisk, client: Client) -> None:
    for _ in script(disk, client):
        pass


def count_operations() -> int:
    disk = SimDisk("data")
    run(disk, Client())
    return disk.operations


OPERATIONS = count_operations()


def check(disk: SimDisk, client: Client, note: str) -> None:
    if not client.acknowledged and not disk.exists("data/wal.log"):
        open_sim(disk)
        disk.kill()
    opened = goes_on(disk)
    jobs = list(opened.state.jobs)
    before = client.acknowledged
    assert jobs in (before, [*before, client.in_doubt]), (note, jobs, before, list(disk.trace))


def stopped_at(operation: int, done: bool, done_bytes: int) -> tuple[SimDisk, Client]:
    disk, client = SimDisk("data"), Client()
    disk.plan(operation, Fault(0, done_bytes=done_bytes, done=done))
    with pytest.raises(Stopped):
        run(disk, client)
    return disk, client


def choosers(seed: int) -> list[Chooser]:
    """Nothing survives, all of it does, and chance."""
    chance = random.Random(seed)
    return [lambda n: 0, lambda n: min(1, n - 1), *[chance.randrange] * SEEDS]


@pytest.mark.parametrize("operation", range(1, OPERATIONS + 1))
def test_power_cut_at_every_operation_loses_nothing_acknowledged(operation: int) -> None:
    for done, done_bytes in ((False, 0), (True, -1), (True, 100)):
        for number, choose in enumerate(choosers(operation)):
            disk, client = stopped_at(operation, done, done_bytes)
            disk.crash(choose)
            check(disk, client, f"operation {operation}, {done}, chooser {number}")


@pytest.mark.parametrize("operation", range(1, OPERATIONS + 1))
def test_kill_at_every_operation_loses_nothing_acknowledged(operation: int) -> None:
    """The page cache lives on; a write stopped half-way is cut at any byte."""
    for done, done_bytes in ((False, 0), (True, -1), (True, 1), (True, 36), (True, 300)):
        disk, client = stopped_at(operation, done, done_bytes)
        disk.kill()
        check(disk, client, f"operation {operation}, {done}, {done_bytes} bytes")


@pytest.mark.parametrize("operation", range(1, OPERATIONS + 1))
def test_crash_in_a_crash_brings_no_stale_frame_back(operation: int) -> None:
    """Stopped at every operation, and again at every operation of the recovery."""
    chance = random.Random(operation)
    second = 0
    while True:
        second += 1
        disk, client = stopped_at(operation, done=True, done_bytes=chance.choice([-1, 40, 600]))
        if chance.randrange(3):
            disk.crash(chance.randrange)
        else:
            disk.kill()
        disk.plan(disk.operations + second, Fault(0, done_bytes=chance.choice([-1, 7]), done=True))
        try:
            wal = open_sim(disk).journal
            disk.forget_plans()
        except Stopped:
            pass
        else:
            # The recovery needs fewer operations: a new writer goes on, and is cut.
            disk.kill()
            check(disk, client, f"operations {operation} and {second}")
            assert wal.last_seq >= 0
            break
        disk.crash(chance.randrange)
        check(disk, client, f"operations {operation} and {second}")


@pytest.mark.parametrize("operation", range(1, OPERATIONS + 1))
def test_failed_operation_then_power_cut_loses_nothing_acknowledged(operation: int) -> None:
    """EIO: the process ends, another one reads the page cache, then the power goes."""
    for seed in range(4):
        chance = random.Random(operation * 100 + seed)
        disk, client = SimDisk("data"), Client()
        disk.plan(operation, Fault(5, done_bytes=chance.choice([-1, 0, 50])))
        with pytest.raises((BeaverError, OSError)):
            run(disk, client)
        disk.kill()
        if seed % 2:
            disk.evict(chance.randrange)
        if client.acknowledged or disk.exists("data/wal.log"):
            told = list(open_sim(disk).state.jobs)
            assert told in (client.acknowledged, [*client.acknowledged, client.in_doubt])
            # What the second process tells is durable from now on, whatever it rests on.
            client.acknowledged, client.in_doubt = told, ""
            disk.crash(chance.randrange)
        check(disk, client, f"operation {operation}, seed {seed}")


def test_the_script_goes_through_what_matters() -> None:
    """A script that stopped doing something would make the tests above say nothing of it."""
    disk = SimDisk("data")
    disk.trace = type(disk.trace)(maxlen=None)
    run(disk, Client())
    seen = {line.split(" ", 1)[1].replace("data/", "") for line in disk.trace}
    assert {
        "mkdir archive",
        "rename wal.next -> wal.log",
        "link wal.log -> archive/00000000000000000001.wal",
        "sync names archive",
        "rename wal.adopted -> wal.log",
        "write durably wal.log",
        "sync wal.log",
        "sync names data",
    } <= seen
