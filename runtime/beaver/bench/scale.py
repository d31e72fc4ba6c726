"""Ten million pending jobs: what they cost, and how a server comes back with them.

Off by default, since it takes minutes and gigabytes:

    python3 -m beaver.bench.scale --jobs 10000000 --dir /srv

At ten million it needs 10 GB of memory and 8 GB of disk.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from beaver.bench import inside
from beaver.bench.processes import processor_s, resident_bytes, tree
from beaver.bench.served import ServerProcess
from beaver.bench.stores import write_history
from beaver.errors import BeaverError
from beaver.journal.wal.layout import Layout
from beaver.text.foreign import counted

_SNAPSHOT_S: Final = 1_800.0
"""No snapshot takes longer to come: the helper projects the whole log first."""
_SNAPSHOT_AFTER_S: Final = 15


def measure_scale(directory: str, jobs: int) -> dict[str, float]:
    """Measures operations beside so many jobs over those beside 1,000, and two restarts.

    Returns:
        By name: ratios, bytes, or seconds of the wall clock.
    """
    values = inside.measure_growth(jobs)
    data = str(Path(directory, "scale"))
    try:
        return values | _measure_restarts(data, jobs)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _measure_restarts(data: str, jobs: int) -> dict[str, float]:
    last_seq = write_history(data, jobs, live=jobs)
    first = ServerProcess(data, snapshot=f"{_SNAPSHOT_AFTER_S}s")
    try:
        values = {
            "log_bytes_a_job": Path(Layout(data).log).stat().st_size / jobs,
            "ready_from_log_s": first.ready_s,
            "ready_from_log_processor_s": processor_s(first.pid),
            "server_bytes_a_job": resident_bytes(first.pid) / jobs,
        }
        values |= _await_snapshot(data, first.pid, jobs)
    finally:
        first.kill()
    second = ServerProcess(data)
    try:
        values["ready_from_snapshot_s"] = second.ready_s
        values["ready_from_snapshot_processor_s"] = processor_s(second.pid)
        values["server_bytes_a_job_again"] = resident_bytes(second.pid) / jobs
    finally:
        second.kill()
    if last_seq < jobs:
        raise BeaverError(f"the log has {counted(last_seq, 'event')} for {counted(jobs, 'job')}")
    return values


def _await_snapshot(data: str, server: int, jobs: int) -> dict[str, float]:
    """Waits for the snapshot; returns how long it took to come, and the helper's memory."""
    snapshot, started_s, helper = Path(Layout(data).snapshot), time.monotonic(), 0
    while not snapshot.exists():
        if time.monotonic() - started_s > _SNAPSHOT_S:
            raise BeaverError(f"no snapshot within {_SNAPSHOT_S:g} s")
        try:
            others = [resident_bytes(pid) for pid in tree(server) if pid != server]
        except OSError:
            continue  # One of them has just ended.
        helper = max(helper, *others)
        time.sleep(0.5)
    return {
        "snapshot_came_after_s": time.monotonic() - started_s,
        "helper_bytes_a_job": helper / jobs,
        "snapshot_bytes_a_job": snapshot.stat().st_size / jobs,
    }


def main() -> None:
    """Prints what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000_000)
    parser.add_argument("--dir", default=None, help="measure the disk of this directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beaver-scale-", dir=options.dir) as scratch:
        values = measure_scale(scratch, options.jobs)
    found = {name: round(value, 2) for name, value in values.items()}
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")


if __name__ == "__main__":
    main()
