"""The messages between server, zygote and workers.  `docs/reference/worker-protocol.md`.

A worker has two sockets to the server:

- the *jobs* socket keeps message boundaries; each message is one `Attempt`.  The server
  holds both of its ends, so it can read back what the worker has not read: whoever reads a
  message has it, and nobody else.
- the *outcomes* socket is a stream of frames, a little-endian u32 length and MessagePack.
  The worker sends its pid, then an `Outcome` for each attempt; the server sends tokens, to
  be cancelled softly.

An attempt that is too long for a message goes into an unlinked file, whose descriptor
travels with a message of one byte.  So it is recalled like any other.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
from typing import Final

import msgspec

from beaver.messages import Attempt, Outcome, TaskInfo

LENGTH: Final = struct.Struct("<I")
_pack_length: Final = LENGTH.pack
FRAME_BYTES_MAX: Final = 64 << 20
MESSAGE_BYTES_MAX: Final = 64 << 10
"""Longest attempt that is sent as a message; longer ones go into a file."""
SOCKET_BYTES: Final = 256 << 10
"""Buffer asked for on each socket; the system may give less."""

END: Final = b"E"
"""Message that ends a worker: it takes no more after it."""
IN_FILE: Final = b"F"
"""Message whose attempt stands in the file that comes with it."""

JOBS_KIND: Final = socket.SOCK_DGRAM if sys.platform == "darwin" else socket.SOCK_SEQPACKET
CLOEXEC_FLAG: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
DONTWAIT: Final = int(socket.MSG_DONTWAIT)
"""Flags as plain numbers: to combine members of an enumeration takes longer than to receive."""
_FD_SPACE: Final = socket.CMSG_SPACE(array.array("i").itemsize)

_encoder: Final = msgspec.msgpack.Encoder()
encode: Final = _encoder.encode
decode_attempt: Final = msgspec.msgpack.Decoder(Attempt).decode
decode_outcome: Final = msgspec.msgpack.Decoder(Outcome).decode
decode_int: Final = msgspec.msgpack.Decoder(int).decode


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a worker and its zygote have to know; travels as JSON on the command line."""

    app: str = ""
    executor: str = "process"
    concurrency: int = 1
    max_jobs: int = 0
    max_rss_bytes: int = 0
    allow_exec: bool = False
    log_level: str = "INFO"
    log_format: str = "text"


class Add(msgspec.Struct, array_like=True, tag=1):
    """Server to zygote: start a worker.  Its two descriptors come with the message."""

    worker: int
    birth: int
    """Number of this start, never used again: a kill cannot hit a successor."""
    slots_path: str


class Kill(msgspec.Struct, array_like=True, tag=2):
    """Server to zygote: kill a worker's group."""

    birth: int


class Ready(msgspec.Struct, array_like=True, tag=3):
    """Zygote to server: the application is imported."""

    tasks: tuple[TaskInfo, ...]
    notice: str = ""
    """Why workers are spawned instead of forked; empty where they are forked."""


class ImportFailed(msgspec.Struct, array_like=True, tag=4):
    """Zygote to server: the application cannot be imported."""

    message: str


class Exited(msgspec.Struct, array_like=True, tag=5):
    """Zygote to server: a worker is reaped and its group is empty."""

    birth: int
    detail: str


class Killing(msgspec.Struct, array_like=True, tag=6):
    """Zygote to server: the kill was sent, if that birth was still there."""

    birth: int


decode_control: Final = msgspec.msgpack.Decoder(
    Add | Kill | Ready | ImportFailed | Exited | Killing
).decode


def frame(message: object) -> bytes:
    """Returns a message as a frame of a stream."""
    body = encode(message)
    return _pack_length(len(body)) + body


def jobs_pair() -> tuple[socket.socket, socket.socket]:
    """Returns the server's end and the worker's end of a jobs socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, JOBS_KIND)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        end.settimeout(None)
    ours.setblocking(False)
    return ours, theirs


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """Returns the server's end and the other end of a stream."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.settimeout(None)
    ours.setblocking(False)
    return ours, theirs


def write_to_file(body: bytes) -> int:
    """Returns the descriptor of a new unlinked file that holds `body`."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("beaver-attempt", os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        view = memoryview(body)
        offset = 0
        while offset < len(view):
            offset += os.pwrite(fd, view[offset:], offset)
    except BaseException:
        os.close(fd)
        raise
    return fd


def receive(jobs: socket.socket, flags: int = 0) -> bytes:
    """Takes one message from a jobs socket, wherever its body stands.

    Returns an attempt's bytes, `END`, or `b""` once the server is gone.

    Raises:
        BlockingIOError: With `DONTWAIT`, where there is none.
    """
    data, ancillary, _, _ = jobs.recvmsg(MESSAGE_BYTES_MAX, _FD_SPACE, flags | CLOEXEC_FLAG)
    if not ancillary:
        return data
    fds = descriptors(ancillary)
    try:
        return _read_file(fds[0])
    finally:
        for fd in fds:
            os.close(fd)


def descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Returns the descriptors that came with a message; none is inherited by a program."""
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if not CLOEXEC_FLAG:
        for fd in fds:
            os.set_inheritable(fd, False)
    return list(fds)


def _read_file(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts = []
    offset = 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
