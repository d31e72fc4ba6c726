"""Producers that fill a small disk leave room for the server that runs their jobs."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import pytest

from beaver.client.opening import open_client
from beaver.errors import DiskFull
from beaver.holder import starting
from beaver.request.requests import make_request
from beaver_chaos.faults.full_disk import Ballast, small_disk
from tests.support.needs import need_small_disk
from tests.support.program import Server, eventually, run_beaver, status

pytestmark = pytest.mark.chaos


@pytest.fixture(autouse=True)
def _mounts(tmp_path: Path) -> None:
    need_small_disk(tmp_path / "try")


def enqueued_until_full(data: Path) -> int:
    """Enqueues until the disk is full; returns how many jobs came in."""
    jobs = 0
    with closing(open_client(str(data))) as client, suppress(DiskFull):
        while True:
            client.enqueue([make_request("small", "x" * 4_000) for _ in range(10)])
            jobs += 10
    return jobs


@pytest.mark.parametrize("kept", [True, False], ids=["by a keeper", "alone"])
def test_what_producers_have_filled_a_small_disk_with_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """They leave room for a server, which runs the jobs one by one with what is left."""
    if not kept:
        monkeypatch.setenv("BEAVER_KEEPER_IDLE", "0")
    with small_disk(tmp_path / "small", 8 << 20) as small:
        data = small / "data"
        jobs = enqueued_until_full(data)
        starting.ask_to_leave(str(data))
        Ballast(small / "ballast").leave(256 << 10)
        app = tmp_path / "small_results.py"
        app.write_text(
            "from beaver import Beaver\n"
            "app = Beaver()\n"
            "@app.job(name='small')\n"
            "def small(text): return len(text)\n"
        )
        server = Server(data, "-A", "small_results:app", "--burst", cwd=tmp_path)
        try:
            assert server.wait() == 0, "".join(server.stderr)
        finally:
            server.process.kill()
        found = status(data)
        assert (found["pending"], found["completed"]) == (0, jobs)
        assert jobs > 100


def test_a_start_or_takeover_without_room_says_so_and_nobody_leaves_for_it(tmp_path: Path) -> None:
    """The server that runs goes on; one that cannot make itself known ends with 7, by name."""
    with small_disk(tmp_path / "small", 200 << 20) as small:
        data, ballast = small / "data", Ballast(small / "ballast")
        holder = Server(data, "--workers", "1")
        try:
            holder.ready()
            prepared = (data / "wal.next", data / "wal.adopted")
            eventually(lambda: any(path.exists() for path in prepared), "a segment is prepared")
            ballast.leave(0)
            next_one = Server(data, "--workers", "2", "--takeover")
            assert next_one.wait() == 7
            assert "the disk is full" in "".join(next_one.stderr)
            assert not any("takes over" in line for line in holder.stderr)
            ballast.drop()
            eventually(
                lambda: run_beaver("enqueue", "--data", str(data), "echo").returncode == 0,
                "the server finds room",
            )
            holder.drained(1)
            assert holder.stop() == 0
            ballast.leave(0)
            alone = Server(data, "--workers", "1")
            assert alone.wait() == 7
            assert "no room for server.json" in "".join(alone.stderr)
        finally:
            holder.process.kill()
        ballast.drop()
        again = Server(data, "--workers", "1")
        try:
            again.ready()
            assert again.stop() == 0
        finally:
            again.process.kill()
