"""The slots: a small shared file that says which attempt each worker has started.

A worker writes the token of an attempt here before it runs user code, so that a worker's
death charges only what ran, and a server's death too: the file is mapped from the data
directory, and the page cache outlives every process.  It does not outlive the machine; the
header holds the machine's boot id, so that the next start knows which of the two happened.

    offset  size  header
         0     8  magic "BVRSLOT1"
         8     8  number of slots, u64
        16    16  store id
        32    32  the machine's boot id, padded with zero bytes
                  slot of worker n, at 64 * n
         0     8  pid, u64
         8     8  highest token started, u64
        16     8  since when, monotonic ns, u64
        24     8  token XOR since, u64
        32    32  zero

Numbers are in the machine's own order, since the file never leaves it.  Each is written by
one aligned 8-byte store; the check word tells a reader that a token and its time belong
together.  Attempts start in the order of their tokens, so one token says it all: every
unresolved token of that worker up to it has started.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from beaver.errors import NO_ROOM

_MAGIC: Final = b"BVRSLOT1"
_HEADER: Final = struct.Struct("=8sQ16s32s")
_SLOT_BYTES: Final = 64
_WORDS: Final = _SLOT_BYTES // 8
_PID, _TOKEN, _SINCE, _CHECK = range(4)
_READS_MAX: Final = 100
WORKERS_MAX: Final = 10_000
"""Those of a few crews, each as large as the settings allow."""


class Slot(NamedTuple):
    """One worker's slot."""

    pid: int
    started: int
    """Highest token whose user code has begun, or 0."""
    since_ns: int


class PreviousSlots(NamedTuple):
    """What the slots of an earlier server say."""

    same_boot: bool
    """The machine has run since: what is not in `started` did not start."""
    store: bytes
    started: dict[int, int]
    """Highest token that each worker started."""


class SlotWriter:
    """A worker's own slot.  Only that worker writes it."""

    __slots__ = ("_base", "_map", "_words")

    def __init__(self, path: str, worker: int) -> None:
        self._map = _map(path)
        self._words = memoryview(self._map).cast("Q")
        self._base = worker * _WORDS
        self._words[self._base + _PID] = os.getpid()

    def start(self, token: int, now_ns: int) -> None:
        """Says that user code of `token` is about to run.

        The time goes first: a reader that meets the old token with the new time gives it
        more time than it had, never less.
        """
        words, base = self._words, self._base
        words[base + _SINCE] = now_ns
        words[base + _TOKEN] = token
        words[base + _CHECK] = token ^ now_ns


class Slots:
    """The whole file, as the server sees it."""

    def __init__(self, mapping: mmap.mmap, path: str, workers: int) -> None:
        self._map = mapping
        self._words = memoryview(mapping).cast("Q")
        self.path = path
        self._users = 1
        self.workers = workers

    @classmethod
    def open(cls, path: str, workers: int, store: bytes, last_seq: int) -> Slots:
        """Makes the file afresh, for workers 1 to `workers`.

        It replaces an older file by name, so a process that still maps that one cannot
        write here.  Tokens of an older file of the same boot are carried over, as tokens
        below every one to come.  An attempt that began before its DISPATCH was durable may
        have left a token that the log never came to: it is cut at `last_seq`, the seq up to
        which the log is durable, or later attempts with lower tokens would seem to have
        started.  After a power cut there is nothing to carry.  BOOT is among what is durable.
        """
        assert 0 < workers <= WORKERS_MAX
        previous = read_previous(path)
        keep = previous.started if previous is not None and previous.same_boot else {}
        keep = {worker: min(token, last_seq) for worker, token in keep.items()}
        count = max([workers, *keep])
        data = bytearray((count + 1) * _SLOT_BYTES)
        _HEADER.pack_into(data, 0, _MAGIC, count, store, boot_id())
        words = memoryview(data).cast("Q")
        for worker, token in keep.items():
            words[worker * _WORDS + _TOKEN] = words[worker * _WORDS + _CHECK] = token
        words.release()
        try:
            _replace(path, data)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # On a full disk the old file's block has to do.  Nothing needs the old one: who
            # calls has logged BOOT.
            Path(path).unlink(missing_ok=True)
            _replace(path, data)
        return cls(_map(path), path, count)

    def read(self, worker: int) -> Slot:
        """Returns a worker's slot, consistent even while the worker writes it."""
        words, base = self._words, worker * _WORDS
        token = since = 0
        for _ in range(_READS_MAX):
            token, since = words[base + _TOKEN], words[base + _SINCE]
            if words[base + _CHECK] == token ^ since:
                break
        # Without a match the worker died between two stores: the token counts as started.
        return Slot(words[base + _PID], token, since)

    def make_room(self, worker: int) -> None:
        """Makes the file longer, up to the slot of that worker.  Who maps it goes on with it.

        Written, not stretched: a worker that writes to a page without a block is killed where
        the disk is full.  The bytes come before the header that counts them.

        Raises:
            OSError: There is no room.  All is as it was.
        """
        if worker <= self.workers:
            return
        assert worker <= WORKERS_MAX
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            more = (worker - self.workers) * _SLOT_BYTES
            os.pwrite(fd, bytes(more), (self.workers + 1) * _SLOT_BYTES)
            os.pwrite(fd, struct.pack("=Q", worker), len(_MAGIC))
        finally:
            os.close(fd)
        self.workers = worker
        self._words.release()
        self._map.close()
        self._map = _map(self.path)
        self._words = memoryview(self._map).cast("Q")

    def share(self) -> Slots:
        """Returns the slots for another user, who closes them as well."""
        self._users += 1
        return self

    def close(self) -> None:
        self._users -= 1
        if self._users:
            return
        self._words.release()
        self._map.close()


def _replace(path: str, data: bytes | bytearray) -> None:
    """Writes a file beside the one at `path`, then gives it that name."""
    new = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        Path(new).unlink()
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    Path(new).replace(path)


def read_previous(path: str) -> PreviousSlots | None:
    """Returns what an earlier server's slots say; `None` where there is no usable file."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, count, store, boot = _HEADER.unpack_from(data)
    if magic != _MAGIC or count > WORKERS_MAX or len(data) < (count + 1) * _SLOT_BYTES:
        return None
    words = memoryview(data).cast("Q")
    started = {
        worker: words[worker * _WORDS + _TOKEN]
        for worker in range(1, count + 1)
        if words[worker * _WORDS + _TOKEN]
    }
    return PreviousSlots(boot == boot_id(), store, started)


def boot_id() -> bytes:
    """Returns 32 bytes that are the same until the machine starts again."""
    if sys.platform == "darwin":
        output = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
            capture_output=True,
            check=True,
        ).stdout
        text = output.decode()
    else:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    return text.strip().replace("-", "").encode()[:32].ljust(32, b"\0")


def _map(path: str) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, 0)
    finally:
        os.close(fd)
