"""Who may write to a target: one shipper, of one store, until somebody else takes over.

The object `beaver-ship.json` names the store and its shipper, who rewrites it now and then, each
time only if nobody else has.  So:

1. Whoever finds it unchanged for the whole of a lease takes over: the other is dead or frozen.
2. A frozen one that wakes up finds its lease over by its own monotonic clock, renews first, is told
   that the object is another one, and ends.
3. What it may have sent at that very moment is harmless: objects are never replaced, and hold what
   the log of this store has at their place, or restoring finds that they do not.

No clock is compared with another machine's.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec

from beaver.errors import BackupDamaged, InvalidInput, NewerFormat, StoreUnavailable
from beaver.shipping.targets import Read, Target

KEY: Final = "beaver-ship.json"
FORMAT: Final = "beaver-ship"
VERSION: Final = 1
LEASE_S: Final = 15.0
_POLL_S: Final = 0.2


class Owner(msgspec.Struct, kw_only=True):
    """What the object says."""

    format: str
    version: int
    store: str
    epoch: int
    """How often the target has changed hands."""
    shipper: str
    """Drawn by each shipper; empty where one has left."""
    where: str
    """Host and process, for people."""
    number: int
    """Counts rewritings."""
    begins: int = 0
    """First seq of the oldest segment that must be there; 0 while there is none."""


class TakenOver(StoreUnavailable):
    """Another shipper writes to the target."""


def read_owner(target: Target) -> tuple[Owner, Read] | None:
    """Returns what a target says of itself; `None` where it is no target yet.

    Raises:
        BackupDamaged, NewerFormat: It says nothing that can be understood.
    """
    found = target.read(KEY)
    if found is None:
        return None
    try:
        owner = msgspec.json.decode(found.data, type=Owner)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackupDamaged(f"{target.name}/{KEY} is damaged: {error}") from error
    if owner.format != FORMAT:
        raise BackupDamaged(f"{target.name}/{KEY} is no file of `beaver ship`")
    if owner.version > VERSION:
        raise NewerFormat(
            f"{target.name} has the format {owner.version}; this release knows up to {VERSION}. It "
            "was written by a newer version of Beaver: use that version."
        )
    return owner, found


class Ownership:
    """The right to write to one target, while it lasts."""

    def __init__(
        self,
        target: Target,
        store: str,
        lease_s: float = LEASE_S,
        now_s: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._target, self._store, self._lease_s = target, store, lease_s
        self._now_s, self._pause = now_s, pause
        self._owner = Owner(
            format=FORMAT,
            version=VERSION,
            store=store,
            epoch=0,
            shipper=secrets.token_hex(8),
            where=f"{platform.node()[:64]}:{os.getpid()}",
            number=0,
        )
        self._version = ""
        self._since_s = 0.0
        """When the last rewriting that succeeded was begun."""

    def acquire(self) -> None:
        """Takes the target; waits for a lease at most.

        Raises:
            TakenOver: Another shipper is at work there.
            InvalidInput: It holds another store.
            TargetFailed: It cannot be reached.
        """
        watched: Read | None = None
        since_s = self._now_s()
        while True:
            found = read_owner(self._target)
            if found is None:
                if self._target.list():
                    raise InvalidInput(
                        f"{self._target.name} is not empty, and no target of `beaver ship`; give "
                        "an empty directory or prefix"
                    )
                self._owner.epoch = 1
                if self._write(None):
                    return
                continue
            owner, read = found
            if owner.store != self._store:
                raise InvalidInput(
                    f"{self._target.name} holds the store {owner.store}, and this is "
                    f"{self._store}; give a target of its own (a restored store is another one)"
                )
            if watched is not None and read.version != watched.version:
                raise TakenOver(
                    f"another shipper ({owner.where}) writes to {self._target.name}; stop it first"
                )
            if not owner.shipper or self._now_s() - since_s >= self._lease_s:
                self._owner.epoch, self._owner.begins = owner.epoch + 1, owner.begins
                if self._write(read):
                    return
                continue
            watched = watched or read
            self._pause(_POLL_S)

    def _write(self, read: Read | None) -> bool:
        """Rewrites the object; False where somebody else was there first."""
        began_s = self._now_s()
        self._owner.number += 1
        data = msgspec.json.encode(self._owner)
        if read is None:
            done = self._target.put_new(KEY, data)
        else:
            done = self._target.swap(KEY, data, read.version)
        if done:
            again = self._target.read(KEY)
            if again is None or again.data != data:
                return False
            self._version, self._since_s = again.version, began_s
        return done

    def hold(self) -> None:
        """Sees before a change that the target is still ours, and renews it in time.

        Raises:
            TakenOver: It is not.
            TargetFailed: It cannot be reached; nothing may be written.
        """
        if self._now_s() - self._since_s < self._lease_s / 3:
            return
        if not self._write(Read(b"", self._version)):
            raise TakenOver(
                f"another shipper has taken {self._target.name} over; this one has ended"
            )

    @property
    def begins(self) -> int:
        """First seq of the oldest segment that must be there; 0 while there is none."""
        return self._owner.begins

    def begin_at(self, first_seq: int) -> None:
        """Writes down which segment is the oldest one, before the ones before it go.

        Raises:
            TakenOver, TargetFailed: As `hold`.
        """
        self._owner.begins = first_seq
        self._since_s = self._now_s() - self._lease_s
        self.hold()

    def release(self) -> None:
        """Leaves the target to whoever comes, at once."""
        self._owner.shipper = ""
        self._write(Read(b"", self._version))
