"""Client, application and handles against `beaver run` itself."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beaver.client import blocking
from beaver.client.embedded import EmbeddedClient
from beaver.errors import Conflict, InvalidInput, JobFailed, NotFound, WaitTimeout
from beaver.replay.replaying import check
from beaver.request.requests import make_request
from beaver.system.disk import SystemDisk
from beaver.transport import endpoint, framing
from tests.api.served import APP, ServerProcess


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("served"))
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def jobs(running: ServerProcess) -> Any:
    return load(running)


def load(server: ServerProcess) -> Any:
    """Returns the module of the application, with its jobs; its store where this server's is."""
    module: Any = ModuleType("served_app")
    exec(APP, module.__dict__)
    module.app.connection.store = server.data
    return module


def test_jobs_run_and_their_results_come_back(jobs: Any) -> None:
    assert jobs.add.enqueue(1, b=2).result(timeout=20) == 3
    handles = jobs.app.enqueue_many([jobs.add.request(n, 1) for n in range(200)])
    assert [handle.result(timeout=20) for handle in handles] == list(range(1, 201))


def test_children_come_in_with_their_parent(jobs: Any) -> None:
    for family in (jobs.parent, jobs.aparent):
        handle = family.enqueue(3)
        children = [jobs.app.handle(job) for job in handle.result(timeout=20)]
        assert all(isinstance(child.result(timeout=20), int) for child in children)
        ack = next(event for event in handle.history() if event.event == "ACK")
        births = [child.history()[0] for child in children]
        assert [birth.seq for birth in births] == [ack.seq + n for n in (1, 2, 3)]
        assert {birth.parent for birth in births} == {handle.id}


def test_failures_reach_who_waits(jobs: Any) -> None:
    with pytest.raises(JobFailed, match="ValueError: too late") as error:
        jobs.bad.enqueue("too late").result(timeout=20)
    assert (error.value.state, error.value.cause) == ("dead", "failed")
    with pytest.raises(JobFailed, match="no use"):
        jobs.hopeless.enqueue().result(timeout=20)


def test_why_a_job_cancelled_itself_is_told_everywhere(running: ServerProcess, jobs: Any) -> None:
    """To who waits, by handles, by every reading command, and still after a discard."""
    handle = jobs.unwanted.enqueue("sold out")
    with pytest.raises(JobFailed, match=r"is cancelled \(job\): sold out") as error:
        handle.result(timeout=20)
    assert (error.value.cause, error.value.error) == ("job", "sold out")
    assert (handle.status().cause, handle.status().error) == ("job", "sold out")
    assert handle.history()[-1].error == "sold out"

    def told(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "beaver", *command, "--data", running.data],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def told_by_all() -> list[str]:
        return [told("show", handle.id), told("explain", handle.id), told("replay", running.data)]

    for text in [*told_by_all(), told("list", "--state", "cancelled", "--json")]:
        assert "sold out" in text
    handle.discard()
    for text in told_by_all():
        assert "sold out" in text


def test_an_explanation_and_the_events_in_it_agree_while_the_job_goes_on(jobs: Any) -> None:
    """A job that ends while its events are looked up is told with its end, or as before it."""
    for n in range(50):
        handle = jobs.add.enqueue(n, b=1)
        told = handle.explain()
        while told.job.state != "completed":
            assert "ACK" not in [event.event for event in told.events]
            told = handle.explain()
        assert "ACK" in [event.event for event in told.events]


def test_a_wait_ends_in_time_and_the_job_goes_on(jobs: Any) -> None:
    handle = jobs.sleep.enqueue(0.4)
    started = time.monotonic()
    with pytest.raises(WaitTimeout):
        handle.result(timeout=0.05)
    assert time.monotonic() - started < 0.4
    assert handle.result(timeout=20) == "slept"


def test_a_running_job_can_be_cancelled(jobs: Any) -> None:
    handle = jobs.sleep.enqueue(60)
    wait_until(lambda: handle.status().state == "in_flight")
    assert handle.cancel() == "cancel_requested"
    with pytest.raises(JobFailed, match="is cancelled"):
        handle.result(timeout=20)


def test_operators_reach_the_server(jobs: Any) -> None:
    calls = jobs.app.client
    calls.set_queue("held", paused=True, weight=3)
    handle = jobs.add.options(queue="held", id="held-1").enqueue(1)
    assert handle.explain().waiting == "paused"
    assert [job.id for job in calls.list_jobs(queue="held")] == ["held-1"]
    assert handle.cancel() == "cancelled"
    assert calls.requeue("held-1", b'{"a": 40, "b": 2}') == "pending"
    assert calls.set_queue("held", paused=False).durable_dispatch
    assert not calls.set_queue("held", durable_dispatch=False).durable_dispatch
    assert handle.result(timeout=20) == 42
    with pytest.raises(Conflict, match="has finished"):
        calls.discard("held-1")
    status = jobs.app.status()
    assert status.running
    assert status.queues["held"].weight == 3
    assert len(status.workers) == 2


