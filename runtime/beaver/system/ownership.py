"""Whose a file, a directory or a connection is: other users of the machine are not trusted.

Beaver runs what the data directory, the socket and the implicit configuration file say.  So
each has to be ours, or root's, who can do everything anyway; and the data directory may be
written by nobody else.

What may not live here: opening files; `regular.open_regular` follows no links.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from typing import Final

from beaver.errors import StoreUnavailable

ROOT: Final = 0
_PEER: Final = struct.Struct("3i")
"""pid, uid and gid: Linux's `struct ucred`."""


def is_trusted(uid: int) -> bool:
    """True for this process's own user and for root."""
    return uid in (os.geteuid(), ROOT)


def said_by(uid: int | None) -> str:
    """Returns a user of this machine as the log names them; see `beaver_model.events.By`."""
    return "" if uid is None else f"uid:{uid}"


def user_name(uid: int) -> str:
    """Returns a user as an error names it: `ada (1000)`."""
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def refuse_foreign_directory(path: str) -> None:
    """Checks that nobody but us can change what lies in a data directory.

    Raises:
        StoreUnavailable: It is another user's, others may write in it, or the link that
            leads to it is another user's.
        OSError: It cannot be looked at.
    """
    link, found, own = os.lstat(path), os.stat(path), os.geteuid()  # noqa: PTH116
    if stat.S_ISLNK(link.st_mode) and not is_trusted(link.st_uid):
        raise StoreUnavailable(
            f"{path} is a symbolic link of user {user_name(link.st_uid)}, and this process runs as "
            f"{user_name(own)}\nName the directory itself, if it is meant."
        )
    if found.st_uid != own:
        raise StoreUnavailable(
            f"{path} belongs to user {user_name(found.st_uid)}, and this process runs as "
            f"{user_name(own)}\nRun as that user, or give a directory below it with --data: Beaver "
            "makes it for itself alone."
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        raise StoreUnavailable(
            f"other users may write in {path} (mode {mode:04o}), and change what Beaver runs\n"
            f"`chmod go-w {path}`, or give a directory below it with --data."
        )


def peer_of(connection: socket.socket) -> int | None:
    """Returns the user at the other end of a Unix socket; `None` where the system does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, option, _PEER.size)
    uid: int = _PEER.unpack(credentials)[1]
    return uid
