"""Every reader of bytes that come from outside, as a function of bytes.

A target returns the *places* that the input reached, so that a test can show that the deep
ones are reached, and raises what is wrong.  The first byte of an input chooses how the rest
is wrapped: raw, or behind the check values that keep raw garbage out.  Hypothesis and
atheris drive the same functions.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec

from beaver.config.layers import load_config, shown
from beaver.config.settings import SETTINGS
from beaver.dispatch.outcomes import command_of
from beaver.errors import BeaverError, Corruption, InvalidInput, NewerFormat
from beaver.journal.codec import Undecodable, decode_commit, encode_commit
from beaver.journal.wal.format import (
    FILE_HEADER_BYTES,
    FileHeader,
    encode_file_header,
    encode_frame,
    first_seed,
    header_seed,
)
from beaver.journal.wal.reader import decode_frame
from beaver.journal.wal.scan import SegmentScan, read_header
from beaver.request.jobfile import read_requests
from beaver.request.operations import OPERATIONS
from beaver.request.requests import request_from_json, request_to_json
from beaver.request.resolving import Resolver
from beaver.snapshot.files import inspect_snapshot, load_snapshot, write_snapshot
from beaver.snapshot.lines import CRC_KEY
from beaver.structs.messages import Outcome, OutcomeKind
from beaver.transport import endpoint, framing
from beaver.workers import wire
from beaver.workers.slots import Slots, read_previous
from beaver_chaos.sim.disk import SimDisk
from beaver_model import IllegalEvent, Offer, State, freeze, replay, select, thaw, violations
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    BoundsSet,
    Cancelled,
    CancelRequested,
    Died,
    Discarded,
    Dispatched,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.rows import Origin
from tests.fuzz.forged import forged
from tests.fuzz.memory import MemoryFile, OneFile
from tests.fuzz.visitor import visit
from tests.model.test_state import busy_world
from tests.worlds.journal import DATA, STORE, enqueued

HERE = Path(tempfile.gettempdir())
MIB = 1 << 20
RESOLVER = Resolver()


class Target(NamedTuple):
    """One reader, with inputs to begin with and the places that those and their kin reach."""

    run: Callable[[bytes], set[str]]
    seeds: list[bytes]
    places: frozenset[str]
    """Places that a short run must reach."""
    constant: int
    """Bytes of memory that any input may take."""
    factor: int
    """Bytes of memory beyond, for each byte of the input."""


# -- the log ------------------------------------------------------------------------------


def log_file(data: bytes) -> set[str]:
    """A segment: as it is (0), or the input as the payload of a good frame (1 and beyond)."""
    if data[:1] == b"\0":
        content = data[1:]
    else:
        seed = first_seed(STORE, 1)
        content = encode_file_header(FileHeader(STORE, 1, seed))
        count, payload = data[0] if data else 1, data[1:]
        frame, _ = encode_frame(payload, count, 1, 0, previous_crc=seed, seed=header_seed(STORE))
        content += frame + bytes(64)
    file = MemoryFile(content)
    places: set[str] = set()
    state = State()
    try:
        scan = SegmentScan(file, "wal.log", read_header(file, "wal.log"))  # type: ignore[arg-type]
        places.add("header")
        for found in scan:
            places.add("frame")
            if found.count:
                time_ms, events = decode_frame("wal.log", found)
                places.add("events")
                replay(state, found.first_seq, time_ms, events)
                places.add("replayed")
        end = scan.end
        assert end is not None
        places.add(str(end.kind))
        assert FILE_HEADER_BYTES <= end.offset <= len(content)
    except Corruption:
        places.add("damaged")
    except NewerFormat:
        places.add("newer")
    except IllegalEvent:
        places.add("illegal")
    return places


def commit(data: bytes) -> set[str]:
    """The payload of a frame, applied to a lively state if it is legal there."""
    try:
        time_ms, events = decode_commit(data)
    except Undecodable:
        return {"undecodable"}
    except NewerFormat:
        return {"newer"}
    places = {"decoded"}
    for state in (State(), thaw(*freeze(LIVELY))):
        try:
            replay(state, state.last_seq + 1, time_ms, events)
        except IllegalEvent:
            places.add("illegal")
            continue
        places.add("applied")
        assert violations(state) == []
        select(state, Offer(), state.time_ms)
        assert freeze(thaw(*freeze(state))) == freeze(state)
    return places


# -- snapshots -----------------------------------------------------------------------------


def snapshot(data: bytes) -> set[str]:
    """A snapshot: as it is (0), or lines behind a good CRC (1 and beyond)."""
    content = data[1:]
    if data[:1] != b"\0":
        body = content.rstrip(b"\n").removesuffix(b"}")
        content = body + CRC_KEY + b'%08x"}\n' % zlib.crc32(body)
    disk: Any = OneFile(content)
    places: set[str] = set()
    for read in (load_snapshot, inspect_snapshot):
        try:
            read(disk, "snapshot.json")
            places.add(read.__name__)
        except Corruption as error:
            places.add("torn or changed" if "CRC" in str(error) else "no meaning")
        except NewerFormat:
            places.add("newer")
    return places


# -- small files ---------------------------------------------------------------------------


def slots(data: bytes) -> set[str]:
    with tempfile.NamedTemporaryFile(dir=HERE) as file:
        file.write(data)
        file.flush()
        previous = read_previous(file.name)
    if previous is None:
        return {"unusable"}
    return {"same boot" if previous.same_boot else "another boot"}


def server_json(data: bytes) -> set[str]:
    with tempfile.TemporaryDirectory(dir=HERE) as directory:
        Path(directory, endpoint.FILE_NAME).write_bytes(data)
        info = endpoint.read(directory)
        if info is None:
            return {"unreadable"}
        try:
            found = endpoint.reach(directory)
        except BeaverError:
            return {"read", "refused"}
        assert found is None, "nobody listens"
        return {"read", "unreachable"}


def config_yaml(data: bytes) -> set[str]:
    with tempfile.NamedTemporaryFile(dir=HERE, suffix=".yaml") as file:
        file.write(data)
        file.flush()
        try:
            config = load_config(file=file.name, environ={})
        except InvalidInput as error:
            assert len(str(error)) < 2_000, "an error can be read"
            return {"refused"}
    for setting in SETTINGS.values():
        shown(config, setting)
    return {"accepted"}


# -- jobs ----------------------------------------------------------------------------------


def job_file(data: bytes) -> set[str]:
    """A job file, whose jobs must then be the same after a round trip."""
    places = set()
    try:
        for request in read_requests(io.BytesIO(data)):
            places.add("job")
            job = RESOLVER.job(request, 1_000)
            assert job.id == request.id
            again = request_from_json(request_to_json(request))
            assert (again.id, again.digest, again.options) == (
                request.id,
                request.digest,
                request.options,
            )
        places.add("whole file")
    except InvalidInput as error:
        places.add("refused")
        assert len(str(error)) < 5_000, "an error can be read"
    return places


def frames(data: bytes) -> set[str]:
    """What a client sends, cut in two where the first byte says; enqueued jobs are resolved."""
    places, cut = set(), data[0] if data else 0
    reader = framing.FrameReader()
    try:
        for piece in (data[1 : 1 + cut], data[1 + cut :]):
            for body in reader.feed(piece):
                places.add("frame")
                _, op, arguments = framing.decode_request(body)
                places.add("request")
                operation = OPERATIONS.get(op)
                if operation is not None:
                    asked = operation.arguments(arguments)
                    places.add("arguments")
                    for request in getattr(asked, "jobs", ()):
                        RESOLVER.job(request, 1_000)
                        places.add("job")
    except InvalidInput as error:
        places.add("refused")
        assert len(str(error)) < 5_000, "an error can be read"
    return places


def outcome(data: bytes) -> set[str]:
    """What a worker sends: its memory may be damaged by the user's code."""
    try:
        found = wire.decode_outcome(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"undecodable"}
    command_of(found, lambda request: RESOLVER.job(request, 1_000, Origin.JOB), lambda: 0.5)
    return {"command"}


