"""Each row of the recovery table: it ends in "and appending works", or in the exact refusal."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import NoReturn

import pytest

from beaver.errors import (
    Corruption,
    DiskFull,
    NewerFormat,
    NotFound,
    StorageFailed,
    StoreUnavailable,
)
from beaver.journal.codec import encode_commit
from beaver.journal.port import append_now
from beaver.journal.wal.format import FileHeader, encode_file_header, encode_frame, header_seed
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.opening import peek_store
from beaver.journal.wal.recovery_table import RecoveryRow
from beaver.journal.wal.scan import Damage, Damaged
from beaver.snapshot.files import write_snapshot
from beaver.store.recovery import open_store, read_store
from beaver_chaos.sim.disk import Fault, SimDisk, SimFile
from beaver_model.events import Dispatched
from tests.worlds.journal import (
    DATA,
    STORE,
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

_REFUSALS = {
    Damage.HEADER: RecoveryRow.BAD_HEADER,
    Damage.FRAME: RecoveryRow.BAD_FRAME,
    Damage.CHAIN: RecoveryRow.BROKEN_CHAIN,
    Damage.GAP: RecoveryRow.GAP,
    Damage.FOREIGN: RecoveryRow.FOREIGN,
    Damage.CUT: RecoveryRow.CUT_ARCHIVE,
    Damage.MISSING: RecoveryRow.LOG_MISSING,
    Damage.PAYLOAD: RecoveryRow.BAD_PAYLOAD,
    Damage.ILLEGAL: RecoveryRow.ILLEGAL_EVENT,
    Damage.NO_BASE: RecoveryRow.NO_BASE,
    Damage.TOO_SHORT: RecoveryRow.LOG_TOO_SHORT,
}


def row_of(error: Corruption | NewerFormat) -> RecoveryRow | None:
    """Returns the row that a refusal belongs to; `None` for corruption found elsewhere."""
    if isinstance(error, NewerFormat):
        return RecoveryRow.NEWER_FORMAT
    return _REFUSALS[error.damage] if isinstance(error, Damaged) else None


def rows_met(disk: SimDisk, **expected: int) -> list[RecoveryRow]:
    """Opens the store, checks that it goes on, and returns the rows of the table."""
    opened = goes_on(disk, **expected)
    return [row for row in RecoveryRow if row.label in opened.report.rows]


def refused(
    disk: SimDisk, row: RecoveryRow, *, file: str = "", offset: int = -1, seq: int = -1
) -> str:
    """Checks that the store is refused as that row, with nothing changed, also for readers."""
    if not disk.exists(DATA.lock):
        disk.put(DATA.lock, b"")  # Nothing is owned without one.
    before = {name: disk.contents(name) for name in files(disk)}
    disk.kill()
    operations = disk.operations
    with pytest.raises((Corruption, NewerFormat)) as raised:
        open_sim(disk)
    assert disk.operations == operations, "a refusal changes nothing"
    assert {name: disk.contents(name) for name in files(disk)} == before
    error = raised.value
    assert isinstance(error, Corruption | NewerFormat)
    assert row_of(error) == row
    if isinstance(error, Corruption):
        assert file in ("", error.file)
        assert offset in (-1, error.offset)
        assert seq in (-1, error.seq)
        assert error.exit_code == 4
    else:
        assert error.exit_code == 8
    with pytest.raises(type(error)):
        read_store(disk, "data")
    return str(error)


def files(disk: SimDisk) -> list[str]:
    names = [f"data/{name}" for name in disk.listdir("data") if name != "archive"]
    if disk.exists(DATA.archive):
        names += [f"{DATA.archive}/{name}" for name in disk.listdir(DATA.archive)]
    return names


def snapshot(disk: SimDisk, seq: int | None = None) -> None:
    """Takes a snapshot of the store as it stands, or as it stood at `seq`."""
    source = disk.copy()
    if source.exists(DATA.snapshot):
        source.unlink(DATA.snapshot)
    if source.exists(DATA.snapshot_old):
        source.unlink(DATA.snapshot_old)
    state, _ = read_store(source, "data")
    if seq is not None:
        from beaver.journal.wal.reader import read_commits
        from beaver_model import State, replay

        state = State()
        for first, time_ms, events in read_commits(source, DATA, 0, seq):
            replay(state, first, time_ms, events)
    write_snapshot(disk, DATA, state, STORE)


# -- no log ------------------------------------------------------------------------------------


def test_new_store_is_made_where_nothing_is() -> None:
    disk = SimDisk("data")
    opened = open_sim(disk)
    assert opened.report.rows == [RecoveryRow.NEW_STORE.label, RecoveryRow.EMPTY_LOG.label]
    disk.crash(lambda n: 0)
    assert rows_met(disk, jobs=0) == [RecoveryRow.EMPTY_LOG]
    assert peek_store(disk, "data") == STORE


def test_new_store_in_a_new_directory_survives_a_power_cut_at_once() -> None:
    disk = SimDisk("home")
    opened = open_store(disk, "home/data", clock=StillClock(), create=True, store=STORE)
    append(opened.journal, enqueued("a"))
    disk.crash(lambda n: 0)
    assert read_store(disk, "home/data")[0].last_seq == 1


def test_no_store_is_made_unasked() -> None:
    disk = SimDisk("data")
    with pytest.raises(NotFound):
        open_sim(disk, create=False)
    with pytest.raises(NotFound):
        read_store(disk, "data")
    assert disk.operations == 0
    assert peek_store(disk, "data") is None


@pytest.mark.parametrize("content", [b"", bytes(100), b"torn header"])
def test_only_a_prepared_segment_means_that_creation_was_cut_short(content: bytes) -> None:
    disk = SimDisk("data", "data/archive")
    disk.put(DATA.next, content)
    assert open_sim(disk).report.rows[0] == RecoveryRow.PREPARED_ONLY.label
    disk.kill()
    goes_on(disk, jobs=0)
    assert not disk.exists(DATA.next)


@pytest.mark.parametrize(
    "sign", [DATA.snapshot, DATA.snapshot_old, DATA.history, DATA.broken("x"), DATA.archived(1)]
)
def test_missing_log_is_refused_where_something_shows_that_there_was_one(sign: str) -> None:
    disk = sealed_disk()
    if sign == DATA.snapshot:
        snapshot(disk)
    content = disk.contents(sign) if disk.exists(sign) else b"something"
    bare = SimDisk("data", "data/archive")
    bare.put(sign, content)
    assert "there was one" in refused(bare, RecoveryRow.LOG_MISSING, file=DATA.log)


# -- the end of the log ----------------------------------------------------------------------


def test_killed_writer_leaves_an_open_end() -> None:
    assert rows_met(new_disk(), jobs=3) == [RecoveryRow.OPEN_END]


def test_killed_writer_that_was_idle_leaves_a_marked_end() -> None:
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    append(wal, enqueued("a"))
    wal.idle()
    disk.kill()
    assert rows_met(disk, jobs=1) == [RecoveryRow.MARKED_END]


def test_clean_end_is_closed() -> None:
    disk = new_disk()
    open_sim(disk).journal.close()
    assert rows_met(disk, jobs=3) == [RecoveryRow.CLOSED_END]


def test_every_cut_of_the_last_frame_goes_on_with_all_that_was_acknowledged() -> None:
    whole = new_disk().contents(DATA.log).rstrip(b"\0")
    whole += bytes(-len(whole) % 8)
    start = len(new_disk(2).contents(DATA.log).rstrip(b"\0"))
    start += -start % 8
    for size in range(start + 1, len(whole)):
        if not whole[size:].strip(b"\0"):
            continue
        for room in (0, 500):
            disk = new_disk()
            disk.put(DATA.log, whole[:size] + bytes(room))
            assert RecoveryRow.TORN_TAIL in rows_met(disk, jobs=2, seq=3)


def test_torn_tail_is_kept_and_zeroed_and_synced() -> None:
    disk = new_disk()
    whole = disk.contents(DATA.log)
    end = len(whole.rstrip(b"\0"))
    garbage = b"remains" * 300
    disk.put(DATA.log, whole[:end] + bytes(16) + garbage + bytes(1_000))
    opened = open_sim(disk)
    report = opened.report
    assert RecoveryRow.TORN_TAIL.label in report.rows
    assert report.broken == "data/wal.log.broken-20231114T221320.000Z"
    disk.crash(lambda n: 0)
    kept = disk.contents(report.broken)
    assert kept.endswith(garbage)
    assert len(kept) == report.torn_tail_bytes
    assert not disk.contents(DATA.log)[end:].strip(b"\0")
    goes_on(disk, jobs=3)


def test_second_torn_tail_of_the_same_moment_does_not_replace_the_first() -> None:
    disk = new_disk()
    for number in range(3):
        data = disk.contents(DATA.log).rstrip(b"\0")
        disk.put(DATA.log, data + bytes(64) + b"junk %d" % number)
        open_sim(disk).journal.abandon()
        disk.kill()
    kept = [name for name in disk.listdir("data") if ".broken-" in name]
    assert len(kept) == 3
    assert len({disk.contents(f"data/{name}") for name in kept}) == 3


def test_full_disk_does_not_keep_a_torn_store_from_starting() -> None:
    disk = new_disk()
    whole = disk.contents(DATA.log)
    end = len(whole.rstrip(b"\0"))
    disk.put(DATA.log, whole[:end] + bytes(16) + b"junk" + whole[end + 20 :])
    disk.capacity = len(whole)
    opened = open_sim(disk)
    assert opened.report.broken == ""
    assert [name for name in disk.listdir("data") if "broken" in name] == []
    append(opened.journal, enqueued("more"))


@pytest.mark.parametrize("number", range(3))
def test_flipped_bit_in_a_frame_before_the_last_is_refused_with_offset_and_seq(number: int) -> None:
    disk = new_disk()
    offsets = [64]
    for frame in range(3):
        size = len(new_disk(frame).contents(DATA.log).rstrip(b"\0"))
        offsets.append(size + -size % 8)
    disk.flip(DATA.log, offsets[number] + 40, 3)
    refused(disk, RecoveryRow.BAD_FRAME, file=DATA.log, offset=offsets[number], seq=number + 1)


def test_flipped_bit_in_the_last_frame_is_refused_once_it_was_marked() -> None:
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    append(wal, enqueued("a"))
    wal.idle()
    disk.flip(DATA.log, 64 + 40, 0)
    refused(disk, RecoveryRow.BAD_FRAME, offset=64, seq=1)


def test_damaged_file_header_is_refused() -> None:
    for offset in range(64):
        disk = new_disk()
        disk.flip(DATA.log, offset, offset % 8)
        refused(disk, RecoveryRow.BAD_HEADER, file=DATA.log, offset=0)


@pytest.mark.parametrize("size", [0, 10, 63])
def test_log_shorter_than_its_header_is_refused(size: int) -> None:
    disk = new_disk()
    disk.put(DATA.log, disk.contents(DATA.log)[:size])
    refused(disk, RecoveryRow.BAD_HEADER)


def test_zeroed_log_is_refused() -> None:
    disk = new_disk()
    disk.put(DATA.log, bytes(5_000))
    refused(disk, RecoveryRow.BAD_HEADER)


def test_last_frame_that_lives_in_the_page_cache_alone_is_made_durable() -> None:
    """A sync failed, the process ended; the next one acknowledges what it has read."""
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    append(wal, enqueued("a"))
    disk.plan(disk.operations + 1, Fault(errno.EIO, done_bytes=-1))
    with pytest.raises(StorageFailed):
        append(wal, enqueued("b"))
    disk.kill()
    assert set(open_sim(disk).state.jobs) == {"a", "b"}
    disk.crash(lambda n: 0)
    assert set(open_sim(disk).state.jobs) == {"a", "b"}
    disk.kill()
    goes_on(disk, jobs=2)


def test_page_that_is_dropped_between_reading_and_rewriting_is_rewritten_as_read() -> None:
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    append(wal, enqueued("a"))
    disk.plan(disk.operations + 1, Fault(errno.EIO, done_bytes=-1))
    with pytest.raises(StorageFailed):
        append(wal, enqueued("b"))
    disk.kill()
    real_exists = disk.exists

    def dropping_exists(path: str) -> bool:
        if path == DATA.next:  # The first look of the repairs.
            disk.evict(lambda n: 0)
        return real_exists(path)

    disk.exists = dropping_exists  # type: ignore[method-assign]
    assert set(open_sim(disk).state.jobs) == {"a", "b"}
    disk.crash(lambda n: 0)
    goes_on(disk, jobs=2)


# -- sealing -----------------------------------------------------------------------------------


def test_prepared_segment_is_dropped() -> None:
    disk = new_disk()
    wal = open_sim(disk).journal
    prepare(disk, wal)
    disk.crash(lambda n: 1)
    disk.put(DATA.next, bytes(100))
    again = disk.copy()
    open_sim(again)
    again.crash(lambda n: 0)
    assert again.listdir("data") == ["LOCK", "archive", "wal.log"], "and durably so"
    assert rows_met(disk, jobs=3) == [RecoveryRow.OPEN_END, RecoveryRow.PREPARED_UNUSED]


@pytest.mark.parametrize(
    ("step", "row"),
    [
        (1, RecoveryRow.PREPARED_UNUSED),
        (2, RecoveryRow.SEALING_NOT_LINKED),
        (3, RecoveryRow.SEALING_LINKED),
        (4, RecoveryRow.SEALING_LINKED),
        (5, RecoveryRow.SEALED_EMPTY),
        (6, RecoveryRow.SEALED_EMPTY),
    ],
)
def test_writer_killed_behind_each_step_of_sealing(step: int, row: RecoveryRow) -> None:
    disk = new_disk()
    wal = open_sim(disk).journal
    prepare(disk, wal)
    operation = disk.operations + step
    disk.plan(operation, Fault(0, done_bytes=-1, done=True))
    with pytest.raises(BaseException, match="data"):
        wal.seal()
    assert disk.operations == operation
    disk.kill()
    assert row in rows_met(disk, jobs=3)
    assert disk.listdir("data") == ["LOCK", "archive", "wal.log"]


def test_writer_killed_behind_sealing_finds_the_last_events_in_the_archive() -> None:
    disk = new_disk()
    wal = open_sim(disk).journal
    prepare(disk, wal)
    assert wal.seal()
    disk.kill()
    assert rows_met(disk, jobs=3, seq=4) == [RecoveryRow.SEALED_EMPTY]


def test_copy_of_a_directory_that_was_being_sealed_goes_on() -> None:
    disk = new_disk()
    open_sim(disk).journal.close()
    disk.link(DATA.log, DATA.archived(1))
    copied = disk.copy()
    assert not copied.same_file(DATA.log, DATA.archived(1))
    assert RecoveryRow.SEALING_COPIED in rows_met(copied, jobs=3)


def test_two_different_segments_of_one_first_seq_are_refused() -> None:
    disk = new_disk()
    other = new_disk(2)
    open_sim(other).journal.close()
    disk.put(DATA.archived(1), other.contents(DATA.log))
    with pytest.raises(Corruption) as raised:
        open_sim(disk)
    assert row_of(raised.value) == RecoveryRow.BROKEN_CHAIN


# -- segments that do not fit --------------------------------------------------------------------


def test_gap_in_the_archive_is_refused() -> None:
    disk = sealed_disk()
    disk.unlink(DATA.archived(4))
    refused(disk, RecoveryRow.GAP, file=DATA.log, seq=4)


def test_gap_behind_the_snapshot_is_refused() -> None:
    disk = sealed_disk()
    snapshot(disk, 3)
    disk.unlink(DATA.archived(1))
    disk.unlink(DATA.archived(4))
    refused(disk, RecoveryRow.GAP, seq=4)


def test_pruned_archive_below_the_snapshot_goes_on() -> None:
    disk = sealed_disk()
    snapshot(disk, 3)
    disk.unlink(DATA.archived(1))
    assert rows_met(disk, jobs=6, seq=7) == [RecoveryRow.OPEN_END]


def test_segment_of_another_chain_is_refused() -> None:
    disk = sealed_disk()
    header = encode_file_header(FileHeader(STORE, 6, 99))
    disk.put(DATA.log, header + disk.contents(DATA.log)[64:])
    refused(disk, RecoveryRow.BROKEN_CHAIN, file=DATA.log)


def test_segment_cut_in_the_archive_is_refused() -> None:
    disk = sealed_disk()
    path = DATA.archived(4)
    disk.put(path, disk.contents(path).rstrip(b"\0")[:-40])
    refused(disk, RecoveryRow.CUT_ARCHIVE, file=path)


def test_log_of_another_store_beside_our_archive_is_refused() -> None:
    disk, other = sealed_disk(), SimDisk("data")
    open_store(other, "data", clock=StillClock(), create=True, store=b"another store id")
    disk.put(DATA.log, other.contents(DATA.log))
    assert "belongs to the store" in refused(disk, RecoveryRow.FOREIGN)


def test_snapshot_of_another_store_is_refused() -> None:
    disk = new_disk()
    state, _ = read_store(disk, "data")
    write_snapshot(disk, DATA, state, b"another store id")
    refused(disk, RecoveryRow.FOREIGN, file=DATA.snapshot)


# -- snapshots -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seq", range(8))
def test_any_snapshot_gives_the_state_of_the_whole_log(seq: int) -> None:
    disk = sealed_disk()
    whole, _ = read_store(disk, "data")
    snapshot(disk, seq)
    opened = goes_on(disk, jobs=6, seq=7)
    assert (opened.report.base, opened.report.snapshot_seq) == ("snapshot", seq)
    assert opened.report.events == 7 - seq
    assert opened.report.snapshot_bytes > 0
    state, report = read_store(sealed_disk(), "data")
    assert same(state, whole)
    assert report.base == "none"


def test_damaged_snapshot_falls_back_to_the_older_one() -> None:
    disk = sealed_disk()
    snapshot(disk, 3)
    snapshot(disk, 5)
    disk.flip(DATA.snapshot, 50, 1)
    assert rows_met(disk, jobs=6, seq=7) == [RecoveryRow.OPEN_END, RecoveryRow.SNAPSHOT_DAMAGED]


def test_missing_snapshot_falls_back_to_the_older_one() -> None:
    disk = sealed_disk()
    snapshot(disk, 3)
    disk.rename(DATA.snapshot, DATA.snapshot_old)
    opened = goes_on(disk, jobs=6, seq=7)
    assert RecoveryRow.SNAPSHOT_MISSING.label in opened.report.rows
    assert opened.report.base == "older snapshot"


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\0" * 4_096])
def test_useless_snapshots_fall_back_to_the_whole_log(content: bytes) -> None:
    disk = sealed_disk()
    disk.put(DATA.snapshot, content)
    disk.put(DATA.snapshot_old, content)
    assert rows_met(disk, jobs=6, seq=7) == [RecoveryRow.OPEN_END, RecoveryRow.SNAPSHOTS_USELESS]


@pytest.mark.parametrize("damaged", [True, False])
def test_no_good_snapshot_and_no_whole_log_is_refused(damaged: bool) -> None:
    disk = sealed_disk()
    if damaged:
        disk.put(DATA.snapshot, b"rotten")
    disk.unlink(DATA.archived(1))
    refused(disk, RecoveryRow.NO_BASE, file=DATA.snapshot)


def test_snapshot_newer_than_the_log_is_refused() -> None:
    disk = new_disk()
    snapshot(disk)
    disk.put(DATA.log, new_disk(2).contents(DATA.log))
    refused(disk, RecoveryRow.LOG_TOO_SHORT, file=DATA.log, seq=4)


def test_rot_of_the_last_frame_is_refused_where_a_snapshot_shows_it() -> None:
    disk = new_disk()
    snapshot(disk)
    end = len(disk.contents(DATA.log).rstrip(b"\0"))
    disk.flip(DATA.log, end - 9, 0)
    refused(disk, RecoveryRow.LOG_TOO_SHORT)


# -- what the frames say ---------------------------------------------------------------------------


def add_frame(disk: SimDisk, payload: bytes, count: int = 1, flags: int = 0) -> None:
    wal = open_sim(disk).journal
    assert wal.reserve(len(payload) + 64)
    if flags:
        scan_crc, seed = wal.position.crc, header_seed(STORE)
        frame, _ = encode_frame(
            payload, count, wal.next_seq, flags, previous_crc=scan_crc, seed=seed
        )
        file = disk.open(DATA.log, write=True)
        file.pwrite_durable(frame, wal.used)
    else:
        append_now(wal, payload, count)
    disk.kill()


def test_frame_that_holds_no_commit_is_refused() -> None:
    disk = new_disk()
    add_frame(disk, b"\xc1 nonsense")
    refused(disk, RecoveryRow.BAD_PAYLOAD, file=DATA.log, seq=5)


def test_illegal_event_is_refused_with_its_seq() -> None:
    disk = new_disk()
    add_frame(disk, encode_commit(5, [enqueued("x"), Dispatched("nobody", 1)]), 2)
    assert "nobody" in refused(disk, RecoveryRow.ILLEGAL_EVENT, seq=6)


def test_unknown_event_is_a_newer_format() -> None:
    disk = new_disk()
    add_frame(disk, b"\x92\x05\x91\x92\x63\x01")
    assert "tag 99" in refused(disk, RecoveryRow.NEWER_FORMAT)


def test_unknown_frame_flag_is_a_newer_format() -> None:
    disk = new_disk()
    add_frame(disk, b"", 0, flags=64)
    refused(disk, RecoveryRow.NEWER_FORMAT)


def test_newer_log_format_is_named() -> None:
    disk = new_disk()
    header = encode_file_header(FileHeader(STORE, 1, 0, version=2))
    disk.put(DATA.log, header + disk.contents(DATA.log)[64:])
    assert "log format 2" in refused(disk, RecoveryRow.NEWER_FORMAT)


def test_every_row_of_the_table_is_met_or_refused_by_a_test_above() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"RecoveryRow\.([A-Z_]+)", source)) == {row.name for row in RecoveryRow}


# -- what else may go wrong ----------------------------------------------------------------------


def test_error_of_a_read_or_a_repair_is_a_failure_of_the_storage_and_loses_nothing() -> None:
    probe = new_disk()
    first = probe.reads + 1
    open_sim(probe)
    reads = probe.reads - first + 1
    for number in range(reads):
        disk = new_disk()
        disk.plan_read_error(disk.reads + 1 + number)
        with pytest.raises(StorageFailed):
            open_sim(disk)
        disk.kill()
        goes_on(disk, jobs=3)


def test_permission_is_told_as_such() -> None:
    class Forbidden(SimDisk):
        def open(self, path: str, *, write: bool = False, create: bool = False) -> NoReturn:
            raise PermissionError(errno.EACCES, "Permission denied", path)

    disk = Forbidden("data")
    disk.put(DATA.log, new_disk().contents(DATA.log))
    with pytest.raises(StoreUnavailable, match="Permission denied"):
        open_sim(disk)


def test_data_directory_that_is_a_file_is_told_as_such() -> None:
    disk = SimDisk()
    disk.put("data", b"I am a file")
    with pytest.raises(StoreUnavailable):
        open_sim(disk)
    with pytest.raises(StoreUnavailable):
        read_store(disk, "data")


def test_no_room_for_a_new_store_is_a_full_disk_and_leaves_nothing() -> None:
    disk = SimDisk("data", capacity=1_000)
    with pytest.raises(DiskFull):
        open_sim(disk)
    assert disk.listdir("data") == ["LOCK", "archive"]
    disk.capacity = 1 << 30
    open_sim(disk)


def test_reading_writes_nothing_whatever_it_finds() -> None:
    disk = new_disk()
    data = disk.contents(DATA.log).rstrip(b"\0")
    disk.put(DATA.log, data[:-3] + bytes(100))
    disk.put(DATA.next, bytes(100))
    operations = disk.operations
    state, report = read_store(disk, "data")
    assert disk.operations == operations
    assert (state.last_seq, report.torn_tail_bytes > 0) == (3, True)


def test_reader_starts_over_where_the_archive_is_pruned_under_it() -> None:
    disk = sealed_disk()

    class Pruning(SimDisk):
        pruned = False

        def open(self, path: str, *, write: bool = False, create: bool = False) -> SimFile:
            if path == DATA.archived(1) and not self.pruned:
                self.pruned = True
                snapshot(self)
                self.unlink(path)
            return super().open(path, write=write, create=create)

    pruning = Pruning("data", "data/archive")
    for name in files(disk):
        pruning.put(name, disk.contents(name))
    state, report = read_store(pruning, "data")
    assert (state.last_seq, report.base) == (7, "snapshot")


def test_report_says_what_was_read_and_how_long_it_took() -> None:
    _, report = read_store(sealed_disk(), "data", clock=StillClock())
    assert (report.frames, report.events) == (9, 7)
    assert set(report.seconds) == {"inspect", "load", "replay", "index"}
    assert set(open_sim(new_disk()).report.seconds) == {
        "inspect",
        "load",
        "replay",
        "index",
        "open",
    }


def test_layout_names_archived_segments_in_the_order_of_their_seqs() -> None:
    names = [Layout("d").archived(seq) for seq in (1, 9, 10, 123_456_789_012)]
    assert names == sorted(names)
