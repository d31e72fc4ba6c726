"""`beaver backup` and `restore`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from beaver.cli import output
from beaver.cli.store import Store, on_directory
from beaver.errors import InvalidInput
from beaver.text.foreign import counted

if TYPE_CHECKING:
    from beaver.backup.restoring import Restored
    from beaver.ports import Disk
    from beaver.store.log_source import Until

PIPE: Final = "-"
_READ_BYTES: Final = 1 << 20


@on_directory
def backup_command(
    store: Store,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="Where the backup goes; - is standard output.")
    ],
) -> None:
    """Copy the whole store into one file.

    A server may run meanwhile, and does not wait. The copy is replayed before the file gets its
    name; a stream ends with a mark without which `beaver restore` refuses it. Nothing is
    overwritten.

    Examples:
      beaver backup /backup/queue-monday.tar
      beaver backup - | ssh backup 'cat > queue.tar'
    """
    from beaver.backup.writing import BackupMade, back_up, stream_backup
    from beaver.system.clock import SystemClock
    from beaver.system.descriptors import raise_limit
    from beaver.system.disk import SystemDisk

    raise_limit()  # Every segment stays open.
    disk, clock = SystemDisk(), SystemClock()
    with output.progress(f"backing up {store.data}", 0) as advance:
        if file == PIPE:
            made = stream_backup(disk, store.data, _write_out(), clock, advance)
        else:
            made = back_up(disk, store.data, file, clock, advance)

    def tell(made: BackupMade) -> None:
        output.line(
            f"{made.file}: all of {store.data} up to seq {made.last_seq}, "
            f"{counted(made.bytes, 'byte')}, replayed (fingerprint {made.fingerprint})"
        )

    if file != PIPE:
        store.answer(made, tell)
    elif not store.as_json:
        output.note(f"all of {store.data} up to seq {made.last_seq}, {counted(made.bytes, 'byte')}")


def _write_out() -> Callable[[bytes], None]:
    if sys.stdout.isatty():
        raise InvalidInput("a backup is no text for a terminal; give a file, or `> FILE`")
    descriptor = sys.stdout.fileno()

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    return write


@on_directory
def restore_command(
    store: Store,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|-|TARGET", help="A backup, or the target of `beaver ship`."),
    ],
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="SEQ|TIME", help="Only what had happened by this seq or time."
        ),
    ] = None,
) -> None:
    """Make a data directory of a backup.

    Nothing is overwritten: the directory that --data names must not exist, or be empty. It gets its
    name once everything in it was verified, as by `beaver verify`. The copy is a store of its own,
    with an id and, from its first start on, tokens of its own.

    Examples:
      beaver restore /backup/queue-monday.tar --data restored
      beaver restore s3://backups/queue --data restored
      beaver restore queue.tar --data yesterday --until 2030-01-31T12:00:00Z
      ssh queue 'beaver backup - --data /srv/data' | beaver restore - --data copy
    """
    from beaver.backup.restoring import restore_file
    from beaver.replay.replaying import parse_until
    from beaver.store.log_source import Until

    end = Until() if until is None else parse_until(until)
    started_s = time.monotonic()
    with output.progress(f"restoring {store.data}", 0) as advance:
        if "://" in source or os.path.isdir(source):  # noqa: PTH112 - a string
            restored = _restore_shipped(source, store.data, end, advance)
        else:
            incoming = partial(os.read, sys.stdin.fileno()) if source == PIPE else None
            name = "standard input" if source == PIPE else source
            restored = restore_file(name, store.data, end, advance, incoming=incoming)
    restored.seconds = time.monotonic() - started_s

    def tell(restored: Restored) -> None:
        counts = ", ".join(f"{state} {count}" for state, count in restored.counts.items())
        output.line(
            f"{restored.data}: seq {restored.first_seq} to {restored.last_seq}, verified "
            f"(fingerprint {restored.fingerprint})"
        )
        output.line(counts)
        output.line(f"`beaver run --data {restored.data}` serves it")

    store.answer(restored, tell)


def _restore_shipped(
    source: str, data: str, until: Until, on_progress: Callable[[int, int], None]
) -> Restored:
    """Restores from a target of `beaver ship`."""
    from beaver.backup.restoring import restore_disk
    from beaver.shipping.fetching import fetched
    from beaver.shipping.targets import open_target
    from beaver.system.descriptors import raise_limit

    raise_limit()
    target = open_target(source)

    @contextmanager
    def opened(scratch: str) -> Iterator[Disk]:
        with fetched(target, until, scratch, on_progress) as found:
            yield found.disk

    return restore_disk(opened, target.name, data, until, on_progress)
