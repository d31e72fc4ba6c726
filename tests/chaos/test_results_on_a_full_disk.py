"""Results that the log has no room for, on a disk that is full: they wait, and that is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from beaver.client.opening import open_client
from beaver.errors import DiskFull
from beaver.request.requests import make_request
from beaver_chaos.faults.full_disk import Ballast, small_disk
from tests.support.needs import need_small_disk
from tests.support.program import Server, beaver, events_of, eventually

pytestmark = pytest.mark.chaos

SIZED = """
from beaver import Beaver
app = Beaver()

@app.job()
def sized(size):
    return "x" * (size if isinstance(size, int) else 3)
"""
FITS, TOO_LARGE = 500_000, 700_000
"""Results of jobs, beside the 1 MiB of the log that producers leave: one fits, not both."""
DATA_BYTES = 8 << 20


@pytest.fixture(autouse=True)
def _mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_small_disk(tmp_path / "try")
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "0")


class Store:
    """A store on a small disk that producers have filled, and what holds the room."""

    def __init__(self, small: Path, app: Path, *sizes: int) -> None:
        self.data, self.ballast, self._app = small / "data", Ballast(small / "ballast"), app
        self.ballast.leave(DATA_BYTES)
        jobs = [make_request("sized", size, id=f"sized-{n}") for n, size in enumerate(sizes)]
        self.jobs = len(jobs)
        with closing(open_client(str(self.data))) as client, suppress(DiskFull):
            client.enqueue(jobs)
            while True:
                client.enqueue([make_request("sized", "x" * 4_000) for _ in range(10)])
                self.jobs += 10
        self.ballast.leave(64 << 10)

    @contextmanager
    def served(self) -> Iterator[Server]:
        server = Server(self.data, "-A", "sizes:app", "--workers", "1", cwd=self._app)
        try:
            server.ready()
            yield server
        finally:
            if server.process.poll() is None:
                server.kill()

    def explained(self, job: str) -> str:
        return beaver("explain", job, "--data", str(self.data))


@contextmanager
def filled(tmp_path: Path, *sizes: int) -> Iterator[Store]:
    tmp_path.joinpath("sizes.py").write_text(SIZED)
    with small_disk(tmp_path / "small", DATA_BYTES + (8 << 20)) as small:
        yield Store(small, tmp_path, *sizes)


def told(server: Server, words: str) -> list[str]:
    return [line for line in server.stderr if words in line]


def test_a_result_that_finds_no_room_waits_and_is_written_once_there_is_some(
    tmp_path: Path,
) -> None:
    """One line names the job and what to do; `explain` says it, of the others as well."""
    with filled(tmp_path, FITS, TOO_LARGE) as store, store.served() as server:
        eventually(lambda: told(server, "no room for how job sized-1 ended"), "it is told")
        (line,) = told(server, "no room for how")
        assert "no other job starts before. Free some of the disk" in line
        assert server.status()["completed"] == 1
        assert "or it has ended and that waits for room" in store.explained("sized-1")
        (waiting,) = beaver(
            "list", "--state", "pending", "--limit", "1", "--data", str(store.data), "--json"
        ).splitlines()
        other = waiting.partition('"id":"')[2].partition('"')[0]
        assert "the disk is full, and jobs run only as the log has room" in store.explained(other)
        store.ballast.drop()
        server.drained(store.jobs)
        eventually(lambda: told(server, "the log has room again"), "the end of it is told")
        assert events_of(store.data, "sized-1") == ["ENQUEUE", "DISPATCH", "ACK"]
        assert "disk" not in store.explained("sized-1")
        assert server.stop() == 0
        assert not told(server, "was not written")


def test_a_server_that_stops_before_there_is_room_says_which_job_runs_again(
    tmp_path: Path,
) -> None:
    """The stop does not wait for it, and the next start charges an attempt, as it was told."""
    with filled(tmp_path, FITS, TOO_LARGE) as store:
        with store.served() as server:
            eventually(lambda: told(server, "no room for how job sized-1 ended"), "it is told")
            assert server.stop() == 0
            (line,) = told(server, "was not written")
            assert "how job sized-1 ended" in line
            assert "costs an attempt" in line
        store.ballast.drop()
        with store.served() as server:
            server.drained(store.jobs)
            assert server.stop() == 0
        found = events_of(store.data, "sized-1")
        assert found == ["ENQUEUE", "DISPATCH", "TIMEOUT", "DISPATCH", "ACK"]


def test_jobs_that_find_no_room_to_start_are_told_of_and_run_once_there_is_some(
    tmp_path: Path,
) -> None:
    """Results that fit have used up the room: nothing is in flight, and nothing can be."""
    with filled(tmp_path, FITS, 530_000) as store, store.served() as server:
        eventually(lambda: told(server, "no room to run another job"), "it is told")
        assert not told(server, "no room for how")
        assert server.status()["in_flight"] == 0
        assert server.status()["completed"] >= 2
        store.ballast.drop()
        server.drained(store.jobs)
        assert len(told(server, "no room to run another job")) == 1
        assert server.stop() == 0
