"""The development environment: its lock, the hooks before a commit, how files are written."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.markdown import ROOT
from tests.docs.test_dev import dev

__all__ = ["dev"]

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements-dev.txt").read_text()


def locked() -> dict[str, Requirement]:
    """What the lock pins, by name; where it pins two, that for this Python."""
    lines = (line for line in LOCK.splitlines() if line and not line.lstrip().startswith("#"))
    pins = sorted(map(Requirement, lines), key=is_for_us)
    return {canonicalize_name(pin.name): pin for pin in pins}


def is_for_us(wanted: Requirement, extras: Iterable[str] = ()) -> bool:
    """False where it is for another Python or system, or for none of the extras."""
    marker = wanted.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def asked(group: str) -> Iterator[Requirement]:
    """What a group of `pyproject.toml` asks for, with the groups that it includes."""
    for entry in PROJECT["dependency-groups"][group]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from asked(entry["include-group"])


WANTED = [*map(Requirement, PROJECT["project"]["dependencies"]), *asked("dev")]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_the_lock_pins_what_the_project_asks_for(wanted: Requirement) -> None:
    """Each dependency, also of the group `dev`, has one version, and it is among those allowed."""
    pin = locked().get(canonicalize_name(wanted.name))
    assert pin is not None, f"{wanted} is not locked; `python3 dev.py lock` adds it"
    ((operator, version),) = ((s.operator, s.version) for s in pin.specifier)
    assert operator == "=="
    assert wanted.specifier.contains(version), f"{pin} is locked; `python3 dev.py lock` mends it"


def test_the_lock_holds_all_that_these_need_and_nothing_else() -> None:
    """Followed from release to release: nothing is pinned that nobody needs any more."""
    pins, needed = locked(), set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [wanted for wanted in WANTED if is_for_us(wanted)]
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        assert name in pins, f"{wanted} is needed and not locked; `python3 dev.py lock` adds it"
        needed.add(name)
        if (name, extras) not in seen:
            seen.add((name, extras))
            requires = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [one for one in requires if is_for_us(one, extras)]
    here = {n for n, pin in pins.items() if is_for_us(pin)}
    assert needed == here, "`python3 dev.py lock` takes out what is not needed"


@pytest.mark.parametrize("pin", [pin for pin in locked().values() if is_for_us(pin)], ids=str)
def test_these_tests_run_with_what_is_locked(pin: Requirement) -> None:
    """`dev.py` installs from the lock: what fails here fails for everyone, on every day."""
    assert pin.specifier.contains(importlib.metadata.version(pin.name))


def test_the_lock_names_no_place() -> None:
    """It fits every index: no address, no option and no file stands in it."""
    pins = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( ; .*)?", line) for line in pins), pins
    assert "://" not in LOCK


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements-dev.txt", None])
def test_set_up_is_repeated_when_one_of_its_files_changes(
    changed: str | None, dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not otherwise."""
    for name in ("pyproject.toml", "requirements-dev.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "venv").mkdir()
    made: list[Any] = []
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "LOCK", tmp_path / "requirements-dev.txt")
    monkeypatch.setattr(dev, "VENV", tmp_path / "venv")
    monkeypatch.setattr(dev.venv, "create", lambda path, **_: made.append(path))
    monkeypatch.setattr(dev.subprocess, "run", lambda command, **_: made.append(command))
    dev.set_up()
    assert made[0] == tmp_path / "venv"
    assert str(tmp_path / "requirements-dev.txt") in made[1]
    made.clear()
    if changed is not None:
        with (tmp_path / changed).open("a") as file:
            file.write("\n")
    dev.set_up()
    assert bool(made) == (changed is not None)


# -- before a commit ---------------------------------------------------------------------------


def hooks() -> dict[str, dict[str, Any]]:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    return {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}


def test_the_hooks_run_what_lint_runs(dev: ModuleType) -> None:
    """One list, told twice: what a hook lets pass passes `dev.py lint`."""
    entries = [hook["entry"] for hook in hooks().values() if hook["language"] == "system"]
    assert entries == [".venv/bin/" + " ".join(command) for command in dev.LINT]


