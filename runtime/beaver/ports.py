"""The only doors to the world: clock, disk, entropy, processes, connections.

Engine, controller, recovery and snapshots reach time, files, randomness, workers and
helpers through these protocols alone, so the simulator can drive the very code that runs.
The real ones are `system.clock`, `system.disk`, `workers.pool` and `helper.process`.  Nothing else
may import `time`, `os`'s file calls, `random` or `socket`; `ARCHITECTURE.md` lists the exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from beaver.structs.messages import Attempt, Outcome, SnapshotWritten, TaskInfo
from beaver.structs.questions import Known, Search, Wanted
from beaver_model.contents import Glance


class Clock(Protocol):
    """Wall time for stamps, monotonic time for limits."""

    def wall_ms(self) -> int: ...

    def monotonic_ns(self) -> int: ...


class Entropy(Protocol):
    """Randomness: jitter and ids."""

    def random(self) -> float:
        """Returns a float in [0, 1)."""
        ...

    def token_bytes(self, count: int) -> bytes: ...


class File(Protocol):
    """An open file.  Every method may raise `OSError`; no caller retries a failed sync."""

    def pread(self, size: int, offset: int) -> bytes:
        """Returns up to `size` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, data: bytes, offset: int) -> None:
        """Writes all of `data` to the page cache, or raises.  A short write raises `OSError`."""
        ...

    def pwrite_durable(self, data: bytes, offset: int) -> None:
        """Writes all of `data` and returns once it is on disk (`RWF_DSYNC` or its like)."""
        ...

    def sync(self) -> None:
        """Returns once data and size are on disk (`fdatasync`; `F_FULLFSYNC` on macOS)."""
        ...

    def size(self) -> int: ...

    def identity(self) -> str:
        """Returns what tells this file from every other; see `Disk.identity`."""
        ...

    def is_kept(self, size: int) -> bool:
        """True where the file still has a name, and `size` bytes at least."""
        ...

    def lock(self) -> bool:
        """Takes the exclusive lock on this file, until it is closed; False where it is held.

        The lock is that of the file, whatever its name: whoever removes or renames it gives
        it to nobody.
        """
        ...

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


class DirectoryLock(Protocol):
    """A held lock on a data directory."""

    def fileno(self) -> int:
        """The descriptor, where it is a real one: for a writer process that holds it with us."""
        ...

    def identity(self) -> str:
        """Returns what tells the locked file from every other; see `Disk.identity`."""
        ...

    def release(self) -> None: ...


class Disk(Protocol):
    """The file system.  Paths are strings; every method may raise `OSError`."""

    def open(self, path: str, *, write: bool = False, create: bool = False) -> File:
        """Opens a file; `create` makes a new one (0600) and fails where it exists."""
        ...

    def exists(self, path: str) -> bool: ...

    def listdir(self, path: str) -> list[str]:
        """Returns the names in a directory, sorted."""
        ...

    def mkdir(self, path: str) -> None:
        """Makes a directory (0700) unless it exists; a link to one is none."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Renames, replacing `new` atomically."""
        ...

    def link(self, old: str, new: str) -> None:
        """Makes a hard link; fails where `new` exists."""
        ...

    def identity(self, path: str) -> str:
        """Returns what tells the file or directory of that name from every other: 33 chars.

        A copy has another identity; the same thing under a new name keeps its own.
        """
        ...

    def same_file(self, one: str, other: str) -> bool:
        """True where both paths name one file."""
        ...

    def unlink(self, path: str) -> None: ...

    def sync_dir(self, path: str) -> None:
        """Returns once the names in a directory are on disk."""
        ...

    def free_bytes(self, path: str) -> int: ...

    def file_bytes_max(self) -> int:
        """Returns how far into a file this process may write (`ulimit -f`)."""
        ...

    def lock(self, path: str) -> DirectoryLock | None:
        """Locks a lock file, made if need be; `None` where another process holds it."""
        ...


class LogWriter(Protocol):
    """A process that writes frames durably while the loop goes on, for slow disks."""

    @property
    def lost(self) -> bool:
        """True where it died while it had nothing to write: another may take its place."""
        ...

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        """Writes one frame; one at a time.  `done` is called on the loop."""
        ...

    def wait(self) -> None:
        """Blocks until the frame under way is written; `done` has been called on return."""
        ...

    def close(self) -> None:
        """Ends the writer, after the frame under way."""
        ...


