"""The tar stream of a backup: written in one go, and read with suspicion.

Plain tar (regular files only), so that any tool can look into it:

1. `beaver-backup.json`: format and version, store, seq, and name and size of every member;
2. the members, in that order: `snapshot.old.json`, `snapshot.json`, `archive/*.wal`, `wal.log`;
3. `beaver-backup.end.json`: the SHA-256 of every member, and the fingerprint of the state that
   the log gives.  It is written last, once that state was replayed: without it a backup is
   incomplete, wherever it was cut.

A reader takes these names in this order, of these sizes, and nothing else: no links, no paths,
nothing that is larger than was announced, and no more than there is room for.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Annotated, Final

import msgspec

from beaver.backup.capture import Captured
from beaver.errors import BackupDamaged, InvalidInput, NewerFormat
from beaver.text.foreign import printable

FORMAT: Final = "beaver-backup"
VERSION: Final = 1
HEAD: Final = "beaver-backup.json"
END: Final = "beaver-backup.end.json"
BLOCK_BYTES: Final = 512
COPY_BYTES: Final = 1 << 20
HEAD_BYTES_MAX: Final = 64 << 20
MEMBERS_MAX: Final = 1_000_000
_NAME: Final = re.compile(r"snapshot(\.old)?\.json|archive/[0-9]{20}\.wal|wal\.log")
_GZIP: Final = b"\x1f\x8b"
_Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
_Seq = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
_Id = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]

Write = Callable[[bytes], object]
Progress = Callable[[int, int], None]
"""Told now and then how many bytes of how many are done."""


class Member(msgspec.Struct, frozen=True):
    """A file of the store."""

    name: str
    size: _Size


class Head(msgspec.Struct, kw_only=True):
    """What the first member says."""

    format: str
    version: int
    store: _Id
    lineage: _Id
    first_seq: _Seq
    last_seq: _Seq
    made_ms: _Seq
    members: Annotated[list[Member], msgspec.Meta(max_length=MEMBERS_MAX)]


class End(msgspec.Struct, kw_only=True):
    """What the last member says."""

    last_seq: _Seq
    fingerprint: str
    sha256: dict[str, str]
    """By the name of the member."""


def head_of(captured: Captured, made_ms: int) -> Head:
    """Returns the head of a backup of what was captured."""
    return Head(
        format=FORMAT,
        version=VERSION,
        store=captured.header.store.hex(),
        lineage=captured.header.lineage.hex(),
        first_seq=captured.header.first_seq,
        last_seq=captured.last_seq,
        made_ms=made_ms,
        members=[Member(*member) for member in captured.members()],
    )


# -- writing ----------------------------------------------------------------------------------


class Writer:
    """Writes one stream; `end` alone makes it whole."""

    def __init__(self, write: Write, head: Head) -> None:
        self._write, self._head = write, head
        self._sha256: dict[str, str] = {}
        self.bytes = 0
        self.fingerprint = ""
        self.offsets: dict[str, int] = {}
        """Where the bytes of each member stand."""

    def members(self, captured: Captured, on_progress: Progress) -> None:
        """Writes the head and every member."""
        head = self._head
        self._add(HEAD, msgspec.json.encode(head))
        total = sum(member.size for member in head.members)
        done = 0
        for member in head.members:
            file = captured.disk.open(f"{captured.layout.path}/{member.name}")
            digest = hashlib.sha256()
            self._put(self._header(member.name, member.size))
            self.offsets[member.name] = self.bytes
            for offset in range(0, member.size, COPY_BYTES):
                wanted = min(COPY_BYTES, member.size - offset)
                data = file.pread(wanted, offset)
                if len(data) < wanted:
                    raise BackupDamaged(
                        f"{captured.layout.path}/{member.name} became shorter while it was copied"
                    )
                digest.update(data)
                self._put(data)
                done += len(data)
                on_progress(done, total)
            self._put(bytes(-member.size % BLOCK_BYTES))
            self._sha256[member.name] = digest.hexdigest()

    def end(self, fingerprint: str) -> None:
        """Makes the stream whole; the state was replayed, and has this fingerprint."""
        self.fingerprint = fingerprint
        end = End(last_seq=self._head.last_seq, fingerprint=fingerprint, sha256=self._sha256)
        self._add(END, msgspec.json.encode(end))
        self._put(bytes(2 * BLOCK_BYTES))

    def _add(self, name: str, data: bytes) -> None:
        self._put(self._header(name, len(data)) + data + bytes(-len(data) % BLOCK_BYTES))

    def _header(self, name: str, size: int) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, self._head.made_ms // 1000
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")

    def _put(self, data: bytes) -> None:
        if data:
            self._write(data)
            self.bytes += len(data)


# -- reading ----------------------------------------------------------------------------------


class Reader:
    """Reads one stream from its beginning; everything that it returns was checked."""

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        """Takes a stream.

        Args:
            read: Returns up to so many bytes, fewer or none only at the end.
            name: What to call it in errors.
        """
        self._read, self._name = read, name
        self.offset = 0
        self.sha256: dict[str, str] = {}

    def head(self) -> Head:
        """Returns the head.

        Raises:
            InvalidInput: It is no backup.
            NewerFormat: It is one of a newer version.
            BackupDamaged: It is damaged.
        """
        block = self._exactly(BLOCK_BYTES)
        if block[:2] == _GZIP:
            raise InvalidInput(
                f"{self._name} is compressed; unpack it first: `zcat FILE | beaver restore -`"
            )
        try:
            name, size = self._parse(block)
        except BackupDamaged as error:
            if HEAD.encode() not in block:
                raise InvalidInput(f"{self._name} is no backup made by `beaver backup`") from error
            raise
        if name != HEAD:
            raise InvalidInput(f"{self._name} is a tar file, but none made by `beaver backup`")
        raw = self._small(HEAD, size)
        version = _version_of(raw)
        if version is not None and version > VERSION:
            raise NewerFormat(
                f"{self._name} is a backup of version {version}; this release reads up to "
                f"{VERSION}. It was made by a newer version of Beaver: use that version."
            )
        try:
            head = msgspec.json.decode(raw, type=Head)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(f"its head is none: {error}") from error
        if head.format != FORMAT:
            raise self._damaged(f"its head says that it is a {head.format!r:.40}")
        names = [member.name for member in head.members]
        for name in names:
            if not _NAME.fullmatch(name):
                raise self._damaged(f"it announces {name!r:.80}, which no backup holds")
        if len(set(names)) < len(names) or "wal.log" not in names:
            raise self._damaged("it announces a file twice, or no log")
        return head

    def members(self, head: Head, on_progress: Progress) -> Iterator[tuple[Member, int]]:
        """Yields each member, and at which offset of the stream its bytes stand."""
        total = sum(member.size for member in head.members)
        done = 0
        for member in head.members:
            name, size = self._parse(self._exactly(BLOCK_BYTES))
            if (name, size) != (member.name, member.size):
                raise self._damaged(
                    f"there is {name!r:.80} of {size} bytes where {member.name} of {member.size} "
                    "was announced"
                )
            at, digest = self.offset, hashlib.sha256()
            for offset in range(0, size, COPY_BYTES):
                data = self._exactly(min(COPY_BYTES, size - offset))
                digest.update(data)
                done += len(data)
                on_progress(done, total)
            self._padding(size)
            self.sha256[name] = digest.hexdigest()
            yield member, at

    def end(self, head: Head) -> End:
        """Reads to the end, which says that the stream is whole, and compares."""
        name, size = self._parse(self._exactly(BLOCK_BYTES))
        if name != END:
            raise self._damaged(f"there is {name!r:.80} where its end was expected")
        try:
            end = msgspec.json.decode(self._small(END, size), type=End)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(f"its end is none: {error}") from error
        for member in head.members:
            found, told = self.sha256[member.name], end.sha256.get(member.name)
            if found != told:
                raise self._damaged(
                    f"{member.name} has the SHA-256 {found}, and the end says {told!r:.80}"
                )
        if end.last_seq != head.last_seq:
            raise self._damaged(f"its head says seq {head.last_seq}, its end {end.last_seq}")
        if self._exactly(2 * BLOCK_BYTES).strip(b"\0"):
            raise self._damaged("there is something behind its end")
        return end

    def _small(self, name: str, size: int) -> bytes:
        if size > HEAD_BYTES_MAX:
            raise self._damaged(f"{name} has {size} bytes")
        data = self._exactly(size)
        self._padding(size)
        return data

    def _padding(self, size: int) -> None:
        if self._exactly(-size % BLOCK_BYTES).strip(b"\0"):
            raise self._damaged("the padding of a member is not zero")

    def _parse(self, block: bytes) -> tuple[str, int]:
        """Returns name and size of a regular member."""
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._damaged(f"there is no header of a member: {error}") from error
        if not (info.isreg() and info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)):
            raise self._damaged(f"{info.name!r:.80} is no plain file")
        if info.size < 0:
            raise self._damaged(f"{info.name!r:.80} has {info.size} bytes")
        return info.name, info.size

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        left = size
        while left:
            data = self._read(left)
            if not data:
                raise self._damaged("it ends here: it was cut short, or never finished")
            parts.append(data)
            left -= len(data)
            self.offset += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _damaged(self, reason: str) -> BackupDamaged:
        return BackupDamaged(
            f"{self._name} cannot be restored: at offset {self.offset}: {printable(reason)}\n"
            "Nothing was restored; take another backup, or `beaver ship`'s target."
        )


def _version_of(raw: bytes) -> int | None:
    class Versioned(msgspec.Struct):
        version: int

    try:
        return msgspec.json.decode(raw, type=Versioned).version
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
