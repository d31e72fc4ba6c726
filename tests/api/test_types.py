"""The types of the Python API, as a type checker sees them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TYPED = Path(__file__).parent / "typed"
ERROR = re.compile(r"^.*?(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)

pytestmark = pytest.mark.xdist_group("types")
"""One run of mypy serves all: two at once would break each other's cache."""

Errors = dict[str, dict[int, set[str]]]


@pytest.fixture(scope="module")
def errors() -> Errors:
    """By file and line: the codes of mypy's errors."""
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            *("--config-file", "/dev/null", "--cache-dir", str(root / ".mypy_cache" / "typed")),
            *(str(TYPED / "right.py"), str(TYPED / "wrong.py")),
        ],
        cwd=root,
        env={"MYPYPATH": "model:runtime", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode in (0, 1), told.stdout + told.stderr
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file, line, code in ERROR.findall(told.stdout):
        found[file][int(line)].add(code)
    return found


def test_right_code_has_no_errors(errors: Errors) -> None:
    assert errors["right.py"] == {}


def test_each_wrong_line_has_just_its_error(errors: Errors) -> None:
    expected = {
        number: set(re.split(r",\s*", text.split("# expect: ")[1]))
        for number, text in enumerate((TYPED / "wrong.py").read_text().splitlines(), 1)
        if "# expect: " in text
    }
    assert errors["wrong.py"] == expected


def test_our_own_modules_have_none(errors: Errors) -> None:
    assert set(errors) <= {"right.py", "wrong.py"}
