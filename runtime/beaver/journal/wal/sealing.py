"""Sealing: the prepared segment takes the place of a full one, which moves into the archive.

What lives here: the files and their names.  What may not: frames (`log`), and who prepares a
segment (`helper`).

Sealing, step by step, and what a crash behind each step leaves (the rows of
`recovery_table` in capitals):

1. A CLOSE frame ends the active segment, synced.  A crash: CLOSED_END; or, if it was torn,
   TORN_TAIL.  The prepared segment is PREPARED_UNUSED.
2. The header goes into `wal.adopted`, synced.  A crash: SEALING_NOT_LINKED.
3. `wal.log` gets its second name, in the archive.  4. The archive's names are synced.
   A crash before 4 may forget the name again (SEALING_NOT_LINKED) or keep it
   (SEALING_LINKED).  `wal.log` is still the old segment, and whole.
5. `wal.adopted` is renamed to `wal.log`.  6. The directory's names are synced.
   A crash before 6 shows the old names (SEALING_LINKED) or the new (SEALED_EMPTY).  The
   old segment cannot be lost: its name in the archive is on disk since 4.
7. Only now a frame may go into the new segment.  A frame before 6 could be acknowledged in
   a file whose name a crash takes back.

There is no moment without a `wal.log`, and none in which the next segment holds an event;
so a missing `wal.log` is damage, and a next segment can always be dropped.

Between its adoption and its use the next segment has a name of its own, `wal.adopted`:

1. A server is killed while its helper prepares a segment.
2. The next server recovers, has a segment prepared as `wal.next`, and adopts it.
3. The old helper, not dead yet, finishes and renames its own file to `wal.next`.
4. The server seals.  Were its segment still called `wal.next`, the rename would make the
   stranger's file the log, and frames would go to a file without a name.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final, NoReturn

from beaver.errors import NO_ROOM
from beaver.journal.wal.format import (
    EMPTY_FRAME_BYTES,
    FILE_HEADER_BYTES,
    FileHeader,
    encode_file_header,
)
from beaver.journal.wal.layout import Layout
from beaver.ports import Disk, File
from beaver.system.descriptors import is_pressure

_log: Final = logging.getLogger("beaver")
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


class NextSegment:
    """The segment that a log goes on in once it is full, as soon as there is one."""

    def __init__(
        self, disk: Disk, layout: Layout, fail: Callable[[str, str, OSError], NoReturn]
    ) -> None:
        """There is none yet.

        Args:
            disk: Where the store lies.
            layout: Its names.
            fail: Told what was done to which path, and what went wrong; makes the log useless.
        """
        self._disk, self._layout, self._fail = disk, layout, fail
        self.file: File | None = None
        self._links = True
        """The file system makes hard links, as far as is known."""

    @property
    def is_there(self) -> bool:
        """True where one was adopted and is not in use yet."""
        return self.file is not None

    def adopt(self, path: str) -> bool:
        """See `port.Segments`."""
        assert self.file is None, "one next segment at a time"
        try:
            # Not synced: a crash may show either name, and recovery drops both.
            self._disk.rename(path, self._layout.adopted)
            try:
                self.file = self._disk.open(self._layout.adopted, write=True)
            except OSError as error:
                if not is_pressure(error):
                    raise
                self._disk.rename(self._layout.adopted, path)
                return False
            if not self.file.lock():
                raise BlockingIOError(errno.EWOULDBLOCK, "another process has locked it")
        except OSError as error:
            self._fail("adopting the prepared segment", path, error)
        return True

    def holds(self, size: int) -> bool:
        """True where it is there, can be used, and has room for `size` bytes of frames."""
        if self.file is None or not self._links:
            return False
        try:
            own_size = min(self.file.size(), self._disk.file_bytes_max())
        except OSError as error:
            self._fail("reading its size", self._layout.adopted, error)
        return own_size - FILE_HEADER_BYTES - EMPTY_FRAME_BYTES >= size

    def succeed(self, sealed_seq: int, header: FileHeader) -> File | None:
        """Makes it `wal.log`: steps 2 to 6 of the module's docstring.

        Args:
            sealed_seq: First seq of the segment that is sealed, whose CLOSE is on disk.
            header: Its own header.

        Returns:
            Its file, or `None` where the full one cannot get its second name and goes on.
        """
        layout, disk, file = self._layout, self._disk, self.file
        assert file is not None, "sealing needs the next segment"
        archived = layout.archived(sealed_seq)
        doing, path = "writing the header", layout.adopted
        try:
            file.pwrite_durable(encode_file_header(header), 0)
            doing, path = "naming the sealed segment", archived
            try:
                disk.link(layout.log, archived)
            except OSError as error:
                if error.errno not in NO_ROOM | _NO_LINKS:
                    raise
                # A name that is there was made, whatever the answer said: it could not be made
                # a second time, and what is in the archive must not grow.
                if not disk.same_file(layout.log, archived):
                    self._tell_of_links(error)
                    return None
            doing, path = "syncing the names", layout.archive
            disk.sync_dir(layout.archive)
            doing, path = "renaming to wal.log", layout.adopted
            disk.rename(layout.adopted, layout.log)
            doing, path = "syncing the names", layout.path
            disk.sync_dir(layout.path)
        except OSError as error:
            self._fail(doing, path, error)
        self.file = None
        return file

    def _tell_of_links(self, error: OSError) -> None:
        if error.errno in _NO_LINKS:
            self._links = False
            _log.warning(
                "this file system makes no hard links (%s): the log goes on in one "
                "segment, which grows and is never pruned; another file system is better",
                error.strerror,
            )
