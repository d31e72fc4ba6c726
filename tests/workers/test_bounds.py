"""What a worker, a zygote or a slot says is bounded: whole at the bound, cut or refused above."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

import msgspec
import pytest

from beaver.config.setting import WORKERS_MAX as WORKERS_OF_A_CREW
from beaver.dispatch.crews import CREWS_MAX
from beaver.errors import AppImportError
from beaver.structs.messages import Outcome, OutcomeKind, Request
from beaver.task.context import child_bytes
from beaver.workers import slots as slots_module
from beaver.workers import wire
from beaver.workers.mailbox import Mailbox
from beaver.workers.pool import IMPORT_CHARS_MAX, ProcessPool
from beaver.workers.pool_options import PoolOptions
from beaver.workers.slots import WORKERS_MAX, Slots, SlotWriter, read_previous
from beaver_model.bounds import (
    CHILDREN_BYTES_MAX,
    CHILDREN_MAX,
    NAME_BYTES_MAX,
    RESULT_BYTES_MAX,
    TAGS_MAX,
)
from tests.workers.test_mailbox import Listener, connected
from tests.worlds.workers import Recorder

STORE = b"s" * 16
AROUND = (-1, 0, 1)


class Heard(Recorder):
    """A pool that a zygote speaks to, and what it makes of that."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ProcessPool(PoolOptions(workers=1, mark="0" * 32))
        self.pool._loop, self.pool._events = asyncio.get_running_loop(), self
        self.pool._ready = self.pool._loop.create_future()

    def hear(self, message: object) -> None:
        self.pool._on_message(message)


@pytest.mark.parametrize("beside", AROUND)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_failed_import_is_told_whole_up_to_its_bound(beside: int, is_first: bool) -> None:
    """The first one ends the start, a later one the pool."""

    async def main() -> str:
        heard = Heard()
        assert heard.pool._ready is not None
        if not is_first:
            heard.hear(wire.ZygoteReady(()))
        heard.hear(wire.ImportFailed("x" * (IMPORT_CHARS_MAX + beside)))
        if not is_first:
            return heard.failures[0]
        with pytest.raises(AppImportError) as found:
            await heard.pool._ready
        return str(found.value)

    told = asyncio.run(main())
    assert len(told) <= IMPORT_CHARS_MAX
    assert ("left out" in told) == (beside > 0)


@pytest.mark.parametrize("beside", AROUND)
def test_what_a_zygote_says_of_an_end_is_told_whole_up_to_its_bound(
    tmp_path: Path, beside: int
) -> None:
    detail = "x" * (wire.DETAIL_CHARS_MAX + beside)

    async def main() -> list[str]:
        heard = Heard()
        pool = heard.pool
        pool.attach(str(tmp_path / "slots"), 0)
        heard.hear(wire.ZygoteReady((), detail))
        mailbox = Mailbox(pool._loop, 1, 1, pool)
        pool._by_number[1] = pool._by_birth[1] = mailbox
        heard.hear(wire.Exited(1, detail))
        return [pool.notice, heard.exits[0][2]]

    for told in asyncio.run(main()):
        assert len(told) <= wire.DETAIL_CHARS_MAX
        assert ("left out" in told) == (beside > 0)


@pytest.mark.parametrize("beside", AROUND)
def test_a_frame_of_a_worker_is_read_up_to_its_bound(
    monkeypatch: pytest.MonkeyPatch, beside: int
) -> None:
    """A longer one is refused by its length, before anything of it has arrived."""
    outcome = Outcome(5, "a", int(OutcomeKind.OK))
    monkeypatch.setattr(wire, "FRAME_BYTES_MAX", len(wire.encode(outcome)) - beside)

    async def main() -> list[object]:
        listener = Listener()
        with connected(listener, os.getpid()) as (mailbox, worker):
            frame = wire.frame(outcome)
            worker.sendall(frame[:4] if beside > 0 else frame)
            mailbox.close()
        return listener.said[1:]

    said = asyncio.run(main())
    if beside > 0:
        assert "at most" in str(said[0])
    else:
        assert said == [5]


def test_the_longest_outcome_fits_into_a_frame() -> None:
    """A result, and children of all the bytes that they may have, most of them tags."""
    tags = tuple("é" * (NAME_BYTES_MAX // 2 - 1) + f"{number:02}" for number in range(TAGS_MAX))
    each = child_bytes(Request("0000", b"", b"", b"d" * 12, tags=tags))
    count = min(CHILDREN_MAX, CHILDREN_BYTES_MAX // each) - 1
    small = [Request(f"{n:04}", b"", b"", b"d" * 12, tags=tags) for n in range(count)]
    last = Request("last", b"", b"x", b"d" * 12, tags=tags)
    left = CHILDREN_BYTES_MAX - sum(map(child_bytes, [*small, last]))
    children = [*small, msgspec.structs.replace(last, payload=b"x" * (left + 1))]
    assert sum(map(child_bytes, children)) == CHILDREN_BYTES_MAX
    ok = int(OutcomeKind.OK)
    outcome = Outcome(1, "a", ok, b"x" * RESULT_BYTES_MAX, "", None, tuple(children))
    assert len(wire.encode(outcome)) <= wire.FRAME_BYTES_MAX


@pytest.mark.parametrize("beside", AROUND)
def test_there_are_slots_for_as_many_workers_as_crews_may_have(tmp_path: Path, beside: int) -> None:
    path = str(tmp_path / "slots")
    count = WORKERS_MAX + beside
    if beside > 0:
        with pytest.raises(AssertionError):
            Slots.open(path, count, STORE, 0)
        slots = Slots.open(path, 1, STORE, 0)
        with pytest.raises(AssertionError):
            slots.make_room(count)
    else:
        slots = Slots.open(path, 1, STORE, 0)
        slots.make_room(count)
        assert slots.workers == count
        SlotWriter(slots.fd, count).start(7, 70)
        assert slots.read(count).started == 7
        previous = read_previous(path)
        assert previous is not None
        assert previous.started == {count: 7}
        slots.close()
        slots = Slots.open(path, count, STORE, 7)
        assert slots.last == {count: 7}
    slots.close()
    assert 2 * CREWS_MAX * WORKERS_OF_A_CREW <= WORKERS_MAX, "a reload finds free numbers"


def test_a_file_with_more_slots_than_there_may_be_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "slots"
    slots = Slots.open(str(path), 1, STORE, 0)
    slots.make_room(WORKERS_MAX)
    slots.close()
    assert read_previous(str(path)) is not None
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("=Q", WORKERS_MAX + 1))
        file.seek(0, os.SEEK_END)
        file.write(bytes(64))
    assert read_previous(str(path)) is None


@pytest.mark.parametrize("beside", AROUND)
def test_a_slot_that_changes_is_read_again_a_bounded_number_of_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: int
) -> None:
    """What is torn at the last read counts: its worker died between two stores."""
    slots = Slots.open(str(tmp_path / "slots"), 1, STORE, 0)
    real, torn = os.pread, struct.pack("=4Q", 1, 9, 90, 0)
    whole = struct.pack("=4Q", 1, 5, 50, 5 ^ 50)
    reads: list[bytes] = []

    def pread(fd: int, size: int, offset: int) -> bytes:
        assert len(real(fd, size, offset)) == size
        reads.append(torn if len(reads) < slots_module._READS_MAX + beside else whole)
        return reads[-1]

    monkeypatch.setattr("beaver.workers.slots.os.pread", pread)
    read = slots.read(1)
    assert len(reads) == slots_module._READS_MAX
    assert (read.started, read.since_ns) == ((5, 50) if beside < 0 else (9, 90))
    slots.close()
