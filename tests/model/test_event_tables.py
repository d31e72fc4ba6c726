"""Every table that is keyed by events knows all of them, or says here why it does not.

Whoever adds an event runs this file: it names each table in the code and each page that has to
learn of it.  Tables that can be derived from the events' structs are derived, and are not here.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import beaver
import beaver_chaos
import beaver_model
import beaver_spec
from beaver.inspect.listing import event_line, event_view
from beaver_chaos.checker import history
from beaver_model.events import (
    ALL_EVENTS,
    JOB_EVENTS,
    STORE_EVENTS,
    Died,
    Dispatched,
    Enqueued,
    Event,
    JobEvent,
)
from beaver_model.lifecycle import LEADS_TO
from beaver_model.rows import Spec, encode_spec
from beaver_model.states import Trigger
from beaver_spec.explorer.cells import example
from beaver_spec.traces import following, lifecycle, rules
from tests.docs.markdown import ROOT

NAMES = {kind.NAME for kind in ALL_EVENTS}
JOB_NAMES = {kind.NAME for kind in JOB_EVENTS}

WHOLE: dict[str, set[Any]] = {
    "beaver_model.legality.CHECK": set(ALL_EVENTS),
    "beaver_model.applying._APPLY": set(ALL_EVENTS),
    "beaver_spec.traces.lifecycle.LIFE": JOB_NAMES,
    "beaver_spec.traces.rules.Validator._RULES": JOB_NAMES - {"ENQUEUE"},
    "beaver_spec.traces.rules.Validator._STORE_EVENTS": NAMES - JOB_NAMES,
}
"""Tables written by hand, and what they must be keyed by."""

DERIVED = {
    "beaver.server.http.events._NAMES",
    "beaver_model.events.ALL_EVENTS",
    "beaver_model.events.JOB_EVENTS",
    "beaver_model.events.STORE_EVENTS",
    "beaver.history.projection._LEADS_TO",
    "beaver.history.projection.END_OF",
    "beaver_chaos.sim.watch._ENDS",
    "beaver_spec.explorer.properties._WHERE",
    "beaver_model.applying._CHECKS",
    "beaver_model.legality._MISPLACED",
}

PARTIAL = {
    "beaver_model.bulk.BULK": "frequent events have a bulk form",
    "beaver_model.lifecycle._TRANSITIONS": "what the Machine is made from; checked with it",
    "beaver_model.legality.CAUSES": "the others carry no cause",
    "beaver_spec.traces.lifecycle.OTHERWISE": "the others carry no cause",
    "beaver.server.failure_log._FAILED": "events that tell of an error",
    "beaver.server.http.reported._STATES": "the others end no attempt that a worker reports",
    "beaver.inspect.listing._FILL": "events whose fields are not what is shown",
    "beaver.inspect.queries._ENDS": "events that leave a tombstone only",
    "beaver.request.rejections._WORDS": "what people may ask for by name",
    "beaver_spec.explorer.properties._ATTEMPTS": "the others do not change the count",
    "beaver_chaos.checker.attempts._WITHOUT_SERVER": "the others need a server",
    "beaver_chaos.checker.book._BACK": "after the others no job waits for another attempt",
    "beaver_chaos.checker.stories._OF_AN_ATTEMPT": "the others are about no attempt",
}
"""Tables that need not know every event, and why."""


def tag_of(kind: type[Event]) -> int:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


def keys_of(value: object) -> list[Any]:
    """The members of keys of a table, as far as it is one."""
    if not isinstance(value, Mapping | tuple | frozenset | set | list):
        return []
    return [part for key in value for part in (key if isinstance(key, tuple) else (key,))]


def is_about_events(value: object) -> bool:
    keys = keys_of(value)
    if any(isinstance(key, Trigger) for key in keys):
        return True
    if any(isinstance(key, type) and issubclass(key, Event) for key in keys):
        return True
    return len(keys) > 1 and all(isinstance(key, str) and key in NAMES for key in keys)


def tables() -> Iterator[tuple[str, Any]]:
    """Yields every table of a module or class of ours that is keyed by events."""
    for package in (beaver_model, beaver, beaver_spec, beaver_chaos):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if info.name.endswith("__main__") or ".bench" in info.name:
                continue  # Programs, and what needs other queues.
            module = importlib.import_module(info.name)
            assigned = set(
                re.findall(r"^ *(\w+)\b[^=\n]*=", inspect.getsource(module), re.MULTILINE)
            )
            own = [value for value in vars(module).values() if isinstance(value, type)]
            spaces: list[Any] = [module, *(kind for kind in own if kind.__module__ == info.name)]
            for space in spaces:
                where = info.name if space is module else f"{info.name}.{space.__name__}"
                for name, value in vars(space).items():
                    if name in assigned and is_about_events(value):
                        yield f"{where}.{name}", value


TABLES = dict(tables())


def test_every_table_keyed_by_events_is_accounted_for() -> None:
    """A new one is whole, derived, or has a reason; one that went is struck out."""
    assert set(TABLES) == WHOLE.keys() | DERIVED | PARTIAL.keys()


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_table_knows_every_event(name: str) -> None:
    """One entry for each, and none for what is no event."""
    assert set(TABLES[name]) == WHOLE[name]


def test_each_trigger_is_that_of_one_event() -> None:
    """And each event of a job has one; a new tag is one above the last."""
    assert [kind.TRIGGER for kind in JOB_EVENTS] == list(Trigger)
    assert all(kind.TRIGGER is None for kind in STORE_EVENTS)
    assert len(LEADS_TO) == len(Trigger)
    tags = sorted(map(tag_of, ALL_EVENTS))
    assert tags == list(range(1, len(ALL_EVENTS) + 1))


@pytest.mark.parametrize("kind", ALL_EVENTS, ids=lambda kind: kind.NAME)
def test_the_independent_reader_knows_each_event_and_its_fields(kind: type[Event]) -> None:
    """Tag, name, fields and what their absence means, told a second time."""
    name, fields = following.SHAPES[tag_of(kind)]
    assert name == kind.NAME
    assert tuple(fields) == kind.__struct_fields__
    required = len(fields) - len(kind.__struct_defaults__)
    defaults = [... for _ in range(required)] + list(kind.__struct_defaults__)
    told = [list(value) if isinstance(value, tuple) else value for value in defaults]
    assert list(fields.values()) == told


def whole(kind: type[Event]) -> Any:
    """Returns an event of a kind, each field with a value that is not its default."""
    return example(kind, {"job": "a", "token": 2, "spec": encode_spec(Spec("echo"))}, whole=True)


@pytest.mark.parametrize("kind", ALL_EVENTS, ids=lambda kind: kind.NAME)
def test_replay_and_explain_show_every_field(kind: type[Event]) -> None:
    """Under its own name or another one; only the digest of a request is for nobody's eyes."""
    event = whole(kind)
    line = event_line(event_view(3, 1_000, event)) + " "
    assert f" {kind.NAME} " in line
    other = {"spec": "task=echo", "run_at_ms": "run_at=", "job": " a "}
    for field in set(kind.__struct_fields__) - {"digest"}:
        assert other.get(field, f"{field}=") in line, field


