"""HTTP measured: one client, 64, arrays of jobs, and readers of the event stream beside them.

Clients are sockets that send bytes made before, over connections that stay open, and look at
nothing but status and length of the answers.  Beside Beaver stands a bare handler of the same
library: it reads the body, writes with one sync for all that came in a turn of the loop, and
answers.  What Beaver takes beyond that is its own; what is beyond the bare handler's reach is not
to be had with this library.

`python -m beaver.bench.over_http FILE` runs the bare handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, cast

from beaver.access.tokens import own_token
from beaver.bench import subject
from beaver.bench.records import NOTE
from beaver.bench.served import ServerProcess, serving
from beaver.bench.subject import BATCH, LoopBudget, Sizes
from beaver.client.blocking import connect
from beaver.errors import BeaverError
from beaver.system.disk import SystemDisk

ROWS: Final = ("http_p50", "http_64", "http_bulk", "http_readers")
BARE_ROWS: Final = ("bare_http_p50", "bare_http_64")
READERS: Final = 64
"""Readers of everything: as many as one token may hold."""
QUEUE: Final = "http"
_JOB: Final = b'{"task":"bench.record","queue":"%s","payload":{"n":1000000,"note":"%s"}}' % (
    QUEUE.encode(),
    NOTE.encode(),
)
_ANSWER: Final = b'{"id":"0193b1b8-0000-7000-8000-000000000000","seq":12345,"created":true}'
_ROOM: Final = 1 << 20
_READY_S: Final = 20.0


class Place(NamedTuple):
    """Where a server answers."""

    port: int
    token: str = ""

    def request(self, body: bytes) -> bytes:
        """Returns a request that enqueues."""
        head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class _Client(asyncio.Protocol):
    """A connection that asks again and again."""

    def __init__(self, request: bytes, left: list[int], until_s: float) -> None:
        self._request, self._left, self._until_s = request, left, until_s
        self._came = b""
        self._sent_s = 0.0
        self.times_s: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        now_s = time.perf_counter()
        assert self._transport is not None
        if self._left[0] <= 0 or now_s > self._until_s:
            self.done.set_result(None)
            self._transport.close()
            return
        self._left[0] -= 1
        self._sent_s = now_s
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, body = self._came.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if len(body) < int(length):
            return
        if not head.startswith(b"HTTP/1.1 20"):
            self.done.set_exception(BeaverError(self._came[:300].decode("utf-8", "replace")))
            return
        self._came = b""
        self.times_s.append(time.perf_counter() - self._sent_s)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(BeaverError("the measured server hung up"))


def send(place: Place, clients: int, batch: int, budget: LoopBudget) -> tuple[float, float]:
    """Lets so many clients enqueue; returns jobs a second, and the median of a request in ms."""
    body = _JOB if batch == 1 else b"[" + b",".join([_JOB] * batch) + b"]"

    async def work() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        left = [max(clients, budget.jobs // batch)]
        started_s = time.perf_counter()
        everyone: list[_Client] = []
        for _ in range(clients):
            make = partial(_Client, place.request(body), left, started_s + budget.seconds)
            _, client = await loop.create_connection(make, "127.0.0.1", place.port)
            everyone.append(client)
        await asyncio.gather(*(client.done for client in everyone))
        times_s = [value for client in everyone for value in client.times_s]
        took_s = time.perf_counter() - started_s
        return len(times_s) * batch / took_s, statistics.median(times_s) * 1e3

    return subject.run_on_loop(work())


# -- Beaver -------------------------------------------------------------------------------------


def measure_http(directory: str, sizes: Sizes) -> dict[str, float]:
    """Measures a server of its own, whose queue is paused."""
    data = str(Path(directory, "http", "data"))
    Path(data).parent.mkdir()
    with serving(data, http="127.0.0.1:0") as server:
        with connect(data) as control:
            control.set_queue(QUEUE, True, None, None)
        place = _place_of(server)
        send(place, 1, 1, LoopBudget(10, 5.0))  # The pages are loaded.
        found = {"http_p50": send(place, 1, 1, sizes.serial)[1]}
        found["http_64"] = send(place, 64, 1, sizes.many)[0]
        found["http_bulk"] = send(place, 8, BATCH, sizes.bulk)[0]
        alone = send(place, 64, 1, sizes.many)[0]
        with readers(place):
            beside = send(place, 64, 1, sizes.many)[0]
        found["http_readers"] = beside / alone
    return found


def _place_of(server: ServerProcess) -> Place:
    info = json.loads(Path(server.data, "server.json").read_text())
    return Place(int(info["http"].rpartition(":")[2]), own_token(server.data))


_READER: Final = """
import selectors, socket, sys
port, token, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ask = f"GET /v1/events HTTP/1.1\\r\\nHost: localhost\\r\\nAuthorization: Bearer {token}\\r\\n\\r\\n"
selector = selectors.DefaultSelector()
for _ in range(count):
    reader = socket.create_connection(("127.0.0.1", port))
    reader.sendall(ask.encode())
    assert reader.recv(1 << 16).startswith(b"HTTP/1.1 200")
    selector.register(reader, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        key.fileobj.recv(1 << 20)
"""


@contextmanager
def readers(place: Place, count: int = READERS) -> Iterator[None]:
    """Lets so many read the event stream, in a process of their own, while the block runs."""
    command = [sys.executable, "-c", _READER, str(place.port), place.token, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise BeaverError("the readers of the event stream did not start")
            yield
        finally:
            process.kill()


# -- the bare handler ---------------------------------------------------------------------------


def measure_bare(directory: str, sizes: Sizes) -> dict[str, float]:
    """Measures the bare handler with one client and with 64."""
    home = Path(directory, "bare-http")
    home.mkdir()
    with ExitStack() as stack:
        command = [sys.executable, "-m", __name__, str(home / "file")]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout is not None
        place = Place(int(process.stdout.readline()), "0" * 50)
        send(place, 1, 1, LoopBudget(10, 5.0))
        return {
            "bare_http_p50": send(place, 1, 1, sizes.serial)[1],
            "bare_http_64": send(place, 64, 1, sizes.many)[0],
        }


def serve_bare(path: str) -> None:
    """Runs the bare handler until it is killed."""
    from aiohttp import web

    file = SystemDisk().open(path, write=True, create=True)
    file.pwrite(bytes(_ROOM), 0)
    file.sync()
    waiting: list[asyncio.Future[None]] = []

    def commit() -> None:
        everyone = waiting[:]
        waiting.clear()
        file.pwrite_durable(bytes(128 * len(everyone)), 0)
        for told in everyone:
            if not told.done():
                told.set_result(None)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        loop = asyncio.get_running_loop()
        if not waiting:
            loop.call_soon(commit)
        told = loop.create_future()
        waiting.append(told)
        await told
        headers = {"Content-Type": "application/json"}
        return web.Response(status=201, body=_ANSWER, headers=headers)

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/jobs", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)  # noqa: T201 - to the program that started it
        await asyncio.Event().wait()

    subject.run_on_loop(run())


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve_bare(sys.argv[1])
