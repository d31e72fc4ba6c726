"""`beaver run --takeover`: a new server in the place of a running one."""

from __future__ import annotations

import fcntl
import itertools
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beaver import Beaver
from tests.support.program import (
    Server,
    enqueue,
    events,
    events_of,
    eventually,
    serving,
    status,
)

SLOW = """
import time
from beaver import Beaver
app = Beaver("data")
time.sleep({import_s})

@app.job()
def nap(ms):
    time.sleep(ms / 1000)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@contextmanager
def running(data: Path, *arguments: str, cwd: Path | None = None) -> Iterator[Server]:
    """A server that the test ends, or that is killed behind it."""
    server = Server(data, *arguments, cwd=cwd)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def asked(server: Server) -> bool:
    return any("another server takes over" in line for line in server.stderr)


def test_the_running_job_ends_and_the_next_ones_run_in_the_new_server(data: Path) -> None:
    """What is enqueued while the former one drains is taken in by it, and loses nothing.

    The new one has other settings: workers, executor, limits.
    """
    with running(data, "--workers", "3", "--grace", "10m") as former:
        former.ready()
        enqueue(data, {"id": "long", "payload": {"sleep_ms": 3_000}})
        eventually(lambda: former.status()["in_flight"] == 1, "it runs")
        with serving_next(data, "--workers", "1", "--executor", "thread") as following:
            eventually(lambda: asked(former), "the former server is asked to leave")
            enqueue(data, *({"id": f"job-{n}"} for n in range(20)))
            assert not following.stdout
            assert former.wait() == 0
            following.ready()
            following.drained(21)
            assert status(data)["epoch"] == 2
    assert events_of(data, "long") == ["ENQUEUE", "DISPATCH", "ACK"]
    log = events(data)
    assert {e["attempt"] for e in log if e["event"] == "ACK"} == {1}
    assert not [e for e in log if e["event"] in ("RETRY", "TIMEOUT", "RELEASE")]


@contextmanager
def serving_next(data: Path, *arguments: str, cwd: Path | None = None) -> Iterator[Server]:
    with running(data, *arguments, "--takeover", cwd=cwd) as server:
        yield server
        if server.process.poll() is None:
            assert server.stop() == 0, "".join(server.stderr)


def test_the_gap_is_a_small_part_of_a_start(data: Path, tmp_path: Path) -> None:
    """The application is imported before the other is asked: nobody waits for that.

    A busy machine stretches both, so what a start takes until then is measured with it.
    """
    import_s = 4.0
    tmp_path.joinpath("slow.py").write_text(SLOW.format(import_s=import_s))
    options = ("-A", "slow:app", "--workers", "1")
    with running(data, *options, cwd=tmp_path) as former:
        former.ready()
        over = threading.Event()

        def produce() -> None:
            app = Beaver(data)
            while not over.is_set():
                app.enqueue("nap", 0)
                time.sleep(0.005)

        producer = threading.Thread(target=produce)
        producer.start()
        try:
            began_s = time.monotonic()
            with serving_next(data, *options, cwd=tmp_path) as following:
                eventually(lambda: asked(former), "the former server is asked to leave")
                start_s = time.monotonic() - began_s
                following.ready()
                count = status(data)["completed"]
                following.drained(count + 20)
                over.set()
                producer.join()
        finally:
            over.set()
    log = events(data)
    came = [e["time_ms"] for e in log if e["event"] == "ENQUEUE"]
    began = [e["time_ms"] for e in log if e["event"] == "DISPATCH"]
    for times in (came, began):
        gap_ms = max(after - before for before, after in itertools.pairwise(times))
        assert gap_ms < start_s * 1000 / 2


def test_a_first_sigterm_behind_the_request_to_leave_is_still_a_gentle_one(data: Path) -> None:
    """Who replaces servers may send it as well: the running job keeps its attempt."""
    with running(data, "--workers", "1", "--grace", "10m") as former:
        former.ready()
        enqueue(data, {"id": "long", "payload": {"sleep_ms": 1_500}})
        eventually(lambda: former.status()["in_flight"] == 1, "it runs")
        with serving_next(data) as following:
            eventually(lambda: asked(former), "the former server is asked to leave")
            former.process.send_signal(signal.SIGTERM)
            assert former.wait() == 0
            following.ready()
    assert events_of(data, "long") == ["ENQUEUE", "DISPATCH", "ACK"]


def test_it_waits_for_whoever_holds_the_lock_and_a_signal_ends_the_wait(data: Path) -> None:
    """A holder that cannot be asked, a command say, is waited for longer than five seconds."""
    data.mkdir(mode=0o700)
    with (data / "LOCK").open("w") as file, running(data, "--takeover") as server:
        (data / "LOCK").chmod(0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AssertionError):
            eventually(lambda: server.stdout or server.process.poll() is not None, "", 6.0)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not server.stdout


def test_where_nobody_serves_it_starts_at_once(data: Path) -> None:
    with serving(data, "--takeover") as server:
        enqueue(data, {"id": "a"})
        server.drained(1)


# -- the application's own directory ---------------------------------------------------------


HOME = """
from beaver import Beaver
app = Beaver("shop-data/")

