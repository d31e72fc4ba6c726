"""The power goes under the real program, on real file systems: nothing acknowledged is lost.

The file systems lie in images behind loop devices; `faults.power.disk` says what a cut is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beaver_chaos.checker.history import HistoryCheck
from beaver_chaos.faults.power import disk as power_disk
from beaver_chaos.faults.power.aim import Aim, drawn_aims
from beaver_chaos.faults.power.cuts import cut_power, see_bug
from beaver_chaos.faults.power.disk import (
    EXT4,
    EXT4_NO_AUTO,
    FILE_SYSTEMS,
    FLUSH,
    NO_FLUSH,
    XFS,
    FileSystem,
    clear_leftovers,
)
from beaver_chaos.program.process import eventually, own_environment
from tests.support.needs import need

pytestmark = pytest.mark.chaos

CUTS = len(Aim)
SEED = 1
STORES = 4
"""Stores that are tried until a cut of one takes an acknowledged job."""
TRIES = 12
"""Cuts of one store; most of the time the first three do."""


def by_name(file_system: FileSystem) -> str:
    return file_system.name


@pytest.fixture(autouse=True, scope="module")
def _loops(tmp_path_factory: pytest.TempPathFactory) -> None:
    fault = "power cuts"
    need(power_disk.can_cut(), fault)
    for file_system in FILE_SYSTEMS:
        try:
            with power_disk.power_disk(file_system, tmp_path_factory.mktemp("try")):
                pass
        except OSError as error:
            need(f"{file_system.name} cannot be made and mounted here: {error}", fault)


def mounts_of(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if f"{directory}/" in line]


def loops_of(directory: Path) -> list[str]:
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [text for text in map(Path.read_text, backing) if f"{directory}/" in text]


# -- the promise ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file_system",
    [EXT4, XFS, pytest.param(EXT4_NO_AUTO, marks=pytest.mark.nightly)],
    ids=by_name,
)
def test_nothing_acknowledged_is_lost_in_a_power_cut(
    file_system: FileSystem, tmp_path: Path
) -> None:
    """A failure names the command that repeats its seed."""
    report = cut_power(SEED, drawn_aims(SEED, CUTS), file_system, tmp_path)
    print(report)
    assert report.cuts.total() == CUTS
    # A run in which next to nothing happened would prove nothing.
    assert report.acknowledged > 50 * CUTS
    assert report.first_seq > 1, "nothing was ever pruned"
    assert report.aimed.total() >= CUTS - 3, "most cuts come in the middle of something"
    assert not mounts_of(tmp_path)
    assert not loops_of(tmp_path)


# -- the harness sees what is lost ----------------------------------------------------------------


@pytest.mark.parametrize("file_system", [EXT4, XFS], ids=by_name)
def test_jobs_that_are_acknowledged_before_the_sync_are_seen_to_be_lost(
    file_system: FileSystem, tmp_path: Path
) -> None:
    """The sync comes up to 100 ms late.

    A cut may take but a job's DISPATCH, which is seen too; so more than one store is tried.
    """
    bug = "acknowledged before the sync"
    said = []
    for seed in range(SEED, SEED + STORES):
        seen = see_bug(seed, [Aim.RANDOM] * 6, file_system, tmp_path / str(seed), bug)
        assert seen is not None, "six cuts, and the checker saw nothing"
        said.append(str(seen))
        if seen.lost:
            break
    assert any("was acknowledged with seq" in text for text in said), said
    assert any("is not in the log" in text for text in said), said


@pytest.mark.parametrize("file_system", [EXT4_NO_AUTO, XFS], ids=by_name)
def test_a_snapshot_that_gets_its_name_before_the_sync_is_seen_to_be_empty(
    file_system: FileSystem, tmp_path: Path
) -> None:
    """Once what it replaces was pruned, the store is gone; ext4 by itself hides the bug."""
    bug = "a snapshot gets its name before the sync"
    seen = see_bug(SEED, [Aim.PRUNE] * TRIES, file_system, tmp_path, bug)
    assert seen is not None, f"{TRIES} cuts, and the checker saw nothing"
    assert "snapshot.json at offset 0" in str(seen)
    assert not mounts_of(tmp_path)


@pytest.mark.parametrize("file_system", FILE_SYSTEMS, ids=by_name)
@pytest.mark.parametrize("flush", [NO_FLUSH, FLUSH], ids=lambda flush: str(flush.value))
def test_a_cut_takes_what_was_not_synced_and_leaves_what_was(
    flush: power_disk.Flush, file_system: FileSystem, tmp_path: Path
) -> None:
    with power_disk.power_disk(file_system, tmp_path) as disk:
        for name in ("synced", "unsynced"):
            with (disk.path / name).open("wb") as file:
                file.write(name.encode())
                file.flush()
                if name == "synced":
                    os.fsync(file.fileno())
        disk.cut(flush)
        with pytest.raises(OSError, match=r"Input/output error|Structure needs cleaning"):
            (disk.path / "later").write_bytes(b"x")
        disk.unmount()
        disk.mount()
        assert (disk.path / "synced").read_bytes() == b"synced"
        unsynced = disk.path / "unsynced"
        assert not unsynced.exists() or unsynced.read_bytes() == b""
        disk.unmount()
        disk.refuse_damage()


def test_a_recovered_state_that_differs_from_the_log_is_told() -> None:
    from beaver_chaos.checker.history import _Job

    log, recovered = HistoryCheck(), HistoryCheck()
    for name in ("a", "b"):
        log.jobs[name] = _Job(1, 1, "")
    recovered.jobs["a"] = _Job(1, 1, "")
    recovered.jobs["a"].state = "completed"
    log.compare_state(recovered)
    assert log.violations == [
        "job a is pending in the log, and recovered as completed",
        "job b is pending in the log, and recovered as unknown",
    ]


def test_the_aims_of_a_seed_are_each_moment_before_any_comes_again() -> None:
    assert set(drawn_aims(SEED, len(Aim))) == set(Aim)
    assert drawn_aims(SEED, 30) == drawn_aims(SEED, 30)
    assert drawn_aims(SEED, 30) != drawn_aims(SEED + 1, 30)


# -- nothing is left behind -----------------------------------------------------------------------


def is_stopped_while_mounted(run: subprocess.Popen[bytes], directory: Path) -> bool:
    """Stops a run; lets it go on where it has just unmounted for a cut."""
    run.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, run.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    if mounts_of(directory):
        return True
    run.send_signal(signal.SIGCONT)
    return False


@contextmanager
def cuts(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a run that would go on for long, and stops it in the midst of its work."""
    command = [sys.executable, "-m", "beaver_chaos", "power", "--cuts", "500", "--seed", "3"]
    command += ["--file-system", EXT4.name, "--data", str(directory)]
    with subprocess.Popen(
        command, env=own_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as run:
        try:
            at_work = directory.glob
            eventually(lambda: list(at_work("*/runs.txt")) or run.poll(), "jobs run")
            eventually(lambda: is_stopped_while_mounted(run, directory), "it is mounted")
            assert loops_of(directory)
            yield run
        finally:
            run.kill()
            clear_leftovers()


def test_an_interrupted_run_leaves_no_mount_and_no_process(tmp_path: Path) -> None:
    with cuts(tmp_path) as run:
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGCONT)
        run.communicate(timeout=60)
        assert run.returncode != 0
        assert not mounts_of(tmp_path)
        assert not loops_of(tmp_path)
        assert not servers_of(tmp_path)


def test_what_a_killed_run_leaves_is_cleared_away_by_the_next(tmp_path: Path) -> None:
    with cuts(tmp_path) as run:
        clear_leftovers()
        assert mounts_of(tmp_path), "the run is alive, and what it uses is its own"
        run.kill()
        run.communicate(timeout=60)
        assert mounts_of(tmp_path), "it had no time to clear anything away"
        assert clear_leftovers() == 1
        assert not mounts_of(tmp_path)
        eventually(lambda: not loops_of(tmp_path), "the loop device is free")
        eventually(lambda: not servers_of(tmp_path), "the server is gone")


def servers_of(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if f"{directory}/" in command and "beaver_chaos" not in command.split("\0")[:4]:
            found.append(command)
    return found
