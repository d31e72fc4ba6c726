"""Snapshots are compared, whole, before anything is deleted: each comparison fires."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from beaver.engine.counters import CommitCounters
from beaver.engine.group_commit import Observer
from beaver.errors import LiveStateDiffers, SnapshotDiffers
from beaver.helper.work import project, snapshot_and_prune, take_snapshot
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import segments
from beaver.server.metrics import Metrics
from beaver.snapshot import files
from beaver.snapshot.lines import (
    ExtraLine,
    FooterLine,
    HeaderLine,
    JobLine,
    Line,
    QueueLine,
    SpecLine,
    TombstoneLine,
)
from beaver.system.disk import SystemDisk, SystemFile
from beaver_model import JobState, State, freeze, thaw
from beaver_model.commands import Boot, Cancel, NewJob, Release, Requeue, SetBounds, SetQueue
from beaver_model.commands import Enqueue as EnqueueJobs
from beaver_model.contents import Contents, Glance, contents_of, difference, glance_at
from beaver_model.events import Cause
from beaver_model.rows import Extra, Row, Spec, encode_spec, pack_tombstone
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock, make_housekeeping, on_loop
from tests.worlds.stores import LoggedWorld

DISK = SystemDisk()


def rich(path: Path) -> LoggedWorld:
    """A logged store with a row of every kind, two snapshots and segments that may go."""
    world = LoggedWorld(path)
    world.do(Boot())
    world.do(SetBounds(500, 86_400_000))
    for number in range(3):
        world.run(f"old-{number}")
        take_snapshot(world.disk, world.layout, world.state.last_seq, ManualClock())
        world.seal()
    world.do(SetQueue("mail", paused=True, weight=7, bytes_max=1 << 20))
    world.do(SetQueue("quick", durable_dispatch=False))
    names = ("pending", "flying", "dead", "cancelled", "retried", "lost", "snoozed", "again")
    world.enqueue(*(job(name, max_attempts=3) for name in (*names, "stopping")))
    world.enqueue(job("later", queue="mail", priority=0, run_at_ms=world.now_ms + 999_999))
    spec = encode_spec(Spec("t"))
    world.do(EnqueueJobs((NewJob("tagged", spec, b"[1, 2]", b"x" * 12, 0, ("a", "ü")),)))
    world.dispatch("lost")
    world.do(Boot(power_cut=True))
    for name in ("flying", "dead", "retried", "snoozed", "again", "stopping"):
        world.dispatch(name, worker=3)
    world.fail("dead", "it broke", retry=False)
    world.fail("again", "it broke", retry=False)
    world.fail("retried", "again")
    token = world.state.jobs["snoozed"].token
    world.do(Release("snoozed", token, Cause.SNOOZE, delay_ms=5_000))
    world.do(Requeue("again"))
    world.do(Cancel("cancelled"))
    world.do(Cancel("stopping"))
    return world


class Store(NamedTuple):
    """A copy of such a store, and its state."""

    layout: Layout
    state: State
    now_ms: int


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> LoggedWorld:
    world = rich(tmp_path_factory.mktemp("compared") / "data")
    project(world.disk, world.layout, world.state.last_seq)
    return world


@pytest.fixture
def world(original: LoggedWorld, tmp_path: Path) -> Store:
    shutil.copytree(original.path, tmp_path / "data")
    return Store(Layout(str(tmp_path / "data")), thaw(*freeze(original.state)), original.now_ms)


def take(world: Store, live: Glance | None = None) -> None:
    """Takes a snapshot as the helper does, with nothing that is kept for its own sake."""
    clock = ManualClock(world.now_ms)
    snapshot_and_prune(DISK, world.layout, world.state.last_seq, 0, 0, clock, live)


def files_of(world: Store) -> dict[str, bytes]:
    folder = Path(world.layout.path)
    paths = [*folder.glob("snapshot*"), *folder.glob("archive/*")]
    return {str(path): path.read_bytes() for path in paths}


@pytest.fixture
def unchanged(world: Store) -> Iterator[None]:
    """Both snapshots and every segment are afterwards what they were before."""
    before = files_of(world)
    assert len(before) > 4
    yield
    assert files_of(world) == before


def test_where_all_agree_the_snapshot_is_kept_and_the_archive_pruned(world: Store) -> None:
    before = segments(DISK, world.layout)[0].first_seq
    take(world, glance_at(world.state))
    loaded = files.load_snapshot(DISK, world.layout.snapshot).state
    assert freeze(loaded) == freeze(world.state)
    assert difference(contents_of(world.state), contents_of(loaded)) == ""
    assert segments(DISK, world.layout)[0].first_seq > before


class Full(SystemDisk):
    """No room for a snapshot until something of the archive is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = True

    def open(self, path: str, *, write: bool = False, create: bool = False) -> SystemFile:
        if self.is_full and create and "snapshot" in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().open(path, write=write, create=create)

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self.is_full = self.is_full and "archive" not in path


