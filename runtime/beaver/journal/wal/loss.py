"""A log that is taken away from its writer: deleted, renamed, replaced or cut.

What lives here: detecting it, saving what the file held, and the message.  What may not: what
follows for the writer (`log`).
"""

from __future__ import annotations

from beaver.journal.wal.layout import Layout
from beaver.ports import Disk, File

_COPY_BYTES = 1 << 20


def trouble(disk: Disk, layout: Layout, file: File, size: int) -> str:
    """Returns what has become of the log, or nothing where it is in its place and whole.

    Args:
        disk: Where it lies.
        layout: Its names.
        file: The log as its writer has it open.
        size: How long that must be at least.
    """
    try:
        named = disk.identity(layout.log)
        if named != file.identity():
            return "another file stands in its place"
        return "" if file.is_kept(size) else f"it was cut from {size} bytes"
    except (FileNotFoundError, NotADirectoryError):
        if disk.exists(layout.path):
            return "it was deleted or renamed"
        return "its directory was deleted or renamed"
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"


def rescue(disk: Disk, layout: Layout, file: File, end: int, next_seq: int) -> str:
    """Copies a log that lives by its writer's descriptor alone, up to `end`; returns the path.

    Nothing where the file has a name, or where that fails.
    """
    path = layout.rescued(str(next_seq))
    try:
        if file.is_kept(0):
            return ""
        kept = disk.open(path, create=True)
        try:
            for offset in range(0, end, _COPY_BYTES):
                kept.pwrite(file.pread(min(_COPY_BYTES, end - offset), offset), offset)
            kept.sync()
        finally:
            kept.close()
        disk.sync_dir(layout.path)
    except OSError:
        return ""
    return path


def told_of_loss(log: str, why: str, kept: str) -> str:
    """Returns what people are told, and what they can do."""
    return f"the log was taken from under this process: {log}: {why or _NAMELESS}\n" + (
        f"What it held is kept in {kept}: rename that to wal.log before the next start."
        if kept
        else "Nothing was acknowledged since; put it back, or a copy, before the next start."
    )


_NAMELESS = "it has no name any more"
