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
import logging
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from beaver.errors import NO_ROOM
from beaver.system.regular import read_regular

_log: Final = logging.getLogger("beaver.workers")

_MAGIC: Final = b"BVRSLOT1"
_HEADER: Final = struct.Struct("=8sQ16s32s")
_SLOT: Final = struct.Struct("=4Q")
_unpack_slot: Final = _SLOT.unpack
_SLOT_BYTES: Final = 64
_WORDS: Final = _SLOT_BYTES // 8
_PID, _TOKEN, _SINCE, _CHECK = range(4)
_READS_MAX: Final = 100
WORKERS_MAX: Final = 10_000
"""Bound on the workers of a few crews, each as large as the settings allow."""


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


class SlotsCut(Exception):
    """Somebody made the file shorter: what a worker has started is not known."""


class SlotWriter:
    """A worker's own slot.  Only that worker writes it."""

    __slots__ = ("_base", "_map", "_words")

    def __init__(self, fd: int, worker: int) -> None:
        """Maps the file behind a descriptor, which stays the caller's.

        The descriptor comes from the server: what happens to the file's name does not matter.
        Nor do bytes behind the own slot, which user code may add.
        """
        self._map = mmap.mmap(fd, (worker + 1) * _SLOT_BYTES)
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
    """The whole file, as the server sees it.

    The server reads it through a descriptor and never maps it: user code can make the file
    shorter, and a page beyond its end would be a signal instead of an error.
    """

    def __init__(self, fd: int, store: bytes, workers: int, started: dict[int, int]) -> None:
        self.fd = fd
        self.workers = workers
        self._store = store
        self.last = started
        """Token that each worker was last seen to have started."""
        self.users: list[Callable[[], None]] = []
        """Called when a cut was found, before the file is restored."""

    @classmethod
    def open(cls, path: str, workers: int, store: bytes, last_seq: int) -> Slots:
        """Creates the file for workers 1 to `workers`.

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
        data = _image(store, count, keep)
        try:
            fd = _replace(path, data)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            # On a full disk the old file's block has to do.  Nothing needs the old one: who
            # calls has logged BOOT.
            Path(path).unlink(missing_ok=True)
            fd = _replace(path, data)
        return cls(fd, store, count, keep)

    def read(self, worker: int) -> Slot:
        """Returns a worker's slot, consistent even while the worker writes it.

        Raises:
            SlotsCut: The file ends before it.
        """
        fd, offset = self.fd, worker * _SLOT_BYTES
        pid = token = since = 0
        for _ in range(_READS_MAX):
            data = os.pread(fd, _SLOT.size, offset)
            if len(data) < _SLOT.size:
                raise SlotsCut
            pid, token, since, check = _unpack_slot(data)
            if check == token ^ since:
                break
        # Without a match the worker died between two stores: the token counts as started.
        return Slot(pid, token, since)

    def reset(self, worker: int) -> None:
        """Writes what a worker was last seen to have started; for one that does not run."""
        token = self.last.get(worker, 0)
        os.pwrite(self.fd, _SLOT.pack(0, token, 0, token), worker * _SLOT_BYTES)

    def restore(self) -> None:
        """Makes the file whole again after somebody has cut it."""
        _log.error("the slots file was cut by somebody; all workers are replaced")
        for lose in self.users:
            lose()
        try:
            data = _image(self._store, self.workers, self.last)
            os.ftruncate(self.fd, len(data))
            os.pwrite(self.fd, data, 0)
        except OSError as error:
            _log.error("the slots file cannot be made whole again: %s", error)

    def make_room(self, worker: int) -> None:
        """Makes the file longer, up to the slot of that worker.  Who maps it goes on with it.

        The bytes are written, and the file is not just extended: on a full disk a worker that
        writes to a page without a block is killed.  They are written before the header that counts
        them.

        Raises:
            OSError: There is no room.  All is as it was.
        """
        if worker <= self.workers:
            return
        assert worker <= WORKERS_MAX
        more = (worker - self.workers) * _SLOT_BYTES
        os.pwrite(self.fd, bytes(more), (self.workers + 1) * _SLOT_BYTES)
        os.pwrite(self.fd, struct.pack("=Q", worker), len(_MAGIC))
        self.workers = worker

    def close(self) -> None:
        """Closes the file once nobody uses it any more."""
        if not self.users and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _image(store: bytes, workers: int, started: dict[int, int]) -> bytearray:
    """Returns the bytes of a file in which the workers have started these tokens."""
    data = bytearray((workers + 1) * _SLOT_BYTES)
    _HEADER.pack_into(data, 0, _MAGIC, workers, store, boot_id())
    for worker, token in started.items():
        _SLOT.pack_into(data, worker * _SLOT_BYTES, 0, token, 0, token)
    return data


def _replace(path: str, data: bytes | bytearray) -> int:
    """Writes a file beside the one at `path`, gives it that name, and returns its descriptor."""
    new = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        Path(new).unlink()
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        Path(new).replace(path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_previous(path: str) -> PreviousSlots | None:
    """Returns what an earlier server's slots say; `None` where there is no usable file."""
    try:
        data = read_regular(path, (WORKERS_MAX + 1) * _SLOT_BYTES)
    except OSError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, count, store, boot = _HEADER.unpack_from(data)
    if magic != _MAGIC or count > WORKERS_MAX or len(data) < (count + 1) * _SLOT_BYTES:
        return None
    # Bytes behind the last slot are nobody's, and need not be whole words.
    words = memoryview(data)[: (count + 1) * _SLOT_BYTES].cast("Q")
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
