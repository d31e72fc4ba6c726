"""Without a server: lock, append, leave.  What is acknowledged is in the files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from beaver.client import embedded as embedded_module
from beaver.client.embedded import EmbeddedClient
from beaver.client.opening import open_client
from beaver.errors import (
    Conflict,
    InvalidInput,
    NoServer,
    NotFound,
    QueueFull,
    StoreUnavailable,
)
from beaver.holder import starting
from beaver.journal.wal.lock import Hold, acquire, try_lock
from beaver.replay.replaying import check
from beaver.request.requests import make_request
from beaver.request.resolving import Resolver
from beaver.store.recovery import open_store
from beaver.structs.messages import Options
from beaver.system.clock import SystemClock
from beaver.system.disk import SystemDisk
from tests.api.conftest import Serve

ALONE, KEPT = "alone", "by a keeper"


@pytest.fixture(params=[ALONE, KEPT])
def embedded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedClient]:
    """What is promised without a server, whether changes are made right here or by a keeper."""
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "0" if request.param == ALONE else "20s")
    monkeypatch.setattr(embedded_module, "SMALL_BYTES", -1)
    data = tmp_path / "data"
    with EmbeddedClient(str(data), lock_wait_s=0.2) as client:
        yield client
    if data.exists():
        starting.ask_to_leave(str(data))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "0")


def test_an_enqueue_makes_the_store_and_is_in_the_log_on_return(embedded: EmbeddedClient) -> None:
    [made] = embedded.enqueue([make_request("echo", {"n": 1}, id="a")])
    assert (made.id, made.seq, made.created) == ("a", 1, True)
    report = check(SystemDisk(), embedded.data)
    assert report.ok
    assert report.last_seq == 1
    assert os.stat(embedded.data).st_mode & 0o777 == 0o700


def test_each_call_finds_what_another_process_wrote(embedded: EmbeddedClient) -> None:
    code = (
        "import sys; from beaver import Beaver; app = Beaver(sys.argv[1])\n"
        "print(app.enqueue('echo', 1, id='theirs').seq)"
    )
    embedded.enqueue([make_request("echo", 1, id="mine")])
    told = subprocess.run(
        [sys.executable, "-c", code, embedded.data], capture_output=True, text=True, check=True
    )
    assert told.stdout == "2\n"
    [made] = embedded.enqueue([make_request("echo", 1, id="mine again")])
    assert made.seq == 3
    assert [job.id for job in embedded.list_jobs()] == ["mine", "theirs", "mine again"]


def test_reading_creates_nothing_and_says_that_there_is_nothing(tmp_path: Path) -> None:
    absent = EmbeddedClient(str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    empty = EmbeddedClient(str(tmp_path / "empty"))
    for reader in (absent, empty):
        for ask in (reader.status, reader.list_jobs):
            with pytest.raises(NotFound):
                ask()
        about: list[Callable[[str], object]] = [
            reader.show,
            reader.explain,
            reader.cancel,
            reader.wait,
        ]
        for ask_about in about:
            with pytest.raises(NotFound):
                ask_about("a")
    assert sorted(os.listdir(tmp_path)) == ["empty"]
    assert os.listdir(tmp_path / "empty") == []


def test_a_read_does_not_need_the_lock_and_writes_nothing(embedded: EmbeddedClient) -> None:
    def stamps() -> dict[str, int]:
        paths = [os.path.join(embedded.data, name) for name in os.listdir(embedded.data)]
        return {path: os.stat(path).st_mtime_ns for path in paths}

    embedded.enqueue([make_request("echo", 1, id="a")])
    lock = take_lock(embedded.data)
    try:
        before = stamps()
        assert embedded.status().pending == 1
        assert embedded.explain("a").events[0].event == "ENQUEUE"
        assert stamps() == before
    finally:
        lock.release()


def test_status_says_that_no_server_runs(embedded: EmbeddedClient) -> None:
    embedded.enqueue([make_request("echo", 1, queue="q", delay=60)])
    status = embedded.status()
    assert not status.running
    assert (status.pending, status.scheduled, status.queues["q"].pending) == (1, 1, 1)
    assert len(status.store) == 32


def test_the_same_again_is_a_no_op_that_writes_nothing(embedded: EmbeddedClient) -> None:
    wanted = make_request("echo", {"a": 1, "b": 2}, id="a", delay=5)
    [first] = embedded.enqueue([wanted])
    size = check(SystemDisk(), embedded.data).frames
    [again] = embedded.enqueue([make_request("echo", {"b": 2, "a": 1}, id="a", delay=5)])
    assert (again.seq, again.created) == (first.seq, False)
    assert check(SystemDisk(), embedded.data).events == 1
    assert check(SystemDisk(), embedded.data).frames <= size + 1


def test_a_refused_batch_enqueues_nothing(embedded: EmbeddedClient) -> None:
    embedded.enqueue([make_request("echo", 1, id="a")])
    with pytest.raises(Conflict, match="index 1"):
        embedded.enqueue([make_request("echo", 1, id="b"), make_request("echo", 2, id="a")])
    with pytest.raises(InvalidInput, match="twice"):
        embedded.enqueue([make_request("echo", 1, id="c"), make_request("echo", 1, id="c")])
    assert embedded.status().pending == 1
    [made] = embedded.enqueue([make_request("echo", 1, id="d")])
    assert made.seq == 2


def test_a_batch_beyond_one_commit_is_refused(embedded: EmbeddedClient) -> None:
    text = "x" * 1_000_000
    with pytest.raises(InvalidInput, match="by several calls"):
        embedded.enqueue([make_request("echo", text) for _ in range(9)])
    with pytest.raises(InvalidInput, match="by several calls"):
        embedded.enqueue([make_request("echo") for _ in range(10_001)])
    assert embedded.enqueue([make_request("echo", text) for _ in range(7)])[6].seq == 7


def test_an_empty_batch_creates_nothing(embedded: EmbeddedClient) -> None:
    assert embedded.enqueue([]) == []
    assert not os.path.exists(embedded.data)


def test_operators_change_what_waits(embedded: EmbeddedClient) -> None:
    embedded.enqueue([make_request("echo", 1, id="a", queue="q")])
    with pytest.raises(Conflict, match=r"job a is pending; possible now: cancel, discard$"):
        embedded.requeue("a")
    assert embedded.cancel("a") == "cancelled"
    assert embedded.requeue("a", b'{"n": 12345678901234567890123}') == "pending"
    assert bytes(embedded.show("a").payload) == b'{"n": 12345678901234567890123}'
    assert embedded.set_queue("q", paused=True).durable_dispatch
    kept = embedded.set_queue("q", durable_dispatch=False)
    assert (kept.paused, kept.durable_dispatch) == (True, False)
    assert not embedded.status().queues["q"].durable_dispatch
    assert embedded.show("a").waiting == "paused"
    assert embedded.discard("a") == "discarded"
    assert embedded.show("a").state == "discarded"
    assert [e.event for e in embedded.history("a")] == ["ENQUEUE", "CANCEL", "REQUEUE", "DISCARD"]
    with pytest.raises(InvalidInput):
        embedded.requeue("a", b"{")
    with pytest.raises(Conflict, match="has finished"):
        embedded.cancel("a")


def test_the_bound_of_a_queue_holds_without_a_server_too(embedded: EmbeddedClient) -> None:
    embedded.enqueue([make_request("echo", 1, queue="q")])
    embedded.set_queue("q", bytes_max=2_000)
    with pytest.raises(QueueFull, match="queue q holds"):
        embedded.enqueue([make_request("echo", "x" * 2_000, queue="q")])
    embedded.enqueue([make_request("echo", "x" * 2_000, queue="other")])


def test_options_are_resolved_as_a_server_would(tmp_path: Path, alone: None) -> None:
    resolver = Resolver(timeout_ms=7_000, tasks={"mail": Options("mail", "slow", 2)})
    without = EmbeddedClient(str(tmp_path / "data"), resolver=resolver)
    without.enqueue([make_request("mail", id="a"), make_request("mail", id="b", priority=9)])
    first, second = without.show("a"), without.show("b")
    assert (first.queue, first.priority, first.timeout_ms) == ("slow", 2, 7_000)
    assert second.priority == 9


def test_a_finished_job_is_told_from_the_files(embedded: EmbeddedClient) -> None:
    embedded.enqueue([make_request("echo", 1, id="a"), make_request("echo", 1, id="b")])
    run_by_hand(embedded.data, "a", b'{"done": true}')
    ended = embedded.wait("a")
    assert (ended.state, bytes(ended.result)) == ("completed", b'{"done": true}')
    embedded.cancel("b")
    assert embedded.wait("b").state == "cancelled"


def take_lock(data: str) -> Hold:
    starting.ask_to_leave(data)
    return acquire(partial(try_lock, SystemDisk(), data), data)


def run_by_hand(data: str, job: str, result: bytes) -> None:
    from beaver.journal.codec import encode_commit
    from beaver.journal.port import append_now
    from beaver_model import Rejection, apply, commands, decide

    disk = SystemDisk()
    take_lock(data).release()
    opened = open_store(disk, data, clock=SystemClock(), create=False)
    state = opened.state
    steps: tuple[Callable[[], commands.AnyCommand], ...] = (
        lambda: commands.Dispatch(job, 1),
        lambda: commands.Complete(job, state.jobs[job].token, result),
    )
    for step in steps:
        command = step()
        events = decide(state, command, state.time_ms)
        assert not isinstance(events, Rejection)
        for event in events:
            apply(state, event, state.time_ms)
        payload = encode_commit(state.time_ms, events)
        assert opened.journal.reserve(len(payload) + 64)
        append_now(opened.journal, payload, len(events))
    opened.journal.close()


def test_an_explanation_tells_one_moment_though_others_append_meanwhile(
    tmp_path: Path, alone: None
) -> None:
    """State and events of a job agree, also where it changes between the two reads."""
    data = str(tmp_path / "data")

    class Meanwhile(SystemClock):
        """A clock that cancels the job once it is asked for the time of a state just read."""

        armed = False

        def wall_ms(self) -> int:
            if self.armed:
                self.armed = False
                with EmbeddedClient(data) as other:
                    assert other.cancel("a") == "cancelled"
            return super().wall_ms()

    clock = Meanwhile()
    with EmbeddedClient(data, clock=clock) as reader:
        reader.enqueue([make_request("echo", 1, id="a")])
        clock.armed = True
        told = reader.explain("a")
        assert not clock.armed, "the job was cancelled in between"
        assert (told.job.state, told.waiting) == ("pending", "slot")
        assert [event.event for event in told.events] == ["ENQUEUE"]
        told = reader.explain("a")
        assert told.job.state == "cancelled"
        assert [event.event for event in told.events] == ["ENQUEUE", "CANCEL"]


def test_waiting_for_a_job_that_cannot_end_says_so(embedded: EmbeddedClient) -> None:
    embedded.enqueue([make_request("echo", 1, id="a")])
    with pytest.raises(NoServer, match="cannot end"):
        embedded.wait("a")


def test_who_holds_the_lock_is_named(embedded: EmbeddedClient) -> None:
    embedded.enqueue([make_request("echo", 1, id="a")])
    lock = take_lock(embedded.data)
    try:
        with pytest.raises(StoreUnavailable, match=f"process {os.getpid()}") as error:
            embedded.enqueue([make_request("echo", 1, id="b")])
        assert error.value.exit_code == 3
    finally:
        lock.release()
    assert embedded.status().last_seq == 1


def test_a_call_that_finds_the_store_locked_waits_its_turn(tmp_path: Path, alone: None) -> None:
    patient = EmbeddedClient(str(tmp_path / "data"), lock_wait_s=20)
    patient.enqueue([make_request("echo", 1)])
    lock = acquire(partial(try_lock, SystemDisk(), patient.data), patient.data)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(patient.enqueue, [make_request("echo", 1)])
        assert not waiting.done()
        lock.release()
        assert waiting.result(20)[0].seq == 2


def test_a_call_goes_to_the_server_that_comes_up_meanwhile(data: str, serve: Serve) -> None:
    patient = EmbeddedClient(data, lock_wait_s=20)
    lock = acquire(partial(try_lock, SystemDisk(), data), data)
    try:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(patient.enqueue, [make_request("echo", 1, id="a")])
            server = serve(data)
            assert waiting.result(20)[0].created
        assert "a" in server.state.jobs
    finally:
        lock.release()


def test_the_lock_is_free_after_every_kind_of_end(tmp_path: Path, alone: None) -> None:
    embedded = EmbeddedClient(str(tmp_path / "data"))

    def is_free() -> bool:
        with open(os.path.join(embedded.data, "LOCK")) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    embedded.enqueue([make_request("echo", 1, id="a")])
    assert is_free()
    with pytest.raises(Conflict):
        embedded.enqueue([make_request("echo", 2, id="a")])
    assert is_free()
    with pytest.raises(NotFound):
        embedded.cancel("nobody")
    assert is_free()


def test_threads_of_one_process_take_turns(tmp_path: Path, alone: None) -> None:
    shared = EmbeddedClient(str(tmp_path / "data"), lock_wait_s=30)
    started = threading.Barrier(4)

    def work(thread: int) -> list[int]:
        started.wait()
        return [shared.enqueue([make_request("echo", n)])[0].seq for n in range(10)]

    with ThreadPoolExecutor(4) as threads:
        seqs = [seq for got in threads.map(work, range(4)) for seq in got]
    assert sorted(seqs) == list(range(1, 41))
    assert check(SystemDisk(), shared.data).ok


def test_open_client_prefers_the_server(data: str, serve: Serve) -> None:
    with open_client(data) as without:
        assert isinstance(without, EmbeddedClient)
    serve(data)
    with open_client(data) as found:
        assert found.status().running


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="is a file"):
        open_client(tmp_path / "file")
    with pytest.raises(StoreUnavailable):
        EmbeddedClient(str(tmp_path / "file")).enqueue([make_request("echo")])
