"""One server for the tests of a module; each uses jobs and queues of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_api.client import Http
from tests.support.program import Server, serving

APP = """
import time

from beaver import Beaver, Cancel, JobContext

app = Beaver()


@app.job
def add(a, b):
    return a + b


@app.job(max_attempts=1)
def fail(text="no"):
    raise ValueError(text)


@app.job(max_attempts=1)
def wait(ctx: JobContext):
    while not ctx.cancelled:
        time.sleep(0.02)
    raise Cancel
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("http")
    (directory / "shop.py").write_text(APP)
    data = directory / "data"
    with serving(data, "-A", "shop:app", "--http", "127.0.0.1:0", cwd=directory) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Http:
    """The store's own user."""
    return Http(server.data)
