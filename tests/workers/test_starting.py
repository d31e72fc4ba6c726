"""A start that hangs is ended and tried again: of a worker, and of the zygote."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from beaver.errors import AppImportError
from beaver.workers import pool as pool_module
from beaver.workers.pool import ProcessPool
from beaver.workers.pool_options import PoolOptions
from tests.support.program import beaver, enqueue, events_of, eventually, serving
from tests.worlds.workers import APPS, Recorder, World, alive, in_world, until

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and PDEATHSIG")


def pids_in(flag: Path) -> list[int]:
    """Every process that hung in its import, and the program that each one started."""
    path = flag.with_suffix(".pids")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


@linux_only
def test_a_worker_whose_import_hangs_is_killed_and_replaced_and_no_attempt_is_charged(
    tmp_path: Path,
) -> None:
    """The real program: it says so in its log, in `beaver status` and in the metrics."""
    flag, data = tmp_path / "hangs", tmp_path / "data"
    flag.touch()
    flags = ["-A", "hangs:registry", "--workers", "2", "--start-timeout", "1500ms"]
    environment: dict[str, Any] = {"HANGS_LATER": str(flag), "PYTHONPATH": str(APPS)}
    with serving(data, *flags, cwd=tmp_path, **environment) as server:
        enqueue(data, {"id": "waits", "task": "where", "max_attempts": 1})
        eventually(lambda: server.status()["starts_overdue"] >= 3, "three starts were ended")
        assert not any(worker["ready"] for worker in server.status()["workers"])
        told = beaver("status", "--data", str(data))
        assert "starting" in told
        assert "workers killed because they hung at start: " in told
        flag.unlink()
        server.drained(1)
        assert any(worker["ready"] for worker in server.status()["workers"])
    assert events_of(data, "waits") == ["ENQUEUE", "DISPATCH", "ACK"]
    assert "is not ready 1.5 s after its start (start_timeout)" in "".join(server.stderr)
    hung = pids_in(flag)
    assert len(hung) >= 6
    assert not any(map(alive, hung)), "each was killed, with the program that it had started"


@linux_only
def test_the_first_import_that_hangs_ends_the_start_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "hangs"
    flag.touch()
    monkeypatch.setenv("HANGS_FIRST", str(flag))

    async def start() -> None:
        options = PoolOptions(
            workers=1,
            mark=secrets.token_hex(16),
            app="hangs:registry",
            start_limit_ms=500,
        )
        await ProcessPool(options).start(Recorder())

    with pytest.raises(AppImportError, match=r"'hangs:registry'.* after 0\.5 s"):
        asyncio.run(start())
    hung = pids_in(flag)
    assert len(hung) <= 2, "a hung import is not tried again"
    assert not any(map(alive, hung))


@linux_only
def test_a_zygote_whose_import_hangs_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    flag = tmp_path / "hangs"
    monkeypatch.setenv("HANGS_FIRST", str(flag))

    async def test(world: World) -> None:
        first = world.pool._zygote
        assert first is not None
        flag.touch()
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: world.events.exits)
        await until(lambda: len(pids_in(flag)) >= 2 * 2, "a second one hangs in its turn")
        hung = pids_in(flag)[:2]
        flag.unlink()
        await world.add(1)
        assert await world.result(1, "where") == world.events.pids[1]
        assert not any(map(alive, hung))
        assert not world.events.failures

    in_world(tmp_path, test, app="hangs:registry", start_limit_ms=2_000)
    assert "Traceback" not in capfd.readouterr().err, "the last zygote ended in order"


@linux_only
def test_a_zygote_that_hangs_cannot_keep_a_kill_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "ANSWER_WAIT_S", 0.3)

    async def test(world: World) -> None:
        zygote = world.pool._zygote
        assert zygote is not None
        token = world.send(1, "sleep", 600)
        await until(lambda: world.pool.started(1)[0] == token)
        os.kill(zygote.pid, signal.SIGSTOP)
        world.pool.add(2)  # It will never be forked.
        world.pool.kill(1)
        await until(lambda: len(world.events.exits) == 2)
        assert world.pool._zygote is not zygote
        assert [(worker, started) for worker, started, _ in world.events.exits] == [
            (1, token),
            (2, 0),
        ]
        await world.add(1, 2)
        assert await world.result(2, "add", 1) == 11

    in_world(tmp_path, test)


def test_a_zygote_that_answers_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the end of a killed worker takes longer than the answer may."""
    monkeypatch.setattr(pool_module, "ANSWER_WAIT_S", 0.3)

    async def test(world: World) -> None:
        zygote = world.pool._zygote
        pid_file = tmp_path / "program"
        world.send(1, "with_slow_to_die_subprocess", {"pid_file": str(pid_file)})
        await until(lambda: pid_file.exists() and pid_file.read_text())
        for _ in range(3):
            world.pool.kill(1)
            await until(lambda: world.events.exits)
            world.events.exits.clear()
            await world.add(1)
        await asyncio.sleep(0.5)
        assert world.pool._zygote is zygote

    in_world(tmp_path, test)
