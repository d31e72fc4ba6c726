"""An application of confused and hostile jobs: each attacks a channel to the server."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import msgspec

from beaver import Beaver, JobContext

app = Beaver("data")


def _permits() -> int:
    """The worker's end of its permits pipe: the only pipe beyond the standard descriptors."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.readlink(f"/proc/self/fd/{name}").startswith("pipe:"):
                return int(name)
        except OSError:
            continue
    raise AssertionError("no pipe")


def _socket(kind: int) -> socket.socket:
    for name in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if found.type == kind:
            return found
        found.close()
    raise AssertionError("no such socket")


def _say(*fields: Any) -> None:
    """Sends an outcome past our own code."""
    body = msgspec.msgpack.encode(fields)
    _socket(socket.SOCK_STREAM).sendall(struct.pack("<I", len(body)) + body)


def _linger() -> None:
    time.sleep(60)


@app.job
def block_the_permits(ctx: JobContext) -> None:
    os.set_blocking(_permits(), True)
    _linger()


@app.job
def fill_the_permits(ctx: JobContext, what: str) -> None:
    """Opens the other end of its own pipe, and writes what was never given."""
    fd = os.open(f"/proc/self/fd/{_permits()}", os.O_WRONLY | os.O_NONBLOCK)
    data = {"half": b"abc", "own": struct.pack("=Q", ctx.token), "much": b"\1" * 65536}[what]
    os.write(fd, data)
    _linger()


@app.job
def shut_the_jobs(ctx: JobContext, how: int) -> None:
    _socket(socket.SOCK_SEQPACKET).shutdown(how)
    _linger()


@app.job
def close_everything() -> None:
    os.closerange(0, 256)


@app.job
def kill_the_zygote() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    _linger()


@app.job
def half_a_frame(ctx: JobContext, size: int) -> None:
    _socket(socket.SOCK_STREAM).sendall(struct.pack("<I", size) + b"x" * 1000)
    _linger()


@app.job
def noise() -> None:
    stream = _socket(socket.SOCK_STREAM)
    for _ in range(100):
        stream.sendall(os.urandom(4096))
    _linger()


@app.job
def cut_the_slots(ctx: JobContext, size: int) -> None:
    os.truncate(Path(os.environ["STORE"]) / "slots", size)
    _linger()


@app.job
def lengthen_the_slots(ctx: JobContext) -> None:
    with (Path(os.environ["STORE"]) / "slots").open("ab") as file:
        file.write(b"odd")
    os.abort()


@app.job
def overwrite_the_slots(ctx: JobContext, value: int) -> None:
    with (Path(os.environ["STORE"]) / "slots").open("r+b") as file:
        for worker in (1, 2):
            file.seek(64 * worker + 8)
            file.write(struct.pack("=3Q", value, 0, value))
    _linger()


@app.job
def move_the_time_on(ctx: JobContext) -> None:
    """Says again and again that it has begun just now: its limit counts all the same."""
    with (Path(os.environ["STORE"]) / "slots").open("r+b") as file:
        for _ in range(6000):
            now = time.monotonic_ns()
            for worker in (1, 2):
                file.seek(64 * worker + 8)
                (token,) = struct.unpack("=Q", file.read(8))
                if token == ctx.token:
                    file.seek(64 * worker + 8)
                    file.write(struct.pack("=3Q", token, now, token ^ now))
            file.flush()
            time.sleep(0.01)


@app.job
def steal(ctx: JobContext, token: int, job: str) -> str:
    _say(token, job, 0, b'"stolen"')
    time.sleep(0.5)
    return "mine"


@app.job
def flood(ctx: JobContext, token: int) -> None:
    for _ in range(20_000):
        _say(token, "nobody", 0, b"1")
    _linger()


@app.job
def tell(ctx: JobContext, kind: int, what: str, delay_ms: int | None = None) -> None:
    """Says something of its own attempt past every check of the worker's."""
    result, error, children = b"null", "", []
    child: list[Any] = ["child", msgspec.msgpack.encode(["echo"]), b"null", b"d" * 12]
    if what == "no json":
        result = b"{"
    elif what == "empty":
        result = b""
    elif what == "not utf-8":
        result = b'"\xff"'
    elif what == "deep":
        result = b"[" * 2000 + b"]" * 2000
    elif what == "large":
        result = b'"%b"' % (b"x" * (2 << 20))
    elif what == "error":
        error = "e" * (8 << 20)
    elif what == "many children":
        children = [[f"c{n}", *child[1:]] for n in range(1001)]
    elif what == "large children":
        children = [[f"c{n}", child[1], b'"%b"' % (b"x" * 1_000_000), child[3]] for n in range(8)]
    elif what == "bad child":
        children = [["", *child[1:]]]
    elif what == "fat options":
        children = [["c", child[1][:1] + b"x" * 100_000, *child[2:]]]
    _say(ctx.token, ctx.job_id, kind, result, error, delay_ms, children, float("nan"))
