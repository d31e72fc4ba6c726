"""Hypothesis profiles, and what several test folders share."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers

from tests.support import needs, seconds

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")

SIDE_BY_SIDE = ("model", "requests", "simulator", "spec", "spec_tools", "stateful")
"""Folders whose tests keep a core busy, and neither start the program nor wait for time to
pass; so they may share a machine without getting in each other's way."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.parent.name
        if folder in SIDE_BY_SIDE:
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
for name in ("book", "played", "rot", "scan", "stores"):
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
