"""The slots file: what it says, what survives, what is refused."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

from beaver.workers import slots
from beaver.workers.slots import Slots, SlotWriter, read_previous

STORE = bytes(range(16))


def writer(path: str, worker: int) -> SlotWriter:
    """A worker of the file that is at that path now."""
    with Path(path).open("r+b") as file:
        return SlotWriter(file.fileno(), worker)


def test_what_a_worker_writes_is_read_by_server_and_successor(tmp_path: Path) -> None:
    path = str(tmp_path / "slots")
    opened = Slots.open(path, 3, STORE, 0)
    writer(path, 2).start(41, 1000)
    writer(path, 3).start(2**63 + 5, 2**62)
    assert opened.read(1)[1:] == (0, 0)
    assert opened.read(2)[1:] == (41, 1000)
    assert opened.read(3)[1:] == (2**63 + 5, 2**62)
    previous = read_previous(path)
    assert previous is not None
    assert previous.same_boot
    assert previous.store == STORE
    assert previous.started == {2: 41, 3: 2**63 + 5}
    assert stat.S_IMODE((tmp_path / "slots").stat().st_mode) == 0o600


def test_a_new_file_keeps_the_started_tokens_of_this_boot(tmp_path: Path) -> None:
    """A server that dies between making the slots and logging BOOT forgets nothing."""
    path = str(tmp_path / "slots")
    Slots.open(path, 5, STORE, 0)
    writer(path, 5).start(99, 7)
    second = Slots.open(path, 2, STORE, 120)
    previous = read_previous(path)
    assert previous is not None
    assert previous.started == {5: 99}
    assert second.read(5).started == 99


def test_bytes_behind_the_last_slot_do_not_stop_the_next_start(tmp_path: Path) -> None:
    """A job may write to the file: what is no slot says nothing."""
    path = tmp_path / "slots"
    Slots.open(str(path), 2, STORE, 0)
    writer(str(path), 1).start(41, 7)
    with path.open("ab") as file:
        file.write(b"odd")
    previous = read_previous(str(path))
    assert previous is not None
    assert previous.started == {1: 41}


def test_bytes_behind_the_last_slot_do_not_stop_the_next_worker(tmp_path: Path) -> None:
    """Whatever the length that a job gave the file: a new worker maps its slot."""
    path = tmp_path / "slots"
    opened = Slots.open(str(path), 2, STORE, 0)
    with path.open("ab") as file:
        file.write(b"odd")
    writer(str(path), 1).start(41, 7)
    with path.open("ab") as file:
        file.truncate(1 << 43)
    writer(str(path), 2).start(42, 7)
    assert [opened.read(1).started, opened.read(2).started] == [41, 42]


def test_a_token_that_the_log_never_came_to_does_not_outlive_its_server(tmp_path: Path) -> None:
    """An attempt that began before its DISPATCH was durable: later tokens are lower."""
    path = str(tmp_path / "slots")
    Slots.open(path, 2, STORE, 0)
    writer(path, 1).start(20, 7)
    writer(path, 2).start(8, 7)
    opened = Slots.open(path, 2, STORE, 12)
    assert [opened.read(1).started, opened.read(2).started] == [12, 8]
    writer(path, 1).start(14, 9)
    assert opened.read(1)[1:] == (14, 9)


def test_a_worker_of_the_old_file_cannot_write_into_the_new_one(tmp_path: Path) -> None:
    path = str(tmp_path / "slots")
    Slots.open(path, 1, STORE, 0)
    old = writer(path, 1)
    new = Slots.open(path, 1, STORE, 0)
    old.start(7, 7)
    assert new.read(1).started == 0


def test_another_boot_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "slots"
    Slots.open(str(path), 1, STORE, 0)
    writer(str(path), 1).start(7, 7)
    data = bytearray(path.read_bytes())
    data[32] ^= 1
    path.write_bytes(data)
    previous = read_previous(str(path))
    assert previous is not None
    assert not previous.same_boot
    Slots.open(str(path), 1, STORE, 0)
    again = read_previous(str(path))
    assert again is not None
    assert again.started == {}


def test_what_is_no_slots_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "slots"
    assert read_previous(str(path)) is None
    Slots.open(str(path), 2, STORE, 0)
    whole = path.read_bytes()
    for data in (b"", whole[:63], whole[:-1], b"X" + whole[1:]):
        path.write_bytes(data)
        assert read_previous(str(path)) is None


def test_a_reader_never_sees_a_token_with_an_earlier_ones_time(tmp_path: Path) -> None:
    path = str(tmp_path / "slots")
    opened = Slots.open(path, 1, STORE, 0)
    worker = writer(path, 1)
    done = threading.Event()

    def write() -> None:
        for number in range(1, 20_000):
            worker.start(number, number * 10)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        _, token, since_ns = opened.read(1)
        assert since_ns >= token * 10, "a running limit is never shortened"
    thread.join()
    assert opened.read(1)[1:] == (19_999, 199_990)


def test_a_worker_that_died_between_two_stores_counts_as_started(tmp_path: Path) -> None:
    path = str(tmp_path / "slots")
    opened = Slots.open(path, 1, STORE, 0)
    worker = writer(path, 1)
    worker.start(5, 50)
    worker._words[worker._base + slots._SINCE] = 60
    worker._words[worker._base + slots._TOKEN] = 6
    assert opened.read(1)[1:] == (6, 60)
