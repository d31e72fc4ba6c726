"""The snapshot's file: it gives back the very state, or says that it cannot."""

from __future__ import annotations

import errno
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaver.errors import NewerFormat
from beaver.journal.wal.layout import Layout
from beaver.snapshot.files import inspect_snapshot, load_snapshot, write_snapshot
from beaver.snapshot.lines import SnapshotDamaged
from beaver.system.disk import SystemDisk, SystemFile
from beaver_model import State, fingerprint, freeze, violations
from beaver_model.commands import Boot, Cancel, Enqueue, NewJob, SetBounds, SetQueue
from beaver_model.rows import Spec, encode_spec
from tests.worlds.model import World, job
from tests.worlds.stores import LivelyWorld

STORE = bytes(range(16))


def rich_world() -> LivelyWorld:
    """A world with a row of every kind."""
    world = LivelyWorld()
    world.do(Boot())
    world.do(SetBounds(500, 86_400_000))
    world.do(SetQueue("mail", paused=True, weight=7, bytes_max=1 << 20))
    for name in ("pending", "flying", "dead", "cancelled", "retried", "completed", "stopping"):
        world.enqueue(job(name, max_attempts=3))
    world.enqueue(job("later", queue="mail", priority=0, run_at_ms=9_999_999, origin=1))
    world.do(
        Enqueue((NewJob("tagged", encode_spec(Spec("t")), b"[1, 2]", b"x" * 12, 0, ("a", "ü")),))
    )
    for name in ("flying", "dead", "retried", "completed", "stopping"):
        world.dispatch(name, worker=3)
    world.complete("completed")
    world.fail("dead", "line one\nline two \U0001f9ab \u2028 \x00", retry=False)
    world.fail("retried", "again")
    world.do(Cancel("cancelled"))
    world.do(Cancel("stopping"))
    world.do(SetQueue("quick", durable_dispatch=False))
    return world


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path))


@pytest.fixture
def disk() -> SystemDisk:
    return SystemDisk()


def test_a_snapshot_gives_back_the_very_state(layout: Layout, disk: SystemDisk) -> None:
    state = rich_world().state
    taken = write_snapshot(disk, layout, state, STORE)
    loaded = load_snapshot(disk, layout.snapshot, check_fingerprint=True)
    assert freeze(loaded.state) == freeze(state)
    assert violations(loaded.state) == []
    assert loaded.store == STORE
    assert loaded.last_seq == taken.last_seq == state.last_seq
    assert loaded.fingerprint == taken.fingerprint == fingerprint(state)
    assert loaded.state.ledger == taken.ledger == state.ledger
    assert loaded.bytes == taken.bytes == Path(layout.snapshot).stat().st_size


def test_a_queue_that_waits_for_its_syncs_is_written_as_it_always_was(
    layout: Layout, disk: SystemDisk
) -> None:
    """So the fingerprint of a store does not change with the release that reads it."""
    state = rich_world().state
    assert [queue[6:] for queue in freeze(state).queues] == [(), (), (False,)]
    write_snapshot(disk, layout, state, STORE)
    lines = Path(layout.snapshot).read_text().splitlines()
    (line,) = (line for line in lines if "durable_dispatch" in line)
    assert line == (
        '{"kind":"queue","name":"quick","paused":false,"weight":10,'
        '"bytes_max":0,"enqueued":0,"completed":0,"durable_dispatch":false}'
    )
    loaded = load_snapshot(disk, layout.snapshot, check_fingerprint=True).state
    assert [queue.row.durable_dispatch for queue in loaded.queues.values()] == [True, True, False]


def test_an_empty_state_is_a_state(layout: Layout, disk: SystemDisk) -> None:
    write_snapshot(disk, layout, State(), STORE)
    assert freeze(load_snapshot(disk, layout.snapshot).state) == freeze(State())


