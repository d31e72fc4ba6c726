"""The turn: its owner may start the process that is to hold a store, or append to the store alone.

It is a `flock` on the data directory itself, so it needs no file, and it ends with the process
that has it.  It orders starts and protects nothing: that is the business of the store's lock.

1. A server takes the turn before the lock, and gives it back when it listens.  Producers that
   find nobody wait for the turn meanwhile, so none of them starts a keeper in between.
2. A producer has it while it starts a keeper.  The others then find that keeper, instead of
   starting one each.
"""

from __future__ import annotations

import contextlib
import fcntl
import os


class Turn:
    """The turn, until it is released."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives it back; the second time does nothing."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_turn(data: str) -> Turn | None:
    """Returns the turn of a data directory, which exists; `None` while somebody else has it.

    Raises:
        OSError: The directory cannot be opened.
    """
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # Some network file systems lock no directory: then starts may meet, at the lock.
        with contextlib.suppress(OSError):
            os.close(descriptor)
        return Turn(-1)
    return Turn(descriptor)
