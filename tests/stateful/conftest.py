"""One run of each machine a session."""

from __future__ import annotations

import pytest

# What the machines share says what it found, as tests do.
for name in ("book", "played", "rot", "scan", "stores"):
    pytest.register_assert_rewrite(f"tests.stateful.{name}")

from tests.stateful.running import Runs  # noqa: E402 - behind what must come first


@pytest.fixture(scope="session")
def runs() -> Runs:
    return Runs()
