"""One server for the tests of a module; each uses jobs and queues of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http_api.attacks import Target
from tests.http_api.browser import Browser
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


@pytest.fixture
def browser(server: Server) -> Browser:
    """A browser that has the server's page open."""
    return Browser(server.data)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with few connections, which says all that it does."""
    data = tmp_path_factory.mktemp("attacked") / "data"
    flags = ("--http", "127.0.0.1:0", "--workers", "1", "--log-level", "debug")
    with serving(data, *flags, first="ulimit -n 300") as running:
        yield Target(running)


@pytest.fixture
def target(attacked: Target) -> Iterator[Target]:
    """The server; when a test is over, the server is as it was before."""
    yield attacked
    attacked.check()
