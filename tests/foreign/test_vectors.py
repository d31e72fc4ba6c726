"""The documents suffice to read a log: a reader made from them alone agrees with the vectors."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from beaver.replay.replaying import check
from beaver.system.disk import SystemDisk
from beaver_spec.traces.following import validate_store
from tests.foreign.reader import EVENTS, Store, event_of
from tests.foreign.wire import pack, unpack

HERE = Path(__file__).parent
VECTORS = json.loads((HERE.parents[1] / "docs/reference/wal-vectors.json").read_text("utf-8"))
LOGS = VECTORS["logs"]
each_log = pytest.mark.parametrize("log", LOGS, ids=lambda log: log["name"])


def shown(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: v.hex() if isinstance(v, bytes) else v for name, v in fields.items()}


SECOND = [HERE / "wire.py", HERE / "reader.py", *sorted((HERE / "illegal").glob("*.py"))]
"""The second reader and writer."""


@pytest.mark.parametrize("path", SECOND, ids=lambda path: str(path.relative_to(HERE)))
def test_reader_and_writer_import_nothing_of_ours(path: Path) -> None:
    """Nor a library that does their work."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    own = {"tests.foreign.wire", "tests.foreign.illegal", "tests.foreign.illegal.story"}
    assert found <= {"__future__", "collections.abc", "dataclasses", "struct", "typing"} | own


def test_there_is_a_vector_of_every_event() -> None:
    assert {(e["tag"], e["event"]) for e in VECTORS["events"]} == {
        (tag, name) for tag, (name, _) in EVENTS.items()
    }


@pytest.mark.parametrize("vector", VECTORS["events"], ids=lambda vector: vector["event"])
def test_an_event_reads_as_its_vector_says(vector: dict[str, Any]) -> None:
    """And written by hand it has the same bytes."""
    raw = unpack(bytes.fromhex(vector["messagepack"]))
    name, fields = event_of(raw)
    assert (name, shown(fields)) == (vector["event"], vector["fields"])
    assert pack(raw).hex() == vector["messagepack"]


@each_log
def test_a_log_comes_to_the_state_of_its_vector(log: dict[str, Any]) -> None:
    """Event by event, job by job."""
    store = Store()
    store.read(bytes.fromhex(log["segment"]))
    assert [shown(event) for event in store.events] == log["events"]
    state = dict(log["state"])
    state.pop("fingerprint")
    for job in store.jobs.values():
        del job["queue"]
    assert {name: getattr(store, name) for name in state if name != "tombstones"} == {
        name: value for name, value in state.items() if name != "tombstones"
    }
    assert list(store.tombstones) == state["tombstones"]


@each_log
def test_a_vector_is_legal_and_has_its_fingerprint(log: dict[str, Any], tmp_path: Path) -> None:
    """So the file is what the code of today writes and reads."""
    (tmp_path / "wal.log").write_bytes(bytes.fromhex(log["segment"]))
    report = check(SystemDisk(), str(tmp_path))
    assert report.ok, report
    assert report.fingerprint == log["state"]["fingerprint"]
    assert validate_store(str(tmp_path)).ok


@pytest.mark.parametrize("file", sorted((HERE / "releases").glob("*.json")), ids=lambda f: f.stem)
def test_a_log_of_a_former_release_comes_to_what_it_came_to(file: Path, tmp_path: Path) -> None:
    """Fields that are there since then are absent: they mean what their absence means."""
    log = json.loads(file.read_text("utf-8"))
    (tmp_path / "wal.log").write_bytes(bytes.fromhex(log["segment"]))
    report = check(SystemDisk(), str(tmp_path))
    assert (report.ok, report.fingerprint) == (True, log["state"]["fingerprint"])
    assert validate_store(str(tmp_path)).ok
    store = Store()
    store.read(bytes.fromhex(log["segment"]))
    told = [
        {**event, "by": ""} if "by" in EVENTS_BY[event["event"]] else event
        for event in log["events"]
    ]
    assert [shown(event) for event in store.events] == told


EVENTS_BY = dict(EVENTS.values())
