"""Each conjunct of a TLA+ module can be taken out, and what then happens is told."""

from __future__ import annotations

import itertools

import pytest

from beaver_spec.specification.guards import conjuncts, without
from beaver_spec.specification.guards_check import EXPLAINED, Trial, modules, try_without
from beaver_spec.specification.storage_tlc import TLA, Missing, find_tlc
from tests.support.needs import need

MODULE = """---- MODULE Shop ----
CONSTANTS OrdersMax
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
       ELSE UNCHANGED open

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
    'Pay: IF how = "card" THEN open\' = FALSE /\\ TRUE ELSE UNCHANGED open': "UNCHANGED <<open>>",
}


def test_guards_and_effects_of_all_that_next_reaches_are_found() -> None:
    assert {found.name: found.without for found in conjuncts(MODULE)} == LISTED


def test_a_module_without_a_conjunct_differs_there_alone() -> None:
    chosen = next(found for found in conjuncts(MODULE) if found.name == "Pay: open")
    line = '    /\\ \\/ how = "cash" /\\ '
    assert without(MODULE, chosen) == MODULE.replace(f"{line}open", f"{line}TRUE")


@pytest.mark.parametrize("module", modules())
def test_no_two_conjuncts_of_a_module_stand_in_each_other(module: str) -> None:
    found = conjuncts((TLA / f"{module}.tla").read_text())
    assert len(found) > 50
    assert all(a.end <= b.begin for a, b in itertools.pairwise(found))


def test_what_is_explained_stands_in_a_module() -> None:
    names = {
        f"{module}.{found.name}"
        for module in modules()
        for found in conjuncts((TLA / f"{module}.tla").read_text())
    }
    assert set(EXPLAINED) <= names


@pytest.mark.parametrize(
    ("conjunct", "noticed"),
    [
        ("ACK: Answers(j, token)", "ACompletionKeepsItsToken"),
        ("RELEASE: ~job[j].cancel", "ACancelRequestIsNotForgotten"),
        ('DISCARD: Is(j, {"pending", "dead", "cancelled"})', "OnlyArrowsAreTaken"),
        ("RETRY: j \\notin owed", "OnlyAPowerCutMakesSuspects"),
    ],
)
@pytest.mark.spec
def test_a_guard_that_is_gone_breaks_a_named_property(conjunct: str, noticed: str) -> None:
    """A sample; `python -m beaver_spec.specification.guards_check` takes out all of them."""
    assert tried("Lifecycle", conjunct).noticed == noticed


def tried(module: str, name: str) -> Trial:
    try:
        tlc = find_tlc()
    except Missing as missing:
        need(str(missing))
        raise
    found = conjuncts((TLA / f"{module}.tla").read_text())
    return try_without(tlc, module, next(c for c in found if c.name == name))
