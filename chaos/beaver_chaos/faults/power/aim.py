"""The moments at which the power goes, and how they are seen from outside.

What may not live here: the cut itself (`cuts`).
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from beaver.journal.wal.layout import Layout
from beaver_chaos.program.load import chance_of


class Aim(StrEnum):
    """The moment at which the power goes."""

    MAKE = "while the store is made"
    RANDOM = "at a random moment"
    PREPARE = "while a segment is prepared"
    SEAL = "while a segment is sealed"
    SNAPSHOT = "while a snapshot is written"
    RENAME = "just when a snapshot has got its name"
    PRUNE = "while sealed segments are deleted"
    START = "while it recovers from the cut before"


class Signs:
    """The files of a store seen from outside, to guess what it is about to do."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._archive = self._sealed()
        self._snapshot = self._born(self._layout.snapshot)

    def show(self, aim: Aim) -> bool:
        """True where the store is at it, or has been since this was made."""
        if aim is Aim.PREPARE:
            return Path(self._layout.next + ".tmp").exists()
        if aim is Aim.SNAPSHOT:
            return Path(self._layout.snapshot + ".tmp").exists()
        if aim is Aim.RENAME:
            return self._born(self._layout.snapshot) not in (0, self._snapshot)
        if aim is Aim.SEAL:
            return bool(self._sealed() - self._archive)
        return aim is Aim.RANDOM or bool(self._archive - self._sealed())

    def _sealed(self) -> set[str]:
        try:
            return set(os.listdir(self._layout.archive))  # noqa: PTH208 - only names are wanted
        except FileNotFoundError:
            return set()

    @staticmethod
    def _born(path: str) -> int:
        try:
            return Path(path).stat().st_ino
        except FileNotFoundError:
            return 0


def drawn_aims(seed: int, cuts: int) -> list[Aim]:
    """Returns the aims of a seed: each once before any comes again, in a drawn order.

    A store is made but once, so that is the first, and never comes again.
    """
    chance = chance_of(f"aims of {seed}")
    aims = [Aim.MAKE]
    while len(aims) < cuts:
        deck = [aim for aim in Aim if aim is not Aim.MAKE]
        chance.shuffle(deck)
        aims += deck
    return aims[:cuts]
