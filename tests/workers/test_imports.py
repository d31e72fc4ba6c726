"""Importing the application: failures are told once, unsafe imports are not forked."""

from __future__ import annotations

import asyncio
import logging
import secrets
from pathlib import Path

import pytest

from beaver.errors import AppImportError
from beaver.workers.leftovers import find_leftovers
from beaver.workers.pool import ProcessPool
from beaver.workers.pool_options import PoolOptions
from tests.worlds.workers import Recorder, World, in_world, parent_of, until


def fail_to_start(app: str) -> str:
    """Returns the message of the failed start, and sees that no process is left."""
    store = secrets.token_hex(16)

    async def main() -> str:
        pool = ProcessPool(PoolOptions(workers=1, mark=store, app=app))
        with pytest.raises(AppImportError) as caught:
            await pool.start(Recorder())
        return str(caught.value)

    message = asyncio.run(main())
    assert find_leftovers(store) == []
    return message


def test_the_traceback_of_a_failed_import_is_the_applications_own(
    capfd: pytest.CaptureFixture[str],
) -> None:
    message = fail_to_start("broken:app")
    assert "cannot import 'broken:app'" in message
    assert "RuntimeError: the database is not configured" in message
    assert message.count("Traceback") == 1
    assert "importlib" not in message
    assert "beaver/workers" not in message
    out, err = capfd.readouterr()
    assert (out, err) == ("", ""), "told once, by the exception"


@pytest.mark.parametrize(
    ("app", "text"),
    [
        ("no_such_module:app", "no module named 'no_such_module'"),
        ("jobs.deeper:app", "no module named 'jobs.deeper'"),
        ("jobs:no_such_name", "has no 'no_such_name'; it holds the applications registry"),
        ("two:number", "number is a int, not a Beaver"),
        ("two", "holds the applications office, shop; name one"),
        ("os:path", "path is a module, not a Beaver"),
        ("two:Hidden.confused", "more than one JobContext parameter"),
        ("exits:app", "SystemExit: bad environment"),
        ("dies:app", "was killed by signal 9"),
    ],
)
def test_an_application_that_cannot_be_imported_is_explained(app: str, text: str) -> None:
    assert text in fail_to_start(app)


def test_a_module_with_one_application_needs_no_name(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert await world.result(1, "add", 1) == 11

    in_world(tmp_path, test, app="jobs")


def test_tasks_are_reported_with_the_built_in_ones(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        infos = {info.options.task: info for info in world.tasks}
        assert infos["later"].is_async
        assert not infos["add"].is_async
        assert "echo" in infos
        assert "exec" not in infos

    in_world(tmp_path, test)


def test_workers_are_forked_from_the_imported_application(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        zygote = world.pool._zygote
        assert zygote is not None
        assert parent_of(world.events.pids[1]) == zygote.pid
        assert world.pool.notice == ""

    in_world(tmp_path, test)


@pytest.mark.parametrize(
    ("app", "why"), [("threaded:registry", "1 thread"), ("connected:registry", "2 sockets open")]
)
def test_an_import_that_is_not_safe_to_fork_is_repeated_by_each_worker(
    tmp_path: Path,
    app: str,
    why: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("beaver"), "propagate", True)

    async def test(world: World) -> None:
        assert why in world.pool.notice
        for worker in (1, 2):
            imported_in, pid, parent = await world.result(worker, "where")
            assert imported_in == pid == world.events.pids[worker]
            assert world.pool._zygote is not None
            assert parent == world.pool._zygote.pid
        world.pool.kill(1)
        await until(lambda: world.events.exits)
        await world.add(1)
        assert (await world.result(1, "where"))[1] == world.events.pids[1]

    in_world(tmp_path, test, workers=(1, 2), app=app)
    notices = [record for record in caplog.records if "instead of forked" in record.message]
    assert len(notices) == 1, "it is said once"


def test_spawned_workers_that_cannot_import_any_more_fail_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application was there when the zygote imported it, and is gone afterwards."""
    source = tmp_path / "vanishing.py"
    text = (
        "import threading, time\n"
        "from beaver.task.registry import Registry\n"
        "registry = Registry()\n"
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
    )
    source.write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def test(world: World) -> None:
        source.write_text("raise RuntimeError('gone')\n")
        world.events.on_exit = world.pool.add
        world.pool.add(1)
        await until(lambda: world.events.failures)
        world.events.on_exit = None
        assert "exited with 71" in world.events.failures[0]

    in_world(tmp_path, test, workers=(), app="vanishing:registry", log_level="ERROR")
