"""What the documentation tests read of a Markdown file: fenced blocks, code spans, links.

Conventions of our documents:

- A block whose first line is a comment with a file name (`# shop.py`) is that file.
- A `python` block is complete.  It is run, except that one with a file name waits for the
  commands of the document where these are run.  A `py` block is a fragment.
- A `console` block is a session: `$ ` starts a command, `> ` goes on with it, the rest is
  what comes out; a line `...` stands for any number of lines that were left out.
- A comment `<!-- not run -->` before a block keeps it from being run, and
  `<!-- numbers vary -->` says that its output differs in numbers from run to run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*(\S*)")
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_FILE_NAME = re.compile(r"^(?:#|//)\s*(\w[\w.-]*\.(?:py|yaml|yml|jsonl?|sh|service|diff))\s*$")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$")


class Block(NamedTuple):
    """A fenced block."""

    kind: str
    text: str
    line: int
    """Of its first line in the file, counted from 1."""
    note: str
    """What the comment before it says, or nothing."""

    @property
    def file_name(self) -> str | None:
        """The file that the block is, if it names one."""
        first, _, _ = self.text.partition("\n")
        found = _FILE_NAME.match(first)
        return found.group(1) if found else None


def documents() -> list[Path]:
    """Returns every Markdown file of the project, tools' own directories left out."""
    hidden = {"node_modules", "dist", "reports", "venv"}
    found = []
    for path in ROOT.rglob("*.md"):
        parts = path.relative_to(ROOT).parts
        if not any(part.startswith(".") or part in hidden for part in parts):
            found.append(path)
    return sorted(found)


def blocks(text: str) -> list[Block]:
    """Returns the fenced blocks of a document, in order."""
    found: list[Block] = []
    lines = text.split("\n")
    index, note = 0, ""
    while index < len(lines):
        line = lines[index]
        opening = _FENCE.match(line)
        if opening is None:
            comment = re.match(r"^\s*<!--\s*(.*?)\s*-->\s*$", line)
            if comment:
                note = comment.group(1)
            elif line.strip():
                note = ""
            index += 1
            continue
        indent, fence, kind = opening.groups()
        index += 1
        start = index
        body: list[str] = []
        while index < len(lines) and not lines[index].strip().startswith(fence):
            body.append(lines[index].removeprefix(indent))
            index += 1
        found.append(Block(kind, "\n".join(body) + "\n", start + 1, note))
        index, note = index + 1, ""
    return found


def prose(text: str) -> str:
    """Returns a document without its fenced blocks; lines keep their numbers."""
    out, inside = [], ""
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if inside:
            if line.strip().startswith(inside):
                inside = ""
            out.append("")
        elif fence:
            inside = fence.group(2)
            out.append("")
        else:
            out.append(line)
    return "\n".join(out)


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yields line and target of each link in the prose, code spans left out."""
    plain = _SPAN.sub(lambda found: re.sub(r"[^\n]", " ", found.group(0)), prose(text))
    for found in _LINK.finditer(plain):
        yield plain.count("\n", 0, found.start()) + 1, found.group(1)


def spans(text: str) -> Iterator[str]:
    """Yields the code spans of the prose, each on one line."""
    for found in _SPAN.finditer(prose(text)):
        yield " ".join(found.group(2).split())


def anchors(text: str) -> set[str]:
    """Returns the names by which headings can be linked to, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    for line in prose(text).split("\n"):
        heading = _HEADING.match(line)
        if heading:
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
            slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            count = found.get(slug, 0)
            found[slug] = count + 1
            names.add(f"{slug}-{count}" if count else slug)
    return names


class Command(NamedTuple):
    """A command of a session and what it should print."""

    text: str
    expected: list[str]
    line: int


def commands(block: Block) -> list[Command]:
    """Returns the commands of a `console` block."""
    found: list[Command] = []
    for number, line in enumerate(block.text.rstrip("\n").split("\n"), block.line):
        if line.startswith("$ "):
            found.append(Command(line[2:], [], number))
        elif found and not found[-1].expected and line.startswith("> "):
            last = found[-1]
            found[-1] = last._replace(text=f"{last.text}\n{line[2:]}")
        elif found and not found[-1].expected and line == ">":
            found[-1] = found[-1]._replace(text=f"{found[-1].text}\n")
        elif found:
            found[-1].expected.append(line)
    return found
