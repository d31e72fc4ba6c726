"""What a test of real faults needs of the machine; where it is missing, that is said loudly."""

from __future__ import annotations

import os

import pytest


def need(missing: str | None) -> None:
    """Skips the test for the reason given, or fails where everything is required."""
    if missing is None:
        return
    if os.environ.get("BEAVER_REQUIRE_ALL") == "1":
        pytest.fail(f"BEAVER_REQUIRE_ALL is set, and {missing}")
    pytest.skip(f"NOT CHECKED: {missing}")
