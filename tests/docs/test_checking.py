"""A check fails on what is flaky, and where everything is required on what was skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.markdown import ROOT
from tests.docs.test_dev import dev

__all__ = ["dev"]

TESTS = """
import os, pytest

def test_flaky():
    if not os.path.exists("tried"):
        open("tried", "w").close()
        raise AssertionError("seed 4711")

def test_broken():
    assert False

def test_good():
    pass
"""


def test_a_flaky_test_is_named_and_fails_the_check(
    dev: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whether the second try passes changes a word of what is told, and nothing else."""
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dev, "VENV", Path(sys.prefix))
    monkeypatch.setattr(dev, "set_up", lambda: None)
    monkeypatch.setattr(dev, "FAILED", tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed")
    assert dev.tests("-k", "flaky or good") == dev.TESTS_FAILED
    out = capfd.readouterr().out
    assert "FLAKY, it failed and then passed: test_some.py::test_flaky" in out
    assert "seed 4711" in out, "what the first try said is told"
    (tmp_path / "tried").unlink()
    assert dev.tests() == dev.TESTS_FAILED
    out = capfd.readouterr().out
    assert "FLAKY, it failed and then passed: test_some.py::test_flaky" in out
    assert "failed twice: test_some.py::test_broken" in out
    assert dev.tests("-k", "good") == 0
    assert "once more" not in capfd.readouterr().out


SKIPS = {
    "a mark": "import pytest\n@pytest.mark.skipif(True, reason='why')\ndef test_it(): pass",
    "a call": "import pytest\ndef test_it(): pytest.skip('why')",
    "an import": "import pytest\npytest.importorskip('no_such_module', reason='why')",
    "a fixture": "import pytest\n@pytest.fixture\ndef gone(): pytest.skip('why')\n"
    "def test_it(gone): pass",
}


@pytest.mark.parametrize("way", SKIPS)
@pytest.mark.parametrize("required", [False, True], ids=["anywhere", "required"])
def test_what_is_skipped_fails_where_everything_is_required(
    way: str, required: bool, tmp_path: Path
) -> None:
    (tmp_path / "test_some.py").write_text(SKIPS[way])
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.support.needs", "-rs", str(tmp_path)],
        env=os.environ | {"BEAVER_REQUIRE_ALL": "1" if required else "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "why" in done.stdout, done.stdout
    assert ("BEAVER_REQUIRE_ALL is set" in done.stdout) == required
    # Nothing of a module that is skipped as a whole is collected.
    assert done.returncode == (
        (2 if way == "an import" else 1) if required else (5 if way == "an import" else 0)
    )
