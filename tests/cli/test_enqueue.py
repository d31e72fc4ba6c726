"""`beaver enqueue` without a server: rules of input, all or none, and what it says."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from beaver.transport import endpoint, framing
from tests.cli.conftest import Command, everything_in

JOBS = [{"id": "task-001", "payload": {"value": 42}}, {"id": "task-002", "payload": {"value": 100}}]


def write(text: str | bytes, name: str = "jobs.json") -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def test_one_job_is_enqueued_and_said(beaver: Command) -> None:
    told = beaver("enqueue", "send", '{"to": "ada"}', "--id", "a", "--queue", "mail", "--tag", "x")
    assert told == (0, "enqueued a (seq 1)\n", "")
    job = beaver("show", "a", "--json").one
    assert (job["task"], job["queue"], job["payload"]) == ("send", "mail", {"to": "ada"})
    assert (job["tags"], job["state"]) == (["x"], "pending")


def test_every_option_of_a_job_reaches_it(beaver: Command) -> None:
    told = beaver(
        "enqueue", "send", "--priority", 0, "--at", "2099-01-01T00:00:00Z", "--timeout", "90s",
        "--max-attempts", 7, "--backoff", "2s", "--json",
    )  # fmt: skip
    assert set(told.one) == {"id", "seq", "created"}
    job = beaver("show", told.one["id"], "--json").one
    assert (job["priority"], job["timeout_ms"], job["max_attempts"]) == (0, 90_000, 7)
    assert (job["ready_ms"], job["waiting"]) == (4_070_908_800_000, "time")


def test_a_file_of_the_original_format_is_enqueued_in_one_commit(beaver: Command) -> None:
    told = beaver("enqueue", "--file", write(json.dumps(JOBS)), "--json")
    assert told.json == [
        {"id": "task-001", "seq": 1, "created": True},
        {"id": "task-002", "seq": 2, "created": True},
    ]
    report = beaver("replay", "data", "--check", "--json").one
    assert (report["events"], report["counts"]["pending"]) == (2, 2)
    assert beaver("show", "task-001", "--json").one["task"] == "echo"


def test_lines_are_read_from_stdin(beaver: Command) -> None:
    told = beaver("enqueue", "--file", "-", stdin="\n".join(map(json.dumps, JOBS)))
    assert told.out.endswith("2 jobs enqueued (seq 1 to 2)\n")


@pytest.mark.parametrize("text", ["[]", "", "\n\n"])
def test_an_empty_file_is_fine_and_makes_nothing(beaver: Command, text: str) -> None:
    told = beaver("enqueue", "--file", write(text))
    assert told == (0, "nothing to enqueue\n", "")
    assert beaver("enqueue", "--file", write(text), "--json") == (0, "", "nothing to enqueue\n")
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "line 1: not JSON"),
        ('[{"id": "a"}, {"id": "b", "priority": "high"}]', "index 1: priority"),
        ('{"id": "a"}\n{"id": "b", "nope": 1}', "line 2: 'nope': unknown key"),
        ('[{"id": "a"}, {"id": "a"}]', "index 1: id: 'a' stands twice"),
        ('[{"id": "a", "id": "b"}]', "index 0: 'id': repeated key"),
        ('[{"payload": NaN}]', "index 0: payload: NaN is not JSON"),
        (b'[{"payload": "\xff"}]', "index 0: payload: not UTF-8"),
        ('[{"payload": "' + "x" * (1 << 20) + '"}]', "index 0: payload: at most 1048576 bytes"),
        ('[{"payload": ' + "[" * 65 + "]" * 65 + "}]", "index 0: payload: nested deeper than 64"),
        ('[{"timeout_ms": 0}]', "index 0: timeout_ms"),
        ('[{"max_attempts": -1}]', "index 0: max_attempts"),
        ('[{"unique": "x"}]', "index 0: unique: this option is not available yet"),
        ("{} " * 3, "line 1: not JSON"),
    ],
)
def test_a_bad_file_is_refused_by_place_and_key_and_nothing_is_made(
    beaver: Command, text: bytes | str, said: str
) -> None:
    told = beaver("enqueue", "--file", write(text))
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(f"beaver: jobs.json: {said}")
    assert len(told.err.splitlines()) <= 3
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--file", "none.json"], "none.json: No such file or directory"),
        (["--file", "."], ".: Is a directory"),
        ([], "either TASK or --file FILE is expected"),
        (["echo", "--file", "x"], "either TASK or --file FILE is expected"),
        (["--file", "x", "--id", "a"], "--file: the jobs of a file have their own options"),
        (["echo", "--chunked"], "--chunked: only a file"),
        (["echo", "{"], "payload: not JSON"),
        (["echo", "NaN"], "payload: NaN is not JSON"),
        (["echo", "--id", ""], "id: 1 to 255 bytes"),
        (["echo", "--in", "soon"], "--in: 'soon' is no duration"),
        (["echo", "--at", "soon"], "--at: 'soon' is no time"),
        (["echo", "--in", "1", "--at", "1"], "run_at and delay: only one of them"),
        (["echo", "--timeout", "0"], "timeout_ms: 1 to"),
        (["echo", "--max-attempts", "0"], "max_attempts: 1 to"),
        (["echo", "--priority", "10"], "priority: 0 to 9"),
        (["echo", "--backoff", '{"kind": "cubic"}'], "backoff: kind 'cubic' is unknown"),
        (["echo", "--wait-timeout", "x"], "--wait-timeout: 'x' is no duration"),
    ],
)
def test_wrong_arguments_are_refused_by_name_and_nothing_is_made(
    beaver: Command, arguments: list[str], said: str
) -> None:
    told = beaver("enqueue", *arguments)
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith(f"beaver: {said}")
    assert not Path("data").exists()


def test_the_same_again_is_a_no_op_that_says_so(beaver: Command) -> None:
    name = write(json.dumps(JOBS[:1]), "one.json")
    beaver("enqueue", "--file", name)
    told = beaver("enqueue", "--file", write(json.dumps(JOBS)))
    assert told.code == 0
    assert "exists already, same content: task-001 (seq 1)" in told.out
    assert "1 job enqueued (seq 2 to 2), 1 existed already with the same content" in told.out
    again = beaver("enqueue", "--file", name, "--json")
    assert again.one == {"id": "task-001", "seq": 1, "created": False}


def test_other_content_under_a_known_id_is_refused_and_nothing_of_the_file_is_in(
    beaver: Command,
) -> None:
    beaver("enqueue", "echo", '{"value": 1}', "--id", "task-002")
    told = beaver("enqueue", "--file", write(json.dumps(JOBS)))
    assert told.code == 2
    assert "task-002" in told.err
    assert beaver("status", "--json").one["pending"] == 1


def test_more_than_one_commit_holds_is_refused_unless_in_chunks(beaver: Command) -> None:
    jobs = [json.dumps({"id": f"job-{n}"}) for n in range(10_001)]
    told = beaver("enqueue", "--file", write("\n".join(jobs)))
    assert told.code == 2
    assert "--chunked" in told.err
    assert not Path("data").exists()
    told = beaver("enqueue", "--file", "jobs.json", "--chunked")
    assert told == (0, "10001 jobs enqueued (seq 1 to 10001)\n", "")
    again = beaver("enqueue", "--file", "jobs.json", "--chunked")
    assert again.out == "0 jobs enqueued, 10001 existed already with the same content\n"


def test_chunks_need_ids_and_what_was_sent_before_an_error_is_said(beaver: Command) -> None:
    told = beaver("enqueue", "--file", write('{"id": "a"}\n{}'), "--chunked")
    assert told.code == 2
    assert told.err.startswith("beaver: jobs.json: line 2: id: ")
    lines = [json.dumps({"id": f"job-{n}"}) for n in range(2_500)]
    told = beaver("enqueue", "--file", write("\n".join([*lines, "{"])), "--chunked")
    assert told.code == 2
    assert "Before it 2000 jobs came in" in told.err
    assert beaver("status", "--json").one["pending"] == 2_000
    assert beaver("enqueue", "--file", write("\n".join(lines)), "--chunked").code == 0
    assert beaver("status", "--json").one["pending"] == 2_500


def test_a_data_path_that_is_a_file_ends_with_3(beaver: Command) -> None:
    told = beaver("enqueue", "echo", "--data", write("x", "file"))
    assert told.code == 3
    assert "file is a file" in told.err


def test_waiting_without_a_server_is_refused_before_anything_is_enqueued(beaver: Command) -> None:
    told = beaver("enqueue", "echo", "--wait")
    assert told.code == 3
    assert "no server runs" in told.err
    assert not Path("data").exists()


@pytest.fixture
def dying_server(beaver: Command) -> Iterator[None]:
    """A server that says hello, and goes away when it is asked for anything."""
    Path("data").mkdir(mode=0o700)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("data/beaver.sock")
    listener.listen()
    path = os.path.abspath("data/beaver.sock")
    endpoint.write("data", endpoint.ServerInfo(pid=os.getpid(), socket=path, store="ab"))

    def serve() -> None:
        connection, _ = listener.accept()
        reader, replies = framing.FrameReader(), 0
        with connection:
            while received := connection.recv(1 << 16):
                for _ in reader.feed(received):
                    if replies:
                        return
                    replies += 1
                    hello = [0, 0, [framing.VERSION, "ab", 1, os.getpid()]]
                    connection.sendall(framing.encode_frame(hello))

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    thread.join(20)
    listener.close()


def test_a_server_that_goes_away_leaves_a_retry_file_with_the_ids_that_were_drawn(
    beaver: Command, dying_server: None
) -> None:
    before = everything_in("data")
    told = beaver("enqueue", "--file", write('[{"payload": 1}, {"payload": 2}]'))
    assert told.code == 3
    assert "unknown" in told.err
    assert "--file jobs.json.retry.jsonl" in told.err
    assert len(told.err.splitlines()) <= 3
    assert everything_in("data") == before
    first = beaver("enqueue", "--file", "jobs.json.retry.jsonl", "--data", "other", "--json").json
    again = beaver("enqueue", "--file", "jobs.json.retry.jsonl", "--data", "other", "--json").json
    assert [job["created"] for job in first + again] == [True, True, False, False]


def test_a_server_that_goes_away_leaves_the_drawn_id_in_the_message(
    beaver: Command, dying_server: None
) -> None:
    told = beaver("enqueue", "echo")
    assert told.code == 3
    assert "unknown" in told.err
    assert "with --id 0" in told.err
