"""Stores on a simulated disk: opening them, and what of them would survive a power cut."""

from __future__ import annotations

import copy

from beaver.journal.codec import encode_commit
from beaver.journal.port import append_now
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.format import frame_bytes
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.log import Wal
from beaver.journal.wal.reader import read_commits
from beaver.ports import Clock
from beaver.store.rebuild import Recovered
from beaver.store.recovery import open_store, read_store
from beaver_chaos.sim.disk import SimDisk
from beaver_model.events import AnyEvent
from tests.stateful.running import SEEN
from tests.worlds.runtime import ManualClock

DATA = Layout("data")
STORE = b"invariants-store"
EXTEND_BYTES = 1 << 13
"""Growth of the log: a few commits."""
WANTED_BYTES = 1 << 30
"""Size that the log believes its segments should have, so that it always wants the next."""

Commit = tuple[int, int, list[AnyEvent]]
"""First seq, stamp, events."""


class MovedClock(ManualClock):
    """A clock of which the machine moves both hands, each by itself."""

    def step_ms(self, ms: int) -> None:
        """Someone sets the wall clock."""
        self.wall += ms


def open_sim(
    disk: SimDisk, clock: Clock, *, create: bool, commits: CommitPath | None = None
) -> Recovered[Wal]:
    """Recovers the store, as a server does."""
    opened = open_store(
        disk,
        "data",
        clock=clock,
        create=create,
        store=STORE,
        segment_bytes=WANTED_BYTES,
        extend_bytes=EXTEND_BYTES,
        commits=commits,
    )
    SEEN.recovered(opened.report)
    return opened


def append(wal: Wal, time_ms: int, events: list[AnyEvent]) -> None:
    """Commits events in one frame.  Raises `OSError` where the disk is full."""
    payload = encode_commit(time_ms, events)
    if not wal.reserve(frame_bytes(len(payload))):
        # A full disk: the engine would have refused before it decided.
        wal.abandon()
        raise OSError(28, "refused")
    append_now(wal, payload, len(events))


def commits_after(disk: SimDisk, seq: int) -> list[Commit]:
    return list(read_commits(disk, DATA, seq))


def nothing(_: int) -> int:
    """As a chooser: of what was not synced, nothing survives."""
    return 0


def durable_seq(disk: SimDisk, clock: Clock) -> int:
    """Returns the last seq that would be there if the power went now, in the worst case."""
    after = copy.deepcopy(disk)
    after.crash(nothing)
    return read_store(after, "data", clock=clock)[0].last_seq
