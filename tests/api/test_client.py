"""The blocking client over a socket: many threads, one connection, honest errors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from beaver.client import blocking, calls
from beaver.client.blocking import BATCHES_MAX, BATCHES_MIN, Client
from beaver.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    ServerGone,
    StoreUnavailable,
    WaitTimeout,
)
from beaver.structs.messages import Options, Request
from beaver.structs.views import Accepted
from beaver.transport import endpoint, framing
from beaver_model.bounds import BATCH_JOBS_MAX
from tests.api.conftest import ModelServer

OPTIONS = msgspec.msgpack.encode(Options("echo"))


def request(job: str, payload: bytes = b"null") -> Request:
    return Request(job, OPTIONS, payload, payload[:12].ljust(12, b"."))


@pytest.fixture
def connected(data: str, server: ModelServer) -> Iterator[Client]:
    with blocking.connect(data) as found:
        yield found


def test_a_job_can_be_followed_from_enqueue_to_its_result(
    connected: Client, server: ModelServer
) -> None:
    [one, two] = connected.enqueue(
        [request("a", b'{"n": 123456789012345678901234567890}'), request("b")]
    )
    assert (one.id, one.seq, one.created, two.seq) == ("a", 1, True, 2)
    shown = connected.show("a")
    assert (shown.state, shown.task, bytes(shown.payload)) == (
        "pending",
        "echo",
        b'{"n": 123456789012345678901234567890}',
    )
    assert connected.status().pending == 2
    assert [job.id for job in connected.list_jobs(state="pending")] == ["a", "b"]
    assert [job.id for job in connected.list_jobs(after_seq=1)] == ["b"]
    assert connected.explain("b").waiting == "slot"
    assert connected.history("b") == []
    server.finish("a", b'{"big": 123456789012345678901234567890}')
    ended = connected.wait("a")
    assert (ended.state, bytes(ended.result)) == (
        "completed",
        b'{"big": 123456789012345678901234567890}',
    )


def test_the_same_request_again_is_a_no_op_and_another_a_conflict(connected: Client) -> None:
    [first] = connected.enqueue([request("a")])
    [again] = connected.enqueue([request("a")])
    assert (first.created, again.created, again.seq) == (True, False, first.seq)
    with pytest.raises(Conflict, match="different content"):
        connected.enqueue([request("b"), request("a", b"1")])
    assert connected.status().pending == 1


def test_operators_change_jobs_and_queues(connected: Client) -> None:
    connected.enqueue([request("a")])
    assert connected.cancel("a") == "cancelled"
    assert connected.requeue("a", b'"edited"') == "pending"
    assert bytes(connected.show("a").payload) == b'"edited"'
    assert connected.set_queue("default", paused=True, weight=3).paused
    assert not connected.set_queue("default", durable_dispatch=False).durable_dispatch
    assert connected.explain("a").waiting == "paused"
    assert connected.discard("a") == "discarded"
    assert connected.show("a").state == "discarded"


def test_errors_keep_their_class_and_message(connected: Client) -> None:
    with pytest.raises(NotFound, match="no job nobody"):
        connected.show("nobody")
    with pytest.raises(NotFound, match="no queue x"):
        connected.list_jobs(queue="x")
    with pytest.raises(InvalidInput, match="the states are"):
        connected.list_jobs(state="lost")
    with pytest.raises(InvalidInput, match="weight is 0"):
        connected.set_queue("q", weight=0)
    connected.enqueue([request("a")])
    with pytest.raises(Conflict, match="is pending"):
        connected.requeue("a")
    with pytest.raises(WaitTimeout):
        connected.wait("a", 0.01)


def test_a_long_wait_in_one_thread_holds_up_no_other(
    connected: Client, server: ModelServer
) -> None:
    connected.enqueue([request("slow")])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(connected.wait, "slow", 30)
        for n in range(50):
            connected.enqueue([request(f"quick-{n}")])
        assert not waiting.done()
        server.finish("slow", b"1")
        assert waiting.result(10).state == "completed"
    assert server.connections == 1


def test_many_threads_share_a_connection_and_each_gets_its_own_answer(connected: Client) -> None:
    def work(thread: int) -> None:
        for n in range(40):
            [made] = connected.enqueue([request(f"{thread}-{n}")])
            assert made.id == f"{thread}-{n}"
            assert connected.show(made.id).seq == made.seq

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(work, thread) for thread in range(8)]:
            future.result(30)
    assert connected.status().pending == 320


def test_pipelined_calls_are_answered_in_the_order_asked(connected: Client) -> None:
    batches = [calls.enqueue([request(f"p-{n}")]) for n in range(500)]
    made = connected.call_each(batches)
    assert [one.id for [one] in made] == [f"p-{n}" for n in range(500)]


def test_batches_are_sent_before_the_first_is_answered(connected: Client) -> None:
    made: list[list[Accepted]] = []
    answered = []

    def batches() -> Iterator[list[Request]]:
        for n in range(BATCHES_MAX + 2):
            answered.append(len(made))
            yield [request(f"b-{n}"), request(f"c-{n}")]

    for answer in connected.enqueue_each(batches()):
        made.append(answer)  # noqa: PERF402 - one by one, to be counted meanwhile
    assert answered == [0] * (BATCHES_MAX + 1) + [1]
    assert [[one.id for one in batch] for batch in made] == [
        [f"b-{n}", f"c-{n}"] for n in range(BATCHES_MAX + 2)
    ]


@pytest.mark.parametrize(
    ("size", "under_way"),
    [
        (BATCH_JOBS_MAX // 5, 5),
        (BATCH_JOBS_MAX // 5 + 1, 4),
        (BATCH_JOBS_MAX // BATCHES_MAX, BATCHES_MAX),
        (BATCH_JOBS_MAX // 2 + 1, BATCHES_MIN),
        (BATCH_JOBS_MAX, BATCHES_MIN),
    ],
)
def test_no_more_jobs_are_under_way_than_a_commit_may_have(
    connected: Client, size: int, under_way: int
) -> None:
    made = 0
    before = []

    def batches() -> Iterator[list[Request]]:
        for n in range(under_way + 2):
            before.append(made)
            yield [request(f"{n}-{m}") for m in range(size)]

    for answer in connected.enqueue_each(batches()):
        assert len(answer) == size
        made += 1
    assert before == [0] * (under_way + 1) + [1]


def test_what_a_source_of_batches_raises_comes_behind_the_answers_to_what_was_sent(
    connected: Client,
) -> None:
    def batches() -> Iterator[list[Request]]:
        yield [request("a")]
        yield [request("b")]
        raise InvalidInput("line 3 is wrong")

    answers = connected.enqueue_each(batches())
    assert [next(answers)[0].id, next(answers)[0].id] == ["a", "b"]
    with pytest.raises(InvalidInput, match="line 3"):
        next(answers)


def test_a_refused_batch_ends_the_batches_and_the_connection_goes_on(connected: Client) -> None:
    connected.enqueue([request("known")])
    batches = [[request("a")], [request("known", b'"other"')], [request("b")]]
    answers = connected.enqueue_each(batches)
    assert next(answers)[0].id == "a"
    with pytest.raises(Conflict):
        next(answers)
    assert connected.show("a").id == "a"


def test_answers_that_come_in_pieces_are_put_together(
    connected: Client, server: ModelServer
) -> None:
    payload = msgspec.json.encode("x" * 900_000)
    connected.enqueue([request("large", payload)])
    assert bytes(connected.show("large").payload) == payload


def test_a_server_that_dies_before_it_answers_leaves_the_outcome_open(
    data: str, server: ModelServer
) -> None:
    """The enqueue was applied; the client must not say that it was not."""

    def die(op: str, writer: asyncio.StreamWriter) -> bool:
        if op == "enqueue":
            writer.transport.abort()
            return False
        return True

    server.before_answer = die
    with blocking.connect(data) as found:
        with pytest.raises(ServerGone, match="outcome is unknown") as error:
            found.enqueue([request("a")])
        assert error.value.exit_code == 3
        assert found.closed
        with pytest.raises(StoreUnavailable, match="closed"):
            found.status()
    server.before_answer = None
    with blocking.connect(data) as found:
        [again] = found.enqueue([request("a")])
        assert not again.created


def test_every_thread_that_waits_hears_that_the_server_is_gone(
    connected: Client, server: ModelServer
) -> None:
    connected.enqueue([request("a")])
    with ThreadPoolExecutor(5) as threads:
        waiting = [threads.submit(connected.wait, "a") for _ in range(5)]
        while server.connections == 0 or not any(f.running() for f in waiting):
            pass
        server.drop_connections()
        for future in waiting:
            with pytest.raises((ServerGone, StoreUnavailable)):
                future.result(10)


def test_closing_releases_who_waits(data: str, server: ModelServer) -> None:
    found = blocking.connect(data)
    found.enqueue([request("a")])
    asked = threading.Event()
    server.before_answer = lambda op, writer: True

    def wait() -> None:
        asked.set()
        with pytest.raises((ServerGone, StoreUnavailable)):
            found.wait("a")

    thread = threading.Thread(target=wait)
    thread.start()
    asked.wait(10)
    found.close()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("garbage", [b"\x01\x00\x00\x00\xc1", b"\x01\x00\x00\x00\x05", b"\xff" * 9])
def test_an_answer_that_is_none_ends_the_connection(
    data: str, server: ModelServer, garbage: bytes
) -> None:
    def talk(op: str, writer: asyncio.StreamWriter) -> bool:
        if op == "status":
            writer.write(garbage)
        return op != "status"

    server.before_answer = talk
    with blocking.connect(data) as found:
        with pytest.raises(ServerGone):
            found.status()
        assert found.closed


def test_a_request_beyond_the_longest_frame_is_refused_before_it_is_sent(
    connected: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "FRAME_BYTES_MAX", 1000)
    with pytest.raises(InvalidInput, match="at most 1000"):
        connected.enqueue([request("a", b'"' + b"x" * 2000 + b'"')])
    assert connected.status().pending == 0


def test_a_newer_protocol_is_named(
    data: str, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(server), "op_hello", lambda *_: [9, server.store, 1, 1])
    with pytest.raises(StoreUnavailable, match="protocol version 9"):
        blocking.connect(data)
    assert endpoint.read(data) is not None
