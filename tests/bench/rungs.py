"""The rungs of the ladder (`ladder`): pairs of a server and a client, from bare to Beaver.

The lowest is the bare pair (`beaver.bench.bare`): read, one durable write, answer.  Each rung above
does all that the one below does and one thing more, with Beaver's own code, on both sides of the
same socket and on the same loop.  The highest is Beaver through its documented API.

`python -m tests.bench.rungs serve RUNG DIRECTORY` runs a server below that one, and
`python -m tests.bench.rungs RUNG WHERE BATCH JOBS SECONDS` a client.
"""

from __future__ import annotations

import asyncio
import itertools
import select
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from beaver.api.handle import Handle
from beaver.bench import sender_program, subject
from beaver.bench.documented import application, send_alone
from beaver.bench.records import payload
from beaver.bench.subject import LoopBudget, Sent
from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Replies, Reply
from beaver.journal.codec import encode_commit
from beaver.journal.wal.format import encode_frame, header_seed
from beaver.journal.wal.lock import prepare_directory
from beaver.request.operations import ENQUEUE, Jobs
from beaver.request.resolving import Resolver
from beaver.server.outbox import Outbox
from beaver.server.received import read_requests
from beaver.store.recovery import open_store
from beaver.structs.messages import Request
from beaver.structs.views import AcceptedBriefly
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from beaver.system.spinning import Looking
from beaver.transport import framing
from beaver_model import State, apply_all, decide
from beaver_model.commands import Enqueue, NewJob
from beaver_model.events import AnyEvent, Enqueued

QUEUE: Final = "ladder"
"""Its jobs wait: the queue is paused."""
_STORE: Final = bytes(16)
_LOG_BYTES: Final = 64 << 20
_FRAME_BYTES: Final = 184
"""Of the log, for a job of the benchmark."""
_RECEIVE_BYTES: Final = 1 << 16
_HEAD: Final = struct.Struct("<II")


class Rung(IntEnum):
    """What a pair does, all of the rungs below it included."""

    BARE = 0
    LOOKS = 1
    FRAMES = 2
    REQUESTS = 3
    LOG = 4
    MODEL = 5
    ANSWERS = 6
    ENGINE = 7
    BEAVER = 8


ADDS: Final = {
    Rung.BARE: "bare: read, one durable write, answer; bytes made before",
    Rung.LOOKS: "the server looks for the next request, as the client does for its answer",
    Rung.FRAMES: "the protocol: frames encoded, cut and decoded",
    Rung.REQUESTS: "the request: arguments checked, JSON, digest and id; checked again, resolved",
    Rung.LOG: "the log: the event encoded, framed and chained, with its CRCs",
    Rung.MODEL: "the model: decide and apply, so that a job can be found and given out",
    Rung.ANSWERS: "the answer: id and seq, encoded and decoded, and a handle",
    Rung.ENGINE: "engine and journal: bounds, room, one stamp, the log looked at after each sync",
    Rung.BEAVER: "Beaver: dispatch, budgets, waiting clients, metrics, threads, reconnecting",
}


# -- the server -----------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """A request, and who gets the answer."""

    peer: _Peer
    number: int
    size: int
    jobs: list[NewJob]


