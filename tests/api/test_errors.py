"""Every error that can be raised is a name of `beaver`, and stands in the reference."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import beaver

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "python-api.md"
INTERNAL = {
    "BackupDamaged": "BeaverError",
    "Damaged": "Corruption",
    "FrameTooLong": "InvalidInput",
    "HistoryDamaged": "HelperFailed",
    "HistoryUnusable": "HelperFailed",
    "LiveStateDiffers": "HelperFailed",
    "SnapshotDamaged": "Corruption",
    "SnapshotDiffers": "HelperFailed",
    "TakenOver": "StoreUnavailable",
    "TargetFailed": "StoreUnavailable",
    "TooManyBulks": "StoreUnavailable",
    "TooManyMatch": "InvalidInput",
    "TooManyWorkers": "StoreUnavailable",
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
    from beaver import errors
    from beaver.client import blocking

    assert vars(blocking)["NoServer"] is errors.NoServer


# -- what is refused, and how ---------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path) -> Iterator[beaver.Beaver]:
    app = beaver.Beaver(tmp_path / "data")
    with app.testing():
        yield app


CALLS = ("show", "explain", "history", "wait", "cancel", "requeue", "discard")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("", "id: 1 to 255 bytes are allowed, found 0"),
        ("x" * 256, "id: 1 to 255 bytes are allowed, found 256"),
        ("a\0b", "holds a control character"),
        (5, r"id: a string is expected, found a number \(5\)"),
    ],
)
def test_what_is_no_id_is_refused_by_name(
    app: beaver.Beaver, call: str, job: Any, said: str
) -> None:
    """It is not looked for: "no job " would hide what is wrong."""
    with pytest.raises(beaver.InvalidInput, match=said):
        getattr(app.client, call)(job)
    with pytest.raises(beaver.InvalidInput, match=said):
        app.handle(job)
    with pytest.raises(beaver.NotFound):
        getattr(app.client, call)("x" * 255)


@pytest.mark.parametrize("filter_", ["queue", "task", "tag"])
def test_a_list_is_not_asked_for_what_is_no_name(app: beaver.Beaver, filter_: str) -> None:
    """200 bytes may be a name; 201 are none, and what is no text neither."""
    for wrong, said in (("x" * 201, "1 to 200 bytes are allowed"), (5, "a string is expected")):
        given: dict[str, Any] = {filter_: wrong}
        with pytest.raises(beaver.InvalidInput, match=f"{filter_}: {said}"):
            app.client.list_jobs(**given)
    longest: dict[str, Any] = {filter_: "x" * 200}
    try:
        assert app.client.list_jobs(**longest) == []
    except beaver.NotFound:
        assert filter_ == "queue"


def test_too_many_jobs_at_once_are_told_how_to_send_them_from_python(app: beaver.Beaver) -> None:
    @app.job
    def work() -> None: ...

    with pytest.raises(beaver.InvalidInput, match="enqueue them by several calls"):
        app.enqueue_many([work.request()] * 10_001)


def test_an_until_that_is_none_is_told_once() -> None:
    from beaver.replay.replaying import parse_until

    with pytest.raises(beaver.InvalidInput) as error:
        parse_until("never")
    assert str(error.value) == (
        "--until: 'never' is no time; write 2030-01-31T12:00:00Z or ms since the epoch, or a seq"
    )