def test_pre_commit_takes_the_configuration() -> None:
    """Every key and value is one that it knows."""
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("Keep the lock while the writer lives\n", True),
        ("Keep the lock\n\nThe next start would not wait for the write under way.\n", True),
        ("Keep the lock\n# what git says\n", True),
        ("K" * 72 + "\n", True),
        ("K" * 73 + "\n", False),
        ("Keep the lock.\n", False),
        ("Keep the lock\nwhile the writer lives\n", False),
    ],
)
def test_a_subject_is_short_and_stands_alone(message: str, passes: bool) -> None:
    """At most 72 characters, no full stop, and an empty line before the body."""
    hook = hooks()["subject"]
    assert hook["args"] == ["--multiline"]
    found = re.search(hook["entry"].encode(), message.encode(), re.MULTILINE)  # as pygrep does
    assert (found is None) == passes


# -- groups of tests ---------------------------------------------------------------------------

GROUP = """import pytest
pytestmark = pytest.mark.xdist_group("one")
@pytest.mark.parametrize("n", range(6))
def test_where(n, worker_id):
    with open("workers", "a") as file:
        print(worker_id, file=file)
"""


def test_tests_of_one_group_run_in_one_worker(tmp_path: Path) -> None:
    """Some fixtures count on it; pytest and pytest-xdist must fit each other for it."""
    (tmp_path / "test_group.py").write_text(GROUP)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-c", "/dev/null"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 6
    assert len(set(workers)) == 1


# -- types -------------------------------------------------------------------------------------

TYPED = "from __future__ import annotations\n\n\ndef test_one(n: int = 1) -> None:\n    assert n\n"
UNTYPED = "def test_one(n=1):\n    assert n\n"
WITHOUT_RETURN = "def test_one(n: int = 1):\n    assert n\n"


@pytest.mark.parametrize("folder", ["model", "runtime", "spec", "chaos", "tests", "tests/new"])
@pytest.mark.parametrize(("text", "passes"), [(TYPED, 0), (UNTYPED, 1), (WITHOUT_RETURN, 1)])
def test_lint_checks_the_types_of_every_folder_of_code_and_of_tests(
    folder: str, text: str, passes: int, tmp_path: Path
) -> None:
    """As configured, over a tree with one file more: an untyped test fails it."""
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for name in {"model", "runtime", "spec", "chaos", "tests", folder}:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / folder / "test_new.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "one_more")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == passes, done.stdout + done.stderr
    assert ("no-untyped-def" in done.stdout) == bool(passes)


# -- files -------------------------------------------------------------------------------------


def written() -> list[Path]:
    """Every file that someone has written, tools' own directories left out."""
    left_out = {"node_modules", "dist", "reports", "venv", "data", "__pycache__"}
    endings = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".tla", ".cfg", ".pml", ".txt"}
    return [
        path
        for path in ROOT.rglob("*")
        if (path.suffix in endings or path.name in {"Makefile", ".editorconfig"})
        and not path.is_relative_to(ROOT / "tests" / "golden" / "stores")  # as they were written
        and not any(
            part in left_out or (part.startswith(".") and part != ".editorconfig")
            for part in path.relative_to(ROOT).parts
        )
    ]


def test_files_are_as_editorconfig_says() -> None:
    """UTF-8, line feeds, no space at the end of a line, one line feed at the end of a file."""
    config = configparser.ConfigParser()
    config.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    everywhere = config["*"]
    assert int(everywhere["max_line_length"]) == PROJECT["tool"]["ruff"]["line-length"]
    assert everywhere["trim_trailing_whitespace"] == everywhere["insert_final_newline"] == "true"
    wrong = []
    for path in written():
        text = path.read_bytes().decode("utf-8")
        tabs = path.name != "Makefile" and re.search(r"^ *\t", text, re.MULTILINE)
        trailing = re.search(r"[ \t\r]$", text, re.MULTILINE)
        if tabs or trailing or re.search(r"(?:[^\n]|\n\n)\Z", text):
            wrong.append(path)
    assert wrong == []
