"""Other Pythons on this machine, each with what the runtime needs.

They are looked for where people keep them: `python3.N` on the PATH, the versions of a pyenv
that is there, and whatever `BEAVER_PYTHONS` names (paths with colons between).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
MINORS = range(11, 16)
_VERSION = "import sys; print(*sys.version_info[:2])"


class Python(NamedTuple):
    """An interpreter."""

    version: tuple[int, int]
    path: str


def other_pythons() -> list[Python]:
    """Returns one interpreter for each version but ours that Beaver supports, oldest first."""
    named = [name for name in os.environ.get("BEAVER_PYTHONS", "").split(os.pathsep) if name]
    on_path = [path for n in MINORS if (path := shutil.which(f"python3.{n}"))]
    found: dict[tuple[int, int], str] = {}
    for path in [*named, *_of_pyenv(), *on_path]:
        version = _version_of(path)
        if version is not None and version >= (3, 11) and version != sys.version_info[:2]:
            found.setdefault(version, path)
    return [Python(version, path) for version, path in sorted(found.items())]


def _of_pyenv() -> list[str]:
    if shutil.which("pyenv") is None:
        return []
    root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=False)
    if root.returncode:
        return []
    return sorted(map(str, Path(root.stdout.strip()).glob("versions/3.*/bin/python")))


def _version_of(path: str) -> tuple[int, int] | None:
    """Returns its version; `None` where it does not run, as a shim of no version does not."""
    try:
        asked = subprocess.run(
            [path, "-c", _VERSION], capture_output=True, text=True, check=False, timeout=30
        )
        major, minor = map(int, asked.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return (major, minor)


def equip(python: Python, place: Path) -> str:
    """Makes a virtual environment with the runtime's dependencies; returns its interpreter.

    Raises:
        CalledProcessError: It cannot be made, or something cannot be installed.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    path = str(place / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", path]
    for command in (
        [python.path, "-m", "venv", "--without-pip", str(place)],
        [*pip, "install", "--no-compile", *project["dependencies"]],
    ):
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return path
