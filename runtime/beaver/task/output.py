"""Output of jobs: each line that a job prints or logs carries its time, task and job.

`install` replaces `sys.stdout` and `sys.stderr` before the application is imported, so that
handlers of `logging` which keep the stream write through here too.  A line goes out in one
write, prefixed `TIME TASK [job-id] `; a begun line waits in the job's own context for its end,
so jobs that run at once in one worker do not mix within a line.  What cannot be seen in a line
is escaped.  Output outside of a job passes as it is.  What goes past Python to descriptor 1 or
2 is not prefixed; the `exec` task catches its program's output and prints it here.

In the `json` format each line of a job is an object with `time_ms`, `task`, `job`, `attempt`,
`stream` and `line`, and the server's own log (`configure_server`) has objects too, so that one
reader takes both.

A reader that stalls delays no job for long: after a moment lines are dropped, and their number is
printed once it reads again.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from beaver.task.context import JobContext, current_or_none
from beaver.text.foreign import counted, one_line, printable

LINE_BYTES_MAX: Final = 64 << 10
"""A begun line that grows longer is printed as a line."""

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""Format of log records where they are text."""
IN_JOB: Final = "%(levelname)s %(name)s: %(message)s"
"""Format of a job's records: its lines have a time already."""

FACTS: Final = "beaver_facts"
"""Attribute of a record with what a program wants to read of it."""
TRACEBACK: Final = "beaver_traceback"
"""Attribute of a record with the traceback of a job."""

PATIENCE_S: Final = 1.0
"""How long a job waits for a reader of its output that has stalled, before lines are dropped."""
_PIPE_BYTES: Final = select.PIPE_BUF
"""A write of up to this many bytes goes into a pipe whole or not at all."""

_TAB: Final = "\t"
_LINE_FEED: Final = ord("\n")


class JobStream(io.TextIOBase):
    """A text stream on a descriptor that prefixes the lines of jobs."""

    def __init__(self, fd: int, name: str, *, as_json: bool = False) -> None:
        super().__init__()
        self._fd = fd
        self._as_json = as_json
        self._lock = threading.Lock()
        self._outlet = DescriptorWriter(fd)
        self.name = name
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        context = current_or_none()
        if context is None:
            self._emit(text)
            return len(text)
        if context.lines is None:
            context.lines = {}
        text_so_far = context.lines.pop(self._fd, "") + text
        *lines, begun = text_so_far.split("\n")
        if len(begun) > LINE_BYTES_MAX:
            lines.append(begun)
            begun = ""
        if begun:
            context.lines[self._fd] = begun
        if lines:
            self._emit_lines(context, lines)
        return len(text)

    def writelines(self, lines: Iterable[Any], /) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Lines are never held back, and begun ones wait for their end."""

    def finish(self, context: JobContext) -> None:
        """Prints the line that a job began and did not end."""
        if context.lines:
            begun = context.lines.pop(self._fd, "")
            if begun:
                self._emit_lines(context, [begun])

    def _emit_lines(self, context: JobContext, lines: list[str]) -> None:
        if not self._as_json:
            prefix = f"{_now()} {one_line(context.task)} [{one_line(context.job_id)}] "
            self._emit("".join([f"{prefix}{printable(line, _TAB)}\n" for line in lines]))
            return
        stream = self.name.strip("<>")
        self.emit_objects(context, [{"stream": stream, "line": line} for line in lines])

    def emit_objects(self, context: JobContext | None, objects: list[dict[str, Any]]) -> None:
        """Prints objects, each with what is known of the job that they belong to."""
        facts: dict[str, Any] = {"time_ms": time.time_ns() // 1_000_000}
        if context is not None:
            facts |= {"task": context.task, "job": context.job_id, "attempt": context.attempt}
        self._emit("".join([f"{json.dumps({**facts, **fields})}\n" for fields in objects]))

    def _emit(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            self._outlet.write(data, self._notice)

    def _notice(self, count: int) -> bytes:
        """Says how many lines were dropped."""
        text = f"{counted(count, 'line')} of jobs dropped here: nobody read them in time"
        if self._as_json:
            fields = {"time_ms": time.time_ns() // 1_000_000, "level": "warning", "message": text}
            return f"{json.dumps(fields)}\n".encode()
        return f"{_now()} {text}\n".encode()


class _Bytes:
    """The `.buffer` of a `JobStream`: for code that prints bytes."""

    def __init__(self, stream: JobStream) -> None:
        self._stream = stream

    def write(self, data: bytes, /) -> int:
        self._stream.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class DescriptorWriter:
    """Writes to a descriptor, and waits only a moment for whoever reads it.

    A pipe is written through an open file of its own, which never blocks: the standard one is
    shared with the server and all workers, and stays as it is.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity: tuple[int, int] | None = None
        self._own = -1
        self._piece = _PIPE_BYTES
        """Bytes written in one call."""
        self._dropped = 0
        self._torn = False
        """True after the beginning of a line was written without its end."""

    def write(self, data: bytes, notice: Callable[[int], bytes]) -> None:
        """Writes whole lines; output that nobody takes is dropped, never an error."""
        try:
            fd = self._descriptor()
            if self._dropped:
                told = b"\n" * self._torn + notice(self._dropped)
                if _write(fd, told, 0.0, self._piece) < len(told):
                    self._dropped += _lines_of(data)
                    return
                self._dropped, self._torn = 0, False
            written = _write(fd, data, PATIENCE_S, self._piece)
        except OSError:
            return
        if written < len(data):
            self._dropped = _lines_of(data[written:])
            self._torn = written > 0 and data[written - 1] != _LINE_FEED

    def _descriptor(self) -> int:
        """Returns the descriptor to write to; user code may have put another file behind it."""
        about = os.fstat(self._fd)
        identity = (about.st_dev, about.st_ino)
        if identity != self._identity:
            if self._own >= 0:
                os.close(self._own)
            self._own, self._identity = -1, identity
            # A file takes all at once, so that lines of several workers do not mix.
            self._piece = sys.maxsize if stat.S_ISREG(about.st_mode) else _PIPE_BYTES
            if stat.S_ISFIFO(about.st_mode):
                self._own = _opened_anew(self._fd)
        return self._own if self._own >= 0 else self._fd


