"""Measurements of memory, recovery and snapshots: real files, real servers, large states."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from beaver.bench.processes import resident_bytes
from beaver.bench.records import payload
from beaver.bench.rows import percentile
from beaver.bench.served import ServerProcess, serving
from beaver.client.blocking import connect
from beaver.errors import BeaverError
from beaver.helper.work import project
from beaver.journal.codec import encode_commit
from beaver.journal.port import OVERHEAD_BYTES, append_now
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.lock import prepare_directory
from beaver.ports import File, Written
from beaver.request.requests import make_request
from beaver.snapshot.files import load_snapshot, write_snapshot
from beaver.store.recovery import open_store
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver.text.foreign import counted
from beaver_model import Spec, build_indexes
from beaver_model.bounds import DIGEST_BYTES
from beaver_model.events import Acked, AnyEvent, BoundsSet, Dispatched, Enqueued
from beaver_model.rows import encode_spec

TASK: Final = "bench.record"
NOBODYS: Final = "bench.unknown"
"""A task that no worker knows."""

STAMP_MS: Final = 1_700_000_000_000
FRAME_EVENTS: Final = 99
COMMIT_JOBS: Final = 1_000
"""Jobs in a commit of a store that a server starts over."""
PAUSED: Final = "paused"
SNAPSHOT_S: Final = 120.0
"""No snapshot takes longer to come."""

SNAPSHOT_AFTER_S: Final = 15
"""Snapshots are no closer together than this."""

SNAPSHOT_PENDING: Final = 600_000
"""A log of fewer jobs is not worth a snapshot to a server."""
_SPACING_S: Final = 0.0005


def write_history(
    data: str, events: int, *, live: int, tombstones_max: int = 0, frame_events: int = FRAME_EVENTS
) -> int:
    """Writes a log of about so many events, 99 a frame, of which `live` jobs stay pending.

    No worker knows their task, so they stay where they are while servers come and go.

    Args:
        data: The data directory, which is made.
        events: How many; ENQUEUE, DISPATCH and ACK of each job that does not stay.
        live: Jobs that stay.
        tombstones_max: Finished jobs that are remembered; 0 for the default.
        frame_events: Events in a commit.

    Returns:
        The last seq.
    """
    disk = SystemDisk()
    prepare_directory(disk, data)
    opened = open_store(
        disk,
        data,
        clock=SystemClock(),
        create=True,
        segment_bytes=64 << 20,
        commits=CommitPath(lambda _: _Unsynced(), "writer"),
    )
    wal, spec, digest = opened.journal, encode_spec(Spec(NOBODYS)), bytes(DIGEST_BYTES)
    batch: list[AnyEvent] = []
    finished = max(0, (events - live) // 3)
    seq = wal.last_seq

    def flush(now_ms: int) -> None:
        nonlocal seq
        body = encode_commit(now_ms, batch)
        wal.reserve(len(body) + OVERHEAD_BYTES)
        append_now(wal, body, len(batch))
        seq += len(batch)
        batch.clear()

    if tombstones_max:
        batch.append(BoundsSet(tombstones_max, 0))
    for index in range(live + finished):
        name = f"0193{index:08x}-7000-8000-000000000000"
        batch.append(Enqueued(name, spec, b'{"n":1000000,"note":"bench12"}', digest))
        if index >= live:
            token = seq + len(batch) + 1
            batch += [Dispatched(name, 1), Acked(name, token, b"null")]
        if len(batch) >= frame_events:
            flush(STAMP_MS + index)
    if batch:
        flush(STAMP_MS + live + finished)
    wal.close()
    return seq


class _Unsynced:
    """Writes frames that are synced with the log's end only: how they are read is measured."""

    lost = False

    def write(self, file: File, frame: bytes, offset: int, done: Written) -> None:
        file.pwrite(frame, offset)
        done(None, 0.0)

    def wait(self) -> None:
        raise AssertionError("nothing is under way")

    def close(self) -> None:
        """It holds nothing."""


def measure_replay(data: str, written: int) -> float:
    """Returns the seconds that recovery of a log without a snapshot takes."""
    started_s = time.perf_counter()
    opened = open_store(SystemDisk(), data, clock=SystemClock(), create=False)
    took_s = time.perf_counter() - started_s
    if opened.state.last_seq != written:
        raise BeaverError(f"recovered {counted(opened.state.last_seq, 'event')} of {written}")
    opened.journal.close()
    return took_s