# -- HTTP ----------------------------------------------------------------------------------


def http(data: bytes) -> set[str]:
    """Bytes on a connection to the pages, once for each parser that aiohttp has.

    The first byte says where they are cut in two, whether the server takes work, and what
    the client is like.
    """
    manner, stream = data[0] if data else 0, data[1:]
    places: set[str] = set()
    cut = (manner & 0x1F) * 4
    for in_python in (False, True):
        found = visit(
            stream[:cut],
            stream[cut:],
            ready=not manner & 0x20,
            reads=not manner & 0x40,
            stays=not manner & 0x80,
            in_python=in_python,
        )
        places.update(str(answer.status) for answer in found.answers)
        places.add("hung up on" if found.hung_up else "let go")
        if not found.answers:
            places.add("unanswered")
        if len(found.answers) > 2:
            places.add("several")
    return places


# -- what to begin with --------------------------------------------------------------------


def _lively() -> tuple[State, bytes, bytes, list[bytes]]:
    """A state with all that a state can hold, its log, its snapshot, and commits."""
    world = busy_world()
    seed, chain = header_seed(STORE), first_seed(STORE, 1)
    content = encode_file_header(FileHeader(STORE, 1, chain))
    commits = []
    for seq, (time_ms, event) in enumerate(world.log, 1):
        commits.append(encode_commit(time_ms, [event]))
        frame, chain = encode_frame(commits[-1], 1, seq, 0, previous_crc=chain, seed=seed)
        content += frame
    disk = SimDisk("data")
    write_snapshot(disk, DATA, world.state, STORE)
    file = disk.open(DATA.snapshot)
    state, token = world.state, world.row("c").token
    following: list[list[AnyEvent]] = [
        [Booted(state.epoch + 1, True), enqueued("new"), Dispatched("new", 7)],
        [Acked("c", token, b"[1]"), QueueSet("other", False, 5, 100), BoundsSet(2, 10)],
        [Retried("c", token, 5_000, "failed", "x"), Dispatched("later", 1)],
        [TimedOut("c", token, 5_000, "node_lost", True), Dispatched("c", 2), CancelRequested("c")],
        [Released("c", token, 0, "snooze"), Requeued("b", b"[2]"), Discarded("d")],
        [Died("c", token, "failed"), Cancelled("f", 0, "operator"), Dispatched("b", 1)],
    ]
    commits += [encode_commit(state.time_ms + 5, events) for events in following]
    commits.append(msgspec.msgpack.encode((5, [(99, "an event of a later release")])))
    return state, content + bytes(100), file.pread(file.size(), 0), commits


