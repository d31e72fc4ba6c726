"""Shipping: a target holds what is proven, and every end of a shipper is a place to go on from."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec
import pytest

from beaver.cli.main import main
from beaver.errors import BackupDamaged, InvalidInput, StoreUnavailable
from beaver.helper.work import prune_archive, take_snapshot
from beaver.shipping.contents import Contents
from beaver.shipping.ownership import KEY, Ownership, TakenOver
from beaver.shipping.shipper import MERGED
from beaver.shipping.targets import Target
from beaver.store.log_source import Until
from tests.backup.stores import CLOCK, DISK, HOUR_MS, fingerprint, make_store
from tests.shipping.places import (
    Killed,
    KillingTarget,
    Times,
    directory,
    files_of,
    in_target,
    owning,
    shipper,
    state_at,
)
from tests.worlds.model import job
from tests.worlds.stores import STORE, LoggedWorld, flip


@pytest.fixture
def world(tmp_path: Path) -> LoggedWorld:
    return make_store(tmp_path / "data", 3)


def proven(world: LoggedWorld) -> None:
    """Nothing comes for a while: a MARK proves the last frame."""
    world.wal.idle()


def test_a_target_holds_all_but_the_frame_that_nothing_proves_yet(
    world: LoggedWorld, tmp_path: Path
) -> None:
    target = directory(tmp_path / "t")
    ship = shipper(target, world)
    progress = ship.step()
    assert progress.last_seq == world.state.last_seq
    assert progress.seq == world.state.last_seq - 1
    proven(world)
    assert ship.step().seq == world.state.last_seq
    assert in_target(target, tmp_path) == (world.state.last_seq, fingerprint(world.path))
    before = target.list()
    ship.step()
    assert target.list() == before


def test_a_target_follows_a_store_through_sealing_pruning_and_restarts(
    world: LoggedWorld, tmp_path: Path
) -> None:
    """Whatever happens between two steps, and with a new shipper for some of them."""
    target, drawn = directory(tmp_path / "t"), random.Random(11)
    ship = shipper(target, world)
    for number in range(120):
        world.run(f"job-{number}")
        if drawn.random() < 0.1:
            world.seal()
        if drawn.random() < 0.1:
            take_snapshot(DISK, world.layout, world.state.last_seq, CLOCK)
        if drawn.random() < 0.1:
            proven(world)
        if drawn.random() < 0.5:
            ship.step()
        if drawn.random() < 0.05:
            ship.step()
            prune_archive(
                DISK, world.layout, keep_bytes=0, keep_ms=0, now_ms=0, applied_seq=1 << 62
            )
        if drawn.random() < 0.1:
            ship = shipper(target, world)
    proven(world)
    ship.step()
    seq, state = in_target(target, tmp_path)
    assert seq == world.state.last_seq
    shutil.rmtree(tmp_path / "data" / "archive")
    assert state == fingerprint(world.path)


def test_many_small_pieces_become_few(world: LoggedWorld, tmp_path: Path) -> None:
    target = directory(tmp_path / "t")
    ship = shipper(target, world)
    most = 0
    for number in range(150):
        world.enqueue(job(f"job-{number}"))
        ship.step()
        most = max(most, len(ship.contents.last.pieces)) if ship.contents.last else 0
    assert MERGED <= most <= 3 * MERGED
    assert ship.sent_bytes < 6 * sum(path.stat().st_size for path in files_of(tmp_path / "t"))
    proven(world)
    ship.step()
    assert in_target(target, tmp_path)[0] == world.state.last_seq
    world.seal()
    world.run("after")
    ship.step()
    segments = ship.contents.segments
    assert [len(segments[seq].pieces) for seq in sorted(segments)][:-1] == [1] * (len(segments) - 1)


def test_a_large_log_is_sent_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    world = LoggedWorld(tmp_path / "data")
    for number in range(5):
        jobs = [job(f"{number}-{n}") for n in range(5)]
        payload = b'"%s"' % (b"x" * 900_000)
        world.enqueue(*(msgspec.structs.replace(one, payload=payload) for one in jobs))
    world.wal.close()
    target = directory(tmp_path / "t")
    shipper(target, world).step()
    sizes = [size for key, size in target.list().items() if key.startswith("log/")]
    assert len(sizes) > 1
    assert max(sizes) < 14 << 20
    assert in_target(target, tmp_path) == (world.state.last_seq, fingerprint(world.path))


# -- killed at every step ------------------------------------------------------------------------


def life(target: Target, world: LoggedWorld) -> None:
    """A shipper that meets everything: pieces, merging, sealing, snapshots, retention."""
    ship = shipper(target, world, keep_ms=1)
    ship.step()


@pytest.mark.parametrize("behind", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_a_shipper_killed_at_any_change_is_gone_on_from(tmp_path: Path, behind: bool) -> None:
    """Before it or right behind it: the next one leaves what an undisturbed one would."""
    world = make_store(tmp_path / "data", 2)
    for number in range(MERGED + 2):
        world.enqueue(job(f"small-{number}"))
    whole = directory(tmp_path / "whole")
    places = [directory(tmp_path / f"killed-{n}") for n in range(1, 60)]
    killed = [0] * len(places)

    def advance() -> None:
        life(whole, world)
        for number, place in enumerate(places, 1):
            try:
                life(KillingTarget(place, number, behind=behind), world)
            except Killed:
                killed[number - 1] += 1
                life(place, world)

    advance()
    for number in range(MERGED + 1):  # Pieces of one size, until they are merged.
        world.enqueue(job(f"one-{number}"))
        advance()
    world.seal()
    world.run("next")
    take_snapshot(DISK, world.layout, world.state.last_seq, CLOCK)
    proven(world)
    advance()
    world.seal()
    world.run("last")
    take_snapshot(DISK, world.layout, world.state.last_seq, CLOCK)
    proven(world)
    advance()
    advance()
    expected = {key: size for key, size in whole.list().items() if key != KEY}
    for place in places:
        found = {key: size for key, size in place.list().items() if key != KEY}
        assert in_target(place, tmp_path)[0] == world.state.last_seq
        assert found.keys() == expected.keys()
    assert sum(map(bool, killed)) > 6


# -- two shippers ----------------------------------------------------------------------------------


def test_a_second_shipper_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    target, times = directory(tmp_path / "t"), Times()
    first = owning(target, times)

    def pause(seconds: float) -> None:
        times.wait(seconds)
        first.hold()

    second = Ownership(target, STORE.hex(), now_s=times, pause=pause)
    with pytest.raises(TakenOver, match="another shipper"):
        second.acquire()


def test_a_shipper_that_froze_for_a_lease_ends_when_it_wakes_up(
    world: LoggedWorld, tmp_path: Path
) -> None:
    """Another took over: the first sends nothing more."""
    target, times = directory(tmp_path / "t"), Times()
    frozen = shipper(target, world)
    frozen._ownership = owning(target, times)
    frozen.step()
    times.wait(10)
    frozen.step()
    times.wait(16)
    successor = shipper(target, world)
    world.run("more")
    before = target.list()
    with pytest.raises(TakenOver, match="taken"):
        frozen.step()
    assert target.list() == before
    proven(world)
    successor.step()
    assert in_target(target, tmp_path)[0] == world.state.last_seq


def test_a_shipper_that_left_is_followed_at_once(tmp_path: Path) -> None:
    target, times = directory(tmp_path / "t"), Times()
    owning(target, times).release()
    before = times.now_s
    owning(target, times)
    assert times.now_s == before
    owning(target, times)
    assert times.now_s > before


def test_another_store_is_refused(world: LoggedWorld, tmp_path: Path) -> None:
    target = directory(tmp_path / "t")
    owning(target).release()
    with pytest.raises(InvalidInput, match="holds the store"):
        owning(target, store=b"x" * 16)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_text("mine")
    with pytest.raises(InvalidInput, match="not empty"):
        owning(directory(tmp_path / "full"))


def test_another_history_of_the_same_store_is_refused(world: LoggedWorld, tmp_path: Path) -> None:
    """An old copy of the directory, put back in its place and used on."""
    shutil.copytree(tmp_path / "data", tmp_path / "old")
    world.run("forgotten")
    proven(world)
    target = directory(tmp_path / "t")
    shipper(target, world).step()
    old = make_store(tmp_path / "other", 3)
    old.run("instead")
    proven(old)
    with pytest.raises(BackupDamaged, match="another history"):
        shipper(target, old)


def test_a_log_that_was_pruned_too_early_is_said_and_the_target_stays(
    world: LoggedWorld, tmp_path: Path
) -> None:
    target = directory(tmp_path / "t")
    shipper(target, world).step()
    seq = in_target(target, tmp_path)[0]
    for number in range(2):
        world.seal()
        world.run(f"more-{number}")
    for path in sorted((tmp_path / "data" / "archive").iterdir())[:-1]:
        path.unlink()
    with pytest.raises(StoreUnavailable, match="retention was shorter"):
        shipper(target, world)
    assert in_target(target, tmp_path)[0] == seq


# -- a damaged target ------------------------------------------------------------------------------


def test_every_object_that_goes_or_changes_is_noticed(world: LoggedWorld, tmp_path: Path) -> None:
    """By the next shipper, or at the latest by whoever restores or checks."""
    target = directory(tmp_path / "t")
    shipper(target, world, snapshot_ms=0).step()
    proven(world)
    shipper(target, world).step()
    for number, path in enumerate(files_of(tmp_path / "t")):
        if path.name == KEY:
            continue
        for kind in ("flip", "cut", "remove"):
            copy = tmp_path / f"{kind}-{number}"
            shutil.copytree(tmp_path / "t", copy)
            victim = copy / path.relative_to(tmp_path / "t")
            if kind == "flip":
                flip(str(victim), victim.stat().st_size // 2)
            elif kind == "cut":
                victim.write_bytes(victim.read_bytes()[:-8])
            else:
                victim.unlink()
            is_snapshot = "snapshots" in victim.parts
            is_tail = kind == "remove" and path == max(
                p for p in files_of(tmp_path / "t") if "log" in p.parts
            )
            if is_snapshot and kind == "remove":
                continue  # The log is whole without it.
            if is_tail:
                shipper(directory(copy), world).step()  # It is simply sent again.
                assert in_target(directory(copy), tmp_path)[0] == world.state.last_seq
                continue
            with pytest.raises((BackupDamaged, AssertionError)):
                in_target(directory(copy), tmp_path)
            if not is_snapshot:
                again = tmp_path / "again"
                assert main(["restore", str(copy), "--data", str(again)]) == 4
                assert not again.exists()
                assert main(["ship", str(copy), "--check"]) == 4
            if kind != "flip" and not is_snapshot:
                with pytest.raises(BackupDamaged):
                    shipper(directory(copy), world)


def test_what_others_put_into_a_target_is_passed_over(world: LoggedWorld, tmp_path: Path) -> None:
    target = directory(tmp_path / "t")
    shipper(target, world).step()
    (tmp_path / "t" / "README").write_text("mine")
    (tmp_path / "t" / "log" / "x").write_text("mine")
    assert in_target(target, tmp_path)[0] == world.state.last_seq - 1
    shipper(target, world).step()


@pytest.mark.parametrize("owner", [b"nonsense", b'{"format": "other"}', b"{}"])
def test_a_damaged_owner_is_no_free_target(
    world: LoggedWorld, tmp_path: Path, owner: bytes
) -> None:
    target = directory(tmp_path / "t")
    shipper(target, world).step()
    (tmp_path / "t" / KEY).write_bytes(owner)
    with pytest.raises(BackupDamaged):
        shipper(target, world)


# -- points in time --------------------------------------------------------------------------------


def test_every_point_of_a_target_can_be_reached(world: LoggedWorld, tmp_path: Path) -> None:
    target = directory(tmp_path / "t")
    proven(world)
    shipper(target, world).step()
    for seq in range(1, world.state.last_seq + 1, 3):
        assert state_at(target, tmp_path, Until(seq=seq)) == fingerprint(world.path, Until(seq=seq))


def test_retention_keeps_every_point_since_then(world: LoggedWorld, tmp_path: Path) -> None:
    """Segments go once a snapshot before that time makes them needless; the oldest first."""
    target = directory(tmp_path / "t")
    for number in range(6):
        world.seal()
        world.run(f"more-{number}")
        take_snapshot(DISK, world.layout, world.state.last_seq, CLOCK)
        proven(world)
        shipper(target, world, snapshot_ms=1).step()
        world.now_ms += HOUR_MS
    everything = Contents("t", target.list())
    keep_ms = CLOCK.wall_ms() - (world.now_ms - 4 * HOUR_MS)
    shipper(target, world, keep_ms=keep_ms).step()
    left = Contents("t", target.list())
    assert 1 < len(left.segments) < len(everything.segments)
    base = min(left.snapshots)
    assert base.time_ms <= world.now_ms - 4 * HOUR_MS
    assert min(left.segments) <= base.seq + 1
    assert in_target(target, tmp_path)[0] == world.state.last_seq
    for seq in range(base.seq, world.state.last_seq + 1):
        assert state_at(target, tmp_path, Until(seq=seq)) == fingerprint(world.path, Until(seq=seq))
