"""The local socket: any bytes from any client, over a real engine with a real log.

Whatever a client sends, the engine lives, the state keeps its invariants, every request that
can be answered is answered, and what came in can be recovered and written as a snapshot.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from beaver.engine.engine import Engine
from beaver.journal.wal.commit_path import CommitPath
from beaver.request.operations import OPERATIONS
from beaver.request.requests import make_request
from beaver.server.connection import PAUSE_BYTES, Connection
from beaver.snapshot.files import load_snapshot, write_snapshot
from beaver.store.recovery import open_store, read_store
from beaver.structs.messages import Request
from beaver.transport import framing
from beaver_chaos.sim.disk import SimDisk
from beaver_model import fingerprint, violations
from beaver_model.commands import Dispatch, Enqueue, Fail
from tests.fuzz.limits import limits
from tests.fuzz.mutations import inputs
from tests.stateful.played import PlayedWriter
from tests.stateful.stores import durable_seq
from tests.worlds.journal import DATA, STORE
from tests.worlds.model import job
from tests.worlds.runtime import ManualClock, turns
from tests.worlds.service import service_over

OPS = [*OPERATIONS, "hello", "nothing"]
CONSTANT, FACTOR = 24 << 20, 2_000


class Wire(asyncio.Transport):
    """The server's end of a connection, whose other end reads everything."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def answers(self) -> Iterator[Any]:
        reader = framing.FrameReader()
        yield from map(framing.decode_message, reader.feed(bytes(self.sent)))


class World:
    """A connection to a service over an engine on a simulated disk."""

    def __init__(self, commits: CommitPath | None = None) -> None:
        self.disk = SimDisk("data")
        clock = ManualClock()
        opened = open_store(
            self.disk, "data", clock=clock, create=True, store=STORE, commits=commits
        )
        self.state, self.wal = opened.state, opened.journal
        self.failures: list[BaseException] = []
        self.raised: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: self.raised.append(told))
        self.engine = Engine(self.state, self.wal, clock, on_failure=self.failures.append)
        self.service = service_over(self.engine)
        self.wire = Wire()
        self.connection = Connection(self.service, "store", set())
        self.connection.connection_made(self.wire)

    async def prepare(self) -> None:
        await self.engine.execute(Enqueue([job(name) for name in "abc"]))
        await self.engine.execute(Dispatch("a", 1))
        await self.engine.execute(Dispatch("b", 1))
        token = self.state.jobs["b"].token
        await self.engine.execute(Fail("b", token, "broken", retry=False))

    async def end(self) -> None:
        """Checks that all is well behind the client, and that it is durable."""
        await turns()
        assert self.failures == []
        assert self.raised == []
        assert violations(self.state) == []
        found = fingerprint(self.state)
        self.engine.flush()
        assert fingerprint(read_store(self.disk, "data")[0]) == found
        write_snapshot(self.disk, DATA, self.state, STORE)
        loaded = load_snapshot(self.disk, DATA.snapshot, check_fingerprint=True)
        assert fingerprint(loaded.state) == found
        self.connection.connection_lost(None)
        await self.service.close()


def talk(*pieces: bytes) -> tuple[list[Any], World]:
    """Sends bytes to a fresh server; returns its answers."""

    async def main() -> tuple[list[Any], World]:
        world = World()
        await world.prepare()
        for piece in pieces:
            if not world.wire.closed:
                world.connection.data_received(piece)
                await turns(2)
        await world.end()
        return list(world.wire.answers()), world

    with limits(sum(map(len, pieces)), constant=CONSTANT, factor=FACTOR):
        return asyncio.run(main())


HELLO = framing.encode_frame([0, "hello", [framing.VERSION]])
fuzzing = settings(
    max_examples=2 * settings().max_examples,
    suppress_health_check=list(HealthCheck),
    deadline=None,
)

VALID = [
    ("enqueue", [[make_request("echo", {"x": 1}, id="new", delay=5, tags=["t"])]]),
    ("enqueue", [[make_request("echo", id="second", queue="mail", priority=1, max_attempts=2)]]),
    ("list", ["", "", "", 0, 10]),
    ("show", ["a"]),
    ("explain", ["a"]),
    ("history", ["b"]),
    ("wait", ["b", 5]),
    ("cancel", ["a"]),
    ("requeue", ["b", b"[1]"]),
    ("discard", ["b"]),
    ("set_queue", ["default", True, 3, 100]),
    ("status", []),
]
BODIES = [msgspec.msgpack.encode(body) for _, body in VALID]

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["a", "b", "c", "default", "", "pending", "x" * 300, "\0", "\ud7ff"])
    | st.binary(max_size=20)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=12)),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
