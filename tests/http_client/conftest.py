"""One server for the tests of a module; each uses jobs and queues of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_api.conftest import APP
from tests.support.program import Server, serving


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEAVER_URL", "BEAVER_TOKEN", "BEAVER_CA_FILE", "BEAVER_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("by-url")
    (directory / "shop.py").write_text(APP)
    data = directory / "data"
    with serving(data, "-A", "shop:app", "--http", "127.0.0.1:0", cwd=directory) as running:
        yield running


def url_of(data: Path) -> str:
    """Returns where a server listens."""
    return str(json.loads((data / "server.json").read_text())["http"])


def token_of(data: Path) -> str:
    """Returns the token of the store's own user."""
    return (data / "token").read_text().strip()
