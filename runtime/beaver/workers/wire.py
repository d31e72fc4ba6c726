"""The messages between server, zygote and workers.  `docs/reference/worker-protocol.md`.

A worker has three ways to the server:

- the *jobs* socket keeps message boundaries; a message holds the bodies of some attempts.
- the *permits* pipe carries a token of 8 bytes for each of them: whoever reads it has that
  attempt, and nobody else.  The server holds both ends of both, so it can read back what the
  worker has not read.  How the two fit together stands in `permits`.
- the *outcomes* socket is a stream of frames, a little-endian u32 length and MessagePack.
  The worker sends its pid, then an `Outcome` for each attempt; the server sends tokens, to
  be cancelled softly.

An attempt that is too long for a message goes into an unlinked file, whose descriptor
travels with a short message.  So it is recalled like any other.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from beaver.structs.messages import Attempt, Outcome, TaskInfo
from beaver.task.programs import Programs
from beaver_model.bounds import BATCH_BYTES_MAX

LENGTH: Final = struct.Struct("<I")
_pack_length: Final = LENGTH.pack
FRAME_BYTES_MAX: Final = BATCH_BYTES_MAX + (1 << 20)
"""Longest frame that is read from a worker or a zygote: all that one outcome may hold."""
DETAIL_CHARS_MAX: Final = 1_000
"""Characters of what a zygote says that are kept."""
MESSAGE_BYTES_MAX: Final = 64 << 10
"""Longest message; an attempt that is longer by itself goes into a file."""
BODIES_MAX: Final = 32
"""Bound on the attempts in one message, and so on those that a worker may hold and never start."""
SOCKET_BYTES: Final = 256 << 10
"""Buffer asked for on each socket; the system may give less."""

PERMIT: Final = struct.Struct("=Q")
END: Final = 0
"""Permit that ends a worker: it takes no more after it.  No attempt has this token."""
PERMITS_AT_ONCE: Final = 512 // PERMIT.size
"""Permits in one write.  Every pipe takes 512 bytes (POSIX) whole or not at all."""
IN_FILE: Final = b"F"
"""First byte of a message whose attempt stands in the file that comes with it."""

JOBS_KIND: Final = socket.SOCK_DGRAM if sys.platform == "darwin" else socket.SOCK_SEQPACKET
CLOEXEC_FLAG: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
DONTWAIT: Final = int(socket.MSG_DONTWAIT)
"""Flags as plain numbers: to combine members of an enumeration takes longer than to receive."""
_FD_SPACE: Final = socket.CMSG_SPACE(array.array("i").itemsize)

_encoder: Final = msgspec.msgpack.Encoder()
encode: Final = _encoder.encode
decode_attempt: Final = msgspec.msgpack.Decoder(Attempt).decode
decode_attempts: Final = msgspec.msgpack.Decoder(list[Attempt]).decode
decode_outcome: Final = msgspec.msgpack.Decoder(Outcome).decode
decode_int: Final = msgspec.msgpack.Decoder(int).decode


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a worker and its zygote have to know; travels as JSON on the command line."""

    app: str = ""
    executor: str = "process"
    concurrency: int = 1
    max_jobs: int = 0
    max_rss_bytes: int = 0
    programs: Programs = Programs()
    """What `exec` may run."""
    log_level: str = "INFO"
    log_format: str = "text"


class Add(msgspec.Struct, array_like=True, tag=1):
    """Server to zygote: start a worker.  Its descriptors, `Ends`, come with the message."""

    worker: int
    birth: int
    """Number of this start, never used again: a kill cannot hit a successor."""


class Ends(NamedTuple):
    """A worker's ends, as descriptors, in the order in which they travel."""

    jobs: int
    permits: int
    stream: int
    slots: int


class Kill(msgspec.Struct, array_like=True, tag=2):
    """Server to zygote: kill a worker's group."""

    birth: int


class Claim(msgspec.Struct, array_like=True, tag=7):
    """Server to zygote: the mark of the store that it serves, now that this is certain."""

    mark: str


class ZygoteReady(msgspec.Struct, array_like=True, tag=3):
    """Zygote to server: the application is imported."""

    tasks: tuple[TaskInfo, ...]
    notice: str = ""
    """Why workers are spawned instead of forked; empty where they are forked."""
    store: str = ""
    """Where the application says that its store is; empty without one."""


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


_ARRAY_HEAD_BYTES: Final = 3
_pack_array_head: Final = struct.Struct(">BH").pack

