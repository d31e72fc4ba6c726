"""Invariants in the running server: a state that is wrong in memory is noticed, and told."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beaver.server.metrics import Metrics
from beaver.server.sampling import ROWS_EACH, Sampler
from beaver_model import JobState, State, decide
from beaver_model.commands import Cancel, Complete, Dispatch, Enqueue, Fail
from beaver_model.index import Lane
from tests.runtime.test_controller import ControllerWorld
from tests.support.program import beaver, enqueue, environment, eventually, serving, status
from tests.worlds.model import World, job
from tests.worlds.runtime import make_housekeeping, on_loop, turns

JOBS = 3_000


def some_state(jobs: int = JOBS) -> State:
    """A state with jobs of every kind: pending, scheduled, in flight, dead, cancelled, done."""
    world = World()
    for first in range(0, jobs, 500):
        world.do(Enqueue([job(f"j{n}") for n in range(first, min(jobs, first + 500))]))
    world.enqueue(job("done"))
    world.do(Complete("done", world.dispatch("done"), b"1"))
    world.enqueue(job("later", run_at_ms=10**15))
    world.enqueue(job("runs"))
    world.dispatch("runs")
    world.enqueue(job("lost", max_attempts=1))
    world.do(Fail("lost", world.dispatch("lost"), "failed", 0.5))
    world.enqueue(job("gone"))
    world.do(Cancel("gone"))
    return world.state


def seen(sampler: Sampler, turns: int) -> str:
    """Returns the first violation that is seen within so many turns."""
    found = (sampler.turn().wrong for _ in range(turns))
    return next((wrong for wrong in found if wrong), "")


TURNS = JOBS // ROWS_EACH + 2
"""In so many turns the moving stretch has been everywhere."""


def test_a_state_that_is_right_is_never_said_to_be_wrong() -> None:
    assert not seen(Sampler(some_state()), 3 * TURNS)


def test_a_turn_looks_at_a_bounded_number_of_jobs_however_many_there_are() -> None:
    few, many = (Sampler(some_state(jobs)).turn().rows for jobs in (1_000, 10_000))
    assert few == many <= 6 * ROWS_EACH


def _set_row(name: str, **fields: Any) -> Callable[[State], None]:
    def corrupt(state: State) -> None:
        for field, value in fields.items():
            setattr(state.jobs[name], field, value)

    return corrupt


def _empty_lane(state: State) -> None:
    for bucket in state.queues["default"].buckets.values():
        bucket.lanes = [None if lane is None else Lane() for lane in bucket.lanes]


def _no_mask(state: State) -> None:
    for bucket in state.queues["default"].buckets.values():
        bucket.mask = 0


CORRUPTIONS: dict[str, Callable[[State], None]] = {
    "a job loses its state": _set_row("j1234", state=JobState.DEAD),
    "a pending job gets a token": _set_row("j2999", token=7),
    "a token is older than its job": _set_row("runs", token=1),
    "a job is from the future": _set_row("j77", seq=10**9),
    "an attempt too many": _set_row("j1", attempt=99),
    "a job in flight is in no set": lambda state: state.in_flight.clear(),
    "a job is filed twice": lambda state: state.jobs.update(twin=state.jobs["j5"]),
    "a finished job has a row": lambda state: state.tombstones.update(j700=b""),
    "a tombstone is lost": lambda state: state.tombstones.clear(),
    "the ready jobs are miscounted": lambda state: setattr(state, "ready", 1),
    "a queue miscounts": lambda state: state.queues["default"].counts.__setitem__(0, -1),
    "a suspect is forgotten": lambda state: setattr(state, "suspects_in_flight", 1),
    "nobody looks into the lane": _no_mask,
    "the lanes are empty": _empty_lane,
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_what_is_wrong_in_memory_is_seen_within_some_turns(what: str) -> None:
    state = some_state()
    sampler = Sampler(state)
    CORRUPTIONS[what](state)
    assert seen(sampler, TURNS)


def test_what_the_last_commit_touched_is_looked_at_first() -> None:
    state = some_state()
    sampler = Sampler(state)
    events = decide(state, Dispatch("j2500", 1, prefetched=False), 10**12)
    sampler.observe(state.last_seq, 10**12, events)  # type: ignore[arg-type]
    state.jobs["j2500"].attempt = 99
    assert sampler.turn().wrong.startswith("row_is_bounded: job j2500")


class NeverAsked:
    """A helper that has nothing to do."""

    async def project(self, last_seq: int) -> int:
        return last_seq


@on_loop
async def test_a_violation_stops_dispatch_names_the_seq_and_a_restart_mends_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = ControllerWorld(tmp_path / "data", workers=2)
    metrics = Metrics()
    told: list[str] = []

    def stop(what: str) -> None:
        told.append(what)
        world.controller.halt(what)

    keeping = make_housekeeping(
        world.engine,
        NeverAsked(),
        world.clock,
        metrics=metrics,
        on_room=world.controller.retry_unwritten,
        on_violation=stop,
    )
    await world.enqueue("a")
    world.begin()
    world.state.suspects_in_flight = 1  # A bit flipped, or a bug of ours.
    seq = world.state.last_seq
    with caplog.at_level(logging.CRITICAL, "beaver"):
        keeping.start()
        async with asyncio.timeout(10):
            while not told:  # noqa: ASYNC110
                await asyncio.sleep(0)
    await keeping.stop()
    assert told == [f"at seq {seq}: one_suspect_at_a_time: 0 suspects are in flight, counted as 1"]
    (record,) = caplog.records
    assert f"at seq {seq} an invariant does not hold" in record.getMessage()
    assert (metrics.violations, metrics.sampled_rows) == (1, 0)

    await world.enqueue("b")
    assert world.state.jobs["b"].state == JobState.PENDING, "taken in, and not dispatched"
    assert 2 not in world.pool.sent
    world.end(1)
    await turns()
    assert world.state.completed == 1, "what ran is logged"
    world.engine.close()

    again = ControllerWorld(tmp_path / "data")
    again.engine.touch()
    await turns()
    assert [attempt.job for attempt in again.pool.sent[1]] == ["b"]


CORRUPTED_SERVER = """
import asyncio, sys
from beaver.server import serve
from beaver.server.assembly import Assembly
from beaver.config.layers import load_config

