"""What `spec/README.md` names of the code, to say what a model's step stands for, is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ROOT / "runtime" / "beaver"
_NAMED = re.compile(r"`((?:\w+\.)+\w+)`")


def named() -> set[str]:
    """The dotted names in the part of the page that maps models to code."""
    page = (ROOT / "spec" / "README.md").read_text()
    part = page.partition("**The log.**")[2].partition("## What the models found out")[0]
    files = (".py", ".tla", ".pml", ".cfg", "wal.next", "wal.log")
    return {name for name in _NAMED.findall(part) if not name.endswith(files)}


@pytest.mark.parametrize("name", sorted(named()))
def test_code_that_the_specification_names_exists(name: str) -> None:
    """`folder.module`, or a class, function or attribute behind it."""
    *path, last = name.split(".")
    folders = [part for part in path if part.islower() and not part.startswith("_")]
    classes = [part for part in path if part not in folders]
    files = [
        file
        for file in CODE.rglob("*.py")
        if "/".join(file.relative_to(CODE).with_suffix("").parts).endswith("/".join(folders))
    ]
    wanted = [rf"^class {c}\b" for c in classes]
    wanted.append(rf"^ *(async )?(def|class) {last}\b|^ *(self\.)?{last}\b.*[:=]")
    is_defined = any(
        all(re.search(pattern, file.read_text(), re.MULTILINE) for pattern in wanted)
        for file in files
    )
    assert is_defined or CODE.joinpath(*path, f"{last}.py").is_file()


def test_the_page_names_code() -> None:
    assert len(named()) > 15
