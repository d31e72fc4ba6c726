"""A scan says of every end whether it is clean, torn or corrupt, and never guesses wrongly."""

from __future__ import annotations

import pytest

from beaver.errors import NewerFormat
from beaver.journal.wal import scan as scanning
from beaver.journal.wal.format import (
    FILE_HEADER_BYTES,
    FRAME_MAGIC,
    FileHeader,
    encode_file_header,
    encode_frame,
    first_seed,
    frame_bytes,
    header_crc_of,
    header_seed,
)
from beaver.journal.wal.scan import Damage, Damaged, EndKind, SegmentScan, read_header
from beaver_chaos.sim.disk import SimDisk
from tests.worlds.journal import STORE

SEED = header_seed(STORE)
ROOM = 256


class Segment:
    """The bytes of a segment, made frame by frame."""

    def __init__(self, store: bytes = STORE) -> None:
        header = FileHeader(store, 1, first_seed(store, 1))
        self.data = encode_file_header(header)
        self.seed = header_seed(store)
        self.crc = header.previous_crc
        self.next_seq = 1
        self.offsets: list[int] = []

    def add(self, payload: bytes, count: int = 1, flags: int = 0) -> Segment:
        self.offsets.append(len(self.data))
        frame, self.crc = encode_frame(
            payload, count, self.next_seq, flags, previous_crc=self.crc, seed=self.seed
        )
        self.next_seq += count
        self.data += frame
        return self


def scan(data: bytes) -> tuple[SegmentScan, list[bytes]]:
    disk = SimDisk("d")
    disk.put("d/log", data)
    file = disk.open("d/log")
    scanned = SegmentScan(file, "d/log", read_header(file, "d/log"))
    payloads = [frame.payload for frame in scanned]
    return scanned, payloads


def small() -> Segment:
    return Segment().add(b"first").add(b"second frame").add(b"", 0, 1).add(b"last", 2)


def test_frames_come_back_in_order_with_their_fields() -> None:
    segment = small()
    disk = SimDisk("d")
    disk.put("d/log", segment.data + bytes(ROOM))
    file = disk.open("d/log")
    scanned = SegmentScan(file, "d/log", read_header(file, "d/log"))
    frames = list(scanned)
    assert [frame.offset for frame in frames] == segment.offsets
    assert [(f.first_seq, f.count, f.flags) for f in frames] == [
        (1, 1, 0),
        (2, 1, 0),
        (3, 0, 1),
        (3, 2, 0),
    ]
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.CLEAN
    assert (scanned.offset, scanned.next_seq, scanned.crc) == (len(segment.data), 5, segment.crc)


@pytest.mark.parametrize("room", [0, 1, 7, 8, 35, 36, 37, ROOM])
def test_zero_bytes_or_nothing_behind_the_last_frame_is_a_clean_end(room: int) -> None:
    scanned, payloads = scan(small().data + bytes(room))
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.CLEAN
    assert len(payloads) == 4


def test_a_segment_without_frames_ends_clean_at_its_header() -> None:
    scanned, payloads = scan(Segment().data + bytes(ROOM))
    assert (payloads, scanned.offset) == ([], FILE_HEADER_BYTES)
    assert scanned.last_bytes() == (0, Segment().data)


def test_every_cut_inside_the_last_frame_is_torn() -> None:
    segment = small()
    start = segment.offsets[-1]
    for room in (0, ROOM):
        for size in range(start + 1, len(segment.data)):
            data = segment.data[:size]
            if not data[start:].strip(b"\0") or not segment.data[size:].strip(b"\0"):
                continue
            scanned, payloads = scan(data + bytes(room))
            assert scanned.end is not None
            assert scanned.end.kind == EndKind.TORN, size
            assert scanned.offset == start
            assert scanned.end.torn_bytes == len(data.rstrip(b"\0")) - start
            assert len(payloads) == 3


def test_every_flipped_bit_of_the_last_frame_is_torn() -> None:
    segment = small()
    for offset in range(segment.offsets[-1], len(segment.data)):
        for bit in range(8):
            data = bytearray(segment.data + bytes(ROOM))
            data[offset] ^= 1 << bit
            scanned, payloads = scan(bytes(data))
            assert scanned.end is not None
            assert scanned.end.kind == EndKind.TORN, (offset, bit)
            assert len(payloads) == 3


