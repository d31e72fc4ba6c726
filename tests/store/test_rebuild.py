"""The state comes from any journal and any snapshots alike, and a deposed writer's late commit
does not count.
"""

from __future__ import annotations

import logging

import pytest

from beaver.errors import Corruption
from beaver.journal.codec import encode_commit
from beaver.journal.memory import MemoryJournal, MemoryLog
from beaver.journal.port import Stamp
from beaver.snapshot.files import FileSnapshots
from beaver.snapshot.port import KEPT, MemorySnapshots, Snapshots
from beaver.store.rebuild import Replica, rebuild
from beaver.structs.recovery import RecoveryReport
from beaver_model import build_indexes, fingerprint, violations
from beaver_model.events import AnyEvent, Booted, Dispatched, Enqueued
from tests.journal.journals import (
    KINDS,
    InMemory,
    InMemoryStamped,
    Journals,
    OnDisk,
    Remote,
)
from tests.worlds.journal import DATA, SPEC

ME, YOU = "me", "you"


def enqueued(name: str) -> Enqueued:
    return Enqueued(name, SPEC, b"null", b"d" * 12)


def fill(kept: Journals) -> None:
    for batch in ([Booted(1, False, "me")], [enqueued("a"), enqueued("b")], [Dispatched("a", 1)]):
        kept.append(batch)


def snapshots_of(kept: Journals) -> Snapshots:
    """As the journal, so its snapshots: beside the log on disk, or wherever else."""
    return FileSnapshots(kept.disk, DATA) if isinstance(kept, OnDisk) else MemorySnapshots()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kept(request: pytest.FixtureRequest) -> Journals:
    made: Journals = request.param()
    fill(made)
    return made


def test_every_journal_gives_the_same_state(kept: Journals) -> None:
    expected = KINDS[0]()
    fill(expected)
    state = rebuild(kept.journal, MemorySnapshots()).state
    assert fingerprint(state) == fingerprint(rebuild(expected.journal, MemorySnapshots()).state)
    assert violations(state) == []


def test_a_snapshot_and_what_came_after_it_give_the_state_of_the_whole_journal(
    kept: Journals,
) -> None:
    snapshots = snapshots_of(kept)
    for name in ("c", "d", "e"):
        before = rebuild(kept.journal, snapshots)
        snapshots.save(kept.journal.store, before.snapshot())
        kept.append([enqueued(name)])
        whole = rebuild(kept.journal, MemorySnapshots())
        replica = Replica(kept.journal, snapshots)
        assert replica.state.last_seq == before.state.last_seq
        assert replica.catch_up() == 1
        build_indexes(replica.state)
        assert fingerprint(replica.state) == fingerprint(whole.state)
        assert violations(replica.state) == []
        assert replica.stamp == whole.stamp


def test_a_replica_goes_on_with_the_journal(kept: Journals) -> None:
    replica = rebuild(kept.journal, MemorySnapshots())
    assert replica.catch_up() == 0
    kept.append([enqueued("c")])
    assert replica.catch_up() == 1
    assert violations(replica.state) == []


def test_a_snapshot_of_another_store_is_refused(kept: Journals) -> None:
    snapshots = snapshots_of(kept)
    snapshots.save(b"another store id", rebuild(kept.journal, MemorySnapshots()).snapshot())
    with pytest.raises(Corruption, match="it belongs to the store"):
        rebuild(kept.journal, snapshots)


@pytest.mark.parametrize("kind", [InMemory, InMemoryStamped, Remote], ids=lambda k: k.__name__)
def test_a_journal_that_ends_before_its_snapshot_is_refused(kind: type[Journals]) -> None:
    """Of the log on disk `test_recovery` says so."""
    kept, snapshots = kind(), MemorySnapshots()
    fill(kept)
    snapshots.save(kept.journal.store, rebuild(kept.journal, snapshots).snapshot())
    with pytest.raises(Corruption):
        rebuild(kind().journal, snapshots)


def test_an_event_that_cannot_follow_is_corruption_and_named(kept: Journals) -> None:
    kept.append([enqueued("c"), enqueued("a")])
    with pytest.raises(Corruption, match="seq 6: ENQUEUE is illegal here: job a exists"):
        rebuild(kept.journal, MemorySnapshots())


