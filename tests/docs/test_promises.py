"""Documents name tests: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PAGES = ("docs/explanation/promises.md", "docs/explanation/original-plan.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(named) > 5
    for file, test in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{page} names {file}::{test}"


def test_every_promise_has_a_test() -> None:
    text = (ROOT / PAGES[0]).read_text(encoding="utf-8")
    for number in range(1, 13):
        (row,) = re.findall(rf"^\| P{number} \|.*$", text, re.MULTILINE)
        assert NAMED.search(row), f"P{number} names no test"
