"""Every reader of foreign bytes: only our errors, no hang, bounded memory, deep places reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.fuzz import test_http, test_socket
from tests.fuzz.limits import Hung, TooMuchMemory, limits, within_limits
from tests.fuzz.mutations import inputs
from tests.fuzz.targets import TARGETS, Target

pytestmark = pytest.mark.invariants


def check(target: Target, data: bytes) -> set[str]:
    """Runs one input under the limits; returns the places that it reached."""
    return within_limits(target.run, data, constant=target.constant, factor=target.factor)


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_crashes_hangs_or_takes_memory_for_it(name: str) -> None:
    target = TARGETS[name]
    reached: set[str] = set()

    @settings(
        max_examples=4 * settings().max_examples,
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(data=inputs(target.seeds))
    def run(data: bytes) -> None:
        places = check(target, data)
        reached.update(places)
        for place in places:
            event(place)

    for seed in target.seeds:
        reached |= check(target, seed)
    run()
    assert reached >= target.places, "the deep places were not reached: the seeds are too poor"


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_alone_reach_more_than_the_first_check(name: str) -> None:
    target = TARGETS[name]
    assert set().union(*(target.run(seed) for seed in target.seeds)) & target.places


def test_the_documents_state_the_bounds() -> None:
    page = (Path(__file__).parents[2] / "docs/explanation/verification.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d+) MiB \| (\d+) \|$", page, re.MULTILINE)
    told = {
        name.split("`")[1] if "`" in name else name[:4]: (int(m), int(f)) for name, m, f in rows
    }
    bounds = {name: (target.constant >> 20, target.factor) for name, target in TARGETS.items()}
    bounds["the "] = (test_socket.CONSTANT >> 20, test_socket.FACTOR)
    bounds["HTTP"] = (test_http.REQUEST_BYTES_MAX >> 20, 0)
    assert told == bounds


def test_the_limits_see_what_they_are_there_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooMuchMemory), limits(10, constant=1 << 20, factor=10):
        bytes(2 << 20)
    monkeypatch.setattr("tests.fuzz.limits.SECONDS_MAX", 0.05)
    with pytest.raises(Hung), limits(10, constant=1 << 20, factor=10):
        while True:
            pass


@pytest.mark.parametrize("greedy", [1, 2])
def test_memory_counts_where_a_second_try_takes_it_too(greedy: int) -> None:
    takes = [*[2 << 20] * greedy, 10]

    def run(data: bytes) -> int:
        return len(bytes(takes.pop(0)))

    if greedy == 1:
        assert within_limits(run, b"", constant=1 << 20, factor=10) == 10
    else:
        with pytest.raises(TooMuchMemory):
            within_limits(run, b"", constant=1 << 20, factor=10)


@given(data=st.binary(max_size=50))
def test_an_error_of_python_itself_is_not_swallowed(data: bytes) -> None:
    def broken(data: bytes) -> set[str]:
        raise struct_like_error

    struct_like_error = ZeroDivisionError("a reader that divides by what it was given")
    target = Target(broken, [b""], frozenset(), 1 << 20, 100)
    with pytest.raises(ZeroDivisionError):
        check(target, data)
