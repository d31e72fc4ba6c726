"""`python -m beaver_chaos`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from beaver_chaos.program.process import own_environment

pytestmark = pytest.mark.chaos


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "beaver_chaos", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100, env=own_environment()
    )


def test_rounds_say_what_they_did_and_end_with_0(tmp_path: Path) -> None:
    done = run("rounds", "--seed", "9", "--rounds", "2", "--data", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("seed 9: 2 rounds in ")
    assert "\r" not in done.stderr, "no progress line where there is no terminal"
    assert (tmp_path / "seed-9" / "data" / "wal.log").exists()
    again = run("rounds", "--seed", "9", "--rounds", "2", "--data", str(tmp_path))
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_a_failure_names_the_command_that_repeats_it(tmp_path: Path) -> None:
    directory = tmp_path / "seed-9"
    directory.mkdir()
    (directory / "data").write_text("a file where the store should be")
    from beaver_chaos.faults.rounds import run_rounds
    from beaver_chaos.program.process import ChaosFailure

    with pytest.raises(ChaosFailure) as caught:
        run_rounds(9, 3, directory)
    assert "the server ended with 3, unasked" in str(caught.value)
    assert "Again: python -m beaver_chaos rounds --seed 9 --rounds 3" in str(caught.value)
    assert "is a file" in str(caught.value) or "not a directory" in str(caught.value)


def test_rounds_below_one_are_refused() -> None:
    done = run("rounds", "--rounds", "0")
    assert done.returncode == 2
    assert "at least 1" in done.stderr
