"""A store that is read before its lock is held: used if nothing changed, and only then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beaver.journal.wal.log import Wal
from beaver.store.rebuild import Recovered, Replica
from beaver.store.recovery import open_store, read_ahead
from beaver_chaos.sim.disk import SimDisk
from tests.worlds.journal import (
    DATA,
    StillClock,
    append,
    enqueued,
    goes_on,
    new_disk,
    open_sim,
    prepare,
    same,
    sealed_disk,
)


def ahead_of(disk: SimDisk) -> Replica:
    operations = disk.operations
    ahead = read_ahead(disk, "data", clock=StillClock())
    assert disk.operations == operations, "it only reads"
    assert ahead is not None
    assert ahead.state is not None
    return ahead


def opened_after(disk: SimDisk, ahead: Replica | None) -> Recovered[Wal]:
    return open_store(disk, "data", clock=StillClock(), create=False, ahead=ahead)


@pytest.mark.parametrize("make", [new_disk, sealed_disk])
def test_what_was_read_is_used_where_nothing_has_changed(make: Callable[[], SimDisk]) -> None:
    disk = make()
    disk.kill()
    ahead = ahead_of(disk)
    expected = ahead.state
    opened = opened_after(disk, ahead)
    assert opened.state is expected
    append(opened.journal, enqueued("more"))
    disk.kill()
    plain = open_sim(disk.copy(), create=False)
    assert plain.state.last_seq == opened.state.last_seq + 1
    disk.kill()
    goes_on(disk)


@pytest.mark.parametrize("change", ["commit", "seal", "close"])
def test_what_somebody_wrote_meanwhile_is_read(change: str) -> None:
    disk = new_disk()
    disk.kill()
    ahead = ahead_of(disk)
    former, expected = open_sim(disk), ahead.state
    if change == "close":
        former.journal.close()
    else:
        append(former.journal, enqueued("meanwhile"))
    if change == "seal":
        prepare(disk, former.journal)
        assert former.journal.seal()
    disk.kill()
    plain = open_sim(disk.copy(), create=False)
    opened = opened_after(disk, ahead)
    assert opened.state is not expected
    assert same(opened.state, plain.state)
    assert ("meanwhile" in opened.state.jobs) == (change != "close")
    disk.kill()
    goes_on(disk)


def test_where_there_is_nothing_to_read_nothing_is_said() -> None:
    assert read_ahead(SimDisk("data"), "data", clock=StillClock()) is None
    disk = new_disk()
    disk.kill()
    disk.unlink(DATA.log)
    disk.open(DATA.snapshot, write=True, create=True).close()
    assert read_ahead(disk, "data", clock=StillClock()) is None
