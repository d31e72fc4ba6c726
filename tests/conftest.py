"""Hypothesis profiles, and what several test folders share."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers

from tests.support import needs, seconds

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")

ALONE = {
    "bench": "measures",
    "chaos": "has real faults strike at chosen moments",
    "docs": "runs its documents side by side itself",
    "keeper": "counts on idle times of a fraction of a second",
    "mutants": "tries several at once itself",
    "runtime": "watches for stalls of a loop",
    "scenarios/test_cost": "measures",
    "scenarios/test_kill": "measures a restart",
    "scenarios/test_many_queues": "measures",
    "scenarios/test_memory": "measures",
    "scenarios/test_run": "measures a rate",
    "scenarios/test_takeover": "measures a gap",
    "scenarios/test_takeover_settings": "counts on long jobs that outlast a start",
    "workers": "kills and stops processes at chosen moments",
}
"""Tests that want a machine to themselves.  All others have directories, ports and processes of
their own, wait for conditions instead of time, and may run beside each other."""


NIGHTLY = {
    "bench/test_ratios": "measures for two minutes, and wants a quiet machine",
    "http_client/test_restarts": "kills servers for most of a minute",
    "shipping/test_shipper": "kills a shipper at each of its steps",
}
"""Slow and seldom red: left to the night, so that CI takes less than half an hour."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.parent.name
        if f"{folder}/{item.path.stem}" in NIGHTLY:
            item.add_marker(pytest.mark.nightly)
        if not {folder, f"{folder}/{item.path.stem}"} & ALONE.keys():
            item.add_marker(pytest.mark.side_by_side)
        if folder == "stateful":  # They share one run of each machine.
            item.add_marker(pytest.mark.xdist_group(folder))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the transcripts in tests/golden anew; the commit says why they changed",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(needs)
    config.pluginmanager.register(seconds.Seconds())


# What the stateful machines share with others says what it found, as tests do.
for name in ("played", "rot", "scan", "stores"):
    pytest.register_assert_rewrite(f"tests.stateful.{name}")

# Started with SIGINT ignored (`nohup`, some runners), the tests' processes would ignore it too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if PROFILE != "nightly" and hasattr(providers, "_get_local_constants"):
    # Hypothesis mixes in the constants of all modules of ours that are loaded by then: what is
    # tried would depend on which tests ran before.
    providers._get_local_constants = lambda: providers._local_constants

settings.register_profile(
    "ci",
    deadline=None,
    # The same examples every time: what CI says depends on the change alone.  `nightly` looks
    # for new ones.
    derandomize=True,
    max_examples=100,
    stateful_step_count=40,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "nightly",
    settings.get_profile("ci"),
    derandomize=False,
    max_examples=int(os.environ.get("BEAVER_EXAMPLES", "5000")),  # `dev.py nightly --minutes`
    stateful_step_count=100,
)
settings.register_profile(
    "mutants",  # One failure is enough: nothing is shrunk, and nothing is kept.
    settings.get_profile("ci"),
    max_examples=50,
    phases=(Phase.explicit, Phase.generate),
    database=None,
    print_blob=False,
)
settings.load_profile(PROFILE)
