"""Every error that can be raised is a name of `beaver`, and stands in the reference."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import beaver

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "python-api.md"
INTERNAL = {
    "Damaged": "Corruption",
    "FrameTooLong": "InvalidInput",
    "HistoryDamaged": "HelperFailed",
    "HistoryUnusable": "HelperFailed",
    "SnapshotDamaged": "Corruption",
}
"""Finer kinds that Beaver tells apart inside; users catch the kind beside them."""
UNSEEN = {"Refused": "the engine's answer to a server's own commands, when it starts"}


def kinds(base: type[BaseException]) -> Iterator[type[BaseException]]:
    """Yields the errors below `base` that any module of the package makes."""
    for module in pkgutil.walk_packages(beaver.__path__, "beaver."):
        if not module.name.endswith("__main__") and ".bench" not in module.name:
            importlib.import_module(module.name)
    todo, seen = [base], set()
    while todo:
        for kind in todo.pop().__subclasses__():
            if kind not in seen and kind.__module__.startswith("beaver."):
                seen.add(kind)
                todo.append(kind)
    yield from sorted((kind for kind in seen if ".bench" not in kind.__module__), key=str)


KINDS = [*kinds(beaver.BeaverError), beaver.SoftStop, *kinds(beaver.SoftStop)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_exported_and_documented(kind: type[BaseException]) -> None:
    """Wherever it is made: what users may have to catch is a name of `beaver`."""
    name = kind.__name__
    if name in INTERNAL:
        assert issubclass(kind, getattr(beaver, INTERNAL[name]))
        return
    if name in UNSEEN:
        return
    assert getattr(beaver, name) is kind
    assert name in beaver.__all__
    page = REFERENCE.read_text()
    told = page.partition("## Errors")[2] if issubclass(kind, beaver.BeaverError) else page
    assert f"`{name}`" in told


def test_what_need_not_be_exported_is_there() -> None:
    assert {kind.__name__ for kind in KINDS} >= {*INTERNAL, *UNSEEN}


def test_no_error_that_users_meet_is_made_elsewhere() -> None:
    """What an answer brings over the socket is a class of `errors`: others would not arrive."""
    from beaver import client, errors

    assert client.NoServer is errors.NoServer
