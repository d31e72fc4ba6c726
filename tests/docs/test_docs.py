"""The documentation is true: programs run, commands print what it says, links lead on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from beaver.cli.commands import Group, build
from beaver.cli.main import COMMANDS
from tests.docs.markdown import ROOT, Block, anchors, blocks, commands, documents, links, spans
from tests.docs.session import Session

SESSIONS = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
"""Documents whose commands are run; of others only the Python blocks."""

REFERENCE = ROOT / "docs" / "reference"
"""Its pages are run by the tests of what they describe."""

AT_ONCE = 4
"""Sessions that run at the same time: they mostly wait."""

ELSEWHERE = {
    "--cov": "pytest",
    "--time": "docker stop",
    "--editable": "pip",
    "--quiet": "pip",
    "--help": "every command",
    "--version": "every command",
    "--install-completion": "typer",
    "--show-completion": "typer",
    "--delay": "strace",
}
"""Flags in our documents that belong to other programs."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def with_python() -> list[Path]:
    """Documents that have something to run."""
    return [
        path
        for path in documents()
        if path in SESSIONS
        or (
            REFERENCE not in path.parents
            and any(block.kind == "python" for block in blocks(path.read_text()))
        )
    ]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Future[Session]]]:
    """Every document as a session, all begun at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield {
            path: threads.submit(
                Session(
                    path, tmp_path_factory.mktemp("docs"), consoles=path in SESSIONS
                ).run
            )
            for path in with_python()
        }  # fmt: skip


@pytest.mark.parametrize("document", with_python(), ids=name_of)
def test_the_programs_of_a_document_run_and_print_what_it_says(
    document: Path, sessions: dict[Path, Future[Session]]
) -> None:
    """If the output has changed on purpose: python -m tests.docs.session DOCUMENT."""
    problems = sessions[document].result().problems
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_python_block_compiles(document: Path) -> None:
    for block in blocks(document.read_text()):
        if block.kind in ("python", "py"):
            compile("\n" * (block.line - 1) + block.text, str(document), "exec")


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    wrong = []
    for line, target in links(document.read_text()):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.exists():
            wrong.append(f"line {line}: {target} does not exist")
        elif anchor and found.suffix == ".md" and anchor not in anchors(found.read_text()):
            wrong.append(f"line {line}: {target}: no such heading")
    assert not wrong, "\n".join(wrong)


@cache
def flags_by_command() -> dict[str, frozenset[str]]:
    """Every flag of every command, from the program."""
    group = get_command(build(COMMANDS))
    assert isinstance(group, Group)
    common = {flag for parameter in group.params for flag in parameter.opts}
    found = {}
    for name, command in group.commands.items():
        own = {
            flag
            for parameter in command.params
            for flag in (*parameter.opts, *parameter.secondary_opts)
        }
        found[name] = frozenset(own | common | {"--help"})
    return found


def told(document: Path) -> Iterator[str]:
    """Yields each piece of a document that may be a command: lines of blocks, and code spans."""
    text = document.read_text()
    for block in blocks(text):
        yield from command_lines(block)
    yield from spans(text)


def command_lines(block: Block) -> Iterator[str]:
    if block.kind == "console":
        yield from (command.text for command in commands(block))
    elif block.kind in ("sh", "bash", "ini", "text", ""):
        yield from block.text.split("\n")


def wrong_flags(piece: str) -> Iterator[str]:
    """Yields what a piece says of `beaver` that `--help` does not know."""
    known = flags_by_command()
    for part in re.split(r"[|;&\n]|\$\(", piece):
        found = re.search(r"\bbeaver\s+(.*)", part)
        if not found or "docs.rs" in part:
            continue
        words = [word.strip("[]`()…,") for word in found.group(1).split()]
        name = next((word for word in words if word in known), None)
        if name is None:
            continue
        for word in words:
            flag = re.match(r"--?[a-zA-Z][\w-]*", word)
            if flag and word.startswith("-") and flag.group(0) not in known[name] | {"--"}:
                yield f"beaver {name} has no {flag.group(0)}: {piece.strip()}"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_flag_that_is_mentioned_exists(document: Path) -> None:
    anywhere = frozenset().union(*flags_by_command().values()) | ELSEWHERE.keys()
    wrong: list[str] = []
    for piece in told(document):
        wrong += wrong_flags(piece)
        alone = re.match(r"(--[a-z][\w-]*)", piece)
        if alone and alone.group(1) not in anywhere:
            wrong.append(f"no command has {alone.group(1)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", ["how-to", "decisions"])
def test_every_guide_and_every_decision_is_in_its_index(folder: str) -> None:
    index = ROOT / "docs" / folder / "README.md"
    listed = {target for _, target in links(index.read_text())}
    there = {path.name for path in index.parent.glob("*.md")} - {index.name}
    assert there == listed


@pytest.mark.parametrize("folder", ["reference", "explanation"])
def test_every_other_page_is_in_the_index_of_all(folder: str) -> None:
    index = ROOT / "docs" / "README.md"
    listed = {target.partition("#")[0] for _, target in links(index.read_text())}
    there = {f"{folder}/{path.name}" for path in (ROOT / "docs" / folder).glob("*.md")}
    assert there <= listed


@pytest.mark.parametrize(
    "package",
    ["model/beaver_model", "runtime/beaver", "spec/beaver_spec", "chaos/beaver_chaos"],
)
def test_every_module_has_a_room_and_every_room_a_module(package: str) -> None:
    """ARCHITECTURE.md names each module of a package, and none that is not there."""
    folder = ROOT / package
    modules = {path.stem for path in folder.glob("[a-z]*.py")}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    named = set()
    rooms = (ROOT / "ARCHITECTURE.md").read_text()
    for row in re.findall(r"^\| (`beaver.*?) \|", rooms, re.MULTILINE):
        home, _, first = row.strip("`").partition("/")
        if home == folder.name:
            named |= {name.strip("` ") for name in first.split(",")}
    assert modules, "there is something to compare"
    assert [name for name in sorted(modules) if not any(fnmatch(name, one) for one in named)] == []
    assert [one for one in sorted(named) if not any(fnmatch(name, one) for name in modules)] == []


def test_a_wrong_output_is_seen(tmp_path: Path) -> None:
    """The tests above can fail: a document that lies about an output is found out."""
    lie = tmp_path / "lie.md"
    lie.write_text("```console\n$ echo truth\nlie\n$ echo 1 2\n1 2\n```\n")
    session = Session(lie, tmp_path, patience_s=0.0).run()
    assert session.ran == 2
    assert len(session.problems) == 1
    assert "echo truth" in session.problems[0]


def test_a_wrong_flag_is_seen() -> None:
    assert list(wrong_flags("cat x | beaver enqueue --file - --chunkd"))
    assert list(wrong_flags("beaver status --workers 4"))
    assert not list(wrong_flags("beaver run -A shop:app --workers 4 > server.log 2>&1 &"))


def test_nothing_names_the_place_where_it_was_written() -> None:
    """Documents are for readers elsewhere."""
    for document in documents():
        assert str(ROOT) + os.sep not in document.read_text(), document
