"""The first hour of CONTRIBUTING.md works, line by line, in a fresh clone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import session
from tests.docs.markdown import ROOT

DOCUMENT = ROOT / "CONTRIBUTING.md"
PACKAGES = ("model", "runtime", "spec", "chaos")
NOT_COPIED = (".*", "__pycache__", "*.egg-info", "dist", "reports", "venv")


def _left_out(folder: str, names: list[str]) -> set[str]:
    left_out = shutil.ignore_patterns(*NOT_COPIED)(folder, names)
    return left_out | ({"data"} if folder == str(ROOT) else set())


def clone(place: Path) -> None:
    """Makes a repository of the files as they are here, with this environment as its own."""
    shutil.copytree(ROOT, place, ignore=_left_out)
    for name in (".gitignore", ".editorconfig", ".pre-commit-config.yaml"):
        shutil.copy(ROOT / name, place)
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "All"]):
        subprocess.run(["git", *command], cwd=place, check=True)
    (place / ".venv").symlink_to(sys.prefix)
    # `.venv/` in .gitignore is for a directory.
    (place / ".git" / "info" / "exclude").write_text(".venv\nnote.diff\n")


def test_every_command_of_the_first_hour_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set up, run a test, add an event, break something: each prints what the page says."""
    files = [ROOT / "pyproject.toml", ROOT / "requirements-dev.txt"]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    mark = Path(sys.prefix) / "beaver-set-up"
    # Otherwise the page's first command would make the environment of these tests anew.
    assert mark.exists(), "run these tests in the environment that `python3 dev.py setup` makes"
    assert mark.read_text() == wanted, "run `python3 dev.py setup` first"
    place = tmp_path / "beaver"
    clone(place)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(place / name) for name in PACKAGES))
    monkeypatch.setattr(session, "DEADLINE_S", 300.0)
    monkeypatch.delenv("CI", raising=False)  # pytest cuts its summary for people only
    hour = session.Session(DOCUMENT, place, patience_s=0.0).run()
    assert not hour.problems, "\n".join(hour.problems)
    assert hour.ran >= 10, "the page has commands"
    left = subprocess.run(
        ["git", "status", "--porcelain"], cwd=place, capture_output=True, text=True, check=True
    )
    assert left.stdout == "", "the page leaves the clone as it was"
