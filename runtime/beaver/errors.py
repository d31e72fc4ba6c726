"""The one tree of errors.  Each class carries its exit code and its HTTP status.

A message says what, where (path, offset, seq), what was expected and found, and what to do
next.  The command line prints it in one to three lines, without a traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, ClassVar, Final

UNUSABLE: Final = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENXIO,
    }
)
"""Error numbers for a file that may not be used or is no file."""
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers for a file that cannot grow: no space, no quota, or a limit on its size
(`ulimit -f`, a file system's largest file).  Room may come; it is no failure of the disk."""


class BeaverError(Exception):
    """Base of everything that Beaver raises on purpose."""

    exit_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 500
    facts: Mapping[str, Any] = {}
    """Facts for programs: `job`, `index`, `seq`, ..."""


class InvalidInput(BeaverError):
    """Something that the user passed is wrong; nothing was changed."""

    http_status = 400


class BindError(InvalidInput):
    """A payload does not fit the parameters of its task."""


class Conflict(InvalidInput):
    """The job exists with different content, or is in a state that forbids the request."""

    http_status = 409


class AppImportError(InvalidInput):
    """The application module could not be imported, or holds no `Beaver`."""


class StoreUnavailable(BeaverError):
    """The data directory cannot be used now: locked, no directory, no permission."""

    exit_code = 3
    http_status = 503


class AccessDenied(StoreUnavailable):
    """A server reached by URL wants a token, or another one; nothing was changed."""

    http_status = 403


class ServerGone(StoreUnavailable):
    """The server went away before it answered; the outcome is unknown, and resending is safe."""


class ServerLeft(ServerGone):
    """The server ended before it began the request; nothing was changed."""


class LostLeadership(StoreUnavailable):
    """Another server leads the store now; nothing was changed, and resending is safe."""


class NoServer(StoreUnavailable):
    """The operation needs a running server, and none holds the directory."""


class QueueFull(StoreUnavailable):
    """The bound on the state's or a queue's bytes is reached; nothing was enqueued."""

    http_status = 429


class TooManyWorkers(StoreUnavailable):
    """No further remote worker can be registered now."""

    http_status = 429


class JobFailed(BeaverError):
    """A job that was waited for died or was cancelled."""

    exit_code = 1
    job: str = ""
    state: str = ""
    """`dead`, `cancelled` or `discarded`."""
    cause: str = ""
    error: str = ""
    """The error of its last attempt."""


class CrewFailed(InvalidInput):
    """Workers with the current code did not start; the former workers keep serving."""


class Corruption(BeaverError):
    """Acknowledged data is damaged.  Nothing was changed."""

    exit_code = 4

    def __init__(self, file: str, offset: int, seq: int, reason: str) -> None:
        super().__init__(
            f"corrupt data in {file} at offset {offset}, seq {seq}: {reason}\n"
            "Nothing was changed. `beaver verify` lists the damage; restore the file from a copy."
        )
        self.file, self.offset, self.seq, self.reason = file, offset, seq, reason


class BackupDamaged(BeaverError):
    """A backup or a shipped log is damaged, incomplete or forged; nothing was restored."""

    exit_code = 4


class WaitTimeout(BeaverError):
    """A wait ended before what it waited for; the job goes on."""

    exit_code = 5
    http_status = 504


class Endless(BeaverError):
    """A `drain` of a test ran more attempts than any test needs."""


class NotFound(BeaverError):
    """No such job or queue, or no such data directory for a reading command."""

    exit_code = 6
    http_status = 404


class StorageFailed(BeaverError):
    """A write or a sync failed; the process that saw it must end."""

    exit_code = 7
    http_status = 507


class LogLost(StorageFailed):
    """The log was removed, replaced or cut under the process that writes it."""


class DiskFull(StorageFailed):
    """No room to prepare the log for this; nothing was enqueued and nothing is lost."""


class HelperFailed(BeaverError):
    """The helper process died or could not do its work; nothing acknowledged depends on it."""

    exit_code = 3


class SnapshotDiffers(HelperFailed):
    """A snapshot that was just written is read back as another state; it is not kept."""


class LiveStateDiffers(HelperFailed):
    """A replay of the log gives another state than the live one; no snapshot is taken."""


class NewerFormat(BeaverError):
    """A file of a newer format version: not corrupt, but not readable by this release."""

    exit_code = 8
