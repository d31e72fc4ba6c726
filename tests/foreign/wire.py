"""CRC-32C, MessagePack and frames, as `docs/reference/wal.md` describes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

FILE_MAGIC: Final = bytes.fromhex("89 42 56 52 57 41 4c 0a")
FRAME_MAGIC: Final = bytes.fromhex("ff 42 46 fe")
MARK: Final = 1
CLOSE: Final = 2


def _table() -> list[int]:
    rows = []
    for byte in range(256):
        row = byte
        for _ in range(8):
            row = row >> 1 ^ (0x82F63B78 if row & 1 else 0)
        rows.append(row)
    return rows


_TABLE: Final = _table()


def crc32c(data: bytes, seed: int = 0) -> int:
    """Returns the CRC-32C of bytes; `seed` is that of the bytes before them."""
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


# -- MessagePack ----------------------------------------------------------------------------------


def pack(value: Any) -> bytes:
    """Returns a value as MessagePack, each in its shortest form."""
    match value:
        case Raw():
            return value.encoded
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _pack_int(value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case str():
            return _sized(value.encode("utf-8", "surrogatepass"), (0xA0, 32), b"\xd9\xda\xdb")
        case bytes():
            return _sized(value, (0, 0), b"\xc4\xc5\xc6")
        case list() | tuple():
            head = _sized(b"", (0x90, 16), b"\xdc\xdc\xdd", len(value))
            return head + b"".join(map(pack, value))
    raise TypeError(value)


class Raw(NamedTuple):
    """Bytes to be written as they are: any form that MessagePack allows, or does not."""

    encoded: bytes


def _pack_int(value: int) -> bytes:
    if 0 <= value < 128 or -32 <= value < 0:
        return struct.pack(">B", value & 0xFF)
    if value < 0:
        forms = ((">Bb", 0xD0, 1 << 7), (">Bh", 0xD1, 1 << 15), (">Bi", 0xD2, 1 << 31))
        for form, tag, below in forms:
            if -value <= below:
                return struct.pack(form, tag, value)
        return struct.pack(">Bq", 0xD3, value)
    for form, tag, below in ((">BB", 0xCC, 1 << 8), (">BH", 0xCD, 1 << 16), (">BI", 0xCE, 1 << 32)):
        if value < below:
            return struct.pack(form, tag, value)
    return struct.pack(">BQ", 0xCF, value)


def _sized(data: bytes, short: tuple[int, int], tags: bytes, size: int | None = None) -> bytes:
    size = len(data) if size is None else size
    if size < short[1]:
        return bytes([short[0] | size]) + data
    if size < 1 << 8 and tags[0] != tags[1]:
        return struct.pack(">BB", tags[0], size) + data
    if size < 1 << 16:
        return struct.pack(">BH", tags[1], size) + data
    return struct.pack(">BI", tags[2], size) + data


_FIXED: Final = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZES: Final = {
    0xC4: (">B", bytes), 0xC5: (">H", bytes), 0xC6: (">I", bytes),
    0xD9: (">B", str), 0xDA: (">H", str), 0xDB: (">I", str),
    0xDC: (">H", list), 0xDD: (">I", list),
}  # fmt: skip


def unpack(data: bytes) -> Any:
    """Returns the one value that bytes hold."""
    value, end = _unpack(data, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow the value")
    return value


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    tag, at = data[at], at + 1
    if tag < 0x80 or tag >= 0xE0:
        return tag if tag < 0x80 else tag - 256, at
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag], at
    if tag in _FIXED:
        form = _FIXED[tag]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    kind: type
    if 0x90 <= tag < 0xC0:
        kind, size = (list, tag & 15) if tag < 0xA0 else (str, tag & 31)
    elif tag in _SIZES:
        form, kind = _SIZES[tag]
        (size,), at = struct.unpack_from(form, data, at), at + struct.calcsize(form)
    else:
        raise ValueError(f"the byte {tag:#x} begins nothing that a log holds")
    if kind is list:
        items = []
        for _ in range(size):
            item, at = _unpack(data, at)
            items.append(item)
        return items, at
    piece = data[at : at + size]
    if len(piece) < size:
        raise ValueError("the value is cut short")
    return (piece if kind is bytes else piece.decode()), at + size


# -- files and frames -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """One frame, as it is found."""

    offset: int
    first_seq: int
    count: int
    flags: int
    payload: bytes
    padding: bytes
    crc: int


class Log:
    """A segment that grows, with right checksums whatever is put into it."""

    def __init__(self, store: bytes, first_seq: int = 1, crc: int | None = None) -> None:
        self._seed = crc32c(store)
        self.crc = crc32c(store + struct.pack("<Q", first_seq)) if crc is None else crc
        self.next_seq = first_seq
        self._starts: list[tuple[int, int]] = []
        body = struct.pack("<8sII16sQI16x", FILE_MAGIC, 1, 0, store, first_seq, self.crc)
        self.data = body + struct.pack("<I", crc32c(body))

    def frame(
        self,
        payload: bytes,
        count: int,
        *,
        flags: int = 0,
        first_seq: int | None = None,
        padding: bytes | None = None,
    ) -> Log:
        self._starts.append((self.next_seq, len(self.data)))
        first_seq = self.next_seq if first_seq is None else first_seq
        padding = bytes(-(36 + len(payload)) % 8) if padding is None else padding
        fields = struct.pack("<IIIQI", self.crc, len(payload), count, first_seq, flags)
        covered = fields[4:] + payload + padding
        header_crc, before = crc32c(fields, self._seed), fields[:4]
        self.crc = crc32c(covered, self.crc)
        self.data += FRAME_MAGIC + struct.pack("<II", self.crc, header_crc) + before + covered
        self.next_seq += count
        return self

    def before(self, seq: int) -> bytes:
        """Returns the segment up to the frame that holds an event."""
        at = [offset for first_seq, offset in self._starts if first_seq <= seq]
        return self.data[: at[-1]]

    def commit(self, time_ms: Any, *events: Sequence[Any], **how: Any) -> Log:
        """Adds a frame of events, each an array that begins with its number."""
        return self.frame(pack([time_ms, list(events)]), len(events), **how)


def frames_of(data: bytes) -> tuple[bytes, int, list[Frame]]:
    """Returns store id, first seq and frames of a segment; everything must be right."""
    body = data[:60]
    magic, version, _, store, first_seq, crc = struct.unpack_from("<8sII16sQI", data)
    if (magic, version, crc32c(body)) != (FILE_MAGIC, 1, struct.unpack_from("<I", data, 60)[0]):
        raise ValueError("this is no segment")
    found: list[Frame] = []
    at, next_seq = 64, first_seq
    while data[at : at + 36].strip(b"\0"):
        magic, own, header, before, size, count, seq, flags = struct.unpack_from(
            "<4sIIIIIQI", data, at
        )
        end = at + 36 + size + -(36 + size) % 8
        right = (
            magic == FRAME_MAGIC
            and header == crc32c(data[at + 12 : at + 36], crc32c(store))
            and (before, seq) == (crc, next_seq)
            and own == crc32c(data[at + 16 : end], crc)
        )
        if not right:
            raise ValueError(f"no frame that follows stands at {at}")
        payload = data[at + 36 : at + 36 + size]
        found.append(Frame(at, seq, count, flags, payload, data[at + 36 + size : end], own))
        crc, next_seq, at = own, next_seq + count, end
    return store, first_seq, found


def spec(*values: Any) -> bytes:
    """Returns the options of a job as they stand in ENQUEUE."""
    return pack(list(values))
