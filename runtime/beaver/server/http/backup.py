"""`GET /v1/backup`: the store as a tar stream that `beaver restore` takes.

A process of its own reads and sends it (`beaver.backup`), so the server only passes bytes on, as
fast as the client takes them.  What it reads is open, hence kept, until it ends: when all is sent,
when the client goes away, or when it takes nothing for `STALLED_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Final, NamedTuple

from aiohttp import web

from beaver.access.roles import Right
from beaver.server.http.problems import Problem
from beaver.server.http.routing import TAR, HttpCall, Route

log: Final = logging.getLogger("beaver.http")

BACKUPS_MAX: Final = 2
"""Backups sent at once: each holds open what it reads."""
STALLED_S: Final = 30.0
"""A client that takes nothing for this long is cut off."""
CHUNK_BYTES: Final = 64 << 10
_SAID_BYTES: Final = 2_000


class _Source(NamedTuple):
    """A process that sends a backup."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    said: IO[bytes]
    """What it says on standard error."""

    async def chunk(self) -> bytes:
        """Returns the next bytes; none at the end.

        Raises:
            Problem: It failed; what was sent is no backup.
        """
        data = await self.reader.read(CHUNK_BYTES)
        if not data:
            code = await asyncio.to_thread(self.process.wait)
            if code:
                self.said.seek(0)
                why = self.said.read(_SAID_BYTES).decode("utf-8", "replace")
                raise Problem("unavailable", f"no backup: {why or f'its process ended: {code}'}")
        return data


async def _backup(call: HttpCall) -> web.StreamResponse:
    site = call.site
    if site.backups >= BACKUPS_MAX:
        raise Problem(
            "too_many_requests",
            f"{BACKUPS_MAX} backups are being sent, which is the limit; ask again later",
        )
    site.backups += 1
    try:
        with site.holding(call.token, ends=False):
            async with _started(site.data) as source:
                return await _send(call, source)
    finally:
        site.backups -= 1


@asynccontextmanager
async def _started(data: str) -> AsyncIterator[_Source]:
    """Starts the process, and ends it, whatever happens."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [sys.executable, "-P", "-m", "beaver.backup", data, str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            raise Problem("unavailable", f"no process can be started: {error}") from error
        assert process.stdout is not None, "it is a pipe"
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        try:
            yield _Source(process, reader, said)
        finally:
            process.kill()
            transport.close()
            await asyncio.shield(asyncio.to_thread(process.wait))


async def _send(call: HttpCall, source: _Source) -> web.StreamResponse:
    site = call.site
    data = await source.chunk()  # Before anything is answered: it may be refused.
    response = web.StreamResponse(
        headers={
            "Content-Type": TAR,
            "Cache-Control": "no-store",
            "Content-Disposition": 'attachment; filename="beaver-backup.tar"',
            "Beaver-Seq": str(site.engine.durable_seq),
        }
    )
    await response.prepare(call.request)
    try:
        while data and not site.closing.is_set():
            if not site.gate.still_good(call.request):
                break
            await asyncio.wait_for(response.write(data), STALLED_S)
            data = await source.chunk()
        if not data:
            await asyncio.wait_for(response.write_eof(), STALLED_S)
            return response
    except TimeoutError:
        log.warning("a client takes nothing of its backup; it is cut off")
    except Problem as problem:
        log.warning("a backup was broken off: %s", problem.detail)
    # Without the last chunk the client knows that something is missing.
    if call.request.transport is not None:
        with contextlib.suppress(ConnectionError):
            call.request.transport.abort()
    return response


ROUTES: Final = (
    Route(
        "GET", "/v1/backup", Right.ADMIN, _backup,
        "The whole store as a tar stream, for `beaver restore`", {200: str},
        problems=("too_many_requests",), gives=(TAR,),
    ),
)  # fmt: skip
