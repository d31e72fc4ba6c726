"""The writer keeps its promises: durable on return, room first, useless after a failure."""

from __future__ import annotations

import errno

import pytest

from beaver.errors import StorageFailed
from beaver.journal.codec import encode_commit
from beaver.journal.port import Appended, AppendOutcome, append_now
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.format import CLOSE, EMPTY_FRAME_BYTES, MARK, frame_bytes
from beaver.journal.wal.log import Wal
from beaver.journal.wal.reader import read_commits, segments
from beaver.journal.wal.scan import EndKind, SegmentScan, read_header
from beaver.journal.wal.zeros import EXTEND_BYTES
from beaver_chaos.sim.disk import Fault, SimDisk, SimFile
from beaver_model.events import JobEvent
from tests.stateful.played import PlayedWriter
from tests.worlds.journal import DATA, append, enqueued, open_sim, prepare, prepare_segment


def new_wal() -> tuple[SimDisk, Wal]:
    disk = SimDisk("data")
    return disk, open_sim(disk).journal


def jobs_in(disk: SimDisk) -> list[str]:
    """Returns the jobs of the log's events, in order."""
    events = (event for _, _, events in read_commits(disk, DATA, 0) for event in events)
    return [event.job for event in events if isinstance(event, JobEvent)]


def scan_log(disk: SimDisk) -> SegmentScan:
    file = disk.open(DATA.log)
    scan = SegmentScan(file, DATA.log, read_header(file, DATA.log))
    scan.read()
    return scan


def nothing_survives(_: int) -> int:
    return 0


def test_what_append_returned_from_survives_a_power_cut_that_takes_all_else() -> None:
    disk, wal = new_wal()
    for number in range(20):
        append(wal, enqueued(f"job-{number}", b"x" * 100 * number))
        copy = scan_log(disk).next_seq
        assert copy == wal.next_seq
    disk.crash(nothing_survives)
    assert scan_log(disk).last_seq == 20


def test_last_seq_counts_events_not_frames() -> None:
    _, wal = new_wal()
    assert (wal.last_seq, wal.next_seq) == (0, 1)
    append(wal, enqueued("a"), enqueued("b"))
    wal.idle()
    append(wal, enqueued("c"))
    assert (wal.last_seq, wal.next_seq) == (3, 4)


def test_mark_closes_the_last_frame_once() -> None:
    disk, wal = new_wal()
    wal.idle()
    assert scan_log(disk).frames == 0, "there is nothing to close"
    append(wal, enqueued("a"))
    wal.idle()
    wal.idle()
    scan = scan_log(disk)
    assert (scan.frames, scan.flags) == (2, MARK)


def test_close_ends_the_log_durably_and_gives_up_the_files() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    wal.idle()
    wal.close()
    disk.crash(nothing_survives)
    assert scan_log(disk).flags == CLOSE
    with pytest.raises(StorageFailed, match="closed"):
        wal.idle()


def test_closing_and_opening_without_events_adds_one_close_only() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    wal.close()
    for _ in range(3):
        open_sim(disk).journal.close()
    assert scan_log(disk).frames == 2


def test_every_kind_of_failed_write_makes_the_log_useless() -> None:
    for fault in (
        Fault(errno.EIO),
        Fault(errno.EIO, done_bytes=-1),
        Fault(errno.EIO, done_bytes=10),
        Fault(errno.ENOSPC),
    ):
        disk, wal = new_wal()
        append(wal, enqueued("a"))
        disk.plan(disk.operations + 1, fault)
        with pytest.raises(StorageFailed, match=r"wal\.log: writing \d+ bytes at offset"):
            append(wal, enqueued("b"))
        operations = disk.operations
        for call in (wal.idle, wal.close, wal.seal):
            with pytest.raises(StorageFailed):
                call()
        with pytest.raises(StorageFailed):
            wal.reserve(1)
        with pytest.raises(StorageFailed):
            append(wal, enqueued("c"))
        with pytest.raises(StorageFailed):
            wal.adopt(DATA.next)
        assert disk.operations == operations, "not another operation after a failure"
        wal.abandon()


