"""The snapshot port: states that a journal is read on from, wherever they are kept.

What lives here: the two methods, and the twin in memory of one that keeps snapshots remotely.
What may not: files; they are `snapshot`.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from beaver.errors import Corruption
from beaver.journal.port import Position, Stamp
from beaver.structs.recovery import RecoveryReport
from beaver_model import State
from beaver_model.freezing import Frozen, freeze, thaw

KEPT: Final = 2
"""The newest snapshot and the one before it: which one is damaged shows only when it is read."""


class Snapshot(NamedTuple):
    """A state, and the place in the journal that it stands for."""

    state: State
    position: Position
    stamp: Stamp | None = None
    """Stamp of the last commit it contains, if the journal has stamps."""


class Snapshots(Protocol):
    """Where the snapshots of a store are kept."""

    @property
    def damaged(self) -> Corruption | None:
        """Why the newest one could not be used, once it was loaded."""
        ...

    def load(self, store: bytes, report: RecoveryReport) -> Snapshot | None:
        """Returns the newest one that is whole, and reports it; `None` where there is none.

        Raises:
            Corruption: It is another store's.
            NewerFormat: It is of a newer version.
        """
        ...

    def save(self, store: bytes, snapshot: Snapshot) -> None:
        """Keeps a snapshot; on return it is durable, and the one before it is still there.

        Raises:
            OSError, BeaverError: It is not kept, and those that were there still are.
        """
        ...


class MemorySnapshots:
    """Snapshots of one store, as a remote keeper has them: rows, not the live state."""

    damaged: Corruption | None = None

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, Frozen, Position, Stamp | None]] = []

    def load(self, store: bytes, report: RecoveryReport) -> Snapshot | None:
        """See `Snapshots`."""
        if not self.kept:
            return None
        owner, rows, position, stamp = self.kept[-1]
        if owner != store:
            reason = f"it belongs to the store {owner.hex()}, and the journal to {store.hex()}"
            raise Corruption("the snapshot", 0, rows.header.last_seq, reason)
        report.base, report.snapshot_seq = "snapshot", rows.header.last_seq
        return Snapshot(thaw(*rows, indexed=False), position, stamp)

    def save(self, store: bytes, snapshot: Snapshot) -> None:
        """See `Snapshots`."""
        state, position, stamp = snapshot
        self.kept = [*self.kept[1 - KEPT :], (store, freeze(state), position, stamp)]
