"""The reader goes over archive and active segment as one log, and tells what breaks it."""

from __future__ import annotations

import pytest

from beaver.journal.port import append_now
from beaver.journal.wal import reader
from beaver.journal.wal.format import FileHeader, encode_file_header
from beaver.journal.wal.reader import LogScan, read_commits, segments
from beaver.journal.wal.scan import Damage, Damaged
from beaver_chaos.sim.disk import SimDisk
from tests.worlds.journal import (
    DATA,
    STORE,
    append,
    enqueued,
    new_disk,
    open_sim,
    prepare,
    sealed_disk,
)


def names(disk: SimDisk, after_seq: int = 0, until_seq: int | None = None) -> list[str]:
    return [
        getattr(event, "job", event.NAME)
        for _, _, events in read_commits(disk, DATA, after_seq, until_seq)
        for event in events
    ]


def test_commits_come_from_archive_and_active_segment_in_order() -> None:
    disk = sealed_disk(segments=3, jobs=2)
    assert names(disk) == ["BOOT", *(f"job-{s}-{n}" for s in range(3) for n in range(2))]
    assert [info.first_seq for info in segments(disk, DATA)] == [1, 4, 6]
    assert [info.archived for info in segments(disk, DATA)] == [True, True, False]


@pytest.mark.parametrize("after", range(9))
def test_reading_begins_behind_the_seq_asked_for(after: int) -> None:
    disk = sealed_disk(segments=3, jobs=2)
    assert names(disk, after) == names(disk)[after:]


@pytest.mark.parametrize("until", range(9))
def test_reading_stops_at_the_seq_asked_for(until: int) -> None:
    disk = sealed_disk(segments=3, jobs=2)
    assert names(disk, 0, until) == names(disk)[:until]


def test_a_commit_across_the_bounds_is_given_once_and_cut_at_the_end() -> None:
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    append(wal, *(enqueued(f"j{n}") for n in range(1, 6)), time_ms=9)
    commits = list(read_commits(disk, DATA, 2, 4))
    assert [(first, time, len(events)) for first, time, events in commits] == [(1, 9, 4)]


def test_only_segments_that_are_needed_are_read() -> None:
    disk = sealed_disk(segments=3)
    disk.flip(DATA.archived(1), 80, 0)
    assert len(names(disk, after_seq=3)) == 4
    with pytest.raises(Damaged):
        names(disk, after_seq=2)


def test_an_empty_directory_has_no_segments() -> None:
    assert segments(SimDisk("data"), DATA) == []
    assert names(SimDisk("data")) == []


def test_torn_tail_ends_the_log_for_a_reader() -> None:
    disk = new_disk()
    data = disk.contents(DATA.log).rstrip(b"\0")
    disk.put(DATA.log, data[:-3])
    assert names(disk) == ["BOOT", "job-0", "job-1"]


def test_missing_segment_in_the_middle_is_a_gap_that_names_seq_and_file() -> None:
    disk = sealed_disk()
    disk.unlink(DATA.archived(4))
    with pytest.raises(Damaged) as raised:
        names(disk)
    assert (raised.value.damage, raised.value.seq) == (Damage.GAP, 4)
    assert raised.value.file == DATA.log


def test_log_that_begins_later_than_asked_is_a_gap() -> None:
    disk = sealed_disk()
    disk.unlink(DATA.archived(1))
    assert names(disk, after_seq=3) == [f"job-{s}-{n}" for s in (1, 2) for n in range(2)]
    with pytest.raises(Damaged) as raised:
        names(disk, after_seq=2)
    assert (raised.value.damage, raised.value.seq) == (Damage.GAP, 3)


def test_archive_without_active_segment_is_refused() -> None:
    disk = sealed_disk()
    disk.unlink(DATA.log)
    with pytest.raises(Damaged) as raised:
        segments(disk, DATA)
    assert raised.value.damage == Damage.MISSING


def test_segment_of_another_store_is_refused_by_name() -> None:
    disk = sealed_disk()
    header = encode_file_header(FileHeader(bytes(16), 4, 0))
    disk.put(DATA.archived(4), header + disk.contents(DATA.archived(4))[64:])
    with pytest.raises(Damaged, match="belongs to the store 0000") as raised:
        segments(disk, DATA)
    assert raised.value.damage == Damage.FOREIGN