REQUESTS = st.builds(
    Request,
    id=st.sampled_from(["a", "new", "", "x" * 256, "\n"]) | st.text(max_size=5),
    options=st.sampled_from([make_request("echo").options, b"", b"\x91\xa1\xff"])
    | st.lists(VALUES, max_size=6).map(msgspec.msgpack.encode),
    payload=st.sampled_from([b"null", b"", b"{", b'"\xff"', b"1\n2", b"[" * 100, b"1e999"])
    | st.binary(max_size=10),
    digest=st.binary(min_size=12, max_size=12) | st.binary(max_size=13),
    run_at_ms=st.sampled_from([0, -1, 2**63 - 1, 253_402_300_799_000]) | st.integers(-9, 9),
    delay_ms=st.sampled_from([0, 0, -1, 2**63 - 1]) | st.integers(-9, 9),
    tags=st.lists(st.text(max_size=3), max_size=17).map(tuple),
)


@pytest.mark.invariants
@fuzzing
@given(pieces=st.lists(st.binary(max_size=300), max_size=4), greet=st.booleans())
def test_any_bytes_at_all_disturb_nobody(pieces: list[bytes], greet: bool) -> None:
    answers, world = talk(*([HELLO] if greet else []), *pieces)
    event("hung up on" if world.wire.closed else "kept")
    for answer in answers:
        assert answer[1] in (0, 1)


@pytest.mark.invariants
@fuzzing
@given(op=st.sampled_from(OPS), body=inputs(BODIES), number=st.integers(0, 2**32))
def test_a_damaged_body_is_answered_or_ends_the_connection(
    op: str, body: bytes, number: int
) -> None:
    head = b"\x93" + msgspec.msgpack.encode(number) + msgspec.msgpack.encode(op)
    frame = len(head + body).to_bytes(4, "little") + head + body
    answers, world = talk(HELLO, frame, framing.encode_frame([7, "status", []]))
    told = {answer[0]: answer for answer in answers[1:]}
    event("answered" if number in told else "hung up on" if world.wire.closed else "waits")
    if not world.wire.closed:
        assert 7 in told, "a later request is served"
        assert number in told or op == "wait", "each request has an answer"


@pytest.mark.invariants
@fuzzing
@example(message=b"\x93\x05\xa1\xff\x90")
@example(message=b"\x93\x05\xa4show\x91\xa1\xff")
@given(message=inputs([msgspec.msgpack.encode([5, op, body]) for op, body in VALID]))
def test_a_damaged_request_is_answered_or_ends_the_connection(message: bytes) -> None:
    frame = len(message).to_bytes(4, "little") + message
    answers, world = talk(HELLO, frame, framing.encode_frame([7, "status", []]))
    assert world.wire.closed or 7 in {answer[0] for answer in answers}


@pytest.mark.invariants
@fuzzing
@given(op=st.sampled_from(OPS), body=VALUES | st.lists(VALUES, min_size=1, max_size=5))
def test_any_message_gets_an_answer_and_leaves_a_sound_state(op: str, body: Any) -> None:
    answers, world = talk(HELLO, framing.encode_frame([5, op, body]))
    event(op)
    assert not world.wire.closed
    assert op == "wait" or [answer[0] for answer in answers] == [0, 5]


@pytest.mark.invariants
@fuzzing
@given(requests=st.lists(REQUESTS, max_size=4))
def test_any_jobs_come_in_whole_or_not_at_all(requests: list[Request]) -> None:
    answers, world = talk(HELLO, framing.encode_frame([5, "enqueue", [requests]]))
    (_, (number, status, body)) = answers
    assert number == 5
    event("refused" if status else "accepted")
    came_in = sum(created for *_, created in body) if not status else 0
    assert len(world.state.jobs) == 3 + came_in


class SlowWire(Wire):
    """A wire whose other end reads only when the test says so."""

    connection: Connection
    read_bytes = 0
    held_bytes_max = 0

    def write(self, data: Any) -> None:
        super().write(data)
        self.held_bytes_max = max(self.held_bytes_max, self.get_write_buffer_size())
        if self.get_write_buffer_size() > PAUSE_BYTES:
            self.connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.sent) - self.read_bytes

    def read_all(self) -> bool:
        """Reads what is there; false where that was nothing."""
        fresh = self.get_write_buffer_size()
        self.read_bytes = len(self.sent)
        self.connection.resume_writing()
        return fresh > 0


