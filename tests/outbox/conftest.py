"""An outbox in each kind of database, and a server that jobs go to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from beaver import Beaver, outbox
from beaver.outbox.databases import open_database
from tests.support.postgres import postgres
from tests.support.program import Server, serving

KINDS = ("sqlite", "postgresql")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEAVER_URL", "BEAVER_TOKEN", "BEAVER_CA_FILE", "BEAVER_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("outbox") / "data"
    with serving(data, "--http", "127.0.0.1:0", "--workers", "1") as running:
        yield running


class Shop:
    """An application with a database of its own, and an outbox in it."""

    def __init__(self, url: str, data: Path) -> None:
        self.url, self.data = url, data
        self.app = Beaver(data)
        database = open_database(url)
        database.create()
        database.create()  # It is there, which is no error.
        database.close()
        with closing(self.connect()) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS orders (id TEXT)")
            connection.commit()

    def connect(self) -> Any:
        if self.url.startswith("sqlite"):
            return sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=30)
        return psycopg.connect(self.url)

    def order(self, *jobs: str, task: str = "echo", **options: Any) -> None:
        """Writes orders, each with its job, in one transaction."""
        with closing(self.connect()) as connection:
            for job in jobs:
                connection.execute(f"INSERT INTO orders VALUES ('{job}')")
                outbox.add(connection, self.app.request(task, job, id=job, **options))
            connection.commit()

    def relay(self, **more: Any) -> outbox.Relay:
        return outbox.Relay(self.url, str(self.data), **more)

    def rows(self) -> list[str]:
        """Ids of the rows that wait."""
        with closing(self.connect()) as connection:
            found = connection.execute(
                "SELECT id FROM beaver_outbox WHERE error IS NULL ORDER BY seq"
            )
            return [row[0] for row in found.fetchall()]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/app.db"
    url: str = request.getfixturevalue("postgres_url")
    with closing(psycopg.connect(url)) as connection:
        connection.execute("DROP TABLE IF EXISTS beaver_outbox, orders")
        connection.commit()
    return url


@pytest.fixture
def shop(url: str, server: Server) -> Shop:
    return Shop(url, server.data)