def test_inspecting_reads_what_loading_reads(layout: Layout, disk: SystemDisk) -> None:
    state = rich_world().state
    taken = write_snapshot(disk, layout, state, STORE)
    info = inspect_snapshot(disk, layout.snapshot)
    assert info == (STORE, state.last_seq, state.time_ms, taken.fingerprint, taken.bytes)


def test_every_line_is_an_object_with_a_kind(layout: Layout, disk: SystemDisk) -> None:
    write_snapshot(disk, layout, rich_world().state, STORE)
    lines = [json.loads(line) for line in Path(layout.snapshot).read_bytes().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("header", "footer")
    assert set(kinds) == {"header", "queue", "spec", "job", "tombstone", "footer"}
    tagged = next(line for line in lines if line.get("id") == "tagged")
    assert tagged["payload"] == [1, 2]
    assert tagged["extra"]["tags"] == ["a", "ü"]


def test_jobs_of_one_kind_share_their_spec(layout: Layout, disk: SystemDisk) -> None:
    world = World()
    world.enqueue(*(job(f"job-{n}") for n in range(50)))
    write_snapshot(disk, layout, world.state, STORE)
    assert Path(layout.snapshot).read_bytes().count(b'"kind":"spec"') == 1


@pytest.mark.parametrize(
    "payload",
    [
        b'{"n": 123456789012345678901234567890123456789, "x": 1.0e5}',
        b'{"a": {"a": 1}, "a": 2}',
        b'"\\ud800 is half a pair"',
        b"[" * 60 + b"]" * 60,
        b"  1",
        b"not json",
        b"1\n",
        b"",
        b"\xff\x00\n",
        b"[" * 5_000,
        *(b"[" * depth + b"]" * depth for depth in range(880, 1_001, 3)),
    ],
)
def test_payload_bytes_come_back_as_they_were_sent(
    payload: bytes, layout: Layout, disk: SystemDisk
) -> None:
    world = World()
    world.do(Enqueue((NewJob("a", encode_spec(Spec("t")), payload, b"d" * 12),)))
    write_snapshot(disk, layout, world.state, STORE)
    loaded = load_snapshot(disk, layout.snapshot, check_fingerprint=True)
    assert loaded.state.jobs["a"].payload == payload


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
            st.binary(max_size=40),
            st.binary(min_size=12, max_size=12),
            st.integers(0, 1 << 50),
        ),
        unique_by=lambda one: one[0],
        max_size=8,
    )
)
def test_any_jobs_come_back(
    tmp_path_factory: Any, jobs: list[tuple[str, bytes, bytes, int]]
) -> None:
    world = World()
    spec = encode_spec(Spec("t", backoff_jitter=0.3))
    world.do(
        Enqueue([NewJob(name, spec, payload, digest, at) for name, payload, digest, at in jobs])
    )
    layout = Layout(str(tmp_path_factory.mktemp("any")))
    write_snapshot(SystemDisk(), layout, world.state, STORE)
    loaded = load_snapshot(SystemDisk(), layout.snapshot, check_fingerprint=True)
    assert freeze(loaded.state) == freeze(world.state)


def test_a_snapshot_of_many_batches_comes_back(
    layout: Layout, disk: SystemDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small pieces, so that lines lie across the borders of what is read and written.
    monkeypatch.setattr("beaver.snapshot.files._BATCH_BYTES", 700)
    monkeypatch.setattr("beaver.snapshot.files._SYNC_BYTES", 2_000)
    monkeypatch.setattr("beaver.snapshot.files.READ_BYTES", 333)
    monkeypatch.setattr("beaver.snapshot.lines.READ_BYTES", 333)
    state = rich_world().state
    write_snapshot(disk, layout, state, STORE)
    loaded = load_snapshot(disk, layout.snapshot, check_fingerprint=True)
    assert freeze(loaded.state) == freeze(state)


def test_every_cut_is_noticed(layout: Layout, disk: SystemDisk) -> None:
    write_snapshot(disk, layout, rich_world().state, STORE)
    whole = Path(layout.snapshot).read_bytes()
    for size in range(len(whole)):
        Path(layout.snapshot).write_bytes(whole[:size])
        with pytest.raises(SnapshotDamaged):
            load_snapshot(disk, layout.snapshot)
        with pytest.raises(SnapshotDamaged):
            inspect_snapshot(disk, layout.snapshot)


def test_every_flipped_bit_is_noticed(layout: Layout, disk: SystemDisk) -> None:
    write_snapshot(disk, layout, World().state, STORE)
    whole = Path(layout.snapshot).read_bytes()
    for offset in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[offset] ^= 1 << bit
            Path(layout.snapshot).write_bytes(damaged)
            with pytest.raises(SnapshotDamaged):
                load_snapshot(disk, layout.snapshot)


def rewritten(path: str, old: bytes, new: bytes) -> None:
    """Changes a snapshot and gives it a CRC that fits."""
    body = Path(path).read_bytes()[:-19]
    assert body.count(old) == 1
    body = body.replace(old, new)
    Path(path).write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))