LIVELY, _LOG, _SNAPSHOT, _COMMITS = _lively()


def _slots_file(boot: bytes = b"") -> bytes:
    with tempfile.TemporaryDirectory(dir=HERE) as directory:
        path = str(Path(directory, "slots"))
        Slots.open(path, 3, STORE, 0).close()
        data = bytearray(Path(path).read_bytes())
    data[32 : 32 + len(boot)] = boot
    return bytes(data)


_JOBS = b"""{"id": "a", "task": "echo", "payload": {"x": [1, 2.5, null, "\\u00fc"]}, "priority": 3}
{"id": "b", "delay": "5m", "tags": ["x"], "backoff": {"kind": "linear", "base_ms": 10}}
{"id": "c", "run_at": "2030-01-01T00:00:00Z", "timeout_ms": 1000, "max_attempts": 3}
"""
_ARRAY = b'[{"id": "a", "payload": 123456789012345678901234567890}, {"queue": "q"}]'
_CONFIG = b"""data: data
workers: 2
timeout: 5m
http: 127.0.0.1:8000
queues: {default: {weight: 3}, mail: {paused: true, bytes_max: 10MB}}
tombstones_age: 1d
"""
_BOMB = (
    b"queues: [&a [x,x,x,x,x,x,x,x,x], "
    + b", ".join(b"&%c [%s]" % (n + 1, b",".join([b"*%c" % n] * 9)) for n in range(97, 106))
    + b"]\n"
)
"""Short, and enormous once someone writes it out ("billion laughs")."""
_CHILD = request_from_json(b'{"id": "child", "payload": [1]}')
_ENQUEUE = framing.encode_frame([5, "enqueue", [[_CHILD]]])
_INFO = endpoint.ServerInfo(1, "/nowhere/beaver.sock", STORE.hex(), directory="")

