"""The queue behind the standard streams: bounded, in order, and honest about what it drops."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from beaver.server.log_output import QUEUE_BYTES_MAX, Printer, QueuedStream, last_words, queued
from beaver.task.output import DescriptorWriter

LINE = b"x" * 999 + b"\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe.  Its writing end stays open: a printer's thread may still use that number."""
    reader, writer = os.pipe()
    yield reader, writer
    with contextlib.suppress(OSError):
        os.close(reader)


def read_all(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        return file.read()


def test_what_finds_no_room_is_dropped_and_counted_where_it_is_missing(
    pipe: tuple[int, int],
) -> None:
    reader, writer = pipe
    printer = Printer(writer)
    count = 3 * QUEUE_BYTES_MAX // len(LINE)
    for number in range(count):
        printer.put(b"%09d" % number + LINE[9:])
    assert not printer.drain(0.01), "nobody reads"
    heard: list[bytes] = []
    thread = threading.Thread(target=lambda: heard.append(read_all(reader)))
    thread.start()
    assert printer.drain(20.0)
    printer.put(b"after\n")
    assert printer.drain(20.0)
    os.close(writer)
    thread.join()
    lines = heard[0].splitlines()
    dropped = int(re.search(rb"(\d+) lines dropped", heard[0])[1])  # type: ignore[index]
    kept = len(lines) - 2
    assert kept + dropped == count
    assert kept * len(LINE) <= QUEUE_BYTES_MAX + (64 << 10), "what a pipe holds, and the queue"
    assert [int(line[:9]) for line in lines[:kept]] == list(range(kept)), "in order, the first ones"
    assert lines[-1] == b"after"


@pytest.mark.parametrize("more", [0, 1])
def test_a_queue_takes_exactly_its_bytes(pipe: tuple[int, int], more: int) -> None:
    reader, writer = pipe
    os.set_blocking(writer, True)
    printer = Printer(writer)
    os.write(writer, b"z" * (64 << 10))  # the pipe is full
    first = b"a" * 9 + b"\n"
    printer.put(first)
    printer.put(b"b" * (QUEUE_BYTES_MAX - len(first) - 1 + more) + b"\n")
    heard: list[bytes] = []
    thread = threading.Thread(target=lambda: heard.append(read_all(reader)))
    thread.start()
    assert printer.drain(20.0)
    os.close(writer)
    thread.join()
    assert (b"dropped" in heard[0]) == bool(more)


def test_a_stream_hands_over_whole_lines_and_flush_the_begun_one(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    stream = QueuedStream(Printer(writer), writer, "<test>")
    print("a", "b", file=stream)
    stream.write("begun")
    stream.printer.drain(10.0)
    assert os.read(reader, 100) == b"a b\n"
    stream.flush()
    stream.printer.drain(10.0)
    assert os.read(reader, 100) == b"begun"


def test_the_end_waits_for_a_reader_no_longer_than_it_may(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    former = sys.stderr
    sys.stderr = QueuedStream(Printer(writer), writer, "<test>")
    try:
        sys.stderr.write("x" * (128 << 10) + "\n")
        last_words("the end\n", 0.05)
    finally:
        sys.stderr = former


def test_the_streams_are_as_before_when_the_server_has_ended() -> None:
    before = sys.stdout, sys.stderr
    with queued():
        assert isinstance(sys.stderr, QueuedStream)
    assert (sys.stdout, sys.stderr) == before


def test_output_of_a_job_is_dropped_after_a_moment_and_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beaver.task.output.PATIENCE_S", 0.01)
    reader, writer = pipe
    outlet = DescriptorWriter(writer)

    def notice(count: int) -> bytes:
        return b"%d dropped\n" % count

    for _ in range(200):
        outlet.write(LINE, notice)
    assert os.get_blocking(writer), "the standard descriptor stays as it was"
    kept = os.read(reader, 1 << 20)
    outlet.write(b"after\n", notice)
    with closing(os.fdopen(os.dup(reader), "rb")) as file:
        rest = file.read1()
    whole = kept.count(b"\n")
    assert rest.endswith(b"%d dropped\nafter\n" % (200 - whole))


def test_a_closed_pipe_is_no_error(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.close(reader)
    DescriptorWriter(writer).write(LINE, lambda count: b"")
    printer = Printer(writer)
    printer.put(LINE)
    assert printer.drain(10.0)
