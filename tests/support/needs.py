"""What a test needs of the machine; where it is missing, that is said loudly."""

from __future__ import annotations

import os

import pytest

from beaver_chaos.faults import Experiment, tell_fault


def need(missing: str | None, fault: str | None = None) -> None:
    """Skips the test for the reason given, or fails where everything is required.

    Args:
        missing: What is not here; `None` where all is.
        fault: The fault that is not injected then, for the table of faults and outcomes.
    """
    if missing is None:
        return
    if fault is not None:
        tell_fault(Experiment(fault=fault, times=0, skipped=missing))
    if os.environ.get("BEAVER_REQUIRE_ALL") == "1":
        pytest.fail(f"BEAVER_REQUIRE_ALL is set, and {missing}")
    pytest.skip(f"NOT CHECKED: {missing}")
