"""Takes each conjunct out of a TLA+ module, one at a time: something must notice.

A specification proves little if a guard could go and nothing would break.  What lives here:
finding the conjuncts of every definition that `Next` reaches, and writing the module without
one of them.  A guard becomes `TRUE`; an effect leaves the variables that it sets unchanged;
the condition of an `IF` holds always, or never.
Which of them are noticed, and by what, is for `guards_check`.

What may not live here: knowledge of a single module.  It reads TLA+ as these modules are
written: definitions begin in the first column, and bulleted lists are aligned.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

_DEFINITION: Final = re.compile(r"^(\w+)(\([^)]*\))? ==", re.MULTILINE)
_COMMENT: Final = re.compile(r"\(\*.*?\*\)|\\\*[^\n]*", re.DOTALL)
_WORD: Final = re.compile(r"\w+")
_SET: Final = re.compile(r"\b(\w+)' (?:=|\\in)")
_KEPT: Final = re.compile(r"UNCHANGED (?:<<([^>]*)>>|(\w+))")
_STRING: Final = re.compile(r'"[^"\n]*"')
_BOUND: Final = re.compile(r"\b(\w+) < \w+Max\b")
_BULLET: Final = re.compile(r"/\\|\\/")
_KEYWORDS: Final = re.compile(r"\b(?:IF|THEN|ELSE|LET|IN)\b")
_KEYWORD: Final = re.compile(r"(?:IF|LET)\b")
_QUANTIFIED_LIST: Final = re.compile(r"\\[EA]\b[^:]*:\s*(?=/\\|\\/)")
_OPAQUE: Final = re.compile(r"\b(?:IF|LET|CASE)\b|\\[EA]\b")
"""Inside these, a `/\\` on the same line is not a conjunct of the definition."""
_OPEN, _CLOSED = "([{<", ")]}>"


class Conjunct(NamedTuple):
    """One conjunct of a definition: where it stands, and what stands there without it."""

    definition: str
    text: str
    begin: int
    end: int
    without: str

    @property
    def name(self) -> str:
        """Its name in tables: its definition, and its text on one line."""
        return f"{self.definition}: {self.text}"


def conjuncts(module: str) -> list[Conjunct]:
    """Returns the conjuncts of all that `Next` reaches, in the order of the module.

    Left out are `UNCHANGED`, what bounds the exploring (`frames < FramesMax`, and the counting
    that it needs), and the switches of sown bugs.
    """
    bare = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), module)
    bodies = _bodies(bare)
    assigned = _assigned(bare, bodies)
    counters = set(_BOUND.findall(bare)) - {"seq", "told", "unsynced"}
    switches = set(_WORD.findall(bare[bare.find("CONSTANTS") : bare.index("VARIABLES")]))
    found: list[Conjunct] = []
    for name in _reached(bare, bodies):
        for first, last, is_condition in _items(bare, *bodies[name]):
            text = " ".join(bare[first:last].split())
            if text.startswith("UNCHANGED") or _is_bound(text, counters):
                continue
            if is_condition:
                if text in switches:
                    continue
                found.append(Conjunct(name, f"always {text}", first, last, "TRUE"))
                found.append(Conjunct(name, f"never {text}", first, last, "FALSE"))
                continue
            effects = ", ".join(sorted(_effects(text, assigned)))
            instead = f"UNCHANGED <<{effects}>>" if effects else "TRUE"
            found.append(Conjunct(name, text, first, last, instead))
    return sorted(found, key=lambda conjunct: conjunct.begin)


def _is_bound(text: str, counters: Collection[str]) -> bool:
    counted = re.match(r"(\w+)(?: < \w+Max|' = \1 \+ 1)$", text)
    return (counted is not None and counted[1] in counters) or text.endswith("Max > 0")


def without(module: str, conjunct: Conjunct) -> str:
    """Returns the module without one of its conjuncts."""
    return module[: conjunct.begin] + conjunct.without + module[conjunct.end :]


def _bodies(bare: str) -> dict[str, tuple[int, int]]:
    """Returns where the body of each definition begins and ends."""
    heads = list(_DEFINITION.finditer(bare))
    ends = [head.start() for head in heads[1:]] + [bare.rfind("\n=====")]
    bodies: dict[str, tuple[int, int]] = {}
    for head, end in zip(heads, ends, strict=True):
        recursive = bare.find("\nRECURSIVE", head.end(), end)
        bodies[head[1]] = (head.end(), end if recursive < 0 else recursive)
    return bodies


def _reached(bare: str, bodies: Mapping[str, tuple[int, int]]) -> list[str]:
    """Returns the definitions that `Next` uses, directly or not, and that list conjuncts."""
    reached: list[str] = []
    waiting = ["Next"]
    while waiting:
        begin, end = bodies[waiting.pop()]
        for word in _WORD.findall(bare[begin:end]):
            if word in bodies and word not in reached:
                reached.append(word)
                waiting.append(word)
    return reached


def _assigned(bare: str, bodies: Mapping[str, tuple[int, int]]) -> dict[str, set[str]]:
    """Returns the variables that each definition sets or keeps, through what it uses too.

    Of a definition that lists variables (`held == <<active, next>>`) these are its variables.
    """
    variables = set(_WORD.findall(bare[bare.index("VARIABLES") : bare.index("\nvars ==")]))
    assigned = {name: set[str]() for name in (*variables, *bodies)}
    texts = {name: _STRING.sub("", bare[b:e]) for name, (b, e) in bodies.items()}
    for name, text in texts.items():
        if text.lstrip().startswith("<<"):
            assigned[name] = set(_WORD.findall(text))
    lists = {name: listed for name, listed in assigned.items() if listed}
    for name, listed in lists.items():
        assigned[name] = {v for entry in listed for v in lists.get(entry, {entry})} & variables
    size = -1
    while size != (size := sum(map(len, assigned.values()))):
        for name, text in texts.items():
            if name not in lists:
                assigned[name] = assigned[name] | (_effects(text, assigned) & variables)
    return assigned


def _effects(text: str, assigned: Mapping[str, set[str]]) -> set[str]:
    """Returns the variables that a conjunct sets or keeps, by itself and by what it uses."""
    text = _STRING.sub("", text)
    effects = set(_SET.findall(text))
    for listed in _KEPT.findall(text):
        for word in _WORD.findall(" ".join(listed)):
            effects |= assigned[word] or {word}
    for word in _WORD.findall(_KEPT.sub("", text)):
        effects |= assigned.get(word, set())
    return effects


def _items(
    bare: str, begin: int, end: int, *, is_listed: bool = False
) -> Iterator[tuple[int, int, bool]]:
    """Yields where the innermost conjuncts between two places begin and end.

    The third value tells whether it is the condition of an `IF`.  Lists, quantifiers over
    lists, `LET` and `IF` are looked into.  A definition without any of these is a value, or a
    name for one guard, which is taken out where it is used.
    """
    begin, end = _stripped(bare, begin, end)
    text = bare[begin:end]
    if (found := _BULLET.match(text)) is not None:
        for first, last in _list(bare, begin, end):
            yield from _items(bare, first + len(found[0]), last, is_listed=True)
    elif (found := _QUANTIFIED_LIST.match(text)) is not None:
        yield from _items(bare, begin + found.end(), end, is_listed=True)
    elif (found := _KEYWORD.match(text)) is not None:
        places = [*_branches(text), ("", len(text))]
        parts = {
            word: _stripped(bare, begin + first + len(word), begin + last)
            for (word, first), (_, last) in itertools.pairwise(places)
        }
        branches = [parts[word] for word in ("THEN", "ELSE", "IN") if word in parts]
        is_decided = any(_decides(bare[slice(*part)]) for part in branches)
        if "IF" in parts:
            yield *parts["IF"], True
        if is_listed and not is_decided:
            yield begin, end, False
        for part in branches if is_decided else []:
            yield from _items(bare, *part, is_listed=is_listed)
    elif is_listed or ("/\\" in text and not _OPAQUE.search(text)):
        yield from ((first, last, False) for first, last in _inline(bare, begin, end))


def _decides(text: str) -> bool:
    """Returns whether an expression says what may happen, and is not just a value."""
    return "'" in text or "/\\" in text or "UNCHANGED" in text or text.startswith("IF")


def _stripped(bare: str, begin: int, end: int) -> tuple[int, int]:
    text = bare[begin:end]
    return begin + len(text) - len(text.lstrip()), begin + len(text.rstrip())


def _list(bare: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the items of the list whose first bullet stands at `begin`."""
    column = _column(bare, begin)
    places = [
        found.start()
        for found in _BULLET.finditer(bare, begin, end)
        if _column(bare, found.start()) == column and _leads(bare, found.start(), begin)
    ]
    yield from itertools.pairwise([*places, end])


