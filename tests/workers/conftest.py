"""Makes the test applications importable in the worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.worlds.workers import APPS


@pytest.fixture(autouse=True)
def importable_apps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(APPS))
    return iter(())