@app.job()
def work():
    return 1
"""


def test_an_application_is_served_where_its_own_store_is(tmp_path: Path) -> None:
    """`Beaver("shop-data")` and `beaver run -A shop:app`: what one enqueues the other runs."""
    tmp_path.joinpath("shop.py").write_text(HOME)
    home = tmp_path / "shop-data"
    enqueue(home, {"id": "a", "task": "work"})
    with serving(home, "-A", "shop:app", cwd=tmp_path, with_data=False) as server:
        server.drained(1)
        assert "shop-data" in server.ready()
        assert not server.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("by", ["flag", "environment", "file"])
def test_another_directory_is_served_where_it_is_told_and_that_is_said(
    tmp_path: Path, by: str
) -> None:
    tmp_path.joinpath("shop.py").write_text(HOME)
    data = tmp_path / "elsewhere"
    env = {"BEAVER_DATA": str(data)} if by == "environment" else {}
    if by == "file":
        tmp_path.joinpath("beaver.yaml").write_text(f"data: {data}\n")
    with serving(
        data, "-A", "shop:app", cwd=tmp_path, with_data=by == "flag", **env
    ) as server:  # fmt: skip
        enqueue(data, {"id": "a", "task": "work"})
        server.drained(1)
        (told,) = [line for line in server.stderr if "shop-data/" in line]
        assert str(data) in told
    assert not (tmp_path / "shop-data").exists()


def test_the_same_directory_by_another_name_is_no_difference(tmp_path: Path) -> None:
    tmp_path.joinpath("shop.py").write_text(HOME)
    home = tmp_path / "shop-data"
    with serving(home, "-A", "shop:app", cwd=tmp_path) as server:
        server.ready()
        assert not server.stderr


def test_a_takeover_of_a_directory_that_is_renamed_meanwhile_says_so(tmp_path: Path) -> None:
    """It ends with 3: there is nothing to wait for any more."""
    data = tmp_path / "data"
    with serving(data, "--workers", "1") as server:
        enqueue(data, {"id": "long", "payload": {"sleep_ms": 600_000}})
        eventually(lambda: server.status()["in_flight"], "the job runs")
        waiting = Server(data, "--workers", "1", "--takeover")
        try:
            eventually(lambda: "is waited for" in "".join(waiting.stderr), "it waits")
            data.rename(tmp_path / "elsewhere")
            assert waiting.wait() == 3
            assert f"{data} is gone: it was deleted or renamed" in "".join(waiting.stderr)
        finally:
            waiting.process.kill()
            server.kill()
            if not data.exists():
                (tmp_path / "elsewhere").rename(data)