def test_an_intact_file_of_a_newer_version_is_named_so(layout: Layout, disk: SystemDisk) -> None:
    write_snapshot(disk, layout, rich_world().state, STORE)
    rewritten(layout.snapshot, b'"version":1', b'"version":2,"more":[]')
    with pytest.raises(NewerFormat, match="version 2"):
        load_snapshot(disk, layout.snapshot)
    with pytest.raises(NewerFormat, match="version 2"):
        inspect_snapshot(disk, layout.snapshot)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b'"tombstones":1,', b'"tombstones":2,', "its footer says"),
        (b'"id":"flying"', b'"id":"crying"', "fingerprint"),
        (b'"state":"dead"', b'"state":"lost"', "no meaning"),
        (b'"spec":0,"digest":"ZGRk', b'"spec":7,"digest":"ZGRk', None),
        (b'"kind":"queue","name":"mail"', b'"kind":"cue","name":"mail"', "no meaning"),
        (b'"format":"beaver-snapshot"', b'"format":"otter-snapshot"', "no header"),
        (b'"seq":4,', b'"seq":"4",', "no meaning"),
    ],
)
def test_what_no_writer_wrote_is_refused_whatever_its_crc(
    old: bytes, new: bytes, complaint: str | None, layout: Layout, disk: SystemDisk
) -> None:
    write_snapshot(disk, layout, rich_world().state, STORE)
    if complaint is None:
        # Several lines hold it: change the first.
        body = Path(layout.snapshot).read_bytes()[:-19].replace(old, new, 1)
        Path(layout.snapshot).write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))
    else:
        rewritten(layout.snapshot, old, new)
    with pytest.raises(SnapshotDamaged, match=complaint or "no meaning"):
        load_snapshot(disk, layout.snapshot, check_fingerprint=True)


def test_a_missing_snapshot_is_no_damage(layout: Layout, disk: SystemDisk) -> None:
    with pytest.raises(FileNotFoundError):
        load_snapshot(disk, layout.snapshot)


def test_the_snapshot_before_is_kept_as_the_older_one(layout: Layout, disk: SystemDisk) -> None:
    world = rich_world()
    for _ in range(3):
        before = world.state.last_seq
        write_snapshot(disk, layout, world.state, STORE)
        world.enqueue(job(f"job-{before}"))
    write_snapshot(disk, layout, world.state, STORE)
    assert inspect_snapshot(disk, layout.snapshot).last_seq == world.state.last_seq
    assert inspect_snapshot(disk, layout.snapshot_old).last_seq == before


def test_a_damaged_snapshot_does_not_replace_a_good_older_one(
    layout: Layout, disk: SystemDisk
) -> None:
    world = rich_world()
    write_snapshot(disk, layout, world.state, STORE)
    good_seq = world.state.last_seq
    world.enqueue(job("more"))
    write_snapshot(disk, layout, world.state, STORE)
    Path(layout.snapshot).write_bytes(b"rot")
    write_snapshot(disk, layout, world.state, STORE, keep_previous=False)
    assert inspect_snapshot(disk, layout.snapshot_old).last_seq == good_seq
    assert inspect_snapshot(disk, layout.snapshot).last_seq == world.state.last_seq


