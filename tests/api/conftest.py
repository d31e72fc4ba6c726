"""A small server over the real model, in memory: it speaks the protocol, and can misbehave.

It shows what the clients do on the wire, also with a server that dies or talks nonsense at a
chosen moment.  The real server is tried in `test_against_the_server.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.errors import BeaverError, WaitTimeout
from beaver.inspect import finding, queries
from beaver.request.rejections import error_of
from beaver.structs.messages import Options, Request
from beaver.structs.views import Accepted, ResultView
from beaver.transport import endpoint, framing
from beaver_model import Rejection, Spec, State, apply, commands, decide
from beaver_model.events import AnyEvent
from beaver_model.rows import encode_spec


class ModelServer:
    """Serves one data directory from a thread, until `stop`."""

    def __init__(self, data: str) -> None:
        self.data = data
        self.state = State()
        self.store = "ab" * 16
        self.before_answer: Callable[[str, asyncio.StreamWriter], bool] | None = None
        """Called before each answer; returns False to swallow it."""
        self.connections = 0
        self.now_ms = 1_000_000
        self.known_tasks: frozenset[str] | None = None
        self.results: dict[str, bytes] = {}
        self._changed: asyncio.Event
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def finish(self, job: str, result: bytes) -> None:
        """Runs a job to its end, as a worker would."""

        def run() -> None:
            [dispatched] = self._change(commands.Dispatch(job, 1))
            assert dispatched is not None
            self._change(commands.Complete(job, self.state.last_seq, result))
            self.results[job] = result

        done = threading.Event()
        self._loop.call_soon_threadsafe(run)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(10)

    def drop_connections(self) -> None:
        def drop() -> None:
            for writer in self._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(drop)

    # -- on the loop ----------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._changed = asyncio.Event(), asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        path = endpoint.socket_path(self.data)
        server = await asyncio.start_unix_server(self._connection, path)
        endpoint.write(self.data, endpoint.ServerInfo(pid=1, socket=path, store=self.store))
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        endpoint.remove(self.data)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        frames = framing.FrameReader()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(1 << 16):
                for body in frames.feed(data):
                    task = asyncio.ensure_future(self._answer(framing.decode_message(body), writer))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, message: list[Any], writer: asyncio.StreamWriter) -> None:
        number, op, body = message
        try:
            answer = getattr(self, f"op_{op}")(*body)
            if asyncio.iscoroutine(answer):
                answer = await answer
            frame = framing.encode_frame([number, 0, answer])
        except BeaverError as error:
            frame = framing.encode_error(number, error)
        if self.before_answer is None or self.before_answer(op, writer):
            writer.write(frame)

    def _change(self, command: commands.AnyCommand) -> list[AnyEvent]:
        decision = decide(self.state, command, self.now_ms)
        if isinstance(decision, Rejection):
            raise error_of(decision)
        for event in decision:
            apply(self.state, event, self.now_ms)
        self._changed.set()
        self._changed = asyncio.Event()
        return decision

    def op_hello(self, version: int) -> list[object]:
        return [framing.VERSION, self.store, 7, 1]

    def op_enqueue(self, requests: list[Any]) -> list[Accepted]:
        jobs = [_job(msgspec.convert(r, Request)) for r in requests]
        first = self.state.last_seq
        self._change(commands.Enqueue(jobs))
        seqs = [self.state.seq_of(job.id) or 0 for job in jobs]
        return [Accepted(j.id, seq, seq > first) for j, seq in zip(jobs, seqs, strict=True)]

    def op_status(self) -> bytes:
        return msgspec.json.encode(
            queries.status(self.state, self.now_ms, running=True, store=self.store)
        )

    def op_list(
        self, state: str, queue: str, task: str, after: int, limit: int, tag: str, *times: int
    ) -> bytes:
        finding.check_listing(state, limit, *times)
        found = finding.at_once(
            finding.find_jobs(self.state, state, queue, task, after_seq=after, limit=limit, tag=tag)
        )
        return msgspec.json.encode(found)

    def op_show(self, job: str) -> bytes:
        return msgspec.json.encode(queries.show(self.state, job))

    def op_explain(self, job: str) -> bytes:
        return msgspec.json.encode(queries.explain(self.state, job, []))

    def op_history(self, job: str) -> bytes:
        queries.show(self.state, job)
        return msgspec.json.encode([])

    async def op_wait(self, job: str, timeout_ms: int) -> bytes:
        while True:
            kept = None
            if job in self.results:
                kept = ResultView(job, "completed", msgspec.Raw(self.results[job]))
            found = queries.result(self.state, job, kept)
            if found is not None:
                return msgspec.json.encode(found)
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), None if timeout_ms < 0 else timeout_ms / 1e3)
            except TimeoutError:
                raise WaitTimeout(f"job {job} has not ended") from None

    def op_cancel(self, job: str) -> str:
        self._change(commands.Cancel(job))
        return queries.show(self.state, job).state

    def op_requeue(self, job: str, payload: bytes | None) -> str:
        self._change(commands.Requeue(job, payload))
        return queries.show(self.state, job).state

    def op_discard(self, job: str) -> str:
        self._change(commands.Discard(job))
        return "discarded"

    def op_set_queue(
        self,
        queue: str,
        paused: bool | None,
        weight: int | None,
        bytes_max: int | None,
        durable_dispatch: bool | None,
    ) -> bytes:
        self._change(commands.SetQueue(queue, paused, weight, bytes_max, durable_dispatch))
        return msgspec.json.encode(queries.queue_view(self.state.queue(queue), self.now_ms))


def _job(request: Request) -> commands.NewJob:
    options = msgspec.msgpack.decode(request.options, type=Options)
    spec = Spec(options.task, options.queue or "default")
    return commands.NewJob(
        request.id, encode_spec(spec), request.payload, request.digest, tags=request.tags
    )


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    return str(path)


Serve = Callable[[str], ModelServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers, and ends them with the test."""
    servers: list[ModelServer] = []

    def start(data: str) -> ModelServer:
        server = ModelServer(data)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(data: str, serve: Serve) -> ModelServer:
    return serve(data)


@pytest.fixture
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A short `$XDG_RUNTIME_DIR`."""
    with tempfile.TemporaryDirectory(prefix="bvr-") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield path
