"""The lines of a snapshot: what stands in the file, and how a state is read from them.

What lives here: the format.  What may not: files; `files` opens, syncs and renames them.

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

import operator
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec

from beaver.errors import Corruption, NewerFormat
from beaver.ports import File
from beaver_model.bounds import DIGEST_BYTES, PAYLOAD_DEPTH_MAX
from beaver_model.events import Bound, Weight
from beaver_model.freezing import JobTuple, QueueTuple, TombstoneTuple, freeze_queue
from beaver_model.rows import (
    Extra,
    QueueRow,
    Row,
    Spec,
    encode_spec,
    pack_tombstone,
    spec_of,
    unpack_tombstone,
)
from beaver_model.state import Header
from beaver_model.states import JobState

FORMAT: Final = "beaver-snapshot"
VERSION: Final = 1

CRC_KEY: Final = b',"crc":"'
CRC_BYTES: Final = len(CRC_KEY) + 8 + len(b'"}\n')
READ_BYTES: Final = 256 << 10
"""Bytes of lines that are decoded at once: they and what they become stay in the cache."""
_seq: Final = operator.attrgetter("seq")

_DEPTH_SPARE: Final = 500
PENDING: Final = "pending"
_STATE_NAMES: Final = {
    # The very string that is the default: what is left out is told by identity.
    state: PENDING if state == JobState.PENDING else state.name.lower()
    for state in JobState
}
_STATES: Final = {name: state for state, name in _STATE_NAMES.items()}


class SnapshotDamaged(Corruption):
    """A snapshot cannot be used.  An older one may do; see the recovery table."""

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(file, offset, 0, reason)


# -- the lines ------------------------------------------------------------------------------


class HeaderLine(msgspec.Struct, tag="header", tag_field="kind", omit_defaults=True):
    format: str
    version: int
    store: str
    last_seq: int
    time_ms: int
    epoch: int
    tombstones_max: int
    tombstones_age_ms: int
    completed_elsewhere: int = 0


class QueueLine(msgspec.Struct, tag="queue", tag_field="kind", omit_defaults=True):
    name: str
    paused: bool
    weight: Weight
    bytes_max: Bound
    enqueued: Bound
    completed: Bound
    durable_dispatch: bool = True


class SpecLine(msgspec.Struct, tag="spec", tag_field="kind"):
    number: int
    options: dict[str, Any]


def spec_line(number: int, spec: Spec) -> SpecLine:
    """Returns a line; releases that did not know `by` read one without it."""
    options = msgspec.structs.asdict(spec)
    if not spec.by:
        del options["by"]
    return SpecLine(number, options)


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
    digest: Annotated[bytes, msgspec.Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    state: str = PENDING
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
        _STATE_NAMES[JobState(state)],
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
    return TombstoneLine(id_, seq, time_ms, _STATE_NAMES[JobState(outcome)], digest)


# -- reading --------------------------------------------------------------------------------


class LineReader:
    """Reads the lines of a snapshot, kind after kind, as parts of a state.

    Million by million, so lines go from hand to hand in lists, never one by one.
    """

    def __init__(self, file: File, path: str) -> None:
        self._file = file
        self._path = path
        self.offset = 0
        self.store = b""
        self._lines: list[Line] = []
        self._counts: Counter[type] = Counter()
        self._queues: set[str] = set()

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
            line.last_seq,
            line.time_ms,
            line.epoch,
            line.tombstones_max,
            line.tombstones_age_ms,
            line.completed_elsewhere,
        )

    def queues(self) -> Iterator[list[QueueTuple]]:
        """Yields the queues, by name."""
        for lines in self._runs(QueueLine):
            self._queues.update(line.name for line in lines)
            yield [freeze_queue(QueueRow(*msgspec.structs.astuple(line))) for line in lines]

    def rows(self) -> Iterator[list[Row]]:
        """Yields the rows of the jobs, in seq order, some thousand at a time."""
        specs: list[Spec] = []
        unset = msgspec.UNSET
        last_seq = last_ms = 0
        for lines in self._runs(JobLine, SpecLine):
            jobs = lines
            if SpecLine in set(map(type, lines)):
                jobs = [line for line in lines if type(line) is JobLine]
                others = (line for line in lines if type(line) is SpecLine)
                specs += [self._spec_of(line, n) for n, line in enumerate(others, len(specs))]
            # Only what every row needs: checking each line costs as much as making it.
            rows = [
                Row(
                    line.seq,
                    line.id,
                    # Jobs of one commit share their time: one object for all of them.
                    last_ms if line.ready_ms == last_ms else (last_ms := line.ready_ms),
                    specs[line.spec],
                    line.digest + (line.payload_base64 if line.payload is unset else line.payload),
                )
                for line in jobs
            ]
            for row, line in zip(rows, jobs, strict=True):
                if line.attempt or line.extra is not None or line.state is not PENDING:
                    _give_rest(row, line)
            seqs = [last_seq, *map(_seq, rows)]
            if not all(map(operator.lt, seqs, seqs[1:])):
                raise ValueError(f"seqs do not ascend behind {last_seq}")
            last_seq = seqs[-1]
            yield rows

    def _spec_of(self, line: SpecLine, number: int) -> Spec:
        """Returns the one shared `Spec` of a line; `number` is the one that it must have."""
        if line.number != number:
            raise ValueError(f"spec {line.number} follows where {number} is due")
        spec = spec_of(encode_spec(Spec(**line.options)))
        if spec.queue not in self._queues:
            raise ValueError(f"spec {number} names the queue {spec.queue}, which has no line")
        return spec

    def tombstones(self) -> Iterator[list[TombstoneTuple]]:
        """Yields the tombstones, oldest first, some thousand at a time."""
        for lines in self._runs(TombstoneLine):
            yield [
                (
                    line.id,
                    line.time_ms,
                    pack_tombstone(line.seq, _STATES[line.outcome], line.digest),
                )
                for line in lines
            ]

    def footer(self) -> FooterLine:
        """Reads the last line and compares the counts."""
        found = [
            self._counts.get(kind, 0) for kind in (QueueLine, SpecLine, JobLine, TombstoneLine)
        ]
        footers = [line for lines in self._runs(FooterLine) for line in lines]
        if len(footers) != 1 or self._lines:
            raise SnapshotDamaged(self._path, self.offset, "its last line is no footer")
        footer: FooterLine = footers[0]
        expected = [footer.queues, footer.specs, footer.jobs, footer.tombstones]
        if found != expected:
            reason = (
                f"it holds {found} (queues, specs, jobs, tombstones); its footer says {expected}"
            )
            raise SnapshotDamaged(self._path, self.offset, reason)
        return footer

    def _runs(self, *kinds: type) -> Iterator[list[Any]]:
        """Yields lists of lines while they are of these kinds."""
        counts, wanted = self._counts, set(kinds)
        while True:
            lines, self._lines = self._lines, []
            found = Counter(map(type, lines))
            if not found.keys() <= wanted:
                end = next(n for n, line in enumerate(lines) if type(line) not in wanted)
                lines, self._lines = lines[:end], lines[end:]
                found = Counter(map(type, lines))
            counts.update(found)
            if lines:
                yield lines
            if self._lines:
                return
            self._lines = self._read_lines()
            if not self._lines:
                return

    def _read_lines(self) -> list[Line]:
        """Returns the next few thousand lines; none at the end."""
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


def _give_rest(row: Row, line: JobLine) -> None:
    """Gives a row what a job that waits for its first attempt has at its default."""
    row.state = _STATES[line.state]
    row.attempt, row.token, row.worker = line.attempt, line.token, line.worker
    if line.extra is not None:
        row.extra = Extra(*msgspec.structs.astuple(line.extra))
