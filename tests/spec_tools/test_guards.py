"""Each conjunct of a TLA+ module can be taken out, and what then happens is told."""

from __future__ import annotations

import itertools

import pytest

from beaver_spec.specification import guards, guards_promela
from beaver_spec.specification.guards import without
from beaver_spec.specification.guards_check import (
    EXPLAINED,
    RELEASE,
    TABLE,
    Trial,
    conjuncts,
    find_tools,
    modules,
    places,
    read_table,
    try_without,
)
from beaver_spec.specification.storage_tlc import Missing
from tests.support.needs import need

MODULE = """---- MODULE Shop ----
CONSTANTS OrdersMax, Broken
VARIABLES open, paid, orders
vars == <<open, paid, orders>>
both == <<open, paid>>

Paid(how) ==    \\* a /\\ in a comment is none
    /\\ paid' = how
    /\\ UNCHANGED orders

Take ==
    /\\ open /\\ orders < OrdersMax
    /\\ orders' = orders + 1
    /\\ UNCHANGED both

Pay(how) ==
    /\\ \\/ how = "cash" /\\ open
       \\/ how = "card"
    /\\ Paid(how)
    /\\ IF how = "card" THEN open' = FALSE /\\ TRUE
       ELSE /\\ UNCHANGED open
            /\\ IF Broken THEN TRUE ELSE orders > 0
    /\\ open' = IF how = "card" THEN open ELSE TRUE

Unused ==
    /\\ open

Next == Take \\/ \\E how \\in {"cash", "card"} : Pay(how)
====
"""

LISTED = {
    "Paid: paid' = how": "UNCHANGED <<paid>>",
    "Take: open": "TRUE",
    'Pay: how = "cash"': "TRUE",
    "Pay: open": "TRUE",
    'Pay: how = "card"': "TRUE",
    "Pay: Paid(how)": "UNCHANGED <<orders, paid>>",
    'Pay: always how = "card"': "TRUE",
    'Pay: never how = "card"': "FALSE",
    "Pay: open' = FALSE": "UNCHANGED <<open>>",
    "Pay: TRUE": "TRUE",
    "Pay: IF Broken THEN TRUE ELSE orders > 0": "TRUE",
    'Pay: open\' = IF how = "card" THEN open ELSE TRUE': "UNCHANGED <<open>>",
}


PROMELA = """#define who 1
byte count; bool open, paid;    /* a && in a comment is none */
inline pay(how) {
    printf("MSC: pay && go\\n");
    paid = true
}
active proctype shop() {
end: do
    :: atomic { open && !paid -> open = false; pay(1) }
    :: atomic { paid || (open && count < 2) -> count++;
#ifdef SOWN
        paid = true
#else
        paid = false
#endif
        }
    :: else -> break
    od
}

init {
    run shop()
}
"""

IN_PROMELA = {
    "pay: paid = true": "skip",
    "shop: open": "true",
    "shop: !paid": "true",
    "shop: open = false": "skip",
    "shop: pay(1)": "skip",
    "shop: paid || (open && count < 2)": "true",
    "shop: paid = false": "skip",
}


def test_guards_and_effects_of_all_that_next_reaches_are_found() -> None:
    assert {found.name: found.without for found in guards.conjuncts(MODULE)} == LISTED


def test_guards_and_effects_of_a_promela_model_are_found() -> None:
    found = guards_promela.conjuncts(PROMELA)
    assert {each.name: each.without for each in found} == IN_PROMELA


def test_a_module_without_a_conjunct_differs_there_alone() -> None:
    chosen = next(found for found in guards.conjuncts(MODULE) if found.name == "Pay: open")
    line = '    /\\ \\/ how = "cash" /\\ '
    assert without(MODULE, chosen) == MODULE.replace(f"{line}open", f"{line}TRUE")


@pytest.mark.parametrize("module", modules())
def test_no_two_conjuncts_of_a_module_stand_in_each_other(module: str) -> None:
    """But for an `IF`, whose condition may hold always or never."""
    found = conjuncts(module)
    assert len(found) > 50
    pairs = itertools.pairwise(found)
    assert all(a.end <= b.begin or (a.begin, a.end) == (b.begin, b.end) for a, b in pairs)
    assert len({each.name for each in found}) == len(found)


def test_what_is_explained_stands_in_a_module() -> None:
    names = {f"{module}.{found.name}" for module, found in places()}
    assert set(EXPLAINED) <= names


def test_the_table_tells_of_each_conjunct_that_there_is_and_explains_what_nothing_notices() -> None:
    """Whoever adds a guard tries it: `guards_check --write --missing`."""
    names = [f"{module}.{found.name}" for module, found in places()]
    lines = [line for line in TABLE.read_text().splitlines() if "\t" in line]
    assert [line.split("\t", 1)[1] for line in lines] == names
    tried = read_table()
    assert {name for name, noticed in tried.items() if not noticed} <= set(EXPLAINED)
    assert not [name for name in EXPLAINED if tried.get(name)], "it is noticed after all"


@pytest.mark.parametrize(
    ("module", "conjunct"),
    [
        ("Lifecycle", "ACK: Answers(j, token)"),
        ("Lifecycle", "RELEASE: ~job[j].cancel"),
        ("Lifecycle", "RETRY: j \\notin owed"),
        ("Log", "Evict: b \\notin dirty"),
        ("Segments", "ChangeData: data' = Changed(data, change)"),
        (RELEASE, "tell: answered[who] = true"),
    ],
)
@pytest.mark.spec
def test_what_notices_that_a_guard_is_gone_is_what_the_table_says(
    module: str, conjunct: str
) -> None:
    """A sample; `python -m beaver_spec.specification.guards_check` takes out all of them."""
    noticed = tried(module, conjunct).noticed
    assert noticed
    assert noticed == read_table()[f"{module}.{conjunct}"]


def tried(module: str, name: str) -> Trial:
    try:
        tools = find_tools()
    except Missing as missing:
        need(str(missing))
        raise
    trial = try_without(tools, module, next(c for c in conjuncts(module) if c.name == name))
    assert trial is not None
    return trial
