"""Stores on a simulated disk, for the tests of journal and recovery."""

from __future__ import annotations

from beaver.journal.codec import encode_commit
from beaver.journal.port import append_now
from beaver.journal.wal.commit_path import CommitPath
from beaver.journal.wal.format import frame_bytes
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.log import Wal
from beaver.journal.wal.zeros import EXTEND_BYTES
from beaver.store.rebuild import Recovered
from beaver.store.recovery import open_store
from beaver_chaos.sim.disk import SimDisk
from beaver_model import State, fingerprint, violations
from beaver_model.events import AnyEvent, Booted, Enqueued
from beaver_model.rows import Spec, encode_spec

STORE = bytes(range(16))
SPEC = encode_spec(Spec("send"))
DATA = Layout("data")


class StillClock:
    """A clock that a test moves."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = wall_ms

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_ns(self) -> int:
        return self.now_ms * 1_000_000


def enqueued(name: str, payload: bytes = b"null") -> Enqueued:
    return Enqueued(name, SPEC, payload, b"d" * 12)


def open_sim(
    disk: SimDisk,
    *,
    create: bool = True,
    segment_bytes: int = 1 << 16,
    extend_bytes: int = EXTEND_BYTES,
    commits: CommitPath | None = None,
) -> Recovered[Wal]:
    """Opens the store `data`, made if need be."""
    return open_store(
        disk,
        "data",
        clock=StillClock(),
        create=create,
        store=STORE,
        segment_bytes=segment_bytes,
        extend_bytes=extend_bytes,
        commits=commits,
    )


def append(wal: Wal, *events: AnyEvent, time_ms: int = 5) -> None:
    payload = encode_commit(time_ms, events)
    assert wal.reserve(frame_bytes(len(payload)))
    append_now(wal, payload, len(events))


def prepare(disk: SimDisk, wal: Wal, size: int = 1 << 16) -> None:
    """Prepares a segment and adopts it."""
    prepare_segment(disk, size)
    assert wal.adopt(DATA.next)


def prepare_segment(disk: SimDisk, size: int = 1 << 16) -> None:
    """Does what the helper does: a zero-filled file under its final name."""
    if disk.exists(f"{DATA.next}.tmp"):
        disk.unlink(f"{DATA.next}.tmp")
    file = disk.open(f"{DATA.next}.tmp", create=True)
    file.pwrite(bytes(size), 0)
    file.sync()
    file.close()
    disk.rename(f"{DATA.next}.tmp", DATA.next)
    disk.sync_dir("data")


def new_disk(jobs: int = 3) -> SimDisk:
    """A disk with a store of so many jobs, a commit each; the writer was killed."""
    disk = SimDisk("data")
    opened = open_sim(disk)
    append(opened.journal, Booted(1, False))
    for number in range(jobs):
        append(opened.journal, enqueued(f"job-{number}"))
    disk.kill()
    return disk


def sealed_disk(segments: int = 3, jobs: int = 2) -> SimDisk:
    """A disk with a store of so many segments, the last one active; the writer was killed."""
    disk = SimDisk("data")
    wal = open_sim(disk).journal
    append(wal, Booted(1, False))
    for segment in range(segments):
        for number in range(jobs):
            append(wal, enqueued(f"job-{segment}-{number}"))
        if segment < segments - 1:
            prepare(disk, wal)
            assert wal.seal()
    disk.kill()
    return disk


def goes_on(disk: SimDisk, *, jobs: int | None = None, seq: int | None = None) -> Recovered[Wal]:
    """Checks that a store opens, that appending and sealing work, and that all survives."""
    opened = open_sim(disk, create=False)
    if jobs is not None:
        assert len(opened.state.jobs) == jobs
    if seq is not None:
        assert opened.state.last_seq == seq
    assert violations(opened.state) == []
    append(opened.journal, enqueued(f"afterwards-{opened.state.last_seq}"))
    prepare(disk, opened.journal)
    assert opened.journal.seal()
    append(opened.journal, enqueued(f"behind-the-seal-{opened.state.last_seq}"))
    disk.crash(lambda n: 0)
    again = open_sim(disk, create=False)
    assert again.state.last_seq == opened.state.last_seq + 2
    assert again.report.torn_tail_bytes == 0
    disk.kill()
    return opened


def same(one: State, other: State) -> bool:
    return fingerprint(one) == fingerprint(other)
