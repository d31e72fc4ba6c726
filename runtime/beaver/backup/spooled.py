"""A backup in a file, read once from beginning to end and then used as a disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from beaver.backup.pieces import Piece, Pieces
from beaver.backup.stream import End, Head, Progress, Reader
from beaver.system.disk import SystemFile


class Backup(NamedTuple):
    """A backup whose checksums are right."""

    disk: Pieces
    """The store that it holds, under `disk.path`."""
    head: Head
    end: End


@contextlib.contextmanager
def spooled(
    descriptor: int,
    name: str,
    *,
    incoming: Callable[[int], bytes] | None = None,
    check_head: Callable[[Head], None] = lambda _: None,
    on_progress: Progress,
) -> Iterator[Backup]:
    """Reads a whole backup and yields it.

    Args:
        descriptor: The file that it is in, or that it is written to as it comes in.
        name: What to call it.
        incoming: Where it comes from, if not from that file.
        check_head: Told what is announced before any of it is read; may refuse it.
        on_progress: Told how far it is.

    Raises:
        InvalidInput, NewerFormat, BackupDamaged: As `stream.Reader`.
    """
    own = os.dup(descriptor)
    os.lseek(own, 0, os.SEEK_SET)
    read = (lambda size: os.read(own, size)) if incoming is None else _through(incoming, own)
    disk = Pieces(name)
    file = disk.keep(SystemFile(own))
    try:
        reader = Reader(read, name)
        head = reader.head()
        check_head(head)
        for member, offset in reader.members(head, on_progress):
            disk.files[f"{name}/{member.name}"] = (Piece(file, offset, member.size),)
        yield Backup(disk, head, reader.end(head))
    finally:
        disk.close()


def _through(incoming: Callable[[int], bytes], descriptor: int) -> Callable[[int], bytes]:
    """Returns what reads and writes down what was read."""

    def read(size: int) -> bytes:
        data = incoming(size)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        return data

    return read
