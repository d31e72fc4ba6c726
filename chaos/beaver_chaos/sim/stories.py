"""Checks the index of a simulated run: the real one, over the simulated log.

SQLite wants real files, so the index is made at the end of a run, in memory where the machine
has a file system for that: up to a half of the log, then further on, and the rest is left for
the reader to look through.  What may not live here: what is compared (`checker.stories`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from beaver.helper.work import project
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.ports import Disk
from beaver_chaos.checker.stories import compare_stories

_IN_MEMORY: Final = "/dev/shm"  # noqa: S108 - a private directory is made in it
_LEFT: Final = 5
"""Events that are not indexed."""


class _Elsewhere(Layout):
    """A layout whose index lies on the real machine."""

    real = ""

    @property
    def history(self) -> str:
        return f"{self.real}/history.db"


def wrong_stories(disk: Disk, path: str, last_seq: int) -> list[str]:
    """Returns what would be told of the jobs of a store otherwise than its log says."""
    parent = _IN_MEMORY if Path(_IN_MEMORY).is_dir() else None
    with tempfile.TemporaryDirectory(prefix="beaver-sim-", dir=parent) as real:
        layout = _Elsewhere(path)
        layout.real = real
        first_seq = segments(disk, layout)[0].first_seq
        for seq in ((first_seq + last_seq) // 2, last_seq - _LEFT):
            if seq >= first_seq:
                project(disk, layout, seq)
        return compare_stories(disk, layout)