def test_an_interrupt_inside_a_write_lets_nothing_be_written_over_the_frame() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    disk.plan(disk.operations + 1, Fault(0, done_bytes=-1))
    with pytest.raises(BaseException, match=r"wal\.log"):
        append(wal, enqueued("b"))
    with pytest.raises(StorageFailed, match="interrupted"):
        wal.close()
    assert scan_log(disk).last_seq == 2


def test_nothing_is_written_while_a_frame_is_in_other_hands() -> None:
    """The writer process has it: a MARK, a CLOSE or a seal behind it would come too early."""
    disk, writer, outcomes = SimDisk("data"), PlayedWriter(), list[AppendOutcome]()
    wal = open_sim(disk, commits=CommitPath(lambda _: writer, "writer")).journal
    append(wal, enqueued("a"))
    payload = encode_commit(5, [enqueued("b")])
    assert wal.reserve(frame_bytes(len(payload)))
    wal.append(wal.position, payload, 1, outcomes.append)
    operations = disk.operations
    assert wal.reserve(wal.room), "room behind the frame can be promised"
    for call in (wal.idle, wal.seal):
        with pytest.raises(StorageFailed):
            call()
    assert (disk.operations, outcomes) == (operations, [])
    assert wal.reserve(wal.room + 1), "more room is made once the frame is written"
    assert [type(outcome) for outcome in outcomes] == [Appended]
    append(wal, enqueued("c"))
    wal.close()
    disk.crash(nothing_survives)
    assert scan_log(disk).last_seq == 3


# -- room --------------------------------------------------------------------------------------


def test_new_store_has_room_at_once_without_a_prepared_segment() -> None:
    disk, wal = new_wal()
    operations = disk.operations
    assert wal.reserve(100_000)
    assert disk.operations == operations
    assert len(disk.contents(DATA.log)) == EXTEND_BYTES


def test_reserve_extends_by_what_is_missing_and_at_least_a_mebibyte() -> None:
    disk, wal = new_wal()
    assert wal.reserve(wal.room + 1)
    assert len(disk.contents(DATA.log)) == 2 * EXTEND_BYTES
    assert wal.reserve(5 * EXTEND_BYTES)
    assert wal.room >= 5 * EXTEND_BYTES
    size = len(disk.contents(DATA.log))
    disk.crash(nothing_survives)
    assert len(disk.contents(DATA.log)) == size, "the extension was synced"


def test_a_frame_of_exactly_the_room_fits_and_the_log_can_still_be_closed() -> None:
    disk, wal = new_wal()
    size = wal.room - 36
    size -= (36 + size) % 8
    operations = disk.operations
    append_now(wal, b"x" * size, 1)
    assert wal.room == 0
    wal.idle()
    wal.close()
    assert disk.operations == operations + 2, "the frame and the CLOSE; no MARK without room"
    assert len(disk.contents(DATA.log)) == EXTEND_BYTES
    assert scan_log(disk).flags == CLOSE


def test_full_disk_refuses_room_and_changes_nothing() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    disk.capacity = EXTEND_BYTES + 1_000
    room, before = wal.room, disk.contents(DATA.log)
    assert wal.reserve(room + 1) == 0
    assert (wal.room, disk.contents(DATA.log)) == (room, before)
    append(wal, enqueued("b"))
    disk.capacity = 10 * EXTEND_BYTES
    assert wal.reserve(room + 1) > room


def test_a_limit_on_file_sizes_is_a_full_disk() -> None:
    """`ulimit -f`: what does not fit is refused, and what was reserved before is still there."""
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    disk.file_limit = EXTEND_BYTES + 1_000
    room, before = wal.room, disk.contents(DATA.log)
    assert wal.reserve(room + 1) == 0
    assert (wal.room, disk.contents(DATA.log)) == (room, before)
    append(wal, enqueued("b"))
    disk.file_limit = 10 * EXTEND_BYTES
    assert wal.reserve(room + 1) > room