def test_a_temporary_file_that_a_crash_left_is_replaced(layout: Layout, disk: SystemDisk) -> None:
    Path(layout.snapshot + ".tmp").write_bytes(b"half a snapshot" * 1_000)
    write_snapshot(disk, layout, rich_world().state, STORE)
    load_snapshot(disk, layout.snapshot)
    assert disk.listdir(layout.path) == ["snapshot.json"]


def test_nobody_else_may_read_a_snapshot(layout: Layout, disk: SystemDisk) -> None:
    write_snapshot(disk, layout, World().state, STORE)
    assert Path(layout.snapshot).stat().st_mode & 0o777 == 0o600


class FullDisk(SystemDisk):
    """A disk that has no room after some writes or syncs."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SystemFile:
        file = super().open(path, write=write, create=create)
        pwrite, sync = file.pwrite, file.sync

        def counted(call: Any) -> Any:
            def wrapped(*args: Any) -> None:
                self.calls -= 1
                if self.calls < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                call(*args)

            return wrapped

        file.pwrite, file.sync = counted(pwrite), counted(sync)  # type: ignore[method-assign]
        return file


def test_a_full_disk_leaves_everything_as_it_was(layout: Layout, disk: SystemDisk) -> None:
    world = rich_world()
    write_snapshot(disk, layout, world.state, STORE)
    before = Path(layout.snapshot).read_bytes()
    world.enqueue(job("more"))
    calls = 0
    while calls < 20:
        try:
            write_snapshot(FullDisk(calls), layout, world.state, STORE)
            break
        except OSError:
            calls += 1
            assert Path(layout.snapshot).read_bytes() == before
            assert disk.listdir(layout.path) == ["snapshot.json"]
    assert calls >= 3
    assert inspect_snapshot(disk, layout.snapshot).last_seq == world.state.last_seq


def swap_jobs(lines: list[bytes]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def repeat_an_id(lines: list[bytes]) -> None:
    lines[4] = lines[4].replace(b'"id":"b"', b'"id":"a"')


def shorten_a_digest(lines: list[bytes]) -> None:
    lines[3] = lines[3].replace(b'"digest":"ZGRkZGRkZGRkZGRk"', b'"digest":"ZGRk"')


def move_a_queue(lines: list[bytes]) -> None:
    lines.insert(5, lines.pop(1))


def weigh_a_queue_nothing(lines: list[bytes]) -> None:
    """A server would divide by it."""
    assert b'"weight":10' in lines[1]
    lines[1] = lines[1].replace(b'"weight":10', b'"weight":0')


def repeat_the_footer(lines: list[bytes]) -> None:
    lines.append(lines[-1])


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (swap_jobs, "seqs do not ascend behind 0"),
        (repeat_an_id, "two rows have one id"),
        (shorten_a_digest, "length >= 12"),
        (weigh_a_queue_nothing, "no meaning"),
        (move_a_queue, "names the queue default, which has no line"),
        (repeat_the_footer, "no footer"),
    ],
)
def test_lines_that_no_writer_put_there_are_refused_whatever_the_crc(
    layout: Layout, disk: SystemDisk, edit: Callable[[list[bytes]], None], complaint: str
) -> None:
    world = World()
    world.enqueue(*(job(name) for name in "abc"))
    write_snapshot(disk, layout, world.state, STORE)
    body = Path(layout.snapshot).read_bytes()[:-19] + b"}\n"
    lines = body.splitlines(keepends=True)
    assert [json.loads(line)["kind"] for line in lines] == [
        "header", "queue", "spec", "job", "job", "job", "footer",
    ]  # fmt: skip
    edit(lines)
    body = b"".join(lines)[:-2]
    Path(layout.snapshot).write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))
    with pytest.raises(SnapshotDamaged, match=complaint):
        load_snapshot(disk, layout.snapshot)
