"""System calls of the real server fail, one by one: it ends with 7, and nothing is lost.

`inject` checks in each trial that everything that was acknowledged is in the log after the
failure and after the restart, that all of it is run to its end, and that no process is left.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from beaver_chaos.faults.syscalls import Injection, can_trace, cut_a_write_short, inject
from beaver_chaos.program.process import EXIT_STORAGE
from tests.support.needs import need

pytestmark = pytest.mark.chaos


@pytest.fixture(autouse=True)
def _strace() -> None:
    need(can_trace(), "failing system calls")


EIO = "error=EIO"
ENOSPC = "error=ENOSPC"
KILL = "signal=SIGKILL"

NAMES = {
    ("pwrite64", 1): "the zeros of a new log",
    ("fdatasync", 1): "the sync of a new log",
    ("rename", 1): "the name of a new log",
    ("fsync", 1): "the sync of the names of a new log",
    ("pwrite64", 2): "the rewriting of the last frame at recovery",
    ("fdatasync", 2): "the sync of recovery",
    ("fsync", 3): "the sync of the names at recovery",
    ("pwritev2", 1): "BOOT",
    ("pwritev2", 2): "an empty frame that marks the one before",
    ("rename", 2): "the adoption of a prepared segment",
    ("pwritev2", 3): "the frame that closes a segment, or one of jobs",
    ("pwritev2", 4): "the header of the next segment",
    ("link", 1): "the name of a sealed segment",
    ("fsync", 4): "the sync of the archive's names",
    ("rename", 3): "the next segment becoming the log",
    ("fsync", 5): "the sync of the log's new name",
    ("pwritev2", 5): "the first commit of a segment",
    ("pwritev2", 7): "a commit",
    ("pwritev2", 11): "a later commit",
}
"""What the calls are, in the order of a server's life.  The last ones may vary by a few."""


def calls(remainder: int) -> pytest.MarkDecorator:
    """Every call.  Of four in a row CI has one fail, and kills the server at another."""
    return pytest.mark.parametrize(
        "call",
        [
            pytest.param(
                call,
                id=f"{call[0]}-{call[1]}",
                marks=[] if place % 4 == remainder else [pytest.mark.nightly],
            )
            for place, call in enumerate(NAMES)
        ],
    )


def some_at_night(
    name: str, of_ci: Sequence[object], others: Sequence[object]
) -> pytest.MarkDecorator:
    """What CI tries, and what only a night does."""
    later = [pytest.param(value, marks=pytest.mark.nightly) for value in others]
    return pytest.mark.parametrize(name, [*of_ci, *later])


@calls(0)
def test_a_failed_write_sync_or_name_of_the_log_ends_the_server_with_7(
    call: tuple[str, int], tmp_path: Path
) -> None:
    outcome = inject(tmp_path, Injection(call[0], EIO, str(call[1])))
    assert outcome.injected == 1, f"no such call: {NAMES[call]}"
    assert outcome.code == EXIT_STORAGE
    assert "beaver: " in outcome.output


@calls(1)
def test_a_server_killed_at_any_write_sync_or_name_of_the_log_loses_nothing(
    call: tuple[str, int], tmp_path: Path
) -> None:
    outcome = inject(tmp_path, Injection(call[0], KILL, str(call[1])))
    assert outcome.code == -signal.SIGKILL, f"no such call: {NAMES[call]}"


@pytest.mark.parametrize("number", [1, 2])
def test_a_server_killed_again_while_it_recovers_loses_nothing(number: int, tmp_path: Path) -> None:
    """The syncs of the second recovery: of the log, then of the names."""
    call = ("fdatasync", "fsync")[number - 1]
    outcome = inject(tmp_path, Injection(call, KILL, "1"), store_first=True)
    assert outcome.code == -signal.SIGKILL


@some_at_night("number", [3, 8, 10], [4, 5, 6, 7, 9])
def test_a_log_that_cannot_be_opened_ends_the_server_with_7(number: int, tmp_path: Path) -> None:
    """Under the lock, at recovery, and when a prepared segment is adopted."""
    outcome = inject(tmp_path, Injection("openat", EIO, str(number)), store_first=True)
    assert outcome.injected == 1
    assert outcome.code == EXIT_STORAGE


@some_at_night("effect", [ENOSPC, "retval=20"], ["error=EDQUOT"])
def test_a_full_disk_or_a_short_write_inside_a_commit_ends_the_server_with_7(
    effect: str, tmp_path: Path
) -> None:
    """Room was made before, so it arises on copy-on-write and thin storage only."""
    outcome = inject(tmp_path, Injection("pwritev2", effect, "7"))
    assert (outcome.code, outcome.injected) == (EXIT_STORAGE, 1)


def test_a_frame_of_which_the_kernel_took_a_part_is_cut_at_the_next_start(tmp_path: Path) -> None:
    outcome = cut_a_write_short(tmp_path)
    assert outcome.code == EXIT_STORAGE
    assert "short write: 30 of" in outcome.output
    assert list((tmp_path / "data").glob("wal.log.broken-*")), "the torn tail is kept"


def test_a_full_archive_directory_lets_the_segment_go_on(tmp_path: Path) -> None:
    """A name that does not fit is no failure: the old segment is extended instead."""
    outcome = inject(tmp_path, Injection("link", ENOSPC, "1"))
    assert (outcome.code, outcome.injected) == (0, 1)


REFUSED = Injection("pwritev2", "error=EOPNOTSUPP")


def test_a_file_system_without_durable_writes_gets_a_write_and_a_sync(tmp_path: Path) -> None:
    outcome = inject(tmp_path, REFUSED)
    assert outcome.code == 0
    assert outcome.injected >= 1


@pytest.mark.parametrize(("effect", "code"), [(EIO, EXIT_STORAGE), (KILL, -signal.SIGKILL)])
def test_a_sync_beside_the_write_fails_like_the_durable_write(
    effect: str, code: int, tmp_path: Path
) -> None:
    outcome = inject(tmp_path, REFUSED, Injection("fdatasync", effect, "7"))
    assert outcome.code == code


@some_at_night(
    "failure",
    [(EIO, 4), ("retval=20", 1), (KILL, 4)],
    [(EIO, 1), ("retval=20", 4), (KILL, 1)],
)
def test_a_failed_write_of_the_writer_process_ends_the_server_with_7(
    failure: tuple[str, int], tmp_path: Path
) -> None:
    """Also its death: whether its last frame is on disk, nobody can say."""
    effect, number = failure
    outcome = inject(tmp_path, Injection("pwritev2", effect, str(number)), writer=True)
    assert outcome.code == EXIT_STORAGE
    assert "the writer process could not write the log" in outcome.output