def test_snapshots_in_memory_are_no_view_of_the_living_state() -> None:
    kept, snapshots = KINDS[0](), MemorySnapshots()
    fill(kept)
    replica = rebuild(kept.journal, snapshots)
    print_then = fingerprint(replica.state)
    snapshots.save(kept.journal.store, replica.snapshot())
    kept.append([enqueued("c")])
    replica.catch_up()
    found = snapshots.load(kept.journal.store, RecoveryReport())
    assert found is not None
    assert fingerprint(found.state) == print_then
    for _ in range(3):
        snapshots.save(kept.journal.store, replica.snapshot())
    assert len(snapshots.kept) == KEPT


# -- commits of a deposed writer --------------------------------------------------------------


class Log:
    """A journal with stamps, and the commits of two writers in it."""

    def __init__(self) -> None:
        self.log = MemoryLog(is_stamped=True)
        self.journal = MemoryJournal(self.log)

    def add(self, stamp: Stamp, *events: AnyEvent) -> None:
        self.log.add(encode_commit(5, events, stamp), len(events))

    def names(self) -> tuple[list[str], Replica]:
        replica = rebuild(self.journal, MemorySnapshots())
        return list(replica.state.jobs), replica


@pytest.fixture
def log() -> Log:
    made = Log()
    made.add(Stamp(1, ME, 1), Booted(1, False, ME))
    made.add(Stamp(1, ME, 2), enqueued("a"))
    return made


def test_a_late_commit_of_an_older_epoch_does_not_count(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes no seqs either: those are its successor's."""
    log.add(Stamp(2, YOU, 1), Booted(2, False, YOU))
    log.add(Stamp(1, ME, 3), enqueued("late"), enqueued("later"))
    log.add(Stamp(2, YOU, 2), enqueued("b"))
    with caplog.at_level(logging.ERROR):
        names, replica = log.names()
    assert names == ["a", "b"]
    assert replica.state.jobs["b"].seq == 4
    assert replica.voided == 1
    assert "a commit of me in epoch 1 does not count" in caplog.text


def test_two_boots_of_one_epoch_have_one_winner(log: Log) -> None:
    log.add(Stamp(2, YOU, 1), Booted(2, False, YOU))
    log.add(Stamp(2, ME, 1), Booted(2, False, ME))
    log.add(Stamp(2, ME, 2), enqueued("mine"))
    log.add(Stamp(2, YOU, 2), enqueued("yours"))
    names, replica = log.names()
    assert (names, replica.voided) == (["a", "yours"], 2)
    assert replica.stamp == Stamp(2, YOU, 2)


def test_the_same_commit_twice_counts_once_and_nothing_counts_behind_a_hole(log: Log) -> None:
    log.add(Stamp(1, ME, 2), enqueued("a"))
    log.add(Stamp(1, ME, 4), enqueued("behind a hole"))
    log.add(Stamp(1, ME, 3), enqueued("b"))
    names, replica = log.names()
    assert (names, replica.voided) == (["a", "b"], 2)


def test_a_boot_under_another_name_than_its_stamp_does_not_count(log: Log) -> None:
    log.add(Stamp(2, ME, 1), Booted(2, False, YOU))
    names, replica = log.names()
    assert (replica.state.epoch, replica.voided) == (1, 1)
    assert names == ["a"]


def test_a_boot_that_skips_an_epoch_is_corruption(log: Log) -> None:
    log.add(Stamp(3, YOU, 1), Booted(3, False, YOU))
    with pytest.raises(Corruption, match="epoch 3 does not follow 1"):
        log.names()


def test_whoever_starts_from_a_snapshot_drops_the_same(log: Log) -> None:
    snapshots = MemorySnapshots()
    snapshots.save(log.log.store, rebuild(log.journal, snapshots).snapshot())
    log.add(Stamp(1, YOU, 3), enqueued("never booted"))
    log.add(Stamp(1, ME, 3), enqueued("b"))
    replica = rebuild(log.journal, snapshots)
    whole = rebuild(log.journal, MemorySnapshots())
    assert fingerprint(replica.state) == fingerprint(whole.state)
    assert (replica.voided, whole.voided) == (1, 1)


def test_in_a_log_without_stamps_it_is_corruption() -> None:
    kept = OnDisk()
    kept.append([Booted(1, False, ME)])
    kept.append([Booted(2, False, YOU)])
    kept.append([Booted(2, False, ME)])
    with pytest.raises(Corruption, match="epoch 2 does not follow 2"):
        rebuild(kept.journal, MemorySnapshots())
