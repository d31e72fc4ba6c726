"""A disk that is really full, and empties again."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from beaver.system.disk import SystemDisk
from beaver_chaos.faults.full_disk import Ballast, fill_and_empty, small_disk
from tests.support.needs import need_small_disk

pytestmark = pytest.mark.chaos


@pytest.fixture(autouse=True)
def _mounts(tmp_path: Path) -> None:
    need_small_disk(tmp_path / "try")


def test_new_jobs_are_refused_the_others_end_and_work_resumes_by_itself(tmp_path: Path) -> None:
    """Through a restart on the full disk, too."""
    report = fill_and_empty(tmp_path)
    assert report.taken > 0
    assert report.refused >= 2


def test_jobs_that_fill_the_log_in_a_rush_wait_for_room_and_are_not_lost(tmp_path: Path) -> None:
    report = fill_and_empty(tmp_path, rush=True)
    assert report.taken > 10
    assert report.refused >= 2


def test_a_write_that_fits_in_part_says_that_the_disk_is_full(tmp_path: Path) -> None:
    """The kernel takes a part first; that must not pass for a failing disk."""
    with small_disk(tmp_path / "small", 1 << 20) as small:
        Ballast(small / "ballast").leave(300_000)
        file = SystemDisk().open(str(small / "zeros"), create=True)
        try:
            with pytest.raises(OSError, match="No space left") as caught:
                file.pwrite(bytes(1 << 20), 0)
        finally:
            file.close()
    assert caught.value.errno == errno.ENOSPC
