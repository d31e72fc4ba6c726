"""Owning the log of a data directory as its settings want it: for a server or a keeper."""

from __future__ import annotations

from collections.abc import Callable

from beaver.config.layers import Config
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.opening import OwnedWal, try_own
from beaver.journal.wal.writer import WriterProcess
from beaver.journal.wal.zeros import EXTEND_BYTES
from beaver.ports import Clock, DirectoryLock, Disk, LogWriter


def own_log(
    config: Config,
    disk: Disk,
    clock: Clock,
    store: bytes,
    *,
    make_writer: Callable[[DirectoryLock], LogWriter] = WriterProcess,
) -> OwnedWal | None:
    """Returns the log of `config.data`, where a new one gets the id `store`; see `try_own`."""
    return try_own(
        disk,
        config.data,
        clock=clock,
        store=store,
        segment_bytes=config.segment_bytes,
        extend_bytes=min(EXTEND_BYTES, config.segment_bytes),
        commits=CommitPath(make_writer, config.commit),
    )
