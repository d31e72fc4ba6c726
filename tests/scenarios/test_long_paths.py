"""Data directories at long paths: they work up to a bound, and are refused at the start above."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beaver import Beaver, InvalidInput
from beaver.limits import LIMITS

BOUND = LIMITS["path"].value


def long_path(parent: Path, size: int) -> Path:
    """Returns a path of so many bytes below a directory."""
    path = str(parent.resolve())
    while (left := size - len(path)) > 0:
        # No name of one byte less than a separator is left for the last step.
        path += "/" + "d" * (left - 1 if left <= 201 else min(200, left - 3))
    assert len(path) == size
    return Path(path)


def beaver(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beaver", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def run(data: Path) -> subprocess.CompletedProcess[str]:
    return beaver("run", "--burst", "--http", "off", "--workers", 1, "--data", data)


def test_at_the_bound_a_job_runs_and_its_history_is_written(tmp_path: Path) -> None:
    data = long_path(tmp_path, BOUND)
    assert beaver("enqueue", "echo", "--id", "a", "--data", data).returncode == 0
    told = run(data)
    assert (told.returncode, "unable to open" in told.stderr) == (0, False), told.stderr
    assert (data / "history.db").stat().st_size > 0
    assert "ACK" in beaver("explain", "a", "--data", data).stdout


@pytest.mark.parametrize("command", ["run", "enqueue"])
def test_above_the_bound_the_start_is_refused_and_nothing_is_made(
    tmp_path: Path, command: str
) -> None:
    data = long_path(tmp_path, BOUND + 1)
    told = run(data) if command == "run" else beaver("enqueue", "echo", "--data", data)
    assert told.returncode == 3
    assert f"has {BOUND + 1} bytes; at most {BOUND} work" in told.stderr
    assert "use a shorter one" in told.stderr
    assert os.listdir(tmp_path) == []


def test_a_short_link_to_a_long_path_is_refused_too(tmp_path: Path) -> None:
    data = long_path(tmp_path / "real", BOUND + 1)
    data.mkdir(parents=True)
    (tmp_path / "link").symlink_to(data)
    assert run(tmp_path / "link").returncode == 3


def test_a_socket_url_longer_than_the_kernel_takes_is_refused(tmp_path: Path) -> None:
    most = LIMITS["socket_path"].value
    Beaver("unix:/" + "s" * (most - 1))
    with pytest.raises(InvalidInput, match=rf"at most {most} bytes, found {most + 1}"):
        Beaver("unix:/" + "s" * most)
