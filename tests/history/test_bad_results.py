"""A result that an old log holds and that is no JSON keeps nobody from reading the rest."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from beaver.client.opening import open_client
from beaver.server.results import Results
from beaver_model.commands import Boot
from beaver_model.events import Acked
from tests.support.program import beaver
from tests.worlds.stores import LoggedWorld

BAD = [b"", b"{", b'"\xff"', b"[" * 3000 + b"]" * 3000, b"1 2"]


@pytest.mark.parametrize("result", BAD, ids=range(len(BAD)))
def test_a_job_with_a_bad_stored_result_can_be_explained(tmp_path: Path, result: bytes) -> None:
    """Servers once logged whatever a worker had sent."""
    world = LoggedWorld(tmp_path / "data")
    world.do(Boot())
    world.run("a", result)
    world.run("b", b'{"n": 1}')
    world.wal.close()
    with closing(open_client(world.path)) as client:
        last = client.explain("a").events[-1]
        assert last.event == "ACK"
        assert "no result" in json.loads(bytes(last.result))
        assert json.loads(bytes(client.explain("b").events[-1].result)) == {"n": 1}
    explained = json.loads(beaver("explain", "a", "--data", world.path, "--json"))
    assert "no result" in explained["events"][-1]["result"]
    lines = beaver("replay", world.path, "--json").splitlines()
    assert [json.loads(line)["event"] for line in lines].count("ACK") == 2


@pytest.mark.parametrize("result", BAD, ids=range(len(BAD)))
def test_whoever_waits_for_a_bad_result_is_told_so(result: bytes) -> None:
    results = Results()
    told: list[object] = []
    results.wait("a", lambda view: told.append(json.loads(bytes(view.result))))
    results.observe(1, 0, [Acked("a", 1, result)])
    assert "no result" in str(told[0])
    kept = results.get("a")
    assert kept is not None
    assert json.loads(bytes(kept.result)) == told[0]