HTTP = {
    "asked for each page": b"".join(
        b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % page
        for page in (b"healthz", b"readyz", b"metrics?x=%20y", b"nothing/..//%2e")
    ),
    "asked for a head": b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "of an old version": b"GET http://x/healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "a host that is no name": b"GET http://xn--a/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body": b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345",
    "half a body": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n12345",
    "a body in chunks": b"PUT /readyz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: X\r\n\r\n5;a=b\r\n12345\r\n0\r\nX: y\r\n\r\n"
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a body that is packed": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: deflate\r\n"
    b"Content-Length: 11\r\n\r\n" + zlib.compress(b"[1]"),
    "may it go on": b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
    b"Content-Length: 2\r\n\r\n[]",
    "expects what there is not": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: y\r\n\r\n",
    "expects what is no text": b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nExpect: \xa4\r\n\r\n",
    "another protocol": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": b"GET /metrics HTTP/1.1\r\nHost: [::1]:80\r\nCookie: a=b; c=\xff\r\n"
    b"Accept-Encoding: gzip\r\nRange: bytes=5-1\r\nIf-None-Match: *\r\n"
    b"Content-Type: multipart/form-data; boundary=x\r\nAuthorization: Basic eA==\r\n\r\n",
    "a long line": b"GET /" + b"x" * 8_190 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many at once": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 40,
    "half a head": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
}
"""Requests, each a bit of what HTTP can say."""

TARGETS = {
    "log_file": Target(
        log_file,
        [b"\0" + _LOG, b"\0" + _LOG[:300], *(b"\1" + payload for payload in _COMMITS)],
        frozenset({"header", "frame", "events", "replayed", "clean", "torn", "damaged", "illegal"}),
        24 * MIB,
        300,
    ),
    "forged": Target(
        forged,
        [Random(seed).randbytes(900) for seed in range(12)],
        frozenset({"legal", "illegal", "BOOT", "TIMEOUT", "ACK", "CANCEL", "FORGET_QUEUE"}),
        4 * MIB,
        1_000,
    ),
    "commit": Target(
        commit,
        _COMMITS,
        frozenset({"decoded", "applied", "illegal", "undecodable", "newer"}),
        4 * MIB,
        1_000,
    ),
    "snapshot": Target(
        snapshot,
        [
            b"\0" + _SNAPSHOT,
            b"\1" + _SNAPSHOT[:-19],
            b"\1" + _SNAPSHOT[:-19].replace(b":600000,", b":6%b," % (b"0" * 30)),
            b"\1" + _SNAPSHOT[:-19].replace(b'"seq":2,', b'"seq":-2,'),
        ],
        frozenset({"load_snapshot", "inspect_snapshot", "torn or changed", "no meaning"}),
        16 * MIB,
        300,
    ),
    "slots": Target(
        slots,
        [_slots_file(), _slots_file(b"of another boot")],
        frozenset({"same boot", "another boot", "unusable"}),
        MIB,
        100,
    ),
    "server_json": Target(
        server_json,
        [msgspec.json.encode(_INFO)],
        frozenset({"read", "unreachable", "unreadable"}),
        MIB,
        100,
    ),
    "config_yaml": Target(
        config_yaml, [_CONFIG, _BOMB], frozenset({"accepted", "refused"}), 4 * MIB, 3_000
    ),
    "job_file": Target(
        job_file, [_JOBS, _ARRAY], frozenset({"job", "whole file", "refused"}), 4 * MIB, 300
    ),
    "frames": Target(
        frames,
        [b"\x00" + _ENQUEUE, b"\x07" + _ENQUEUE * 2, b"\x02" + framing.encode_frame([7, "x", []])],
        frozenset({"frame", "request", "arguments", "job", "refused"}),
        4 * MIB,
        300,
    ),
    "outcome": Target(
        outcome,
        [
            wire.encode(Outcome(5, "a", int(kind), b"[1]", "broken", 7, (_CHILD,), 2.5))
            for kind in OutcomeKind
        ],
        frozenset({"command", "undecodable"}),
        4 * MIB,
        300,
    ),
    "http": Target(
        http,
        [
            bytes([manner]) + request
            for request in HTTP.values()
            for manner in (0x00, 0x05, 0x20, 0x4A, 0x80)
        ],
        frozenset(
            {"100", "200", "400", "401", "405", "417", "503", "several", "unanswered", "let go"}
            | {"hung up on"}
        ),
        2 * MIB,
        100,
    ),
}
