"""Facts of the machine and of a data directory, for `checks` to judge.

A fact that cannot be had is `None`: some systems do not tell it, and a directory may not exist yet.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import stat
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from beaver.client.opening import open_client
from beaver.config.layers import Config
from beaver.errors import BeaverError, StoreUnavailable
from beaver.journal.wal.format import crc32c, crc32c_plain, crc_is_fast
from beaver.journal.wal.layout import Layout
from beaver.snapshot.files import inspect_snapshot
from beaver.store.holding import Holding, StorageView
from beaver.structs.views import StatusView
from beaver.system.disk import SystemDisk, SystemFile
from beaver.system.ownership import refuse_foreign_directory
from beaver.system.version import own_version

PROBE_SYNCS: Final = 20
PROBE_BYTES: Final = 4096
_STA_UNSYNC: Final = 0x40
_PRIVATE: Final = ("wal.log", "snapshot.json", "token", "tokens.json", "history.db")


class Limits(msgspec.Struct, frozen=True):
    """Limits of a process; `None` for none."""

    files: int | None
    """The hard limit: the server raises the soft one."""
    processes: int | None
    file_bytes: int | None


class Facts(msgspec.Struct, kw_only=True):
    """All that is judged."""

    data: str
    place: str
    """The directory that exists: the data directory, or the one that it will be made in."""
    exists: bool
    """There is a store."""
    system: str
    python: tuple[int, int]
    file_system: str = ""
    """Its type, as the kernel calls it."""
    sync_ms: float | None = None
    """Median of a few durable writes."""
    sync_error: str = ""
    """Why they could not be made."""
    limits: Limits
    crc: str
    """Who computes CRC-32C: `instruction`, `extension` or `python`."""
    now_ms: int
    last_ms: int | None = None
    """Stamp of the newest snapshot or the last event that is known."""
    clock_synchronised: bool | None = None
    foreign: str = ""
    """Why the directory is refused for writing."""
    open_to_others: list[str] = []
    """Files that others can read."""
    free_bytes: int | None = None
    free_inodes: int | None = None
    storage: StorageView | None = None
    store_error: str = ""
    """What is wrong with the files at a first look."""
    store_error_code: int = 0
    version: str = ""
    """Of this command."""
    status: StatusView | None = None
    """Of the server, where one answers."""
    config: Config


def take(config: Config) -> Facts:
    """Returns the facts; nothing is created but a probe that goes at once."""
    data = config.data
    place = _existing(Path(data))
    exists = Path(data, "wal.log").exists()
    facts = Facts(
        data=data,
        place=str(place),
        exists=exists,
        system=platform.system(),
        python=sys.version_info[:2],
        file_system=file_system_of(place),
        limits=limits(),
        crc=crc(),
        now_ms=time.time_ns() // 1_000_000,
        clock_synchronised=clock_is_synchronised(),
        version=own_version(),
        config=config,
    )
    with contextlib.suppress(OSError):
        found = os.statvfs(place)
        facts.free_bytes = found.f_bavail * found.f_frsize
        facts.free_inodes = found.f_favail if found.f_files else None
    facts.sync_ms, facts.sync_error = sync_probe(place)
    if place == Path(data):
        _look_at_directory(facts)
    if exists:
        _look_at_store(facts)
    return facts


def _existing(path: Path) -> Path:
    """Returns the path, or the nearest directory above it that exists."""
    for candidate in (path, *path.absolute().parents):
        if candidate.is_dir():
            return candidate
    return Path("/")


def _look_at_directory(facts: Facts) -> None:
    try:
        refuse_foreign_directory(facts.data)
    except StoreUnavailable as error:
        facts.foreign = str(error)
    except OSError as error:
        facts.foreign = f"{facts.data} cannot be looked at: {error.strerror}"
    for name in _PRIVATE:
        with contextlib.suppress(OSError):
            mode = os.lstat(Path(facts.data, name)).st_mode
            if stat.S_IMODE(mode) & 0o077:
                facts.open_to_others.append(f"{name} ({stat.S_IMODE(mode):04o})")


def _look_at_store(facts: Facts) -> None:
    disk, layout = SystemDisk(), Layout(facts.data)
    try:
        facts.storage = Holding(disk, layout).look()
        if disk.exists(layout.snapshot):
            facts.last_ms = inspect_snapshot(disk, layout.snapshot).time_ms
        if facts.storage.last_known_ms:
            facts.last_ms = max(facts.last_ms or 0, facts.storage.last_known_ms)
        with contextlib.closing(open_client(facts.data)) as client:
            status = client.status()
        if status.running or status.silent:
            facts.status = status
    except BeaverError as error:
        facts.store_error, facts.store_error_code = str(error), error.exit_code
    except OSError as error:
        facts.store_error = f"{error.filename or facts.data}: {error.strerror}"
        facts.store_error_code = StoreUnavailable.exit_code


# -- the machine ---------------------------------------------------------------------------------


def crc() -> str:
    """Returns who computes CRC-32C."""
    if crc32c is not crc32c_plain:
        return "instruction"
    return "extension" if crc_is_fast() else "python"


def limits() -> Limits:
    """Returns the limits of this process, which a server started like it has too."""

    def hard(which: int) -> int | None:
        value = resource.getrlimit(which)[1]
        return None if value == resource.RLIM_INFINITY else value

    soft_bytes = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return Limits(
        hard(resource.RLIMIT_NOFILE),
        hard(resource.RLIMIT_NPROC) if os.geteuid() else None,
        None if soft_bytes == resource.RLIM_INFINITY else soft_bytes,
    )


def file_system_of(path: Path) -> str:
    """Returns the type of the file system that a path lies on; empty where nobody tells."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    where, best, found = os.path.realpath(path), "", ""
    for line in lines:
        fields = line.split()
        point = fields[1].encode().decode("unicode_escape")
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, fields[2]
    return found


def sync_probe(place: Path) -> tuple[float | None, str]:
    """Returns the median time of a durable write in ms, or why there is none."""
    path = place / f".beaver-doctor-{os.getpid()}"
    try:
        try:
            descriptor = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)
        except (OSError, AttributeError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            path.unlink()
        file = SystemFile(descriptor)
        try:
            file.pwrite(bytes(PROBE_SYNCS * PROBE_BYTES), 0)
            file.sync()
            took: list[float] = []
            for number in range(PROBE_SYNCS):
                started = time.perf_counter()
                file.pwrite_durable(b"\x01" * PROBE_BYTES, number * PROBE_BYTES)
                took.append(time.perf_counter() - started)
        finally:
            file.close()
    except OSError as error:
        return None, error.strerror or str(error)
    return median(took) * 1000, ""


class _Timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def clock_is_synchronised() -> bool | None:
    """True where something keeps the clock right (NTP, a host); `None` where nobody tells."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None) if sys.platform == "linux" else None
    if adjtimex is None:
        return None
    told = _Timex()
    return None if adjtimex(ctypes.byref(told)) < 0 else not told.status & _STA_UNSYNC