def test_a_segment_that_was_prepared_under_a_higher_limit_has_the_room_of_the_lower_one() -> None:
    """A restart under `ulimit -f`: the file is longer than this process may write."""
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    wal.close()
    disk.file_limit = EXTEND_BYTES // 2
    wal = open_sim(disk).journal
    assert EXTEND_BYTES // 4 < wal.room < EXTEND_BYTES // 2
    assert wal.reserve(EXTEND_BYTES) == 0
    while wal.reserve(1_000):
        append(wal, enqueued("b", b"x" * 500))
    wal.close()


def test_disk_that_fills_up_in_the_middle_of_an_extension_is_refused_and_shrunk() -> None:
    disk, wal = new_wal()
    disk.plan(disk.operations + 2, Fault(errno.ENOSPC, done_bytes=700))
    before = disk.contents(DATA.log)
    assert wal.reserve(3 * EXTEND_BYTES) == 0
    assert disk.contents(DATA.log) == before
    append(wal, enqueued("a"))
    disk.crash(nothing_survives)
    assert scan_log(disk).last_seq == 1


@pytest.mark.parametrize("failing", [1, 2])
def test_failed_extension_or_its_sync_makes_the_log_useless(failing: int) -> None:
    disk, wal = new_wal()
    disk.plan(disk.operations + failing, Fault(errno.EIO))
    with pytest.raises(StorageFailed):
        wal.reserve(wal.room + 1)
    with pytest.raises(StorageFailed):
        wal.idle()


def test_sync_that_says_the_disk_is_full_is_a_failure_all_the_same() -> None:
    disk, wal = new_wal()
    disk.plan(disk.operations + 2, Fault(errno.ENOSPC))
    with pytest.raises(StorageFailed):
        wal.reserve(wal.room + 1)


def test_commits_in_reserved_room_change_no_size() -> None:
    disk, wal = new_wal()
    size = len(disk.contents(DATA.log))
    while wal.room > 1_000:
        append(wal, enqueued("a", b"x" * 500))
    assert len(disk.contents(DATA.log)) == size


# -- sealing -----------------------------------------------------------------------------------


def test_full_segment_is_sealed_where_a_next_one_was_adopted() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal, 1 << 21)
    assert wal.reserve(wal.room + 1)
    assert wal.first_seq == 2
    append(wal, enqueued("b"))
    assert disk.listdir("data") == ["LOCK", "archive", "wal.log"]
    assert [info.first_seq for info in segments(disk, DATA)] == [1, 2]
    assert len(list(read_commits(disk, DATA, 0))) == 2


def test_sealed_segment_and_its_successor_survive_a_power_cut() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal)
    assert wal.seal()
    disk.crash(nothing_survives)
    assert [info.first_seq for info in segments(disk, DATA)] == [1, 2]


def test_next_segment_that_is_too_small_is_not_sealed_for() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal, 4_096)
    room = wal.room
    assert wal.reserve(room + 1)
    assert wal.first_seq == 1


def test_segment_without_events_is_never_sealed() -> None:
    """Its successor would have the same first seq, and segments are named by it."""
    disk, wal = new_wal()
    prepare(disk, wal)
    assert wal.seal() is False
    assert wal.reserve(wal.room + 1)
    assert wal.first_seq == 1
    append(wal, enqueued("a"))
    assert wal.seal() is True


def test_no_next_segment_no_sealing() -> None:
    _, wal = new_wal()
    append(wal, enqueued("a"))
    assert wal.seal() is False


def wants_next(wal: Wal) -> bool:
    return wal.wants_next