decode_control: Final = msgspec.msgpack.Decoder(
    Add | Kill | Claim | ZygoteReady | ImportFailed | Exited | Killing
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


def permits_pipe() -> tuple[int, int]:
    """Returns the worker's end, to be read, and the server's end, to be written.

    Neither ever blocks: a worker that finds nothing polls.
    """
    theirs, ours = os.pipe()
    os.set_blocking(theirs, False)
    os.set_blocking(ours, False)
    return theirs, ours


def own_reader(pipe: int) -> int:
    """Returns a descriptor of the server's own that reads from the same pipe, never blocking.

    Being non-blocking is a property of the open file, which a copy of the descriptor would
    share with the worker: user code could make the server wait for ever.  Opened anew it is a
    file of its own.  If the system cannot do that, a copy is used.
    """
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(pipe)


# -- bodies ---------------------------------------------------------------------------------


class Message(NamedTuple):
    """A message of the jobs socket; its holder owns its descriptors."""

    data: bytes
    tokens: tuple[int, ...]
    """Those of the attempts in it, in order."""
    fds: tuple[int, ...] = ()

    def close(self) -> None:
        """Closes its descriptors."""
        for fd in self.fds:
            os.close(fd)


def messages(attempts: Sequence[Attempt], *, bodies_max: int = BODIES_MAX) -> list[Message]:
    """Returns attempts as messages, in order.

    Raises:
        OSError: There is no file for a long one.  No descriptor is left open.
    """
    if len(attempts) == 1:
        data = encode(attempts)
        if len(data) <= MESSAGE_BYTES_MAX:
            return [Message(data, (attempts[0].token,))]
    result: list[Message] = []
    bodies: list[bytes] = []
    tokens: list[int] = []
    room = MESSAGE_BYTES_MAX - _ARRAY_HEAD_BYTES
    left = room
    for attempt in attempts:
        body = encode(attempt)
        left -= len(body)
        if left < 0 or len(bodies) == bodies_max:
            if bodies:
                result.append(Message(_array_of(bodies), tuple(tokens)))
                bodies, tokens = [], []
            left = room - len(body)
            if left < 0:
                try:
                    result.append(in_file(body, attempt.token))
                except OSError:
                    for message in result:
                        message.close()
                    raise
                left = room
                continue
        bodies.append(body)
        tokens.append(attempt.token)
    if bodies:
        result.append(Message(_array_of(bodies), tuple(tokens)))
    return result


def _array_of(bodies: Sequence[bytes]) -> bytes:
    """Returns the MessagePack array of values that are encoded already."""
    return _pack_array_head(0xDC, len(bodies)) + b"".join(bodies)


def in_file(body: bytes, token: int) -> Message:
    """Returns the message of an attempt whose body stands in a file."""
    return Message(IN_FILE + PERMIT.pack(token), (token,), (write_to_file(body),))


def smaller(message: Message) -> list[Message]:
    """Returns a message that is too long for the system in smaller ones."""
    if message.fds:
        raise OSError(errno.EMSGSIZE, "the system takes no message on the jobs socket")
    attempts = decode_attempts(message.data)
    if len(attempts) == 1:
        return [in_file(encode(attempts[0]), attempts[0].token)]
    return messages(attempts, bodies_max=len(attempts) // 2)


def receive(jobs: socket.socket) -> list[Attempt]:
    """Waits for a message and returns its attempts; none once the server is gone."""
    data, ancillary, _, _ = jobs.recvmsg(MESSAGE_BYTES_MAX, _FD_SPACE, CLOEXEC_FLAG)
    if not ancillary:
        return decode_attempts(data) if data else []
    fds = descriptors(ancillary)
    try:
        return [decode_attempt(_read_file(fds[0]))]
    finally:
        for fd in fds:
            os.close(fd)


def read_back(jobs: socket.socket) -> Message | None:
    """Takes a message that the worker has not received; `None` where there is none now.

    None either where the worker has shut its end down.
    """
    try:
        data, ancillary, _, _ = jobs.recvmsg(MESSAGE_BYTES_MAX, _FD_SPACE, CLOEXEC_FLAG | DONTWAIT)
    except BlockingIOError:
        return None
    if not data:
        return None
    if not data.startswith(IN_FILE):
        return Message(data, tuple(attempt.token for attempt in decode_attempts(data)))
    (token,) = PERMIT.unpack_from(data, len(IN_FILE))
    return Message(data, (token,), tuple(descriptors(ancillary)))


def only(message: Message, token: int) -> Message:
    """Returns the message with one of its attempts alone."""
    if len(message.tokens) == 1:
        return message
    bodies = [encode(a) for a in decode_attempts(message.data) if a.token == token]
    return Message(_array_of(bodies), (token,))


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