def measure_snapshot_load(data: str) -> dict[str, float]:
    """Returns the seconds that a snapshot's load takes, and those of its indexes.

    The two are phases of recovery, with the replay of what came after in between.  The
    snapshot is written first, from the log.
    """
    disk, layout = SystemDisk(), Layout(data)
    opened = open_store(disk, data, clock=SystemClock(), create=False)
    write_snapshot(disk, layout, opened.state, opened.journal.store)
    opened.journal.close()
    expected = len(opened.state.jobs)
    del opened
    started_s = time.perf_counter()
    state = load_snapshot(disk, layout.snapshot, indexed=False).state
    loaded_s = time.perf_counter()
    build_indexes(state)
    indexed_s = time.perf_counter()
    if len(state.jobs) != expected or state.ready != expected:
        raise BeaverError(
            f"loaded {counted(len(state.jobs), 'job')} of {expected}, {state.ready} of them ready"
        )
    return {"snapshot_load": loaded_s - started_s, "snapshot_index": indexed_s - loaded_s}


def measure_files(directory: str, events: int, pending: int) -> dict[str, float]:
    """Measures replay of a log of which a third of the events are live jobs, and a snapshot."""
    replayed, snapped = str(Path(directory, "replayed")), str(Path(directory, "snapped"))
    written = write_history(replayed, events, live=events // 3)
    write_history(snapped, pending, live=pending)
    values = {"replay": measure_replay(replayed, written)} | measure_snapshot_load(snapped)
    shutil.rmtree(replayed)
    shutil.rmtree(snapped)
    return values


def measure_memory(directory: str, jobs: int) -> float:
    """Returns the bytes by which a real server grows with each pending job."""
    data = str(Path(directory, "memory"))
    with serving(data) as server, connect(data) as client:
        client.set_queue(PAUSED, True, None, None)

        def fill(count: int) -> None:
            for first in range(0, count, 1_000):
                size = min(1_000, count - first)
                numbers = range(1_000_000 + first, 1_000_000 + first + size)
                client.enqueue([make_request(TASK, payload(n), queue=PAUSED) for n in numbers])

        fill(10_000)
        before = resident_bytes(server.pid)
        fill(jobs)
        grown = resident_bytes(server.pid) - before
    shutil.rmtree(data)
    return grown / jobs


def measure_restart_from_log(directory: str, pending: int) -> dict[str, float]:
    """Returns the seconds from the start of the program to its ready line, after kill -9.

    And those to a client's first answer.
    """
    data = str(Path(directory, f"restart-{pending}"))
    write_history(data, pending, live=pending, frame_events=COMMIT_JOBS)
    ServerProcess(data).kill()
    server = ServerProcess(data)
    answered_s = server.first_answer_s()
    server.kill()
    shutil.rmtree(data)
    return {"start_100k": server.ready_s, "answer_100k": answered_s}


def measure_indexing(directory: str, jobs: int) -> float:
    """Returns the microseconds of a processor that the history of a finished job takes."""
    data = str(Path(directory, "indexed"))
    last_seq = write_history(data, 3 * jobs, live=0)
    started_s = time.process_time()
    project(SystemDisk(), Layout(data), last_seq)
    took_s = time.process_time() - started_s
    shutil.rmtree(data)
    return took_s / jobs * 1e6


def measure_restart(directory: str, pending: int) -> dict[str, float]:
    """Starts a server over many pending jobs: from the log, and after kill -9 from a snapshot.

    Between the two the server takes its snapshot, and a client asks for its status all the
    time: how long that takes shows how long the event loop was blocked.
    """
    data = str(Path(directory, f"restart-{pending}"))
    write_history(data, pending, live=pending, frame_events=COMMIT_JOBS)
    # The first start of all compiles what an installation has compiled.
    ServerProcess(data).kill()
    first = ServerProcess(data, snapshot=f"{SNAPSHOT_AFTER_S}s")
    try:
        answered_s = first.first_answer_s()
        idle, during = _ping_until_snapshot(data)
    finally:
        first.kill()
    second = ServerProcess(data)
    second.kill()
    shutil.rmtree(data)
    return {
        "start_1m_log": first.ready_s,
        "answer_1m_log": answered_s,
        "start_1m": second.ready_s,
        "pause_idle_p999": percentile(idle, 0.999),
        "pause_p999": percentile(during, 0.999),
        "pause_max": max(during),
    }


def _ping_until_snapshot(data: str) -> tuple[list[float], list[float]]:
    """Returns round trips of `status` before a snapshot begins, and while it is taken.

    A snapshot is due `SNAPSHOT_AFTER_S` after the start, since the log holds enough for one.
    Before that the helper projects the log into the history; the last seconds are quiet.
    """
    snapshot = Path(Layout(data).snapshot)
    idle: list[float] = []
    during: list[float] = []
    started_s = time.monotonic()
    with connect(data) as client:
        while not snapshot.exists():
            before_s = time.perf_counter()
            client.status()
            took_ms = (time.perf_counter() - before_s) * 1000
            since_s = time.monotonic() - started_s
            if since_s > SNAPSHOT_S:
                raise BeaverError(f"no snapshot within {SNAPSHOT_S:g} s")
            if since_s > SNAPSHOT_AFTER_S:
                during.append(took_ms)
            elif since_s > SNAPSHOT_AFTER_S / 2:
                idle.append(took_ms)
            time.sleep(_SPACING_S)
    return idle or during, during or idle
