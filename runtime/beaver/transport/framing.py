"""The framed protocol of the local socket, without any I/O.

A frame is a little-endian u32 length and a MessagePack array.  The client sends
`[number, op, body]`, the server answers `[number, status, body]` with status 0 for success;
answers may come in any order, so requests can be pipelined.  The first request must be
`hello`.  A frame longer than `FRAME_BYTES_MAX` ends the connection.

| op | body | answer |
|---|---|---|
| hello | `[protocol version]` | `[version, store id, epoch, pid, kind, payload bound]` |
| leave | `[]`: another server wants the store | `[]`; then it ends, gently |
| reload | `[]` | `ReloadView` |
| enqueue | `[[Request, ...]]`: one commit | `[[id, seq, created], ...]` |
| status | `[]` | `StatusView` |
| list | `[state or "", queue or "", task or "", after seq, limit]` | `[JobView, ...]` |
| show | `[job]` | `JobView` |
| explain | `[job]` | `ExplainView` |
| history | `[job]` | `[EventView, ...]` |
| wait | `[job, timeout ms or -1]` | `ResultView`, once the job has ended |
| cancel | `[job]` | the job's state when the answer was computed |
| requeue | `[job, payload or nil]` | its state |
| discard | `[job]` | `discarded` |
| set_queue | `[queue, paused, weight, bytes_max, durable_dispatch]`, nil keeps | `QueueView` |
| bulk | `[action, Where, dry run]`: of many jobs | `BulkView` |
| bulk_status | `[bulk]` | `BulkView` |

An enqueued job of a task that no worker of the server knows has a fourth item: the names of the
task and of known ones that are like it.  Views travel as one MessagePack `bin` of JSON, since
they embed payloads and results as the JSON bytes that were sent; everything else is plain
MessagePack.  An error answer has status 1 and the body `[class of `errors`, message]`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from beaver import errors

VERSION: Final = 1
FAREWELL: Final = 2
"""Status of the last frame of a server that ends."""
FRAME_BYTES_MAX: Final = 64 << 20
"""A batch of the largest size (10,000 jobs, 8 MiB) fits with room to spare."""

HELLO_BYTES_MAX: Final = 4 << 10
"""Longest frame of a client that has not said hello."""

ERROR_CHARS_MAX: Final = 4_000
"""Longest error message; a longer one (with an id of megabytes, say) is cut."""

_LENGTH: Final = struct.Struct("<I")
_pack_length: Final = _LENGTH.pack
_unpack_length: Final = _LENGTH.unpack_from
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode
_decode_request: Final = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw]).decode
_decode_answer: Final = msgspec.msgpack.Decoder(tuple[int, int, msgspec.Raw]).decode
_decode_error: Final = msgspec.msgpack.Decoder(tuple[str, str]).decode


class FrameTooLong(errors.InvalidInput):
    """The peer announced a frame longer than `FRAME_BYTES_MAX`."""


def encode_frame(message: Any) -> bytes:
    """Returns a whole frame for a message."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


def encode_request(number: int, op: str, body: Any) -> bytes:
    """Returns the frame of a request.

    Raises:
        InvalidInput: It is longer than a server reads.
    """
    message = _encode((number, op, body))
    size = len(message)
    if size > FRAME_BYTES_MAX:
        raise errors.InvalidInput(
            f"a request of {size} bytes; at most {FRAME_BYTES_MAX} are sent at once; send the jobs "
            "in smaller batches"
        )
    return _pack_length(size) + message


class FrameReader:
    """Cuts a byte stream into frames, whatever the sizes of the pieces that arrive."""

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self.buffer = bytearray()
        """What is kept of frames not taken yet."""
        self.limit = limit
        """A longer frame is refused."""

    @property
    def kept(self) -> int:
        """Bytes in `buffer`, counting an incomplete frame with its announced length."""
        size = len(self.buffer)
        if size < 4:
            return size
        (length,) = _unpack_length(self.buffer)
        return max(size, 4 + int(length))

    def keep(self, data: bytes) -> None:
        """Keeps bytes, and cuts them later."""
        self.buffer += data

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the body of each frame that `data` completes.

        Raises:
            FrameTooLong: Before anything of that frame is kept.
        """
        size = len(data)
        if size >= 4 and not self.buffer and size <= self.limit:
            (length,) = _unpack_length(data)
            if length == size - 4:
                return iter((data[4:],))  # One whole frame, as mostly.
        return self._cut(data)

    def _cut(self, data: bytes) -> Iterator[bytes]:
        buffer = self.buffer
        if buffer:
            buffer += data
        # Nearly always whole frames arrive, and are cut from the piece itself.
        source = buffer or data
        start, end = 0, len(source)
        try:
            while end - start >= 4:
                (length,) = _unpack_length(source, start)
                if length > self.limit:
                    raise FrameTooLong(f"a frame of {length} bytes; at most {self.limit} are read")
                body_start = start + 4
                if end - body_start < length:
                    break
                start = body_start + length
                yield bytes(source[body_start:start])
        finally:
            if source is buffer:
                del buffer[:start]
            elif start < end:
                buffer += data[start:]


def decode_message(body: bytes) -> Any:
    """Returns the message of a frame.

    Raises:
        InvalidInput: The body is not MessagePack.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise errors.InvalidInput(f"a frame is not MessagePack: {error}") from error


def decode_request(body: bytes) -> tuple[int, str, msgspec.Raw]:
    """Returns number and operation of a request, and its body still encoded.

    The body is decoded once, as the type that the operation expects.

    Raises:
        InvalidInput: The frame is no request.
    """
    try:
        return _decode_request(body)
    except msgspec.ValidationError:
        raise errors.InvalidInput(
            "a request is an array of a number, an operation and a body"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise errors.InvalidInput(f"a frame is not MessagePack: {error}") from error


def decode_answer(body: bytes) -> tuple[int, int, msgspec.Raw]:
    """Returns number and status of an answer, and its body still encoded, as in `decode_request`.

    Raises:
        InvalidInput: The frame is no answer.
    """
    try:
        return _decode_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise errors.InvalidInput(f"a frame is no answer: {error}") from error


def encode_error(number: int, error: errors.BeaverError) -> bytes:
    """Returns the frame that answers request `number` with an error."""
    message = str(error)
    if len(message) > ERROR_CHARS_MAX:
        message = f"{message[:ERROR_CHARS_MAX]} ... ({len(message):,} characters in all)"
    return encode_frame([number, 1, [class_name(error), message]])


def class_name(error: errors.BeaverError) -> str:
    """Returns the name by which a client rebuilds an error (`error_named`).

    One of a class from elsewhere goes as the class of `errors` that it derives from.
    """
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def decode_error(body: bytes) -> errors.BeaverError:
    """Rebuilds the error of an answer from its body."""
    try:
        name, message = _decode_error(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        return errors.BeaverError(f"the server answered with what is no error: {wrong}")
    return error_named(name, message)


def error_named(name: str, message: str) -> errors.BeaverError:
    """Returns an error of the class that the server raised."""
    kind = getattr(errors, name, errors.BeaverError)
    if not (isinstance(kind, type) and issubclass(kind, errors.BeaverError)):
        kind = errors.BeaverError
    error = errors.BeaverError.__new__(kind)
    Exception.__init__(error, message)
    return error
