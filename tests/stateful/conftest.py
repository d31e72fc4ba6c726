"""One run of each machine a session."""

from __future__ import annotations

import pytest

from tests.stateful.running import Runs


@pytest.fixture(scope="session")
def runs() -> Runs:
    return Runs()