def test_every_flipped_bit_of_an_earlier_frame_is_corrupt_with_its_offset_and_seq() -> None:
    segment = small()
    bounds = [*segment.offsets, len(segment.data)]
    first_seqs = [1, 2, 3, 3]
    for number in range(3):
        for offset in range(bounds[number], bounds[number + 1]):
            for bit in range(8):
                data = bytearray(segment.data + bytes(ROOM))
                data[offset] ^= 1 << bit
                scanned, payloads = scan(bytes(data))
                assert scanned.end is not None
                assert scanned.end.kind == EndKind.CORRUPT, (offset, bit)
                assert len(payloads) == number
                with pytest.raises(Damaged) as raised:
                    scanned.refuse_corrupt()
                assert raised.value.damage == Damage.FRAME
                assert raised.value.offset == bounds[number]
                assert raised.value.seq == first_seqs[number]
                assert "a valid frame follows" in raised.value.reason


def test_a_lost_frame_is_corrupt_where_zero_bytes_took_its_place() -> None:
    segment = small()
    data = bytearray(segment.data)
    data[segment.offsets[1] : segment.offsets[2]] = bytes(segment.offsets[2] - segment.offsets[1])
    scanned, _ = scan(bytes(data))
    assert scanned.end is not None
    assert (scanned.end.kind, scanned.end.offset) == (EndKind.CORRUPT, segment.offsets[1])


def test_a_torn_frame_that_begins_with_zero_bytes_is_torn_not_clean() -> None:
    segment = small().add(b"x" * 2_000)
    data = bytearray(segment.data + bytes(ROOM))
    start = segment.offsets[-1]
    data[start : start + 600] = bytes(600)
    scanned, payloads = scan(bytes(data))
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.TORN
    assert len(payloads) == 4


def test_a_valid_frame_that_does_not_follow_is_corrupt() -> None:
    """A stale frame of this store at the end: whole, and chained to something else."""
    segment = small()
    stale, _ = encode_frame(b"stale", 1, 5, 0, previous_crc=segment.crc ^ 1, seed=SEED)
    scanned, payloads = scan(segment.data + stale)
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.CORRUPT
    assert "follows one with the CRC" in scanned.end.reason
    assert b"stale" not in payloads


def test_a_frame_with_a_wrong_seq_is_corrupt() -> None:
    segment = small()
    ahead, _ = encode_frame(b"ahead", 1, 9, 0, previous_crc=segment.crc, seed=SEED)
    scanned, _ = scan(segment.data + ahead)
    assert scanned.end is not None
    assert (scanned.end.kind, scanned.end.reason) == (
        EndKind.CORRUPT,
        "the frame begins with seq 9, expected 5",
    )


def test_frames_of_another_store_are_no_frames_here() -> None:
    """A torn frame may hold the image of another store's log: that proves nothing."""
    foreign = Segment(bytes(16)).add(b"foreign").data[FILE_HEADER_BYTES:]
    segment = small()
    scanned, _ = scan(segment.data + b"torn    " + foreign)
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.TORN


def test_a_frame_is_found_behind_any_distance_of_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its header lies across two of the scanner's reads."""
    monkeypatch.setattr(scanning, "READ_BYTES", 256)
    monkeypatch.setattr(scanning, "_ZEROS", bytes(256 + 36))
    for size in range(8, 700, 8):
        segment = Segment().add(b"x" * size).add(b"witness")
        data = bytearray(segment.data)
        data[FILE_HEADER_BYTES + 1] ^= 1
        scanned, _ = scan(bytes(data))
        assert scanned.end is not None
        assert scanned.end.kind == EndKind.CORRUPT, size
        data = bytearray(segment.data)
        data[segment.offsets[1] + 40] ^= 1
        scanned, payloads = scan(bytes(data))
        assert scanned.end is not None
        assert (scanned.end.kind, payloads) == (EndKind.TORN, [b"x" * size]), size


