"""Job files: arrays and lines are read once, checked whole, and refused by place and key."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beaver.errors import InvalidInput
from beaver.request.jobfile import (
    CHUNK_BYTES,
    CHUNK_JOBS,
    chunks,
    one_commit,
    read_requests,
    retry_path,
    write_requests,
)
from beaver.request.requests import make_request, request_bytes
from beaver.structs.messages import Request


def read(text: str | bytes, **options: Any) -> list[Request]:
    raw = text if isinstance(text, bytes) else text.encode()
    return list(read_requests(io.BytesIO(raw), **options))


def refusal(text: str | bytes, **options: Any) -> str:
    with pytest.raises(InvalidInput) as refused:
        read(text, **options)
    return str(refused.value)


JOBS = [{"id": "task-001", "task": "echo", "payload": {"value": 42}}, {"task": "echo"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(JOBS),
        json.dumps(JOBS, indent=4),
        "\n  \n" + json.dumps(JOBS) + "\n\n",
        "\ufeff" + json.dumps(JOBS),
        "\n".join(map(json.dumps, JOBS)),
        "\r\n\n".join(map(json.dumps, JOBS)) + "\r\n",
    ],
)
def test_an_array_and_lines_are_read_alike(text: str) -> None:
    first, second = read(text)
    assert (first.id, json.loads(first.payload)) == ("task-001", {"value": 42})
    assert second.payload == b"null"
    assert len(second.id) == 36


@pytest.mark.parametrize("text", ["", "\n\n", "[]", " [ ] \n"])
def test_an_empty_file_holds_no_jobs(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"task":"a"},{"task":"a","priority":12}]', "index 1: priority: 0 to 9"),
        ('[{"task":"a"},\n{"task":"a","payload":[NaN]}]', "index 1: payload[0]: NaN is not JSON"),
        ('[{"task":"a"},{"task":"a" "b"}]', "index 1: not JSON: Expecting ',' delimiter at line 1"),
        ('\n\n[{"task":"a"}\n{"task":"b"}]', "index 0: not JSON: Expecting ',' or ']' at line 4"),
        ('[{"task":"a"},]', "index 1: not JSON: "),
        ('[{"task":"a"}', "index 0: not JSON: "),
        ('[{"task":"a"}] x', "index 0: not JSON: More text after the array"),
        ("[", "index 0: not JSON: "),
        ('[{"task":"a"},7]', "index 1: an object is expected, found a number (7)"),
        ('[{"task":"a","payload":{"k":1,"k":2}}]', "index 0: 'k': repeated key"),
        (b'[{"task":"a"},{"task":"a","payload":"\xff"}]', "index 1: payload: not UTF-8"),
        ("[" * 200_000, "index 0: nested deeper than 64"),
        ('[{"task":"a","payload":' + "[" * 65 + "]" * 65 + "}]", "index 0: payload: nested deeper"),
        ('{"task":"a"}\n\n{"task":"a","queue":7}', "line 3: queue: a string is expected"),
        ('{"task":"a"}\n{"task":', "line 2: not JSON: "),
        ('{"task":"a"}\n{"task":"a","payload":Infinity}', "line 2: payload: Infinity is not JSON"),
        ('{\n"task":"a"\n}', "line 1: not JSON: "),
        ("hello", "line 1: not JSON: "),
        (b'{"task":"a"}\n{"task":"\xff"}', "line 2: task: not UTF-8"),
        ('[{"task":"a","id":"x"},{"task":"b","id":"x"}]', "index 1: id: 'x' stands twice"),
        ('{"task":"a","id":"x"}\n{"task":"a","id":"x"}', "line 2: id: 'x' stands twice"),
    ],
)
def test_whatever_is_wrong_is_refused_naming_its_place(text: bytes | str, said: str) -> None:
    assert refusal(text).startswith(said)


def test_a_line_without_end_is_refused_before_it_is_read_whole() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            size = len(buffer)
            buffer[:] = b"x" * size
            Endless.given += size
            return size

    with pytest.raises(InvalidInput, match=r"line 1: longer than"):
        list(read_requests(io.BufferedReader(Endless())))
    assert Endless.given < 8 << 20


def test_a_file_for_chunks_needs_ids() -> None:
    assert len(read('{"task":"a","id":"x"}', need_ids=True)) == 1
    assert refusal('{"task":"a","id":"x"}\n{"task":"a"}', need_ids=True).startswith("line 2: id: ")


def test_one_commit_takes_ten_thousand_jobs_and_refuses_one_more_without_reading_on() -> None:
    request = make_request("echo")
    assert len(one_commit([request] * 10_000)) == 10_000

    def endless() -> Iterator[Request]:
        while True:
            yield request

    with pytest.raises(InvalidInput, match=r"--chunked"):
        one_commit(endless())


def test_one_commit_refuses_more_than_eight_mebibytes() -> None:
    request = make_request("echo", "x" * (1 << 20 - 1))
    fitting = (8 << 20) // request_bytes(request)
    assert len(one_commit([request] * fitting)) == fitting
    with pytest.raises(InvalidInput, match=r"8 MiB"):
        one_commit([request] * (fitting + 1))


def test_chunks_keep_order_and_stay_within_their_bounds() -> None:
    small = [make_request("echo", index) for index in range(5_000)]
    large = [make_request("echo", "x" * 400_000) for _ in range(10)]
    cut = list(chunks(iter(small + large)))
    assert [request.id for chunk in cut for request in chunk] == [r.id for r in small + large]
    assert max(map(len, cut)) <= CHUNK_JOBS
    assert all(sum(map(request_bytes, chunk)) <= CHUNK_BYTES for chunk in cut)
    one_large = make_request("echo", "x" * 1_000_000)
    assert list(chunks([one_large])) == [[one_large]]
    assert list(chunks([])) == []


def test_a_retry_file_holds_the_very_requests_and_is_private(tmp_path: Path) -> None:
    requests = read(json.dumps(JOBS))
    path = retry_path(str(tmp_path / "jobs.json"))
    assert path == str(tmp_path / "jobs.json.retry.jsonl")
    write_requests(path, requests)
    with open(path, "rb") as file:
        assert list(read_requests(file)) == requests
    assert (tmp_path / "jobs.json.retry.jsonl").stat().st_mode & 0o777 == 0o600


def test_ten_times_the_jobs_take_about_ten_times_as_long() -> None:
    """Processor time, the least of a few: what grows with the square takes a hundred times."""
    few, many = (
        json.dumps([{"id": f"task-{i}", "task": "echo", "payload": i} for i in range(count)])
        for count in (1_000, 10_000)
    )
    assert processor_s(many) < 30 * processor_s(few)


def processor_s(text: str) -> float:
    def once() -> float:
        started = time.process_time()
        read(text)
        return time.process_time() - started

    return min(once() for _ in range(3))