def test_a_burst_of_small_requests_for_large_answers_takes_no_memory_for_them() -> None:
    """One read holds far more requests than answers may be left unread; none is lost."""
    requests = 1_000

    async def main() -> SlowWire:
        world = World()
        wire = SlowWire()
        connection = wire.connection = Connection(world.service, "store", set())
        connection.connection_made(wire)
        big = make_request("echo", "x" * 100_000, id="big")
        connection.data_received(HELLO + framing.encode_frame([1, "enqueue", [[big]]]))
        await turns()
        wire.read_all()
        burst = b"".join(framing.encode_frame([n, "show", ["big"]]) for n in range(requests))
        connection.data_received(burst)
        await turns()
        while wire.read_all():
            await turns()
        await world.end()
        return wire

    wire = asyncio.run(main())
    assert not wire.closed
    assert [answer[:2] for answer in wire.answers()][2:] == [[n, 0] for n in range(requests)]
    assert wire.held_bytes_max <= 2 * PAUSE_BYTES + 200_000


class WatchedWire(Wire):
    """A wire that compares each answer with what a power cut would leave at that moment."""

    disk: SimDisk

    def __init__(self) -> None:
        super().__init__()
        self._reader = framing.FrameReader()
        self._durable = -1, 0
        self.told = 0

    def write(self, data: Any) -> None:
        super().write(data)
        if self._durable[0] != self.disk.operations:
            self._durable = self.disk.operations, durable_seq(self.disk, ManualClock())
        for body in self._reader.feed(bytes(data)):
            number, status, answer = framing.decode_message(body)
            self.told += 1
            if number and not status and isinstance(answer, list):
                assert max(seq for _, seq, *_ in answer) <= self._durable[1], "told too early"


BURSTS = (2, 4, 5, 8, 9, 50, 100, 101, 500, 1_001)


@pytest.mark.parametrize("size", BURSTS)
@pytest.mark.parametrize("way", ["inline", "writer"])
def test_of_a_burst_nobody_is_told_before_it_is_durable(way: str, size: int) -> None:
    """So many requests in one read: new jobs, duplicates, refusals, and reads in between."""

    async def main(share: int) -> WatchedWire:
        writer = PlayedWriter()
        world, wire = World(CommitPath(lambda _: writer, way)), WatchedWire()
        chance = random.Random(size * 100 + share)
        wire.disk = world.disk
        connection = Connection(world.service, "store", set())
        connection.connection_made(wire)
        connection.data_received(HELLO)
        await turns()
        frames = []
        for number in range(1, size + 1):
            other = share and not chance.randrange(share)
            id_ = f"job-{chance.randrange(number) if other else number}"
            request = make_request("echo", number if other and chance.randrange(2) else 1, id=id_)
            op, body = ("enqueue", [[request]]) if chance.randrange(9) else ("show", [id_])
            op, body = (op, body) if other else ("enqueue", [[request]])
            frames.append(framing.encode_frame([number, op, body]))
        connection.data_received(b"".join(frames))
        await turns()
        while writer.frame is not None:
            writer.finish()
            await turns()
        assert wire.told == size + 1, "each has an answer"
        await world.end()
        return wire

    for share in (0, 3, 40):  # plain jobs alone; every third request, or a rare one, is another
        assert not asyncio.run(main(share)).closed


@pytest.mark.parametrize(("op", "body"), VALID)
def test_the_bodies_to_begin_with_are_valid(op: str, body: list[Any]) -> None:
    answers, _ = talk(HELLO, framing.encode_frame([5, op, body]))
    assert [answer[1] for answer in answers] == [0, 0], answers


@pytest.mark.parametrize("size", [1, 3, 5, 64])
def test_frames_arrive_in_any_pieces(size: int) -> None:
    stream = HELLO + framing.encode_frame([5, "show", ["a"]])
    answers, _ = talk(*(stream[at : at + size] for at in range(0, len(stream), size)))
    assert [answer[:2] for answer in answers] == [[0, 0], [5, 0]]


@pytest.mark.parametrize("cut", [3, 4, 500, 5_000])
def test_a_frame_of_exactly_the_limit_is_read_and_not_one_byte_more(cut: int) -> None:
    """Whole or in two pieces: the one takes a shorter way than the other."""
    for size in (1_000, 1_001):
        reader = framing.FrameReader(limit=1_000)
        stream = size.to_bytes(4, "little") + bytes(size)

        def read(reader: framing.FrameReader, stream: bytes) -> list[bytes]:
            return [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])]

        if size == 1_000:
            assert read(reader, stream) == [bytes(size)]
        else:
            with pytest.raises(framing.FrameTooLong):
                read(reader, stream)