def test_segment_under_another_name_is_refused() -> None:
    disk = sealed_disk()
    disk.rename(DATA.archived(4), DATA.archived(5))
    with pytest.raises(Damaged) as raised:
        segments(disk, DATA)
    assert raised.value.damage == Damage.FOREIGN


def test_active_segment_older_than_the_archive_is_refused() -> None:
    disk = sealed_disk()
    disk.put(DATA.log, disk.contents(DATA.archived(1)))
    with pytest.raises(Damaged) as raised:
        segments(disk, DATA)
    assert raised.value.damage == Damage.CHAIN


def test_segment_that_follows_another_crc_is_refused() -> None:
    disk = sealed_disk()
    header = FileHeader(STORE, 4, 12345)
    disk.put(DATA.archived(4), encode_file_header(header) + disk.contents(DATA.archived(4))[64:])
    with pytest.raises(Damaged) as raised:
        names(disk)
    assert raised.value.damage == Damage.CHAIN


def test_first_segment_must_begin_with_the_seed_of_the_store() -> None:
    disk = new_disk()
    disk.put(DATA.log, encode_file_header(FileHeader(STORE, 1, 7)) + disk.contents(DATA.log)[64:])
    with pytest.raises(Damaged) as raised:
        names(disk)
    assert raised.value.damage == Damage.CHAIN


def test_sealed_segment_cut_anywhere_in_its_last_frames_is_refused() -> None:
    disk = sealed_disk()
    path = DATA.archived(4)
    whole = disk.contents(path).rstrip(b"\0")
    for size in range(64, len(whole)):
        if not whole[size:].strip(b"\0"):
            continue
        disk.put(path, whole[:size])
        with pytest.raises(Damaged) as raised:
            names(disk)
        assert raised.value.damage in {Damage.CUT, Damage.FRAME}, size
        assert raised.value.file == path


def test_payload_with_another_count_is_refused() -> None:
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    assert wal.reserve(100)
    append_now(wal, b"\x92\x05\x90", 2)
    with pytest.raises(Damaged, match="says 2 events and holds 0") as raised:
        names(disk)
    assert (raised.value.damage, raised.value.seq) == (Damage.PAYLOAD, 1)


def test_other_files_in_the_archive_are_left_alone() -> None:
    disk = sealed_disk()
    disk.put(f"{DATA.archive}/notes.txt", b"mine")
    assert len(segments(disk, DATA)) == 3


def test_active_segment_that_is_sealed_while_it_is_read_is_found_in_the_archive() -> None:
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    append(wal, enqueued("one"))
    infos = segments(disk, DATA)
    prepare(disk, wal)
    assert wal.seal()
    append(wal, enqueued("two"))
    assert sum(frame.count for frame in LogScan(disk, DATA, infos, 0)) == 1


class SealingDisk(SimDisk):
    """Seals the active segment whenever the archive is listed, so many times."""

    def __init__(self) -> None:
        super().__init__("data")
        self.jobs = self.seals = 0
        self.wal = open_sim(self).journal
        self.work()

    def work(self) -> None:
        append(self.wal, enqueued(f"job-{self.jobs}"))
        self.jobs += 1

    def listdir(self, path: str) -> list[str]:
        found = super().listdir(path)
        if self.seals:
            self.seals -= 1
            prepare(self, self.wal)
            assert self.wal.seal()
            self.work()
        return found


@pytest.mark.parametrize("seals", [1, 2, 5])
def test_segments_that_are_sealed_during_the_listing_are_not_missed(seals: int) -> None:
    disk = SealingDisk()
    disk.seals = seals
    assert len(names(disk)) == disk.jobs


def test_twin_of_the_active_segment_is_listed_once() -> None:
    disk = sealed_disk()
    disk.link(DATA.log, DATA.archived(6))
    assert [info.first_seq for info in segments(disk, DATA)] == [1, 4, 6]


def test_frames_gives_a_scan_of_one_file() -> None:
    disk = new_disk()
    file = disk.open(DATA.log)
    scan = reader.frames(file, DATA.log)
    assert sum(frame.count for frame in scan) == 4
