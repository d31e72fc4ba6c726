"""The report as files: Markdown, HTML, JSON and JUnit XML."""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from beaver_spec.report.document import Block, BulletList, Code, Heading, Paragraph, blocks
from beaver_spec.report.drawing import draw
from beaver_spec.report.report import Report
from beaver_spec.results import CheckResult, Verdict

NAME: Final = "model-check"
SUFFIXES: Final = ("md", "html", "json", "xml")


def write(report: Report, directory: Path) -> list[Path]:
    """Writes the report in every form and returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "md": markdown(report),
        "html": page(report),
        "json": json_text(report),
        "xml": junit(report),
    }
    paths = []
    for suffix in SUFFIXES:
        path = directory / f"{NAME}.{suffix}"
        path.write_text(texts[suffix], encoding="utf-8")
        paths.append(path)
    return paths


def json_text(report: Report) -> str:
    """Returns the whole report as JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"


# -- Markdown ------------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """Returns the report as Markdown."""
    return "\n\n".join(map(block_text, blocks(report))) + "\n"


def block_text(block: Block) -> str:
    """Returns one block as Markdown."""
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return block.text
    if isinstance(block, BulletList):
        marks = (f"{n}." if block.numbered else "-" for n in range(1, len(block.items) + 1))
        return "\n".join(f"{mark} {item}" for mark, item in zip(marks, block.items, strict=True))
    if isinstance(block, Code):
        return f"```{block.language}\n{block.text}\n```"
    rows = [block.heads, ["---"] * len(block.heads), *block.rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# -- HTML ----------------------------------------------------------------------------------------

_STYLE: Final = """
:root { --ink: #1c1b19; --paper: #fdfcfa; --soft: #f3f0e9; --line: #d9d5cc; --quiet: #6d685e;
  --good: #1d6b3a; --good-back: #e6f2e8; --bad: #a3180c; --bad-back: #fbe7e3; --mark: #35618f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e2d8; --paper: #1b1a18; --soft: #2a2825;
  --line: #3c3934; --quiet: #a09a8d; --good: #8fd3a4; --good-back: #1f3226; --bad: #ff8d7e;
  --bad-back: #3b211d; --mark: #8db8e2; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1, h2, h3 { line-height: 1.2; margin-top: 2.2em; } h1 { margin-top: 0; }
h2 { border-top: 1px solid var(--line); padding-top: 1em; }
.verdict { border-left: 5px solid; padding: .8em 1.1em; border-radius: 4px; font-size: 17px; }
.verdict p { margin: 0; }
.verdict.good { color: var(--good); background: var(--good-back); }
.verdict.bad { color: var(--bad); background: var(--bad-back); }
nav { font-size: 14px; margin: 1em 0; } nav a { margin-right: 1.1em; }
a { color: var(--mark); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px; }
th, td { border-bottom: 1px solid var(--line); padding: .35em 1em .35em 0; text-align: left;
  vertical-align: top; }
th { color: var(--quiet); font-weight: 600; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.bad { color: var(--bad); font-weight: 600; } td.good { color: var(--good); }
td code { white-space: nowrap; }
pre { background: var(--soft); padding: 1em; overflow-x: auto; font-size: 13px; }
code { background: var(--soft); padding: 0 .2em; } pre code { padding: 0; }
details { margin: 1em 0; } summary { cursor: pointer; color: var(--mark); }
ol li { margin: .2em 0; }
.drawing { overflow-x: auto; } .drawing svg { max-width: none; font: 13px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .who { font-weight: 600; } svg .count { fill: var(--quiet); }
svg .label { font-size: 12px; paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
svg .life, svg .arrow { fill: none; stroke: var(--quiet); } svg .life { stroke-dasharray: 3 4; }
svg .arrow { stroke: var(--mark); stroke-width: 1.4; } svg marker path { fill: var(--mark); }
svg .state { fill: var(--soft); stroke: var(--mark); } svg .end { fill: var(--quiet); }
svg .note { fill: var(--soft); stroke: var(--line); }
svg .note.wrong { fill: var(--bad-back); stroke: var(--bad); }
svg .noted.wrong { fill: var(--bad); }
"""
_FIGURE: Final = re.compile(r"[\d,]+(\.\d+)?")
_GOOD: Final = {"holds", "caught"}
_BAD: Final = {"VIOLATED", "MISSED", "ERROR", "NO", "LOST", "BROKEN", "FAILED"}


def page(report: Report) -> str:
    """Returns the report as one HTML page that loads nothing."""
    found = list(blocks(report))
    sections = [block.text for block in found if isinstance(block, Heading) and block.level == 2]
    links = "".join(f'<a href="#{_anchor(text)}">{_inline(text)}</a> ' for text in sections)
    title, verdict, *rest = map(_html, found)
    kind = "good" if report.ok else "bad"
    body = "\n".join(
        [title, f'<div class="verdict {kind}">{verdict}</div>', f"<nav>{links}</nav>", *rest]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>Model check</title>\n<style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        level = block.level
        return f'<h{level} id="{_anchor(block.text)}">{_inline(block.text)}</h{level}>'
    if isinstance(block, Paragraph):
        return f"<p>{_inline(block.text)}</p>"
    if isinstance(block, BulletList):
        tag = "ol" if block.numbered else "ul"
        items = "\n".join(f"<li>{_inline(item)}</li>" for item in block.items)
        return f"<{tag}>\n{items}\n</{tag}>"
    if isinstance(block, Code):
        text = f'<pre class="{block.language}"><code>{html.escape(block.text)}</code></pre>'
        drawn = draw(block.text) if block.language == "mermaid" else ""
        hidden = f"<details><summary>as Mermaid</summary>\n{text}\n</details>"
        return f"{drawn}\n{hidden}" if drawn else text
    figures = [
        bool(block.rows) and all(_FIGURE.fullmatch(row[n]) for row in block.rows)
        for n in range(len(block.heads))
    ]
    heads = "".join(
        f"<th{_N if figure else ''}>{_inline(head)}</th>"
        for head, figure in zip(block.heads, figures, strict=True)
    )
    heads = f"<tr>{heads}</tr>\n" if any(block.heads) else ""
    rows = "\n".join(f"<tr>{''.join(map(_td, row, figures))}</tr>" for row in block.rows)
    return f'<div class="wide"><table>\n{heads}{rows}\n</table></div>'


_N: Final = ' class="n"'


def _td(text: str, figure: bool) -> str:
    if text in _BAD:
        return f'<td class="bad">{text}</td>'
    if text in _GOOD:
        return f'<td class="good">{text}</td>'
    return f"<td{_N if figure else ''}>{_inline(text)}</td>"


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _inline(text: str) -> str:
    escaped = html.escape(text, quote=False)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


# -- JUnit ---------------------------------------------------------------------------------------


def junit(report: Report) -> str:
    """Returns every check as a test case, properties and witnesses included."""
    suite = ET.Element("testsuite", name="beaver check", timestamp=report.started)
    failures = skipped = 0
    for kind, name, seconds, verdict, text in _cases(report):
        case = ET.SubElement(suite, "testcase", classname=f"check.{kind}", name=name)
        case.set("time", f"{seconds:.3f}")
        if verdict == Verdict.SKIPPED:
            skipped += 1
            ET.SubElement(case, "skipped", message=_printable(text))
        elif verdict not in {Verdict.HOLDS, Verdict.CAUGHT}:
            failures += 1
            failure = ET.SubElement(case, "failure", message=str(verdict))
            failure.text = _printable(text)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    suite.set("time", f"{report.seconds:.3f}")
    ET.indent(suite)
    text = ET.tostring(suite, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _cases(report: Report) -> Iterator[tuple[str, str, float, Verdict, str]]:
    for result in report.results:
        yield result.kind, result.name, result.seconds, result.verdict, _text(result)
    for row in report.properties:
        if row.verdict != Verdict.SKIPPED:
            yield "property", row.name, 0.0, row.verdict, row.claim
    for w in report.witnesses if report.scopes else ():
        fine = bool(w.count) != bool(w.note)
        verdict = Verdict.HOLDS if fine else Verdict.VIOLATED
        if report.partial and not w.count:
            verdict = Verdict.SKIPPED
        yield w.kind, w.what, 0.0, verdict, w.note or "never met"
    for finding in report.findings:
        yield "finding", finding, 0.0, Verdict.VIOLATED, finding


def _text(result: CheckResult) -> str:
    return result.skipped or "\n".join(result.details)


_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def _printable(text: str) -> str:
    """Returns text without what XML cannot hold."""
    return _UNPRINTABLE.sub("?", text)