def test_next_segment_is_wanted_while_less_than_half_a_segment_is_left() -> None:
    disk = SimDisk("data")
    wal = open_sim(disk, segment_bytes=4 * EXTEND_BYTES).journal
    assert wants_next(wal)
    append(wal, enqueued("a"))
    prepare(disk, wal, 4 * EXTEND_BYTES)
    assert not wants_next(wal), "one is enough"
    assert wal.seal()
    assert not wants_next(wal)
    while wal.room >= 2 * EXTEND_BYTES:
        append(wal, enqueued("b", b"x" * 100_000))
    assert wants_next(wal)


def test_full_disk_at_the_second_name_leaves_the_old_segment_in_use() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal)
    disk.plan(disk.operations + 3, Fault(errno.ENOSPC))
    assert wal.seal() is False
    append(wal, enqueued("b"))
    assert wal.seal() is True, "once there is room"
    assert jobs_in(disk) == ["a", "b"]


def test_second_name_that_was_made_though_the_answer_was_a_full_disk_is_taken() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal)
    disk.plan(disk.operations + 3, Fault(errno.ENOSPC, done=True))
    assert wal.seal() is True
    append(wal, enqueued("b"))
    prepare(disk, wal)
    assert wal.seal() is True, "and so can the next one be"
    assert jobs_in(disk) == ["a", "b"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_without_hard_links_the_log_goes_on_in_one_segment(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal)
    disk.plan(disk.operations + 3, Fault(code))
    assert wal.seal() is False
    assert "no hard links" in caplog.text
    append(wal, enqueued("b"))
    assert wal.seal() is False, "and it is not tried again"
    assert wal.reserve(wal.room + 1)
    append(wal, enqueued("c"))
    wal.close()
    assert len(caplog.records) == 1
    assert jobs_in(disk) == ["a", "b", "c"]


@pytest.mark.parametrize("step", range(1, 7))
def test_every_failed_step_of_sealing_makes_the_log_useless(step: int) -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal)
    disk.plan(disk.operations + step, Fault(errno.EIO))
    with pytest.raises(StorageFailed):
        wal.seal()
    with pytest.raises(StorageFailed):
        wal.reserve(1)


def test_a_stranger_that_prepares_a_segment_late_cannot_become_the_log() -> None:
    """The race of the module's docstring: a dead server's helper renames behind our back."""
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal)
    disk.put(DATA.next, bytes(1 << 16))
    assert wal.seal()
    append(wal, enqueued("b"))
    assert len(list(read_commits(disk, DATA, 0))) == 2


def test_closed_end_of_a_sealed_segment_is_clean() -> None:
    disk, wal = new_wal()
    append(wal, enqueued("a"))
    prepare(disk, wal)
    assert wal.seal()
    path = DATA.archived(1)
    file = disk.open(path)
    scan = SegmentScan(file, path, read_header(file, path))
    assert (scan.read().kind, scan.flags) == (EndKind.CLEAN, CLOSE)
    assert EMPTY_FRAME_BYTES == 40


class FewDescriptors(SimDisk):
    """A disk for a process that has no descriptor left, while the test says so."""

    error = 0

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SimFile:
        if self.error:
            raise OSError(self.error, "no descriptor", path)
        return super().open(path, write=write, create=create)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_a_segment_without_a_descriptor_for_it_is_adopted_later(error: int) -> None:
    """It is no failure: nothing was changed, the log goes on, and a later try succeeds."""
    disk = FewDescriptors("data")
    wal = open_sim(disk).journal
    append(wal, enqueued("a"))
    prepare_segment(disk)
    disk.error = error
    assert not wal.adopt(DATA.next)
    assert disk.exists(DATA.next)
    assert not disk.exists(DATA.adopted)
    append(wal, enqueued("b"))
    disk.error = 0
    assert wal.adopt(DATA.next)
    assert wal.seal()
    append(wal, enqueued("c"))
    assert scan_log(disk).last_seq == 3


def test_another_failure_to_open_a_segment_still_ends_the_log() -> None:
    disk = FewDescriptors("data")
    wal = open_sim(disk).journal
    prepare_segment(disk)
    disk.error = errno.EIO
    with pytest.raises(StorageFailed):
        wal.adopt(DATA.next)
