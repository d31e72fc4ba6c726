"""The door of HTTP, before its pages are there."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

import pytest

from beaver.server.http.listener import HttpServer
from tests.runtime.test_service import wait_until
from tests.worlds.http import no_store
from tests.worlds.runtime import on_loop


@on_loop
async def test_pages_that_cannot_be_opened_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    def make_registry() -> NoReturn:
        raise MemoryError("no room for the pages")

    server = HttpServer(make_registry, lambda: None, no_store())
    address = await server.start("127.0.0.1", 0, explicit=False)
    _, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    await wait_until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "no room for the pages" in caplog.text
    writer.close()
    await server.close()