class _Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._reader = framing.FrameReader()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._missing = self._count = 0
        """Bytes of a request that nobody looks into, and its jobs."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        server = self._server
        server.outbox.has_come = True
        if server.rung < Rung.FRAMES:
            if not self._missing:
                self._missing, self._count = _HEAD.unpack_from(data)
            self._missing -= len(data)
            if not self._missing:
                server.add(_Asked(self, 0, self._count, []))
            return
        for body in self._reader.feed(data):
            number, _, arguments = framing.decode_request(body)
            requests = read_requests(arguments)
            jobs: list[NewJob] = []
            if server.rung >= Rung.REQUESTS:
                jobs = [server.resolver.job(request, 0) for request in requests]
            server.add(_Asked(self, number, len(requests), jobs))

    def answer(self, frame: bytes) -> None:
        self._server.outbox.add(self)
        self._out.append(frame)

    def flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))


class _Server:
    """Takes in what came in a turn of the loop with one durable write."""

    def __init__(self, rung: Rung, directory: str) -> None:
        self.rung = rung
        self.resolver = Resolver()
        self._loop = asyncio.get_running_loop()
        self._replies = Replies(self._loop)
        looking = Looking(vain_pause_s=0.001) if rung >= Rung.LOOKS else None
        self.outbox = Outbox(self._replies.once_told, looking)
        self._waiting: list[_Asked] = []
        self._clock, disk = SystemClock(), SystemDisk()
        if rung >= Rung.ENGINE:
            data = str(Path(directory, "data"))
            prepare_directory(disk, data)
            opened = open_store(
                disk, data, clock=self._clock, create=True, segment_bytes=_LOG_BYTES
            )
            opened.journal.reserve(_LOG_BYTES)
            self._engine = Engine(opened.state, opened.journal, self._clock, on_failure=_stop)
            self.outbox = Outbox(self._engine.once_told, looking)
            return
        self._file = disk.open(str(Path(directory, "file")), write=True, create=True)
        self._file.pwrite(bytes(_LOG_BYTES), 0)
        self._file.sync()
        self._at = self._crc = 0
        self._next_seq, self._state, self._seed = 1, State(), header_seed(_STORE)

    def add(self, asked: _Asked) -> None:
        if self.rung >= Rung.ENGINE:

            def done(answer: list[AcceptedBriefly]) -> None:
                asked.peer.answer(framing.encode_frame([asked.number, 0, answer]))

            self._engine.enqueue(asked.jobs, _accepted, done)
            return
        if not self._waiting:
            self._loop.call_soon(self._commit)
        self._waiting.append(asked)

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        first_seq = self._next_seq
        frame = self._frame(waiting)
        self._at = 0 if self._at + len(frame) > _LOG_BYTES else self._at
        self._file.pwrite_durable(frame, self._at)
        self._at += len(frame)
        answers: list[tuple[Callable[[bytes], None], bytes]] = []
        for asked in waiting:
            if self.rung < Rung.ANSWERS:
                frame = bytes(answer_bytes(asked.size))
            else:
                found = [
                    AcceptedBriefly(job.id, seq, True)
                    for seq, job in enumerate(asked.jobs, first_seq)
                ]
                frame = framing.encode_frame([asked.number, 0, found])
            first_seq += asked.size
            answers.append((asked.peer.answer, frame))
        self._replies.tell_all(answers)

    def _frame(self, waiting: Sequence[_Asked]) -> bytes:
        """Returns what is written for these."""
        count = sum(asked.size for asked in waiting)
        if self.rung < Rung.LOG:
            return bytes(_FRAME_BYTES * count)
        jobs = [job for asked in waiting for job in asked.jobs]
        now_ms = self._clock.wall_ms()
        events: list[AnyEvent]
        if self.rung >= Rung.MODEL:
            decided = decide(self._state, Enqueue(jobs), now_ms)
            assert isinstance(decided, list), "new jobs are taken in"
            events = decided
            apply_all(self._state, events, now_ms)
        else:
            events = [Enqueued(j.id, j.spec, j.payload, j.digest, j.run_at_ms, "") for j in jobs]
        body = encode_commit(now_ms, events)
        frame, self._crc = encode_frame(
            body, count, self._next_seq, 0, previous_crc=self._crc, seed=self._seed
        )
        self._next_seq += count
        return frame


def _accepted(jobs: list[NewJob], reply: Reply) -> list[AcceptedBriefly]:
    assert isinstance(reply, Applied), "new jobs are taken in"
    return [AcceptedBriefly(job.id, seq, True) for seq, job in enumerate(jobs, reply.first_seq)]


def _stop(error: BaseException) -> None:
    raise SystemExit(f"the log failed: {error}")


def answer_bytes(count: int) -> int:
    """Returns about how long an answer is, where nobody looks at it."""
    return 10 + 43 * count


def serve(rung: Rung, directory: str) -> None:
    """Runs the server of a rung until it is killed."""

    async def run() -> None:
        server = _Server(rung, directory)
        path = str(Path(directory, "socket"))
        await asyncio.get_running_loop().create_unix_server(lambda: _Peer(server), path)
        print("ready", flush=True)
        await asyncio.Event().wait()

    subject.run_on_loop(run())


# -- the client -----------------------------------------------------------------------------------


class _Sender:
    """One client of a rung below Beaver."""

    def __init__(self, rung: Rung, path: str, batch: int) -> None:
        self._rung = rung
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._readable, self._looking = select.poll(), Looking()
        self._readable.register(self._socket, select.POLLIN)
        self._app, self._record = application("nowhere", QUEUE)
        self._reader, self._numbers = framing.FrameReader(), itertools.count(1)
        self._prepared: list[Request] = [self._record.request(**payload(n)) for n in range(batch)]
        # As long as a request, of which the lowest rungs look at size and count alone.
        size = len(framing.encode_request(1, ENQUEUE.name, Jobs(self._prepared)))
        self._bytes = _HEAD.pack(size, batch).ljust(size)

    def send(self, numbers: Sequence[int]) -> None:
        """Sends a job for each number and waits until all are durable."""
        frame = self._bytes
        if self._rung >= Rung.FRAMES:
            requests = self._prepared
            if self._rung >= Rung.REQUESTS:
                requests = [self._record.request(**payload(n)) for n in numbers]
            frame = framing.encode_request(next(self._numbers), ENQUEUE.name, Jobs(requests))
        self._socket.sendall(frame)
        if self._rung < Rung.ANSWERS:
            missing = answer_bytes(len(self._prepared))
            while missing > 0:
                missing -= len(self._receive())
            return
        bodies: list[bytes] = []
        while not bodies:
            bodies += self._reader.feed(self._receive())
        _, _, raw = framing.decode_answer(bodies[0])
        connection = self._app.connection
        self.handles = [
            Handle[Any](connection, one.id, seq=one.seq, created=one.created)
            for one in ENQUEUE.parse(raw)
        ]

    def _receive(self) -> bytes:
        if not self._looking.sees(self._readable.poll):
            self._readable.poll()
        return self._socket.recv(_RECEIVE_BYTES)

    def close(self) -> None:
        self._socket.close()


def send(rung: Rung, where: str, batch: int, budget: LoopBudget) -> Sent:
    """Lets one client of a rung send, in batches of that size, until the budget is spent."""
    if rung == Rung.BEAVER:
        return send_alone(where, QUEUE, batch, budget)
    with closing(_Sender(rung, where, batch)) as sender:
        numbers = subject.draw_numbers(budget.jobs - budget.jobs % batch)
        return subject.send_one_by_one(sender, numbers, batch, budget.seconds)


def _client(name: str, where: str, batch: str, jobs: str, seconds: str) -> None:
    sender_program.follow(
        lambda budget: send(Rung[name], where, int(batch), budget),
        LoopBudget(int(jobs), float(seconds)),
        warm=int(batch),
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Rung[sys.argv[2]], sys.argv[3])
    else:
        _client(*sys.argv[1:])
