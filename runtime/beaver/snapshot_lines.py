"""The lines of a snapshot: what stands in the file, and how a state is read from them.

What lives here: the format.  What may not: files; `snapshot` opens, syncs and renames them.

A snapshot is UTF-8 text, one object a line, each with a `kind`:

| kind | how many | what it holds |
|---|---|---|
| `header` | 1, first | `format`, `version`, `store` (hex), `last_seq`, `time_ms`, `epoch`, bounds |
| `queue` | one a queue, by name | settings, and how many jobs it took in and completed |
| `spec` | before its first job | `number`, and the `options` that many jobs share |
| `job` | one a job, by seq | the row; `spec` is a number; values at their default are left out |
| `tombstone` | oldest first | a finished job that is remembered to find duplicates |
| `footer` | 1, last | how many lines of each kind, `fingerprint`, `crc` |

Binary values are base64.  A payload stands in its line as the very bytes that were sent; one
that is not plain one-line JSON (no client can send such) goes to `payload_base64` instead.

The last 19 bytes are `,"crc":"xxxxxxxx"}` and a newline: the CRC-32 (zlib's) of every byte
before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from beaver.errors import Corruption, NewerFormat
from beaver.ports import File
from beaver_model.bounds import PAYLOAD_DEPTH_MAX
from beaver_model.rows import Spec, encode_spec, pack_tombstone, unpack_tombstone
from beaver_model.state import (
    Header,
    JobTuple,
    QueueTuple,
    TombstoneTuple,
)
from beaver_model.states import JobState

FORMAT: Final = "beaver-snapshot"
VERSION: Final = 1

CRC_KEY: Final = b',"crc":"'
CRC_BYTES: Final = len(CRC_KEY) + 8 + len(b'"}\n')
READ_BYTES: Final = 4 << 20

_DEPTH_SPARE: Final = 500
_STATE_NAMES: Final = {int(state): state.name.lower() for state in JobState}
_STATE_VALUES: Final = {name: value for value, name in _STATE_NAMES.items()}


class SnapshotDamaged(Corruption):
    """A snapshot cannot be used.  An older one may do; see the recovery table."""

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(file, offset, 0, reason)


# -- the lines ------------------------------------------------------------------------------


class HeaderLine(msgspec.Struct, tag="header", tag_field="kind"):
    format: str
    version: int
    store: str
    last_seq: int
    time_ms: int
    epoch: int
    tombstones_max: int
    tombstones_age_ms: int


class QueueLine(msgspec.Struct, tag="queue", tag_field="kind"):
    name: str
    paused: bool
    weight: int
    bytes_max: int
    enqueued: int
    completed: int


class SpecLine(msgspec.Struct, tag="spec", tag_field="kind"):
    number: int
    options: dict[str, Any]


class ExtraLine(msgspec.Struct, gc=False, omit_defaults=True):
    generation: int = 0
    snoozes: int = 0
    cancel_requested: bool = False
    suspect: bool = False
    cause: str = ""
    error: str = ""
    parent: str = ""
    tags: tuple[str, ...] = ()


class JobLine(msgspec.Struct, tag="job", tag_field="kind", gc=False, omit_defaults=True):
    seq: int
    id: str
    ready_ms: int
    spec: int
    digest: bytes
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    state: str = "pending"
    attempt: int = 0
    token: int = 0
    worker: int = 0
    extra: ExtraLine | None = None
    payload_base64: bytes | msgspec.UnsetType = msgspec.UNSET


class TombstoneLine(msgspec.Struct, tag="tombstone", tag_field="kind", gc=False):
    id: str
    seq: int
    time_ms: int
    outcome: str
    digest: bytes


class FooterLine(msgspec.Struct, tag="footer", tag_field="kind", omit_defaults=True):
    queues: int
    specs: int
    jobs: int
    tombstones: int
    fingerprint: str
    crc: str = ""


class VersionLine(msgspec.Struct):
    """The part of a first line that every version keeps."""

    kind: str
    format: str
    version: int


Line = HeaderLine | QueueLine | SpecLine | JobLine | TombstoneLine | FooterLine
encoder: Final = msgspec.json.Encoder()
decoder: Final = msgspec.json.Decoder(Line)
_version_decoder: Final = msgspec.json.Decoder(VersionLine)
_raw_decoder: Final = msgspec.json.Decoder(msgspec.Raw)


def job_line(job: JobTuple, spec: int) -> JobLine:
    """Returns the line of a frozen job; `spec` is the number of its spec line."""
    seq, id_, state, attempt, token, worker, ready_ms, _, payload, digest, extra = job
    line = JobLine(
        seq,
        id_,
        ready_ms,
        spec,
        digest,
        msgspec.Raw(payload),
        _STATE_NAMES[state],
        attempt,
        token,
        worker,
        None if extra is None else ExtraLine(*extra),
    )
    if not _is_plain_json(payload):
        line.payload, line.payload_base64 = msgspec.UNSET, payload
    return line


def _is_plain_json(payload: bytes) -> bool:
    """True where a payload embedded in a line is read back with the same bytes."""
    try:
        if payload.count(b"[") + payload.count(b"{") > PAYLOAD_DEPTH_MAX:
            # The parser goes as deep as the stack of its caller lets it: keep a distance.
            _raw_decoder.decode(b"[" * _DEPTH_SPARE + payload + b"]" * _DEPTH_SPARE)
        return bytes(_raw_decoder.decode(payload)) == payload and b"\n" not in payload
    except (msgspec.MsgspecError, RecursionError):
        return False


def tombstone_line(tombstone: TombstoneTuple) -> TombstoneLine:
    """Returns the line of a frozen tombstone."""
    id_, time_ms, packed = tombstone
    seq, outcome, digest = unpack_tombstone(packed)
    return TombstoneLine(id_, seq, time_ms, _STATE_NAMES[outcome], digest)


# -- reading --------------------------------------------------------------------------------


class LineReader:
    """Reads the lines of a snapshot, kind after kind, as parts of a frozen state."""

    def __init__(self, file: File, path: str) -> None:
        self._file = file
        self._path = path
        self.offset = 0
        self.store = b""
        self._batch: list[Line] = []
        self._index = 0
        self._counts: dict[type, int] = {}

    def header(self) -> Header:
        """Reads the first line alone, since a newer version may go on in any way."""
        first = self._file.pread(READ_BYTES, 0).partition(b"\n")[0] + b"\n"
        version = _version_decoder.decode(first)
        if version.kind != "header" or version.format != FORMAT:
            raise SnapshotDamaged(self._path, 0, "its first line is no header of a snapshot")
        if version.version > VERSION:
            raise NewerFormat(
                f"{self._path} is a snapshot of format version {version.version}; this release "
                f"reads up to {VERSION}\nInstall a newer Beaver to use this data directory."
            )
        line = decoder.decode(first)
        if not isinstance(line, HeaderLine):
            raise SnapshotDamaged(self._path, 0, "its first line is no header of a snapshot")
        self.offset = len(first)
        self.store = bytes.fromhex(line.store)
        return Header(
            line.last_seq, line.time_ms, line.epoch, line.tombstones_max, line.tombstones_age_ms
        )

    def queues(self) -> Iterator[QueueTuple]:
        for line in self._of_kind(QueueLine):
            yield msgspec.structs.astuple(line)

    def jobs(self) -> Iterator[JobTuple]:
        specs: list[bytes] = []
        states = _STATE_VALUES
        for line in self._of_kind(JobLine, SpecLine):
            if type(line) is SpecLine:
                if line.number != len(specs):
                    raise ValueError(f"spec {line.number} follows {len(specs)} specs")
                specs.append(encode_spec(Spec(**line.options)))
                continue
            extra = line.extra
            payload = line.payload
            yield (
                line.seq,
                line.id,
                states[line.state],
                line.attempt,
                line.token,
                line.worker,
                line.ready_ms,
                specs[line.spec],
                line.payload_base64 if payload is msgspec.UNSET else bytes(payload),
                line.digest,
                None if extra is None else msgspec.structs.astuple(extra),
            )

    def tombstones(self) -> Iterator[TombstoneTuple]:
        for line in self._of_kind(TombstoneLine):
            outcome = _STATE_VALUES[line.outcome]
            yield (line.id, line.time_ms, pack_tombstone(line.seq, outcome, line.digest))

    def footer(self) -> FooterLine:
        """Reads the last line and compares the counts."""
        found = [
            self._counts.get(kind, 0) for kind in (QueueLine, SpecLine, JobLine, TombstoneLine)
        ]
        footer = next(iter(self._of_kind(FooterLine)), None)
        if not isinstance(footer, FooterLine):
            raise SnapshotDamaged(self._path, self.offset, "its last line is no footer")
        expected = [footer.queues, footer.specs, footer.jobs, footer.tombstones]
        if found != expected:
            reason = f"it holds {found} queues, specs, jobs, tombstones; its footer says {expected}"
            raise SnapshotDamaged(self._path, self.offset, reason)
        return footer

    def _of_kind(self, *kinds: type) -> Iterator[Any]:
        """Yields lines while they are of these kinds."""
        counts = self._counts
        while True:
            batch = self._batch
            for index in range(self._index, len(batch)):
                line = batch[index]
                kind = type(line)
                if kind not in kinds:
                    self._index = index
                    return
                counts[kind] = counts.get(kind, 0) + 1
                yield line
            self._batch, self._index = self._read_batch(), 0
            if not self._batch:
                return

    def _read_batch(self) -> list[Line]:
        """Returns the next few megabytes of lines; none at the end."""
        data = self._file.pread(READ_BYTES, self.offset)
        end = data.rfind(b"\n") + 1
        while data and not end:
            more = self._file.pread(READ_BYTES, self.offset + len(data))
            if not more:
                raise ValueError("the last line does not end")
            data += more
            end = data.rfind(b"\n") + 1
        self.offset += end
        return decoder.decode_lines(data[:end]) if end else []
