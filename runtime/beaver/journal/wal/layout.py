"""The names of the files of a store.  Nothing else may spell them.

```
data/
    LOCK               held by whoever may write; made again where somebody removes it
    wal.log            the active segment of the log; locked as well
    wal.next           the next segment, zero-filled ahead; holds no events
    wal.adopted        the same, once the writer has taken it over; holds no events
    archive/           sealed segments, each named by its first seq
    snapshot.json      the state at some seq, and `snapshot.old.json` before it
    slots              what each worker has started (mmapped)
    server.json        where a server listens: a hint
    phase              whether who holds the store is starting or ending: a hint
    history.db         the projection of results and history; can be rebuilt
    ship-KEY.json      how far `beaver ship` is with one target
    tokens.json        who may use HTTP: digests of tokens, and their roles
    tokens.lock        held by whoever changes them
    token              the token of the store's own user
```
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

ARCHIVE_SUFFIX: Final = ".wal"
_SHIP_NAME: Final = re.compile(r"ship-[0-9a-f]{16}\.json")
_ARCHIVE_NAME: Final = re.compile(r"[0-9]{20}\.wal")


class Layout(NamedTuple):
    """The paths of the files of the store at `path`."""

    path: str

    @property
    def lock(self) -> str:
        return f"{self.path}/LOCK"

    @property
    def log(self) -> str:
        return f"{self.path}/wal.log"

    @property
    def next(self) -> str:
        return f"{self.path}/wal.next"

    @property
    def adopted(self) -> str:
        return f"{self.path}/wal.adopted"

    @property
    def archive(self) -> str:
        return f"{self.path}/archive"

    @property
    def snapshot(self) -> str:
        return f"{self.path}/snapshot.json"

    @property
    def snapshot_old(self) -> str:
        return f"{self.path}/snapshot.old.json"

    @property
    def slots(self) -> str:
        return f"{self.path}/slots"

    @property
    def server(self) -> str:
        return f"{self.path}/server.json"

    @property
    def history(self) -> str:
        return f"{self.path}/history.db"

    def ship(self, key: str) -> str:
        """Returns the path that a shipper says how far it is at; the key is its target's."""
        return f"{self.path}/ship-{key}.json"

    def archived(self, first_seq: int) -> str:
        """Returns the path that the segment beginning at `first_seq` has once it is sealed."""
        return f"{self.path}/archive/{first_seq:020d}{ARCHIVE_SUFFIX}"

    def rescued(self, next_seq: str) -> str:
        """Returns the path that a log without a name is copied to, by the seq after its last."""
        return f"{self.path}/wal.log.rescued-{next_seq}"

    def broken(self, time: str) -> str:
        """Returns the path that the torn tail of the log is kept under."""
        return f"{self.path}/wal.log.broken-{time}"


def is_ship_name(name: str) -> bool:
    """True for the name of a file in which a shipper says how far it is."""
    return bool(_SHIP_NAME.fullmatch(name))


def archived_first_seq(name: str) -> int | None:
    """Returns the first seq that the name of an archived segment says, or `None`."""
    return int(name[:20]) if _ARCHIVE_NAME.fullmatch(name) else None
