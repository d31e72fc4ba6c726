"""The same calls over the socket and by URL, blocking and awaited, and one outcome of each."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from beaver import AccessDenied, Beaver, Conflict, InvalidInput, JobFailed, NotFound, WaitTimeout
from beaver.api.handle import Handle
from beaver.api.job import Job
from beaver.client.calls import Method, Operations
from beaver.client.connection import Connection
from beaver.client.http.connection import HttpConnection
from beaver.client.reconnecting import ReconnectingClient
from beaver.structs.views import JobView
from tests.http_client.conftest import token_of, url_of
from tests.support.program import Server, eventually

NOT_TOLD = ("ready_ms", "enqueued_ms", "finished_ms")
"""What one of both ways does not tell of every job."""


class Way:
    """One way to ask: every method, whether awaited or not."""

    def __init__(self, app: Beaver, name: str, *, awaits: bool) -> None:
        self.app, self.name, self._awaits = app, name, awaits
        self._loop = asyncio.new_event_loop() if awaits else None

    def __call__(self, target: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._loop is None:
            return getattr(target, method)(*args, **kwargs)
        if target is self.app.client:
            found: Callable[..., Awaitable[Any]] = getattr(self.app.aclient, method)
        else:
            found = getattr(target, f"a{method}")

        async def run() -> Any:
            return await found(*args, **kwargs)

        return self._loop.run_until_complete(run())

    def close(self) -> None:
        if self._loop is not None:
            self._loop.run_until_complete(self.app.aclose())
            self._loop.close()
        self.app.close()


WAYS = ("socket", "socket-awaited", "url", "url-awaited")


def open_way(server: Server, name: str) -> Way:
    kind, _, how = name.partition("-")
    data = server.data
    app = Beaver(data) if kind == "socket" else Beaver(url_of(data), token=token_of(data))
    return Way(app, name, awaits=bool(how))


@pytest.fixture(params=WAYS)
def way(server: Server, request: pytest.FixtureRequest) -> Iterator[Way]:
    opened = open_way(server, request.param)
    yield opened
    opened.close()


def told(job: JobView) -> dict[str, Any]:
    view = msgspec.structs.asdict(job)
    return {key: value for key, value in view.items() if key not in NOT_TOLD}


def test_both_connections_have_the_same_calls() -> None:
    """A call that one of them had alone would fail on the other."""
    names = {name for name, value in vars(Operations).items() if isinstance(value, Method)}
    for kind in (ReconnectingClient, HttpConnection):
        assert issubclass(kind, Connection)
        public = {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}
        assert names <= public
        for name in ("call", "acall", "close", "aclose", "begin_anew"):
            assert name in vars(kind)


def test_a_job_comes_in_runs_and_is_told(way: Way) -> None:
    app, client, job = way.app, way.app.client, f"told-{way.name}"
    options: dict[str, Any] = {
        "id": job, "queue": "mail", "priority": 3, "timeout": "20s", "max_attempts": 2,
        "backoff": "3s", "tags": ["a", "ü"],
    }  # fmt: skip
    handle = way(app, "enqueue", "add", {"a": 1, "b": 2**70}, **options)
    assert (handle.id, handle.created) == (job, True)
    assert way(handle, "result", 20) == 1 + 2**70
    again = way(app, "enqueue", "add", {"a": 1, "b": 2**70}, **options)
    assert (again.seq, again.created) == (handle.seq, False)
    with pytest.raises(Conflict, match=job):
        way(app, "enqueue", "add", {"a": 1, "b": 3}, **options)
    shown = way(client, "show", job)
    assert (shown.state, shown.queue, shown.priority, shown.tags) == (
        "completed", "mail", 3, ("a", "ü"),
    )  # fmt: skip
    assert bytes(shown.payload) == b'{"a":1,"b":1180591620717411303424}'
    events = way(handle, "history")
    assert [event.event for event in events] == ["ENQUEUE", "DISPATCH", "ACK"]
    explained = way(handle, "explain")
    assert explained.events == events
    assert (explained.job, explained.waiting) == (shown, "finished")
    assert way(client, "wait", job).state == "completed"


def test_many_come_in_with_one_commit_or_none(way: Way) -> None:
    app = way.app
    wanted = [app.request("nobody", n, id=f"many-{way.name}-{n}", delay=600) for n in range(300)]
    handles: list[Handle[Any]] = way(app, "enqueue_many", wanted)
    assert [handle.seq - handles[0].seq for handle in handles] == list(range(300))
    assert [handle.created for handle in way(app, "enqueue_many", wanted)] == [False] * 300
    taken = [app.request("nobody", 1), app.request("nobody", "else", id=wanted[7].id)]
    with pytest.raises(Conflict, match=wanted[7].id):
        way(app, "enqueue_many", taken)
    with pytest.raises(NotFound):
        way(app.client, "show", taken[0].id)
    assert way(app, "enqueue_many", []) == []


def test_failures_and_refusals_have_the_same_classes(way: Way) -> None:
    app, client = way.app, way.app.client
    failed = way(app, "enqueue", "fail", {"text": "too late"})
    with pytest.raises(JobFailed, match="ValueError: too late") as error:
        way(failed, "result", timedelta(seconds=20))
    assert (error.value.state, error.value.cause) == ("dead", "failed")
    refusals: tuple[tuple[Callable[[], Any], type[BaseException]], ...] = (
        (lambda: way(client, "show", "nobody/../x?y#z%2F"), NotFound),
        (lambda: way(client, "explain", ".."), NotFound),
        (lambda: way(client, "list_jobs", queue="nowhere"), NotFound),
        (lambda: way(client, "list_jobs", "lost"), InvalidInput),
        (lambda: way(client, "list_jobs", limit=-1), InvalidInput),
        (lambda: way(client, "set_queue", "q", weight=5_000), InvalidInput),
        (lambda: way(client, "wait", "nobody", 1), NotFound),
        (lambda: way(client, "requeue", "nobody"), NotFound),
        (lambda: way(client, "requeue", failed.id, b'{"text":'), InvalidInput),
        (lambda: way(app, "enqueue", "nobody", "x" * (1 << 21)), InvalidInput),
    )
    for refused, kind in refusals:
        with pytest.raises(kind) as raised:
            refused()
        assert type(raised.value) is kind


def test_operators_can_do_everything(way: Way) -> None:
    app, client, job, queue = way.app, way.app.client, f"op-{way.name}", f"held-{way.name}"
    assert way(client, "set_queue", queue, paused=True, weight=3).paused
    handle = way(app, "enqueue", "wait", {}, id=job, queue=queue)
    with pytest.raises(WaitTimeout, match=job):
        way(handle, "result", 0.05)
    with pytest.raises(WaitTimeout):
        way(handle, "result", 0)
    assert way(handle, "explain").waiting == "paused"
    assert [told(one) for one in way(client, "list_jobs", queue=queue)] == [
        told(way(client, "show", job))
    ]
    assert way(handle, "cancel") == "cancelled"
    assert way(handle, "cancel") == "cancelled"
    assert way(handle, "retry") == "pending"
    with pytest.raises(Conflict):
        way(handle, "retry")
    assert not way(client, "set_queue", queue, paused=False).paused
    assert way(client, "set_queue", queue).weight == 3
    assert way(client, "set_queue", "as if never there").weight == 10
    eventually(lambda: way(handle, "status").state == "in_flight", "it runs")
    running = way(handle, "status")
    assert running.worker
    assert running.token
    assert way(handle, "cancel") == "cancel_requested"
    with pytest.raises(JobFailed, match="is cancelled"):
        way(handle, "result", 20)
    assert way(client, "requeue", job, b"{}") == "pending"
    eventually(lambda: way(handle, "status").state == "in_flight", "it runs again")
    way(handle, "cancel")
    eventually(lambda: way(handle, "status").state == "cancelled", "it has stopped")
    assert way(handle, "discard") == "discarded"
    assert way(handle, "status").state == "discarded"
    assert job in [one.id for one in way(client, "list_jobs", "discarded")]
    status = way(app, "status")
    assert status.running
    assert status.queues[queue].weight == 3
    assert len(way(client, "reload").tasks) == 4


def test_all_ways_tell_the_same_of_the_same_jobs(server: Server) -> None:
    """Also of those that have ended or were cancelled, in lists of every kind."""
    ways = [open_way(server, name) for name in WAYS]
    app = ways[0].app
    app.enqueue("add", {"a": 1, "b": 1}, id="same-done").result(timeout=20)
    with pytest.raises(JobFailed):
        app.enqueue("fail", {}, id="same-dead").result(timeout=20)
    app.enqueue("nobody", 1, id="same-waits", delay=600)
    app.enqueue("nobody", 1, id="same-off", delay=600).cancel()
    try:
        for job in ("same-done", "same-dead", "same-waits", "same-off"):
            shown = [told(way(way.app.client, "show", job)) for way in ways]
            assert shown == shown[:1] * 4
            stories = [way(way.app.client, "explain", job) for way in ways]
            assert [one.events for one in stories] == [stories[0].events] * 4
            assert [one.waiting for one in stories] == [stories[0].waiting] * 4
        for state in ("", "pending", "dead", "cancelled", "completed", "discarded"):
            lists = [way(way.app.client, "list_jobs", state) for way in ways]
            assert [[told(job) for job in jobs] for jobs in lists] == [
                [told(job) for job in lists[0]]
            ] * 4, state
        pages = [way(way.app.client, "list_jobs", "completed", limit=1) for way in ways]
        after = pages[0][0].end_seq
        assert [page[0].end_seq for page in pages] == [after] * 4
        for way in ways:
            more = way(way.app.client, "list_jobs", "completed", after_seq=after)
            assert pages[0][0].id not in [job.id for job in more]
    finally:
        for way in ways:
            way.close()


def test_a_task_that_nobody_knows_is_warned_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    way = open_way(server, "url")
    with caplog.at_level(logging.WARNING, "beaver"):
        way.app.enqueue("addd", {})
    assert "no worker of the server knows task 'addd'; did you mean add?" in caplog.text
    way.close()


def test_a_declared_job_is_enqueued_by_url_as_well(server: Server) -> None:
    app = Beaver(url_of(server.data), token=token_of(server.data))

    @app.job(name="add", max_attempts=3)
    def add(a: int, b: int) -> int:
        return a + b

    assert isinstance(add, Job)
    handle = add.enqueue(2, b=3)
    assert handle.result(timeout=20) == 5
    assert handle.status().max_attempts == 3
    app.close()


def test_a_token_without_the_right_is_told_what_it_lacks(server: Server) -> None:
    url = url_of(server.data)
    with pytest.raises(AccessDenied, match="BEAVER_TOKEN"):
        Beaver(url).status()
    with pytest.raises(AccessDenied, match="not known"):
        Beaver(url, token="beaver_no").status()
