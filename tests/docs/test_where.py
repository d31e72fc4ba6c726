"""The table of places to change: every file that it names is there."""

from __future__ import annotations

import re

import grimp
import pytest

from tests.docs.markdown import ROOT, spans

KINDS = {
    "an event",
    "a command of the model",
    "a command that users give",
    "an option of a job",
    "an HTTP route",
    "a setting",
    "a metric",
    "an invariant",
    "a fault of the simulated machine",
    "a fault on the real program",
}


def rows() -> dict[str, tuple[list[str], list[str]]]:
    """By what is added: what changes, and the tests that say what is missing."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    _, _, section = text.partition("## Where do I change…\n")
    section = section.partition("\n## ")[0]
    found = {}
    for kind, changes, tests in re.findall(
        r"^\| (an? .*?) \| (.*) \| (.*) \|$", section, re.MULTILINE
    ):
        named = [list(spans(cell)) for cell in (changes, tests)]
        files = [[span for span in cell if "/" in span and " " not in span] for cell in named]
        found[kind] = (files[0], files[1])
    return found


def test_the_table_tells_of_each_kind_of_change() -> None:
    assert rows().keys() == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_file_that_it_names_is_there(kind: str) -> None:
    """And every row names what changes and a test that says what is missing."""
    files, tests = rows()[kind]
    assert files
    assert tests
    assert [name for name in files + tests if not (ROOT / name).exists()] == []
    assert all(name.startswith("tests/") for name in tests)


def test_a_folder_imports_from_its_own_row_and_higher_ones() -> None:
    """The first table of folders is in order: what is further down may use what is further up."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = text.partition("| in `runtime/beaver` |")[2].partition("| elsewhere |")[0]
    rank: dict[str, int] = {}
    for number, row in enumerate(re.findall(r"^\| `beaver/(.*?) \|", table, re.MULTILINE)):
        rank |= dict.fromkeys((name.strip("` ") for name in row.split(",")), number)
    graph = grimp.build_graph("beaver", cache_dir=None)
    wrong = []
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            here, there = (name.split(".")[1:2] for name in (module, imported))
            if here and there and here[0] in rank and rank[here[0]] < rank.get(there[0], 0):
                wrong.append(f"{module} imports {imported}")
    assert len(rank) > 20
    assert wrong == []