def test_refusals_keep_their_class(jobs: Any) -> None:
    calls = jobs.app.client
    with pytest.raises(NotFound):
        calls.show("nobody")
    with pytest.raises(NotFound):
        calls.list_jobs(queue="nowhere")
    with pytest.raises(InvalidInput):
        calls.list_jobs(state="lost")
    jobs.add.options(id="taken").enqueue(1)
    with pytest.raises(Conflict, match="index 1"):
        jobs.app.enqueue_many([jobs.add.request(1), jobs.add.options(id="taken").request(2)])
    handle = jobs.app.enqueue("aparnet", {})
    explained = handle.explain()
    assert (explained.waiting, explained.near_tasks) == ("unknown_task", ("aparent", "parent"))
    assert calls.discard(handle.id) == "discarded"


def test_threads_and_coroutines_share_a_server(jobs: Any) -> None:
    def work(thread: int) -> int:
        return sum(jobs.add.enqueue(n).result(timeout=30) for n in range(20))

    async def main() -> int:
        handles = await asyncio.gather(*(jobs.add.aenqueue(n) for n in range(100)))
        return sum(await asyncio.gather(*(handle.aresult(timeout=30) for handle in handles)))

    with ThreadPoolExecutor(4) as threads:
        sums = [threads.submit(work, thread) for thread in range(4)]
        assert asyncio.run(main()) == sum(range(100))
        assert [future.result(60) for future in sums] == [sum(range(20))] * 4


def test_a_client_that_talks_nonsense_harms_nobody(jobs: Any, running: ServerProcess) -> None:
    found = endpoint.read(running.data)
    assert found is not None
    for nonsense in (b"\xff" * 64, b"\x02\x00\x00\x00\xc1\xc1", framing.encode_frame([1, "x"])):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(20)
            stranger.connect(found.socket)
            stranger.sendall(nonsense)
            while stranger.recv(1 << 16):
                pass
    assert jobs.app.status().running


def test_a_batch_of_the_largest_size_is_one_commit(running: ServerProcess) -> None:
    with blocking.connect(running.data) as calls:
        calls.set_queue("bulk", paused=True)
        made = calls.enqueue([make_request("echo", n, queue="bulk") for n in range(10_000)])
        assert [one.seq - made[0].seq for one in made] == list(range(10_000))
        with pytest.raises(InvalidInput):
            calls.enqueue([make_request("echo", n, queue="bulk") for n in range(10_001)])
        assert calls.status().queues["bulk"].pending == 10_000


def test_results_survive_kill_9_and_a_wait_lasts_through_it(own: ServerProcess) -> None:
    """The server is killed with a wait under way; the job, and the wait, end under the next."""
    jobs = load(own)
    own.start()
    done = jobs.add.enqueue(20, b=22)
    assert done.result(timeout=20) == 42
    slow = jobs.sleep.enqueue(0.5)
    wait_until((own.directory / "sleeping").exists)
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(slow.result, 30)
        also = threads.submit(lambda: asyncio.run(slow.aresult(timeout=30)))
        own.kill()
        assert isinstance(blocking.find(own.data) or EmbeddedClient(own.data), EmbeddedClient)
        meanwhile = jobs.add.enqueue(1, b=1)
        own.start()
        assert meanwhile.result(timeout=20) == 2
        assert waiting.result(30) == "slept"
        assert also.result(30) == "slept"
    events = [event.event for event in slow.history()]
    assert events == ["ENQUEUE", "DISPATCH", "TIMEOUT", "DISPATCH", "ACK"]
    assert done.result(timeout=20) == 42
    assert own.stop() == 0
    assert done.result() == 42, "from the files alone"
    report = check(SystemDisk(), own.data)
    assert report.ok
    assert report.violations == []


def test_an_app_serves_itself_from_its_script(own: ServerProcess) -> None:
    jobs = load(own)
    own.start(["served_app.py"])
    assert jobs.add.enqueue(1, b=2).result(timeout=20) == 3
    assert own.stop() == 0
    assert endpoint.read(own.data) is None


def test_a_server_on_a_long_path_is_reached(tmp_path: Path, runtime_directory: str) -> None:
    directory = tmp_path / ("long" * 30) / ("path" * 20)
    directory.mkdir(parents=True)
    own = ServerProcess(directory)
    try:
        own.start()
        assert load(own).add.enqueue(1).result(timeout=20) == 1
        assert own.stop() == 0
        assert os.listdir(runtime_directory) == []
    finally:
        own.kill()


def wait_until(holds: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
