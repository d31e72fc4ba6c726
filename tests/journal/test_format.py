"""The log's bytes are what the document draws, so that another program could read them."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest

from beaver.errors import NewerFormat
from beaver.journal.codec import Undecodable, decode_commit, encode_commit
from beaver.journal.wal import format as wire
from beaver_model.events import ALL_EVENTS, AnyEvent, Booted, Cancelled, Enqueued, QueueSet
from tests.worlds.journal import STORE, enqueued

FILE_HEADER = bytes.fromhex(
    "89 42 56 52 57 41 4c 0a  01 00 00 00  00 00 00 00"
    "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"
    "01 00 00 00 00 00 00 00"
)


def test_crc_is_castagnoli_and_goes_on_from_a_seed() -> None:
    assert wire.crc32c(b"123456789") == 0xE3069283
    assert wire.crc32c(b"456789", wire.crc32c(b"123")) == 0xE3069283
    assert wire.crc_is_fast()


@pytest.mark.parametrize("size", [0, 1, 7, 64, 4_095, 100_001])
def test_both_functions_for_the_crc_give_the_same(size: int) -> None:
    """The extra `fast` brings one that is much faster; logs of both are the same log."""
    data = bytes(n * 37 % 251 for n in range(size))
    for seed in (0, 1, 0xFFFFFFFF):
        assert wire.crc32c(data, seed) == wire.crc32c_plain(data, seed)


def test_file_header_vector() -> None:
    header = wire.FileHeader(STORE, 1, wire.first_seed(STORE, 1))
    raw = wire.encode_file_header(header)
    assert raw[:40] == FILE_HEADER
    assert raw[40:44] == wire.crc32c(STORE + struct.pack("<Q", 1)).to_bytes(4, "little")
    assert raw[44:60] == bytes(16)
    assert raw[60:] == wire.crc32c(raw[:60]).to_bytes(4, "little")
    assert raw.hex() == (
        "8942565257414c0a0100000000000000000102030405060708090a0b0c0d0e0f"
        "0100000000000000a5acda87000000000000000000000000000000003e83c25c"
    )
    assert wire.decode_file_header(raw) == header


def test_frame_vector() -> None:
    payload = bytes.fromhex("92cf0000018bcfe5680091930d01c2")
    assert decode_commit(payload) == (1_700_000_000_000, [Booted(1, False)])
    seed = wire.header_seed(STORE)
    frame, crc = wire.encode_frame(payload, 1, 1, 0, previous_crc=0x11223344, seed=seed)
    assert frame.hex() == (
        "ff4246fed16ab561de074285443322110f00000001000000010000000000000000000000"
        "92cf0000018bcfe5680091930d01c20000000000"
    )
    assert crc == int.from_bytes(frame[4:8], "little")


def test_frame_fields_stand_where_the_document_says() -> None:
    frame, crc = wire.encode_frame(b"abc", 7, 99, 2, previous_crc=0x01020304, seed=5)
    assert len(frame) == wire.frame_bytes(3) == 40
    assert frame[:4] == b"\xffBF\xfe"
    frame_crc, header_crc, previous, length, count, first, flags = struct.unpack_from(
        "<IIIIIQI", frame, 4
    )
    assert (frame_crc, previous, length, count, first, flags) == (crc, 0x01020304, 3, 7, 99, 2)
    assert header_crc == wire.crc32c(frame[12:36], 5)
    assert frame_crc == wire.crc32c(frame[16:], 0x01020304)
    assert frame[36:] == b"abc\0"


@pytest.mark.parametrize("size", range(20))
def test_frames_are_multiples_of_eight_with_less_than_eight_bytes_of_padding(size: int) -> None:
    frame, _ = wire.encode_frame(bytes(size), 1, 1, 0, previous_crc=0, seed=0)
    assert len(frame) == wire.frame_bytes(size)
    assert len(frame) % 8 == 0
    assert 0 <= len(frame) - 36 - size < 8


def test_the_chain_does_not_forget_what_came_before() -> None:
    """A CRC that ran over the stored previous CRC would end the same whatever that was."""
    crcs = set()
    for previous in range(0, 1 << 32, 0x01234567):
        _, crc = wire.encode_frame(b"same", 1, 1, 0, previous_crc=previous, seed=0)
        crcs.add(crc)
    assert len(crcs) == len(range(0, 1 << 32, 0x01234567))


def test_frame_magic_cannot_stand_in_text() -> None:
    for start, end in itertools.combinations(range(5), 2):
        piece = wire.FRAME_MAGIC[start:end]
        if b"\xff" in piece or b"\xfe" in piece:
            with pytest.raises(UnicodeDecodeError):
                piece.decode()


@pytest.mark.parametrize("offset", range(64))
def test_every_damaged_byte_of_a_file_header_is_seen(offset: int) -> None:
    raw = bytearray(wire.encode_file_header(wire.FileHeader(STORE, 5, 77)))
    for bit in range(8):
        raw[offset] ^= 1 << bit
        with pytest.raises(wire.BadHeader):
            wire.decode_file_header(bytes(raw))
        raw[offset] ^= 1 << bit


def test_intact_header_of_a_newer_version_is_read_as_such() -> None:
    raw = wire.encode_file_header(wire.FileHeader(STORE, 5, 77, version=2))
    assert wire.decode_file_header(raw).version == 2


def test_commit_round_trips() -> None:
    events: list[AnyEvent] = [
        Booted(1, True),
        enqueued("ä", b'{"n":1}'),
        QueueSet("q", True, 3, 0, False),
    ]
    assert decode_commit(encode_commit(123, events)) == (123, events)


def test_a_queue_event_of_an_older_release_means_what_it_meant() -> None:
    event = QueueSet("q", True, 3, 0, durable_dispatch=True)
    raw = encode_commit(123, [event])
    assert raw.endswith(b"\x97\x0c\xa1q\xc3\x03\x00\xc3\xa0")
    assert decode_commit(raw[:-9] + b"\x96\x0c\xa1q\xc3\x03\x00\xc3") == (123, [event])
    assert decode_commit(raw[:-9] + b"\x95\x0c\xa1q\xc3\x03\x00") == (123, [event])


def test_a_cancel_of_an_older_release_has_no_reason() -> None:
    event = Cancelled("a", 3, "job")
    raw = encode_commit(123, [event])
    assert raw.endswith(b"\x96\x09\xa1a\x03\xa3job\xa0\xa0")
    assert decode_commit(raw[:-11] + b"\x94\x09\xa1a\x03\xa3job") == (123, [event])


def test_every_event_has_a_tag_of_its_own() -> None:
    tags = [event.__struct_config__.tag for event in ALL_EVENTS]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91\x05",
        b"\x92\x05\x91\x91\x0d",
        b"\x92\x05\x91\x92\x0b\xa2\xff\xff",
        b"\x92\x05\x90\x00",
        b"\x91" * 100_000,
        b"\x92\x05\x91\x92\xc3\x01",
        b"\x92\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00\x90",
    ],
)
def test_what_is_no_commit_is_undecodable_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_commit(payload)


def test_unknown_event_is_a_newer_format_not_damage() -> None:
    with pytest.raises(NewerFormat, match="tag 99"):
        decode_commit(b"\x92\x05\x92\x93\x0d\x01\xc2\x92\x63\x01")


def test_fields_added_at_the_end_by_a_newer_version_are_ignored() -> None:
    _, events = decode_commit(b"\x92\x05\x91\x95\x0d\x01\xc2\xa1w\xa3new")
    assert events == [Booted(1, False, "w")]


def test_fields_that_an_older_version_did_not_write_mean_what_their_absence_meant() -> None:
    _, events = decode_commit(b"\x92\x05\x91\x93\x0d\x01\xc2")
    assert events == [Booted(1, False, writer="")]


def test_any_cut_of_a_commit_is_undecodable() -> None:
    payload = encode_commit(5, [enqueued("a", b"[1]"), Enqueued("b", b"s", b"1", b"d")])
    for size in range(len(payload)):
        with pytest.raises(Undecodable):
            decode_commit(payload[:size])


def test_the_example_in_the_reference_is_what_the_code_writes() -> None:
    reference = Path(__file__).parents[2] / "docs/reference/wal.md"
    text = " ".join(reference.read_text(encoding="utf-8").replace("`", " ").split())
    header = wire.FileHeader(STORE, 1, wire.first_seed(STORE, 1))
    seed = wire.header_seed(STORE)
    payload = encode_commit(1_700_000_000_000, [Booted(1, False)])
    commit, crc = wire.encode_frame(payload, 1, 1, 0, previous_crc=header.previous_crc, seed=seed)
    mark, mark_crc = wire.encode_frame(b"", 0, 2, wire.MARK, previous_crc=crc, seed=seed)
    for part in (wire.encode_file_header(header), payload, commit, mark):
        assert part.hex(" ") in text
    for value in (seed, crc, mark_crc):
        assert f"{value:08x}" in text


def test_a_header_keeps_its_origin_and_without_one_its_bytes_are_zero() -> None:
    plain = wire.FileHeader(STORE, 5, 77)
    assert (plain.lineage, wire.encode_file_header(plain)[44:60]) == (STORE, bytes(16))
    assert wire.decode_file_header(wire.encode_file_header(plain)) == plain
    copied = plain._replace(origin=b"the first store!")
    assert wire.decode_file_header(wire.encode_file_header(copied)) == copied
    assert (copied.lineage, copied.store) == (b"the first store!", STORE)
