"""The store of the tests in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worlds.stores import LoggedWorld


@pytest.fixture
def world(tmp_path: Path) -> LoggedWorld:
    return LoggedWorld(tmp_path / "data")