@pytest.mark.parametrize("kind", JOB_EVENTS, ids=lambda kind: kind.NAME)
def test_the_checker_of_histories_follows_each_event_of_a_job(kind: type[JobEvent]) -> None:
    """In some state of the job it finds nothing wrong with it."""
    enqueue, dispatch, dead = Enqueued, Dispatched, Died
    found: list[list[str]] = []
    for before in ((), (enqueue,), (enqueue, dispatch), (enqueue, dispatch, dead)):
        checker = history.HistoryCheck()
        events = [whole(each) for each in (*before, kind)]
        for seq, event in enumerate(events, 1):
            checker.read([(seq, 1_000, [event])])
        found.append(checker.violations)
    assert [] in found, found


@pytest.mark.parametrize("kind", ALL_EVENTS, ids=lambda kind: kind.NAME)
def test_specification_and_reference_name_each_event(kind: type[Event]) -> None:
    """As an action and a case in TLA+, as a row in both tables."""
    action = kind.NAME if issubclass(kind, JobEvent) or kind.NAME == "BOOT" else "OTHER_EVENT"
    life = (ROOT / "spec/tla/Lifecycle.tla").read_text()
    assert re.search(rf"^{action}\(.*==", life, re.MULTILINE), f"Lifecycle.tla has no {action}"
    trace = (ROOT / "spec/tla/LifecycleTrace.tla").read_text()
    assert f'"{kind.NAME}"' in trace, f"LifecycleTrace.tla has no {kind.NAME}"
    rows = (ROOT / "spec/README.md").read_text()
    assert re.search(rf"^\|.*\b{kind.NAME}\b.*`{kind.__name__}`", rows, re.MULTILINE)
    assert f"| `{kind.NAME}` |" in (ROOT / "docs/reference/lifecycle.md").read_text()


def test_the_trace_rules_tell_every_event() -> None:
    """No event of a log is unknown to the validator."""
    told = lifecycle.LIFE.keys() | rules.Validator._STORE_EVENTS.keys()
    assert told == NAMES == {name for name, _ in following.SHAPES.values()}
