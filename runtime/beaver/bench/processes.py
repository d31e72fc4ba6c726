"""Memory and CPU time of processes, from `/proc`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from beaver.errors import BeaverError


def resident_bytes(pid: int) -> int:
    """Returns the memory of a process that is in use (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise BeaverError(f"no memory figure of process {pid}")


def tree(pid: int) -> list[int]:
    """Returns a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = Path(entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, rest = [], [pid]
    while rest:
        found.append(rest.pop())
        rest += children.get(found[-1], [])
    return found


def processor_s(pid: int) -> float:
    """Returns the processor's seconds that a process has used (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_bytes(pid: int) -> int:
    """Returns a process's memory, of which pages that are shared count by their share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise BeaverError(f"no memory figure of process {pid}")


def wait_until_gone(pids: Sequence[int], seconds: float) -> None:
    """Waits until none of these processes is left, zombies excepted, or the time is over."""
    deadline_s = time.monotonic() + seconds
    while any(map(_lives, pids)) and time.monotonic() < deadline_s:
        time.sleep(0.005)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