Written = Callable[["OSError | None", float], None]
"""Called with the error, or `None`, and the seconds that write and sync took."""


class PoolEvents(Protocol):
    """Callbacks of a pool to the controller, all on the loop."""

    def worker_ready(self, worker: int, pid: int) -> None:
        """A worker was started and takes jobs."""
        ...

    def outcomes(self, worker: int, outcomes: Sequence[Outcome]) -> None:
        """A worker reports what became of attempts, in the order in which they ended."""
        ...

    def worker_exited(self, worker: int, started: int, detail: str) -> None:
        """A worker has been reaped and its last outcomes were delivered.

        Args:
            worker: Its number, free for a replacement from now on.
            started: The highest token whose user code it began, or 0.
            detail: How it ended, for people: `killed by signal 9`, `exited with 3`.
        """
        ...

    def pool_failed(self, message: str) -> None:
        """The pool cannot start workers any more; the server must stop."""
        ...


class Pool(Protocol):
    """The worker processes.  A worker has a number from 1 to the pool's size, and a slot."""

    async def start(self, events: PoolEvents) -> Sequence[TaskInfo]:
        """Imports the application and returns its tasks.

        Raises:
            AppImportError: The import failed; the message holds the traceback once.
        """
        ...

    def add(self, worker: int) -> None:
        """Starts the worker of that number; `worker_ready` follows."""
        ...

    def dispatch(self, worker: int, attempts: Sequence[Attempt]) -> None:
        """Sends attempts, which start in this order."""
        ...

    def recall(self, worker: int) -> list[int]:
        """Takes back attempts that have not started and now never will: their tokens."""
        ...

    def started(self, worker: int) -> tuple[int, int]:
        """Returns the highest token that a worker has started, and since when (monotonic ns)."""
        ...

    def cancel(self, worker: int, token: int) -> None:
        """Asks the user code to stop, where the executor can; otherwise does nothing."""
        ...

    def retire(self, worker: int) -> None:
        """Sends nothing more; the worker ends after what it has.  `worker_exited` follows."""
        ...

    def kill(self, worker: int) -> None:
        """Kills the worker's process group.  `worker_exited` follows once it is reaped."""
        ...

    async def stop(self) -> None:
        """Kills what is left, reaps it and ends the zygote."""
        ...


class Helper(Protocol):
    """The helper process: work that must not stop the loop.  Calls raise `HelperFailed`."""

    async def prepare(self, path: str, size: int) -> None:
        """Writes a file of `size` zero bytes, synced.  Raises `DiskFull` where it does not fit."""
        ...

    async def snapshot(
        self,
        last_seq: int,
        keep_archive_bytes: int,
        keep_archive_ms: int,
        live: Glance | None = None,
    ) -> SnapshotWritten:
        """Writes a snapshot from the older one and the log, compares, and prunes the archive.

        Raises:
            LiveStateDiffers: It is not the state that was seen live; nothing was changed.
            SnapshotDiffers: It is not read back as it was written; nothing was changed.
        """
        ...

    async def project(self, last_seq: int) -> int:
        """Indexes the log up to `last_seq` in `history.db`; returns its `applied_seq`."""
        ...

    async def tell(self, known: Sequence[Known], until_seq: int) -> bytes:
        """Returns, as JSON, the events of jobs up to `until_seq`; see `questions`."""
        ...

    async def endings(self, tokens: Sequence[int], until_seq: int) -> bytes:
        """Returns, as JSON, what became of attempts; see `questions.Endings`."""
        ...

    async def walk(self, after_seq: int, until_seq: int, bytes_max: int) -> bytes:
        """Returns, as JSON, the events behind a seq; see `questions.Walked`."""
        ...

    async def enqueued(
        self, wanted: Wanted, after_seq: int, until_seq: int, jobs_max: int
    ) -> bytes:
        """Returns, as JSON, jobs that came in behind a seq; see `questions.CameIn`."""
        ...

    async def find(self, search: Search, until_seq: int) -> bytes:
        """Takes a step of a search for finished jobs, and returns it as JSON; see `questions`."""
        ...

    async def stop(self) -> None: ...