start = Assembly.start

def start_and_break(self):
    start(self)
    asyncio.get_running_loop().call_later(0.5, setattr, self.engine.state, "suspects_in_flight", 1)

Assembly.start = start_and_break
sys.exit(serve.run(load_config({"data": sys.argv[1], "workers": 1, "http": "127.0.0.1:0"})))
"""


def test_a_real_server_tells_of_it_everywhere_and_the_next_one_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-c", CORRUPTED_SERVER, str(data)],
            stderr=stderr,
            stdout=subprocess.DEVNULL,
            env=environment(),
        )
    try:
        told_in = data / "server.json"
        eventually(
            lambda: told_in.exists() and json.loads(told_in.read_text())["socket"],
            "the server is up",
        )
        eventually(lambda: status(data)["halted"], "dispatch was halted")
        enqueue(data, {"id": "waits"})
        told = beaver("status", "--data", str(data))
        assert "nothing is dispatched until a restart; at seq " in told
        assert "one_suspect_at_a_time" in told
        http = json.loads((data / "server.json").read_text())["http"]
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(f"{http}/readyz")
        with refusal.value as answer:
            assert answer.code == 503
            assert "one_suspect_at_a_time" in answer.read().decode()
        with urllib.request.urlopen(f"{http}/metrics") as answer:
            metrics = answer.read().decode()
        assert "beaver_invariant_violations_total 1.0" in metrics
        assert "beaver_dispatch_halted 1.0" in metrics
        assert status(data)["pending"] == 1
    finally:
        server.kill()
        server.wait()
    assert "an invariant does not hold" in log.read_text()
    with serving(data, "--workers", "1") as again:
        again.drained(1)
        assert not again.status()["halted"]
