"""Changes inside the program whose power is cut: small bounds, a new boot, seeded bugs.

Each process of it runs `prepare` before its own code, through a `sitecustomize` on its path.
The program is the real one.  Its bounds are made small, so that within a second it prepares,
seals and prunes segments and takes snapshots, which it else does once in minutes.  And it is
told another boot after each cut, as by a kernel that really was started again.

What may not live here: anything that makes the program safer than it is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

BOOT_VARIABLE: Final = "CHAOS_BOOT"
"""Number of the boot that the server believes to live in."""
SOWN_VARIABLE: Final = "CHAOS_SOWN"
"""Name of the bug that is sown, one of `BUGS`."""
SEGMENT_BYTES: Final = 256 << 10
SNAPSHOT_EVENTS: Final = 150
BEAT_S: Final = 0.02
SYNC_LATE_S: Final = 0.1


def environment(directory: Path, boot: int, sown: str = "") -> dict[str, str]:
    """Returns the variables with which a program is started, and writes what they name."""
    site = directory / "site"
    site.mkdir(exist_ok=True)
    code = "from beaver_chaos.faults.power import inside\n\ninside.prepare()\n"
    (site / "sitecustomize.py").write_text(code)
    return {
        "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]),
        BOOT_VARIABLE: str(boot),
        SOWN_VARIABLE: sown,
        "BEAVER_SEGMENT_SIZE": str(SEGMENT_BYTES),
        "BEAVER_SNAPSHOT": "100ms",
        "BEAVER_RETENTION_SIZE": str(RETENTION_BYTES),
    }


RETENTION_BYTES: Final = 4 * SEGMENT_BYTES
"""More than is logged between two cuts, since the checker reads on where it was."""


def prepare() -> None:
    """Changes what has to be changed in the process that is about to start."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    if module == "beaver":
        _make_small()
        _believe_in_boot(os.environ[BOOT_VARIABLE])
    if module in _WRITERS and os.environ.get(SOWN_VARIABLE):
        BUGS[os.environ[SOWN_VARIABLE]]()


_WRITERS: Final = frozenset({"beaver", "beaver.helper", "beaver.journal.wal.writer_child"})


def _make_small() -> None:
    import msgspec

    from beaver.config import settings
    from beaver.server import housekeeping

    for name, least in (("segment_size", SEGMENT_BYTES), ("snapshot", 1)):
        changed = msgspec.structs.replace(settings.SETTINGS[name], least=least)
        settings.SETTINGS[name] = changed
    _set(housekeeping, SNAPSHOT_EVENTS=SNAPSHOT_EVENTS, BEAT_S=BEAT_S)


def _believe_in_boot(number: str) -> None:
    from beaver.workers import slots

    _set(slots, boot_id=lambda: number.encode().ljust(32, b"\0"))


def _set(module: Any, **values: Any) -> None:
    """Sets names of a module, which must be there: a name that moved has to be seen."""
    for name, value in values.items():
        assert hasattr(module, name), f"{module.__name__} has no {name}"
        setattr(module, name, value)


# -- sown bugs ------------------------------------------------------------------------------


def _sync_late() -> None:
    from beaver.system.disk import SystemFile

    durable = SystemFile.pwrite_durable
    waiting: list[int] = []
    """Descriptors of our own of what is to be synced; a timer runs while there are any."""

    def sync() -> None:
        with suppress(IndexError):  # Another timer may take the last one.
            while True:
                descriptor = waiting.pop()
                with suppress(OSError):
                    os.fdatasync(descriptor)
                os.close(descriptor)

    def write(self: SystemFile, data: bytes, offset: int) -> None:
        if not offset:  # The header of a segment; the bug is in commits.
            durable(self, data, offset)
            return
        os.pwrite(self.fileno(), data, offset)
        waiting.append(os.dup(self.fileno()))
        if len(waiting) == 1:
            timer = threading.Timer(SYNC_LATE_S, sync)
            timer.daemon = True
            timer.start()

    _set(SystemFile, pwrite_durable=write)


def _snapshot_not_synced() -> None:
    from beaver.snapshot import files

    _set(files._Writer, end=_do_nothing)  # noqa: SLF001 - a bug is sown into it


def _do_nothing(*_: Any) -> None:
    """Stands in for what is left out."""


BUGS: Final[Mapping[str, Callable[[], None]]] = {
    "acknowledged before the sync": _sync_late,
    "a snapshot gets its name before the sync": _snapshot_not_synced,
}
