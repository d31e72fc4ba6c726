r"""The binary format of the log, byte by byte.  Little-endian throughout.

What lives here: bytes to fields and back, and check values.  What may not: files.

A log is a chain of *segments*, each a file: a file header, then frames without gaps, then
zero bytes up to the end of the file.  One frame is one commit, all of its events or none.

**File header**, 64 bytes:

```
offset  size  field
     0     8  magic: 89 42 56 52 57 41 4c 0a  ("\x89BVRWAL\n")
     8     4  format version: 1
    12     4  reserved: 0
    16    16  store id
    32     8  first seq: the seq of the first event that this segment can hold
    40     4  CRC of the frame before: the frame CRC that the segment before ends with;
              in the first segment of a store, CRC-32C(store id, first seq as u64)
    44    16  origin: the id that idempotency keys are made of, where it is not the store id:
              that of the store which this one was restored from; else 0
    60     4  CRC-32C of bytes 0 to 59
```

Later versions keep magic, version and the CRC over these 64 bytes where they are, so that
an intact file of a newer version can be told from a damaged one.

**Frame**, 36 bytes of header, payload, padding with zero bytes to a multiple of 8:

```
offset  size  field
     0     4  magic: ff 42 46 fe
     4     4  frame CRC: CRC-32C of bytes 16 to the end of the padding, seeded with the
              frame CRC of the frame before (in a segment's first frame: the value in the
              file header)
     8     4  header CRC: CRC-32C of bytes 12 to 35, seeded with CRC-32C(store id)
    12     4  the frame CRC of the frame before
    16     4  payload length in bytes
    20     4  count of events
    24     8  seq of the first event; in a frame without events, of the next one
    32     4  flags: 1 MARK, 2 CLOSE; any other bit belongs to a newer version
    36     n  payload (see `codec`); empty in MARK and CLOSE frames, which have no event
```

CRC-32C is the Castagnoli polynomial, reflected, initial value and final XOR of all ones, so
that CRC-32C of the ASCII bytes "123456789" is e3069283.  "Seeded with v" means that the
computation goes on from v as if v were the CRC of bytes before: `crc(b, crc(a)) == crc(a + b)`.

Why so:

- Seeding chains the frames.  After a crash in a crash, blocks of an older frame can come
  back at the same place; its own CRC fits, the chain does not.
- The stored CRC of the frame before is compared, and never part of what the frame CRC runs
  over: a CRC that runs over itself gives a constant whatever came before.
- The header CRC makes a length trustworthy, so that a scan past a bad frame finds a later
  good one.  It is seeded with the store, so a frame of another store is no frame here.
- The magic holds two bytes that never occur in UTF-8, so no payload, result or error text
  can hold a frame, and aligned frames make the scan cheap.
- CRCs stand before what they cover, which is contiguous: one pass over one slice each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import crcmod

from beaver.text.foreign import counted

FILE_MAGIC: Final = b"\x89BVRWAL\n"
VERSION: Final = 1
FILE_HEADER_BYTES: Final = 64
FRAME_MAGIC: Final = b"\xffBF\xfe"
FRAME_HEADER_BYTES: Final = 36
ALIGNMENT: Final = 8
STORE_ID_BYTES: Final = 16
PAYLOAD_BYTES_MAX: Final = 1 << 28
"""No frame is longer; a length beyond is damage, whatever its CRC says."""

MARK: Final = 1
"""The frame closes the one before after a quiet moment: it proves that one was synced."""
CLOSE: Final = 2
"""As MARK, at a clean end or where a segment is sealed."""
KNOWN_FLAGS: Final = MARK | CLOSE

crc32c_plain: Final[Callable[..., int]] = crcmod.mkCrcFun(
    0x11EDC6F41, initCrc=0, rev=True, xorOut=0xFFFFFFFF
)
"""CRC-32C by `crcmod`, which is always there: half a gigabyte a second."""


def _fastest_crc32c() -> Callable[..., int]:
    """Returns `crcmod`'s function, or one that uses the processor's instruction for it.

    The extra `fast` brings the latter, 3 times as fast for one job and 100 times for a batch
    or a segment that is read.
    """
    try:
        import google_crc32c
    except ImportError:
        return crc32c_plain
    extend = google_crc32c.extend
    if google_crc32c.implementation != "c" or extend(0, b"123456789") != 0xE3069283:
        return crc32c_plain
    return lambda data, seed=0: extend(seed, data)


crc32c: Final = _fastest_crc32c()
"""`crc32c(data, seed=0)`."""

_FILE: Final = struct.Struct("<8sII16sQI16s")
_NO_ORIGIN: Final = bytes(STORE_ID_BYTES)
_FRAME: Final = struct.Struct("<4sIIIIIQI")
_COVERED_BY_HEADER_CRC: Final = struct.Struct("<IIIQI")
_COVERED_FROM: Final = 16
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_PADDING: Final = tuple(bytes(-n % ALIGNMENT) for n in range(ALIGNMENT))

unpack_frame_header: Final = _FRAME.unpack_from
"""Gives magic, frame CRC, header CRC, previous CRC, length, count, first seq, flags."""


def crc_is_fast() -> bool:
    """False where `crcmod` fell back to pure Python, twenty times slower: worth a warning."""
    if crc32c is not crc32c_plain:
        return True
    from crcmod import crcmod as implementation

    return bool(getattr(implementation, "_usingExtension", False))


# -- the file header --------------------------------------------------------------------------


class FileHeader(NamedTuple):
    """What a segment says of itself."""

    store: bytes
    first_seq: int
    previous_crc: int
    version: int = VERSION
    origin: bytes = b""
    """Store whose idempotency keys its jobs have; empty for its own."""

    @property
    def lineage(self) -> bytes:
        """The id that idempotency keys are made of: it outlives a restore."""
        return self.origin or self.store


def first_seed(store: bytes, first_seq: int) -> int:
    """Returns the value that the chain of a store begins with."""
    return crc32c(store + _U64.pack(first_seq))


def encode_file_header(header: FileHeader) -> bytes:
    """Returns the 64 bytes that a segment begins with."""
    assert len(header.store) == STORE_ID_BYTES, "a store id has 16 bytes"
    body = _FILE.pack(
        FILE_MAGIC,
        header.version,
        0,
        header.store,
        header.first_seq,
        header.previous_crc,
        header.origin or _NO_ORIGIN,
    )
    return body + _U32.pack(crc32c(body))


class BadHeader(ValueError):
    """The bytes are no file header; the message says why."""


def decode_file_header(raw: bytes) -> FileHeader:
    """Returns the fields of a file header, of whatever version.

    Raises:
        BadHeader: These bytes are none, or damaged.
    """
    if len(raw) < FILE_HEADER_BYTES:
        raise BadHeader(f"the file header has {counted(len(raw), 'byte')} of {FILE_HEADER_BYTES}")
    body = raw[: FILE_HEADER_BYTES - 4]
    magic, version, _, store, first_seq, previous_crc, origin = _FILE.unpack(body)
    if magic != FILE_MAGIC:
        raise BadHeader(f"the file begins with {magic.hex(' ')}, not with {FILE_MAGIC.hex(' ')}")
    (stored,) = _U32.unpack_from(raw, FILE_HEADER_BYTES - 4)
    computed = crc32c(body)
    if stored != computed:
        raise BadHeader(f"the file header has the CRC {stored:08x}, its bytes give {computed:08x}")
    return FileHeader(
        store, first_seq, previous_crc, version, b"" if origin == _NO_ORIGIN else origin
    )


# -- frames -----------------------------------------------------------------------------------


def header_seed(store: bytes) -> int:
    """Returns the seed of the header CRCs of a store."""
    return crc32c(store)


def frame_bytes(payload_bytes: int) -> int:
    """Returns how many bytes the frame of a payload takes, with header and padding."""
    size = FRAME_HEADER_BYTES + payload_bytes
    return size + -size % ALIGNMENT


EMPTY_FRAME_BYTES: Final = frame_bytes(0)
"""What a MARK or a CLOSE takes."""


def encode_frame(
    payload: bytes, count: int, first_seq: int, flags: int, *, previous_crc: int, seed: int
) -> tuple[bytes, int]:
    """Returns a whole frame and its frame CRC.  `seed` is the store's `header_seed`."""
    size = len(payload)
    fields = _COVERED_BY_HEADER_CRC.pack(previous_crc, size, count, first_seq, flags)
    padding = _PADDING[(FRAME_HEADER_BYTES + size) % ALIGNMENT]
    covered = b"".join((fields[4:], payload, padding))
    frame_crc = crc32c(covered, previous_crc)
    front = FRAME_MAGIC + _U32.pack(frame_crc) + _U32.pack(crc32c(fields, seed)) + fields[:4]
    return front + covered, frame_crc


def header_crc_of(buffer: bytes, position: int, seed: int) -> int:
    """Computes the header CRC of the frame at `position`."""
    return crc32c(buffer[position + 12 : position + FRAME_HEADER_BYTES], seed)


def frame_crc_of(buffer: bytes, position: int, size: int, previous_crc: int) -> int:
    """Computes the frame CRC of the frame of `size` bytes at `position`."""
    return crc32c(buffer[position + _COVERED_FROM : position + size], previous_crc)