def _opened_anew(fd: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1


def _write(fd: int, data: bytes, patience_s: float, piece: int) -> int:
    """Returns how much of it was written: all, unless the reader stalls for so long."""
    view = memoryview(data)
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    written = 0
    while written < len(view) and poll.poll(patience_s * 1000):
        with contextlib.suppress(BlockingIOError):
            written += os.write(fd, view[written : written + piece])
    return written


def _lines_of(data: bytes) -> int:
    return data.count(b"\n") or 1


def _now() -> str:
    """Returns the time as the records of `logging` have it."""
    now = time.time()
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03d}"


_streams: list[JobStream] = []


def install(log_format: str = "text") -> None:
    """Replaces `sys.stdout` and `sys.stderr`; once, before the application is imported."""
    if _streams:
        return
    for fd, name in ((1, "<stdout>"), (2, "<stderr>")):
        _streams.append(JobStream(fd, name, as_json=log_format == "json"))
    sys.stdout, sys.stderr = _streams


def finish(context: JobContext) -> None:
    """Prints what a job began and did not end.  Cheap where it printed nothing."""
    if context.lines:
        for stream in _streams:
            stream.finish(context)


class TextFormatter(logging.Formatter):
    """A record of the log as text in which nothing can steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if traceback := getattr(record, TRACEBACK, ""):
            text = f"{text}\n{traceback}"
        return printable(text)


class JsonFormatter(logging.Formatter):
    """A record of the log as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record))

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Returns what the object holds."""
        fields: dict[str, Any] = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FACTS, {}),
        }
        if traceback := getattr(record, TRACEBACK, ""):
            fields["traceback"] = traceback
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return fields


def notice_of(log_format: str) -> Callable[[int], str]:
    """Returns what says how many lines of the server were dropped, in one of the two formats."""

    def notice(count: int) -> str:
        text = f"{counted(count, 'line')} dropped here: nobody read them in time"
        if log_format != "json":
            return f"{_now()} WARNING beaver: {text}\n"
        fields = {"time_ms": time.time_ns() // 1_000_000, "level": "warning", "message": text}
        return f"{json.dumps(fields)}\n"

    return notice


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what `sys.stderr` is at the moment, as logging's last resort does."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def configure_server(level: str, log_format: str) -> None:
    """Sends the server's own log to stderr, in one of the two formats."""
    handler = _Stderr()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(TEXT))
    root = logging.getLogger("beaver")
    root.setLevel(level.upper())
    root.propagate = False
    # What the loop has to say comes the same way.
    for logger in (root, logging.getLogger("asyncio")):
        logger.handlers[:] = [handler]


class JobHandler(_Stderr):
    """Writes what a job logs: with its time, task and job, in one of the two formats."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._json = JsonFormatter() if log_format == "json" else None
        self._in_job, self._outside = TextFormatter(IN_JOB), TextFormatter(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        return (self._in_job if current_or_none() else self._outside).format(record)

    def emit(self, record: logging.LogRecord) -> None:
        stream = self.stream
        if self._json is None or not isinstance(stream, JobStream):
            super().emit(record)
            return
        try:
            stream.emit_objects(current_or_none(), [self._json.fields(record)])
        except Exception:  # noqa: BLE001 -- as every handler: an argument's own code may raise
            self.handleError(record)


def configure_worker(level: str, log_format: str = "text") -> None:
    """Gives the root logger a handler on stderr, unless the application made its own."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(JobHandler(log_format))
        root.setLevel(level.upper())
