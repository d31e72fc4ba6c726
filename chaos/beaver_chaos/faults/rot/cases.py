"""The cases of bit rot: every kind of damage at every place of every file that there is."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from beaver_chaos.faults.rot.regions import FileKind, Region, kind_of, regions_of
from beaver_chaos.faults.rot.store import Intact

SECTOR_BYTES: Final = 512
BLOCK_BYTES: Final = 4_096
WRITTEN: Final = frozenset({FileKind.LOG, FileKind.HISTORY})
"""Kinds that a start changes in place; the others can be linked into the copy."""


class Harm(StrEnum):
    """How a file is damaged."""

    FLIP = "a bit flipped"
    FLIP_FIRST = "a bit flipped in the first byte"
    FLIP_LAST = "a bit flipped in the last byte"
    SECTOR = "its sector of 512 bytes zeroed"
    BLOCK = "its block of 4 KiB torn"
    SHORTER = "one byte shorter"
    HALF = "cut to the half"
    EMPTY = "empty"
    MISSING = "missing"
    OLDER = "an older version of it"


IN_REGIONS: Final = (
    Harm.FLIP, Harm.FLIP_FIRST, Harm.FLIP_LAST, Harm.SECTOR, Harm.BLOCK,
)  # fmt: skip
LONG_BYTES: Final = 64
"""Regions from this length on have a bit flipped at either end, too."""
WHOLE: Final = (Harm.SHORTER, Harm.HALF, Harm.EMPTY, Harm.MISSING, Harm.OLDER)


class Case(NamedTuple):
    """One damage at one place."""

    name: str
    kind: FileKind
    region: str
    damage: Harm
    start: int
    """First byte of the region."""
    end: int
    """Byte behind the region."""

    @property
    def where(self) -> str:
        return f"{self.kind}: {self.region}"

    def __str__(self) -> str:
        return f"{self.name}: {self.region}: {self.damage}"


def cases_of(intact: Intact) -> Iterator[Case]:
    """Yields every damage at every place; blocks and sectors once, whatever regions share them.

    Raises:
        UnknownFile: There is a file of which the regions are not known.
    """
    for name in intact.names():
        kind = kind_of(name)
        seen: set[tuple[Harm, int]] = set()
        for region in regions_of(intact.data, name):
            is_long = region.end - region.start >= LONG_BYTES
            for damage in IN_REGIONS:
                place = _place(damage, region)
                if damage in (Harm.FLIP_FIRST, Harm.FLIP_LAST) and not is_long:
                    continue
                if (damage, place) not in seen:
                    seen.add((damage, place))
                    yield Case(name, kind, region.name, damage, region.start, region.end)
        size = (intact.data / name).stat().st_size
        for damage in WHOLE:
            if not size and damage is not Harm.MISSING:
                continue
            if damage is not Harm.OLDER or (intact.older / name).exists():
                yield Case(name, kind, "whole file", damage, 0, size)


def _place(damage: Harm, region: Region) -> int:
    """Returns what tells the effect of one kind of damage in two regions apart."""
    match damage:
        case Harm.SECTOR:
            return region.start // SECTOR_BYTES
        case Harm.BLOCK:
            return region.start // BLOCK_BYTES
        case Harm.FLIP:
            return (region.start + region.end) // 2
        case Harm.FLIP_LAST:
            return region.end - 1
    return region.start


def damage(case: Case, intact: Intact, data: Path) -> tuple[int, int]:
    """Damages a copy; returns the first byte that differs now and the one behind the last.

    The same case damages the same bits each time.
    """
    path, chance = data / case.name, random.Random(str(case))  # noqa: S311 - repeatable
    old = (intact.data / case.name).read_bytes()
    new = bytearray(old)
    match case.damage:
        case Harm.MISSING:
            path.unlink()
            return 0, len(old)
        case Harm.OLDER:
            new[:] = (intact.older / case.name).read_bytes()
        case Harm.SHORTER:
            del new[-1:]
        case Harm.HALF:
            del new[len(new) // 2 :]
        case Harm.EMPTY:
            new.clear()
        case Harm.SECTOR:
            start = case.start // SECTOR_BYTES * SECTOR_BYTES
            size = len(new[start : start + SECTOR_BYTES])
            new[start : start + size] = bytes(size)
        case Harm.BLOCK:
            # Its second half is that of an earlier write: noise, as far as anyone can tell.
            start = case.start // BLOCK_BYTES * BLOCK_BYTES
            if start + BLOCK_BYTES // 2 < len(new):
                start += BLOCK_BYTES // 2
            size = len(new[start : start + BLOCK_BYTES // 2])
            new[start : start + size] = chance.randbytes(size)
        case _:
            new[_flipped(case)] ^= 1 << chance.randrange(8)
    path.unlink()
    path.write_bytes(new)
    differing = [
        at for at in range(0, max(len(old), len(new)), 64) if old[at : at + 64] != new[at : at + 64]
    ]
    return (differing[0], differing[-1] + 64) if differing else (0, 0)


def _flipped(case: Case) -> int:
    places = {Harm.FLIP_FIRST: case.start, Harm.FLIP_LAST: case.end - 1}
    return places.get(case.damage, (case.start + case.end) // 2)


def copy(intact: Intact, case: Case | None, data: Path) -> None:
    """Copies a store; files that nothing changes in place are linked."""
    data.mkdir(mode=0o700)
    (data / "archive").mkdir(mode=0o700)
    for name in intact.names():
        if kind_of(name) in WRITTEN or (case is not None and name == case.name):
            shutil.copyfile(intact.data / name, data / name)
        else:
            os.link(intact.data / name, data / name)
