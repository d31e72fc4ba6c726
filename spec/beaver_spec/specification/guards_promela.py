"""Finds the guards and effects of the Promela model, as `guards` does for TLA+.

What lives here: reading Promela as `release.pml` is written.  A guard stands before `->`, and
each of its conjuncts may become `true`; an assignment, an increment or a call of an inline
may become `skip`.  Not touched are assertions and `printf`, `goto` and `break`, and what bounds the
exploring (`crashes < CRASHES`, and the counting that it needs), and what a switch sows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from beaver_spec.specification.guards import Conjunct

_HIDDEN: Final = re.compile(
    r"/\*.*?\*/|^#ifdef.*?^#(?:else|endif)|^[ \t]*#(?:\\\n|[^\n])*"
    r"|\bprintf\([^\n]*?\)(?=[;\s])|\"[^\"\n]*\"",
    re.DOTALL | re.MULTILINE,
)
_HEAD: Final = re.compile(r"\b(?:inline|proctype)\s+(\w+)\([^)]*\)\s*\{")
_PLACE: Final = re.compile(
    r"(?P<end>->|;|::|\{|\}|\b(?:atomic|if|fi|do|od|else|skip|break)\b|\bgoto\s+\w+|\b\w+:(?!:))"
)
_LEFT: Final = re.compile(
    r"(?:byte|bool)\b|assert\b|run\b|(?:crashes|count) < \w+$|(?:crashes|count)\+\+$|count = 0$"
)


def conjuncts(model: str) -> list[Conjunct]:
    """Returns the conjuncts of guards, and the effects, of all inlines and processes."""
    bare = _HIDDEN.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), model)
    heads = list(_HEAD.finditer(bare))
    ends = [*(head.start() for head in heads[1:]), bare.index("\ninit {")]
    found: list[Conjunct] = []
    seen = Counter[str]()
    for head, end in zip(heads, ends, strict=True):
        for first, last, without in _parts(bare, head.end(), end):
            text = " ".join(bare[first:last].split())
            if _LEFT.match(text):
                continue
            seen[name := f"{head[1]}: {text}"] += 1
            text += f" ({seen[name]})" if seen[name] > 1 else ""
            found.append(Conjunct(head[1], text, first, last, without))
    return found


def _parts(bare: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Yields where guards' conjuncts and effects stand, and what takes their place."""
    at = begin
    for place in _PLACE.finditer(bare, begin, end):
        first, last = at, place.start()
        at = place.end()
        if not bare[first:last].strip():
            continue
        if place["end"] != "->":
            yield *_stripped(bare, first, last), "skip"
            continue
        for left, right in _operands(bare, first, last):
            yield *_stripped(bare, left, right), "true"


def _operands(bare: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the operands of `&&` outside of brackets; a guard with `||` there is one."""
    depth, cuts = 0, [begin]
    for at in range(begin, end):
        depth += (bare[at] in "([") - (bare[at] in ")]")
        if depth == 0 and bare.startswith("||", at):
            yield begin, end
            return
        if depth == 0 and bare.startswith("&&", at):
            cuts += [at, at + 2]
    cuts.append(end)
    yield from zip(cuts[::2], cuts[1::2], strict=True)


def _stripped(bare: str, begin: int, end: int) -> tuple[int, int]:
    text = bare[begin:end]
    return begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())
