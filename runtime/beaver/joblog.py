"""Output of jobs: each line that a job prints or logs carries the job's id.

`install` replaces `sys.stdout` and `sys.stderr` before the application is imported, so that
handlers of `logging` which keep the stream write through here too.  A line goes out in one
write, prefixed `[job-id] `; a begun line waits in the job's own context for its end, so
jobs that run at once in one worker do not mix within a line.  Output outside of a job
passes as it is.  What goes past Python to descriptor 1 or 2 is not prefixed; the `exec`
task catches its program's output and prints it here.

In the `json` format each line of a job is an object with `job`, `stream` and `line`, and
the server's own log (`configure_server`) has objects too, so that one reader takes both.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import sys
import threading
from collections.abc import Iterable
from typing import Any, Final

from beaver.context import JobContext, current_or_none

LINE_BYTES_MAX: Final = 64 << 10
"""A begun line that grows longer is printed as a line."""

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
"""Format of log records where they are text."""

LineBuffers = dict[int, str]
"""Begun lines by descriptor."""


class JobStream(io.TextIOBase):
    """A text stream on a descriptor that prefixes the lines of jobs."""

    def __init__(self, fd: int, name: str, *, as_json: bool = False) -> None:
        super().__init__()
        self._fd = fd
        self._as_json = as_json
        self._lock = threading.Lock()
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
        job = context.job_id
        if self._as_json:
            name = self.name.strip("<>")
            objects = ({"job": job, "stream": name, "line": line} for line in lines)
            self._emit("".join(f"{json.dumps(line)}\n" for line in objects))
        else:
            self._emit("".join(f"[{job}] {line}\n" for line in lines))

    def _emit(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            _write_all(self._fd, data)


class _Bytes:
    """The `.buffer` of a `JobStream`: for code that prints bytes."""

    def __init__(self, stream: JobStream) -> None:
        self._stream = stream

    def write(self, data: bytes, /) -> int:
        self._stream.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


def _write_all(fd: int, data: bytes) -> None:
    """Writes all of it; output that nobody can take any more is dropped, never an error."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:
            return


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


class JsonFormatter(logging.Formatter):
    """A record of the log as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure_server(level: str, log_format: str) -> None:
    """Sends the server's own log to stderr, in one of the two formats."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(TEXT))
    root = logging.getLogger("beaver")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def configure_worker(level: str) -> None:
    """Gives the root logger a handler on stderr, unless the application made its own."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(TEXT))
        root.addHandler(handler)
        root.setLevel(level.upper())
