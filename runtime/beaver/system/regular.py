"""Regular files, and nothing that was put in their place.

What lives here: opening and reading one.  What may not: durability, which is for `disk`, and
anything heavy: clients and workers read `server.json` by this.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from beaver.system.ownership import ROOT, is_trusted


def open_regular(path: str, flags: int) -> int:
    """Opens a regular file, made 0600 where `flags` say so, and returns its descriptor.

    A user who may write beside our files could put something else in their place: a symbolic
    link to another file, which we would change, or a FIFO, on which a reader would block.

    Raises:
        OSError: It is no regular file (ELOOP, EISDIR, ENXIO), or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = "it is a symbolic link, which is not followed"
        elif error.errno == errno.ENXIO:
            error.strerror = "it is no regular file"
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO
    raise OSError(number, "it is no regular file", path)


def create_regular(path: str) -> BinaryIO:
    """Opens a new or emptied file, private to its owner (0600), for writing.

    Raises:
        OSError: As `open_regular`.
    """
    return os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")


def read_regular(path: str, bytes_max: int, *, trusted: bool = False) -> bytes:
    """Returns the content of a small regular file.

    Args:
        path: Its path.
        bytes_max: More than it can hold.
        trusted: It has to be ours or root's; root reads everybody's.

    Raises:
        OSError: As `open_regular`; there is more of it (EFBIG), or it is a stranger's (EPERM).
    """
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        owner = os.fstat(descriptor).st_uid
        content = _read(descriptor, bytes_max + 1)
    finally:
        os.close(descriptor)
    if trusted and not is_trusted(owner) and os.geteuid() != ROOT:
        raise PermissionError(errno.EPERM, "it is another user's", path)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content


def _read(descriptor: int, size: int) -> bytes:
    """Returns the first bytes of a file: `size` of them, or fewer where it has no more."""
    content = b""
    while len(content) < size:
        piece = os.pread(descriptor, size - len(content), len(content))
        if not piece:
            break
        content += piece
    return content