def test_where_there_is_no_room_what_earlier_comparisons_allow_is_deleted_first(
    world: Store,
) -> None:
    last_seq, first_seq = world.state.last_seq, segments(DISK, world.layout)[0].first_seq
    snapshot_and_prune(Full(), world.layout, last_seq, 0, 0, ManualClock(world.now_ms))
    assert files.inspect_snapshot(DISK, world.layout.snapshot).last_seq == last_seq
    assert segments(DISK, world.layout)[0].first_seq > first_seq


# -- what was written is read back, whole -------------------------------------------------------

KINDS: dict[str, Callable[[Row], bool]] = {
    "pending": lambda row: row.state == JobState.PENDING,
    "in flight": lambda row: row.state == JobState.IN_FLIGHT,
    "dead": lambda row: row.state == JobState.DEAD,
    "cancelled": lambda row: row.state == JobState.CANCELLED,
    "scheduled": lambda row: row.id == "later",
    "to be cancelled": lambda row: row.cancel_requested,
    "suspect": lambda row: row.suspect,
    "snoozed": lambda row: row.extra is not None and row.extra.snoozes > 0,
    "requeued": lambda row: row.extra is not None and row.extra.generation > 0,
    "tagged": lambda row: row.extra is not None and bool(row.extra.tags),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("unchanged")
def test_a_row_of_no_kind_may_be_left_out(
    kind: str, world: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though counts, fingerprint and CRC of the file are all right."""
    rows = {row.seq for row in world.state.jobs.values() if KINDS[kind](row)}
    assert rows, f"the world has no row that is {kind}"
    frozen: Any = vars(files)["frozen_jobs"]
    monkeypatch.setattr(
        files, "frozen_jobs", lambda state: (row for row in frozen(state) if row[0] not in rows)
    )
    with pytest.raises(SnapshotDiffers, match="jobs instead of"):
        take(world)


@pytest.mark.parametrize("part", ["frozen_queues", "frozen_tombstones"])
@pytest.mark.usefixtures("unchanged")
def test_no_queue_and_no_tombstone_may_be_left_out(
    part: str, world: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = getattr(files, part)
    monkeypatch.setattr(files, part, lambda state: list(frozen(state))[1:])
    with pytest.raises(SnapshotDiffers, match="no segment of the log is deleted"):
        take(world)


def fields() -> Iterator[tuple[type, str]]:
    for kind in (HeaderLine, QueueLine, SpecLine, JobLine, ExtraLine, TombstoneLine, FooterLine):
        for name in kind.__struct_fields__:
            if (kind, name) not in NOT_READ:
                yield kind, name


NOT_READ = {
    (HeaderLine, "version"),  # of the format; a newer one is refused before all else
    (HeaderLine, "store"),  # not of the state: recovery compares it with the log's
    (JobLine, "payload_base64"),  # stands for the payload where that is no plain JSON
    (FooterLine, "fingerprint"),  # over what was written; compared when the next builds on it
    (FooterLine, "crc"),  # written by itself, and checked before all else
}


@pytest.mark.parametrize(("kind", "name"), list(fields()), ids=str)
@pytest.mark.usefixtures("unchanged")
def test_no_field_may_be_dropped_or_changed(
    kind: type, name: str, world: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode: Any = vars(files)["encoder"].encode
    changed: list[str] = []

    def spoil(line: Any) -> Any:
        target: Any = line.extra if kind is ExtraLine and isinstance(line, JobLine) else line
        if type(target) is kind and (other := another(getattr(target, name))) is not None:
            changed.append(name)
            spoiled: Any = target
            spoiled = msgspec.structs.replace(spoiled, **{name: other})
            return msgspec.structs.replace(line, extra=spoiled) if kind is ExtraLine else spoiled
        return line

    class Spoils:
        def encode_lines(self, lines: list[Line]) -> bytes:
            return msgspec.json.Encoder().encode_lines([spoil(line) for line in lines])

        def encode(self, line: Line) -> bytes:
            return bytes(encode(spoil(line)))

    monkeypatch.setattr(files, "encoder", Spoils())
    with pytest.raises((SnapshotDiffers, LookupError)):
        take(world)
    assert changed


def another(value: Any) -> Any:
    """Returns what a field holds if its value was lost; `None` where it has none to lose."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1 if value == 0 else value - 1
        case "pending":
            return "dead"
        case str():
            return value + "x" if value in ("", "beaver-snapshot") else value[:-1]
        case bytes():
            return bytes(len(value)) if any(value) else None
        case msgspec.Raw():
            return msgspec.Raw(b"0")
        case tuple():
            return () if value else ("x",)
        case dict():
            return value | {"max_attempts": 77}
        case ExtraLine():
            return ExtraLine()
    return None


def test_a_field_of_an_option_that_is_lost_is_found(
    world: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What many jobs share stands in a line of its own, and goes back to each of them."""
    spec_of: Any = vars(files)["spec_of"]
    monkeypatch.setattr(
        files, "spec_of", lambda raw: msgspec.structs.replace(spec_of(raw), priority=9)
    )
    with pytest.raises(SnapshotDiffers, match="jobs"):
        take(world)


def test_every_part_of_a_state_is_compared() -> None:
    """What a state holds beside what is derived is in one of four parts."""
    rows = freeze(State())
    assert rows._fields == Contents._fields


@pytest.mark.parametrize("name", [n for n in Row.__struct_fields__ if n != "scheduled"])
def test_a_row_that_differs_in_one_field_is_another(name: str, world: Store) -> None:
    """Those that come later as well: the fields are the row's own."""
    before, seen = contents_of(world.state), glance_at(world.state)
    row = world.state.jobs["tagged"]
    value = getattr(row, name)
    setattr(row, name, other_of(name, value))
    assert difference(before, contents_of(world.state)).startswith("other jobs")
    assert glance_at(world.state).rows != seen.rows


def other_of(name: str, value: Any) -> Any:
    match name:
        case "spec":
            return msgspec.structs.replace(value, backoff_jitter=0.2)
        case "extra":
            return Extra(tags=("a",))
        case "content":
            return value + b" "
        case "id":
            return f"{value}-"
    return value + 1


# -- the live state, at a glance --------------------------------------------------------------

LIVE: dict[str, Callable[[State], object]] = {
    "payload": lambda state: setattr(state.jobs["pending"], "payload", b"7"),
    "ready time": lambda state: setattr(state.jobs["later"], "ready_ms", 1),
    "flag": lambda state: setattr(state.jobs["stopping"], "extra", None),
    "suspect": lambda state: setattr(state.jobs["lost"].extra, "suspect", False),
    "tags": lambda state: setattr(state.jobs["tagged"].extra, "tags", ()),
    "error": lambda state: setattr(state.jobs["dead"].extra, "error", "else"),
    "attempt": lambda state: setattr(state.jobs["flying"], "attempt", 2),
    "worker": lambda state: setattr(state.jobs["flying"], "worker", 9),
    "weight": lambda state: setattr(state.queues["mail"].row, "weight", 8),
    "pause": lambda state: setattr(state.queues["mail"].row, "paused", False),
    "durable": lambda state: setattr(state.queues["quick"].row, "durable_dispatch", True),
    "completed": lambda state: setattr(state.queues["default"].row, "completed", 0),
    "elsewhere": lambda state: setattr(state, "completed_elsewhere", 1),
    "epoch": lambda state: setattr(state, "epoch", 9),
    "bound": lambda state: setattr(state, "tombstones_max", 501),
    "age": lambda state: setattr(state, "tombstones_age_ms", 1),
    "time": lambda state: setattr(state, "time_ms", state.time_ms + 1),
    "bytes": lambda state: setattr(state, "bytes", state.bytes + 1),
    "ledger": lambda state: setattr(state, "ledger", state.ledger + 1),
    "tombstone": lambda state: state.tombstones.update(
        {"old-2": pack_tombstone(1, JobState.COMPLETED, b"x" * 12)}
    ),
    "tombstones": lambda state: state.tombstones.pop("old-0"),
    "dead": lambda state: state.dead.clear(),
    "cancelled": lambda state: state.cancelled.clear(),
    "in flight": lambda state: state.in_flight.clear(),
    "suspects": lambda state: setattr(state, "suspects_in_flight", 5),
    "jobs": lambda state: state.jobs.pop("pending"),
}


@pytest.mark.parametrize("what", LIVE)
@pytest.mark.usefixtures("unchanged")
def test_a_live_state_that_is_not_what_the_log_gives_is_found(what: str, world: Store) -> None:
    live = thaw(*freeze(world.state))
    LIVE[what](live)
    last = live.tombstone_ids
    if what == "tombstones":
        last.popleft()
    with pytest.raises(LiveStateDiffers, match="a restart recovers from it"):
        take(world, glance_at(live))


def test_a_live_state_is_compared_where_no_snapshot_is_due(world: Store) -> None:
    """The newest one may hold that very seq."""
    take(world)
    before = files_of(world)
    live = thaw(*freeze(world.state))
    live.epoch += 1
    with pytest.raises(LiveStateDiffers, match="epoch"):
        take(world, glance_at(live))
    assert files_of(world) == before


def test_a_glance_is_bounded_whatever_the_state_holds(tmp_path: Path) -> None:
    """It is taken by the loop: rows of each kind are few, and of a payload only the beginning."""
    world = LoggedWorld(tmp_path / "data", segment_bytes=1 << 24)
    payload, spec = b'"%s"' % (b"x" * 5_000), encode_spec(Spec("t"))
    jobs = [NewJob(f"job-{number}", spec, payload, b"x" * 12) for number in range(1_000)]
    world.do(EnqueueJobs(tuple(jobs)))
    seen = glance_at(world.state)
    assert len(seen.rows) <= 300
    assert len(msgspec.msgpack.encode(seen)) < 50_000


# -- what becomes of it in the server ------------------------------------------------------------


class Asked:
    """A helper whose snapshots end as told."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.seen: list[Glance | None] = []

    async def snapshot(
        self, last_seq: int, keep_bytes: int, keep_ms: int, live: Glance | None = None
    ) -> Any:
        self.seen.append(live)
        raise self.error


class Serves:
    """What housekeeping looks at of an engine."""

    def __init__(self, state: State) -> None:
        self.state, self.durable_seq = state, state.last_seq
        self.counters, self.late_observers = CommitCounters(), list[Observer]()
        self.failures: list[BaseException] = []

    def flush(self) -> None:
        """All is durable."""

    def fail(self, error: BaseException) -> None:
        self.failures.append(error)


@on_loop
async def test_a_server_shows_what_it_sees_of_its_live_state(tmp_path: Path) -> None:
    engine = Serves(rich(tmp_path / "data").state)
    helper = Asked(SnapshotDiffers("no"))
    await make_housekeeping(engine, helper, ManualClock()).snapshot()
    assert helper.seen == [glance_at(engine.state)]


@on_loop
async def test_a_server_says_loudly_that_a_snapshot_is_wrong_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log is right; what it has kept is what a restart needs."""
    engine, metrics = Serves(rich(tmp_path / "data").state), Metrics()
    helper = Asked(SnapshotDiffers("it is read back as another state"))
    keeping = make_housekeeping(engine, helper, ManualClock(), metrics=metrics)
    await keeping.snapshot()
    await keeping.snapshot()
    assert len(helper.seen) == 2, "it is tried again"
    assert metrics.snapshot_mismatches == 2
    assert metrics.snapshot_seq == 0
    assert not engine.failures
    said = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(said) == 2
    assert "read back as another state" in said[0].message


@on_loop
async def test_a_server_whose_live_state_is_wrong_ends(tmp_path: Path) -> None:
    """What it would acknowledge next rests on that state."""
    engine = Serves(rich(tmp_path / "data").state)
    helper = Asked(LiveStateDiffers("the epoch is 1"))
    await make_housekeeping(engine, helper, ManualClock()).snapshot()
    (failure,) = engine.failures
    assert "the epoch is 1" in str(failure)