@pytest.mark.parametrize("size", [1, 200, 255, 256, 257, 300, 5_000])
def test_frames_of_any_size_are_read_across_buffer_ends(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(scanning, "READ_BYTES", 256)
    segment = Segment()
    expected = [bytes([n]) * (size + n) for n in range(1, 30)]
    for payload in expected:
        segment.add(payload)
    scanned, payloads = scan(segment.data + bytes(ROOM))
    assert payloads == expected
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.CLEAN


def test_a_magic_in_the_torn_part_is_not_taken_for_a_frame() -> None:
    segment = small()
    scanned, _ = scan(segment.data + (FRAME_MAGIC + bytes(4)) * 20)
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.TORN


def test_a_length_beyond_any_frame_is_bad_whatever_its_header_crc_says() -> None:
    segment = small()
    frame, _ = encode_frame(b"x" * 8, 1, 5, 0, previous_crc=segment.crc, seed=SEED)
    fields = bytearray(frame[:36])
    fields[16:20] = ((1 << 28) + 1).to_bytes(4, "little")
    fields[8:12] = header_crc_of(bytes(fields), 0, SEED).to_bytes(4, "little")
    scanned, _ = scan(segment.data + bytes(fields) + frame[36:])
    assert scanned.end is not None
    assert scanned.end.kind == EndKind.TORN


def test_unknown_flags_are_a_newer_format() -> None:
    with pytest.raises(NewerFormat, match="unknown flags"):
        scan(small().add(b"", 0, 4).data)


def test_newer_file_version_is_named_and_not_called_corrupt() -> None:
    header = encode_file_header(FileHeader(STORE, 1, 0, version=7))
    with pytest.raises(NewerFormat, match="log format 7"):
        scan(header)


@pytest.mark.parametrize("size", [0, 1, 63])
def test_short_header_is_damage_with_file_and_offset(size: int) -> None:
    with pytest.raises(Damaged) as raised:
        scan(Segment().data[:size])
    assert (raised.value.damage, raised.value.file, raised.value.offset) == (
        Damage.HEADER,
        "d/log",
        0,
    )


def test_last_bytes_are_those_in_the_file() -> None:
    segment = small()
    scanned, _ = scan(segment.data + bytes(ROOM))
    assert scanned.last_bytes() == (segment.offsets[-1], segment.data[segment.offsets[-1] :])


class WriterBeside:
    """A file whose writer goes on between two reads of ours."""

    def __init__(self, states: list[bytes]) -> None:
        self.states = states

    def pread(self, size: int, offset: int) -> bytes:
        state = self.states[0]
        if len(self.states) > 1:
            del self.states[0]
        return state[offset : offset + size]

    def size(self) -> int:
        return len(self.states[0])


def test_a_reader_beside_a_writer_never_calls_a_growing_log_corrupt() -> None:
    """The race of the module's docstring, at every pair of moments."""
    segment = Segment()
    room = bytes(512)
    moments = [segment.data + room]
    for number in range(4):
        before = segment.data
        segment.add(b"frame %d " % number * 5)
        half = len(before) + (len(segment.data) - len(before)) // 2
        moments += [segment.data[:half] + room, segment.data + room]
    whole = segment.data + room
    for first in range(len(moments)):
        for second in range(first, len(moments)):
            for third in range(second, len(moments)):
                file = WriterBeside([moments[first], moments[second], moments[third], whole])
                header = FileHeader(STORE, 1, first_seed(STORE, 1))
                scanned = SegmentScan(file, "log", header)  # type: ignore[arg-type]
                payloads = [frame.payload for frame in scanned]
                assert scanned.end is not None
                assert scanned.end.kind != EndKind.CORRUPT, (first, second, third)
                assert payloads == [b"frame %d " % n * 5 for n in range(len(payloads))]


def test_frame_bytes_bound_what_encode_frame_makes() -> None:
    for size in (0, 1, 1_000):
        frame, _ = encode_frame(bytes(size), 1, 1, 0, previous_crc=0, seed=0)
        assert len(frame) == frame_bytes(size)
