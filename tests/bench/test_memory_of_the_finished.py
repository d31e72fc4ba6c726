"""What stays of a finished job in memory: bounded, and charged with no less than it takes."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import pytest

from beaver.server import results as results_module
from beaver.server.results import RESULT_BYTES, Results
from beaver_model import State
from beaver_model.bounds import DIGEST_BYTES
from beaver_model.events import Acked
from beaver_model.rows import TOMBSTONE_BYTES, pack_tombstone
from beaver_model.states import JobState

COUNT = 180_000
"""Behind a doubling of the tables, where an entry takes most."""
RESULT = b'{"sum":42}'


def job_id(number: int) -> str:
    return f"0193{number:08x}-7000-8000-000000000000"


def grown(work: Callable[[], object]) -> int:
    """Returns the bytes by which memory has grown."""
    gc.collect()
    tracemalloc.start()
    try:
        kept = work()
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
        del kept
        return grown
    finally:
        tracemalloc.stop()


def bury(state: State, count: int, first: int = 0) -> State:
    for n in range(first, first + count):
        packed = pack_tombstone(n, JobState.COMPLETED, n.to_bytes(DIGEST_BYTES, "big"))
        state.bury(job_id(n), 1_000_000 + n, packed)
    return state


def ended(results: Results, count: int, first: int = 0) -> Results:
    for n in range(first, first + count):
        results.observe(1_000_000 + n, 1, [Acked(job_id(n), 1_000_000 + n, bytes(RESULT))])
    return results


def test_a_tombstone_takes_no_more_than_is_charged_for_it() -> None:
    state = State()
    took = grown(lambda: bury(state, COUNT))
    assert took <= state.bytes
    assert state.bytes == COUNT * (TOMBSTONE_BYTES + len(job_id(0)))
    assert state.bytes < 2 * took, "nor is much more charged than it takes"


def test_tombstones_stay_within_their_number() -> None:
    state = State()
    state.tombstones_max = 1_000
    bury(state, 1_000)
    before = state.bytes
    bury(state, 5_000, first=1_000)
    assert (len(state.tombstones), state.bytes) == (1_000, before)


def test_a_result_takes_no_more_than_is_charged_for_it() -> None:
    results = Results()
    took = grown(lambda: ended(results, COUNT))
    assert took <= results.bytes
    assert results.bytes == COUNT * (RESULT_BYTES + len(RESULT))
    assert results.bytes < 2 * took


def test_results_that_nobody_projects_stay_within_their_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Small ones too: what each takes beside its bytes counts."""
    each = RESULT_BYTES + len(RESULT)
    monkeypatch.setattr(results_module, "RESULTS_BYTES_MAX", 100 * each)
    results = ended(Results(), 100)
    assert results.bytes == 100 * each, "at the bound all are there"
    for n in range(100, 2_000):
        ended(results, 1, first=n)
        assert results.bytes <= 100 * each
    assert results.get(job_id(1_999)) is not None
    assert results.get(job_id(0)) is None
    results.projected(1 << 60)
    assert results.bytes == 0


SERVER = """
import resource, sys
from beaver.server import results as module
from beaver.journal.codec import decode_commit, encode_commit
from beaver.server.results import Results
from beaver_model import State, apply_all
from beaver_model.events import Acked, Dispatched, Enqueued
from beaver_model.rows import Spec, encode_spec

count = int(sys.argv[1])
module.RESULTS_BYTES_MAX = module.RESULTS_BYTES_MAX * count // 1_000_000
state, results, spec = State(), Results(), encode_spec(Spec("echo"))

def commit(events):
    first_seq = state.last_seq + 1
    _, events = decode_commit(encode_commit(first_seq, events))
    apply_all(state, events, first_seq)
    results.observe(first_seq, first_seq, events)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def run(first, last):
    for n in range(first, last, 100):
        names = [f"0193{m:08x}-7000-8000-000000000000" for m in range(n, n + 100)]
        commit([Enqueued(name, spec, b'{"n":1}', bytes(12)) for name in names])
        commit([Dispatched(name, 1) for name in names])
        token = state.last_seq - 99
        commit([Acked(name, token + m, b"null") for m, name in enumerate(names)])

run(0, 5_000)
before = resident()
run(5_000, 5_000 + count)
print((resident() - before) / count)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_finished_job_takes_no_more_than_300_bytes_of_a_process() -> None:
    """With what its result leaves behind, while nothing is indexed."""
    done = subprocess.run(
        [sys.executable, "-c", SERVER, "300000"], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= 300
