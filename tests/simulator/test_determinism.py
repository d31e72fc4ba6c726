"""One seed is one trace: in every process, on every Python at hand, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beaver_chaos.sim.simulator import run_seed
from tests.support.needs import need
from tests.support.pythons import Python, equip, other_pythons

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden_traces.json")
PINNED = (1, 7, 42)
SEEDS = (*range(12), *PINNED)
LONG = 60

SCRIPT = f"""
import json
from beaver_chaos.sim.simulator import run_seed
short = [run_seed(seed).trace for seed in {SEEDS}]
print(json.dumps(short + [run_seed(seed, {LONG}).trace for seed in range(6)]))
"""


def traces_here() -> list[str]:
    """Returns the traces that this process comes to."""
    short = [run_seed(seed).trace for seed in SEEDS]
    return short + [run_seed(seed, LONG).trace for seed in range(6)]


def traces_of(python: str, hash_seed: str) -> list[str]:
    """Returns the traces that another process comes to."""
    paths = [str(ROOT / part) for part in ("runtime", "model", "chaos", "spec")]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [python, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    traces: list[str] = json.loads(done.stdout)
    return traces


@pytest.mark.invariants
def test_a_seed_gives_the_same_trace_twice() -> None:
    assert traces_here() == traces_here()


@pytest.mark.invariants
def test_different_seeds_give_different_traces() -> None:
    assert len({*traces_here()}) == len({*SEEDS}) + 6


@pytest.mark.invariants
def test_the_trace_is_the_same_in_every_process() -> None:
    here = traces_here()
    for hash_seed in ("1", "77"):
        assert traces_of(sys.executable, hash_seed) == here, f"PYTHONHASHSEED={hash_seed}"


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The other Pythons at hand with what the runtime needs: interpreters, by version."""
    found = other_pythons()
    if not found:
        need("there is no other Python than this one on this machine")
    place = tmp_path_factory.mktemp("pythons")
    wrong: list[str] = []

    def make(python: Python) -> str | None:
        name = "{}.{}".format(*python.version)
        try:
            return equip(python, place / name)
        except subprocess.CalledProcessError as error:
            wrong.append(f"Python {name} cannot be equipped: {error}\n{error.stderr}")
            return None

    with ThreadPoolExecutor(len(found)) as threads:
        paths = list(threads.map(make, found))
    made = {
        "{}.{}".format(*python.version): path
        for python, path in zip(found, paths, strict=True)
        if path is not None
    }
    need("\n".join(wrong) if not made else None)
    for line in wrong:
        print(f"NOT CHECKED: {line}")
    return made


@pytest.mark.simulator
def test_the_trace_is_the_same_on_every_python_at_hand(others: dict[str, str]) -> None:
    """The interpreters are found, not told; and what they come to is also what is pinned."""
    here = traces_here()
    golden = [json.loads(GOLDEN.read_text())[str(seed)] for seed in PINNED]
    for version, path in others.items():
        there = traces_of(path, "3")
        assert there == here, f"Python {version}"
        assert there[len(SEEDS) - len(PINNED) : len(SEEDS)] == golden, f"Python {version}"
    print(f"the same traces on Python {', '.join(others)}")


@pytest.mark.invariants
def test_the_trace_of_the_pinned_seeds_is_the_golden_one() -> None:
    """It changes with whatever changes what happens; then look why, and pin it anew.

    `BEAVER_PIN=1 pytest tests/simulator/test_determinism.py` does.
    """
    traces = {str(seed): run_seed(seed).trace for seed in PINNED}
    if os.environ.get("BEAVER_PIN"):
        GOLDEN.write_text(json.dumps(traces, indent=1) + "\n")
    assert traces == json.loads(GOLDEN.read_text())
