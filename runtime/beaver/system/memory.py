"""How much memory there is for this process: the machine's, or the cgroup's if that is less."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_V2_LIMIT: Final = "memory.max"
_V1_LIMIT: Final = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
_V2_ROOT: Final = Path("/sys/fs/cgroup")
_LEVELS_MAX: Final = 32


def memory_bytes() -> int:
    """Returns the memory that this process may use, in bytes."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits()])


def _cgroup_limits() -> list[int]:
    """Returns every limit that a cgroup above us sets: the least of them counts."""
    limits: list[int] = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return limits
    own = next((line[3:] for line in lines if line.startswith("0::")), "")
    group = _V2_ROOT / own.lstrip("/")
    for level in [group, *group.parents][:_LEVELS_MAX]:
        limits += _limit_in(level / _V2_LIMIT)
        if level == _V2_ROOT:
            break
    return limits + _limit_in(_V1_LIMIT)


def _limit_in(path: Path) -> list[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() and int(text) > 0 else []