def _leads(bare: str, at: int, first: int) -> bool:
    return at == first or not bare[bare.rfind("\n", 0, at) + 1 : at].strip()


def _branches(text: str) -> list[tuple[str, int]]:
    """Returns the words of the outermost `IF` or `LET` of a text, and where they stand."""
    depth, found = 0, list[tuple[str, int]]()
    for word in _KEYWORDS.finditer(text):
        opens = word[0] in {"IF", "LET"}
        if depth == 0 or (depth == 1 and not opens):
            found.append((word[0], word.start()))
        depth += opens
        depth -= word[0] in {"ELSE", "IN"}
        if depth == 0:
            break
    return found


def _column(bare: str, at: int) -> int:
    return at - bare.rfind("\n", 0, at) - 1


def _inline(bare: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the conjuncts that stand in one item, one behind the other."""
    text = bare[begin:end]
    cuts = [0]
    if not _OPAQUE.search(text):
        depth, at = 0, 0
        while at < len(text):
            depth += (text[at] in _OPEN[:3]) - (text[at] in _CLOSED[:3])
            if depth == 0 and text.startswith("/\\", at):
                cuts += [at, at + 2]
            at += 1
    cuts.append(len(text))
    for first, last in zip(cuts[::2], cuts[1::2], strict=True):
        if text[first:last].strip():
            yield _stripped(bare, begin + first, begin + last)
