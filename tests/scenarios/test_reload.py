"""`beaver reload` and SIGHUP: new workers beside the old ones, and nobody waits or pays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import (
    BEAVER,
    Server,
    beaver,
    enqueue,
    environment,
    events,
    events_of,
    eventually,
    run_beaver,
    serving,
    status,
)

CODE = """
import pathlib, time
from beaver import Beaver

app = Beaver("data")
here = pathlib.Path(__file__).parent
{first}

@app.job()
def work(ms=0):
    time.sleep(ms / 1000)
    return "{version}"

@app.job()
def hold(name):
    here.joinpath(name + ".runs").touch()
    while not here.joinpath(name).exists():
        time.sleep(0.005)
    return "{version}"
"""


class Shop:
    """A directory with an application, whose code changes."""

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, path / "data"

    def write(self, version: str, first: str = "") -> None:
        """Writes the application's code as of a version; `first` runs when it is imported."""
        self.path.joinpath("shop.py").write_text(CODE.format(version=version, first=first))

    def serving(self, *arguments: str) -> Any:
        # Code that changes twice within a second would be taken from the cache of the first.
        return serving(self.data, "-A", "shop:app", *arguments, cwd=self.path,
                       PYTHONDONTWRITEBYTECODE="1")  # fmt: skip

    def reload(self, code: int = 0) -> str:
        """`beaver reload`; returns what it has said."""
        done = run_beaver("reload", "--data", str(self.data))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def let_go(self, name: str) -> None:
        """Ends the job that `hold` holds under that name."""
        self.path.joinpath(name).touch()

    def hold(self, name: str) -> None:
        """Enqueues a job that runs until it is let go, and waits until it runs."""
        enqueue(self.data, {"id": name, "task": "hold", "payload": name})
        eventually(self.path.joinpath(name + ".runs").exists, f"{name} runs")

    def result(self, job: str) -> Any:
        view = json.loads(beaver("show", job, "--data", str(self.data), "--json"))
        return view["result"]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.write("old")
    return shop


def workers(data: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = status(data)["workers"]
    return found


def ready(data: Path) -> list[dict[str, Any]]:
    """The workers, once all are ready."""

    def found() -> list[dict[str, Any]]:
        these = workers(data)
        return these if all(worker["ready"] for worker in these) else []

    return eventually(found, "ready")


def test_a_running_job_ends_in_the_old_code_and_the_next_ones_run_in_the_new(shop: Shop) -> None:
    """It keeps its attempt, and no job waits for it."""
    with shop.serving("--workers", "1") as server:
        shop.hold("long")
        shop.write("new")
        said = shop.reload()
        assert "reloaded: 1 new worker for " in said
        assert "1 former one still at work" in said
        enqueue(shop.data, {"id": "next", "task": "work"})
        server.drained(1)
        assert [w["leaving"] for w in workers(shop.data)] == [True, False]
        told = beaver("status", "--data", str(shop.data))
        assert "of the code before the last reload: 1;" in told
        shop.let_go("long")
        server.drained(2)
        eventually(lambda: len(workers(shop.data)) == 1, "the former worker has left")
        assert (shop.result("long"), shop.result("next")) == ("old", "new")
    assert events_of(shop.data, "long") == ["ENQUEUE", "DISPATCH", "ACK"]


def test_under_load_a_reload_charges_nothing_and_every_job_ends_once(shop: Shop) -> None:
    """Long jobs, short ones and what waits in the prefetch, over three reloads."""
    with shop.serving("--workers", "2") as server:
        enqueue(shop.data, *({"id": f"long-{n}", "task": "work", "payload": 1_500}
                             for n in range(4)))  # fmt: skip
        enqueue(shop.data, *({"id": f"job-{n}", "task": "work", "payload": n % 7}
                             for n in range(600)))  # fmt: skip
        for version in ("second", "third", "fourth"):
            shop.write(version)
            shop.reload()
            enqueue(shop.data, *({"id": f"{version}-{n}", "task": "work"} for n in range(50)))
        server.drained(754)
        eventually(lambda: len(workers(shop.data)) == 2, "the former workers have left")
        assert shop.result("fourth-49") == "fourth"
    log = events(shop.data)
    names = Counter(event["event"] for event in log)
    assert names["ACK"] == names["ENQUEUE"] == 754
    assert not {"RETRY", "TIMEOUT", "DEAD"} & names.keys()
    assert {e["cause"] for e in log if e["event"] == "RELEASE"} <= {"drain", "never_started"}
    assert {e["attempt"] for e in log if e["event"] == "ACK"} == {1}


def test_while_the_new_code_is_imported_the_old_one_serves(shop: Shop) -> None:
    """There is no gap: the old workers are given jobs until the new ones are ready."""
    shop_gate = "while not here.joinpath('gate').exists(): time.sleep(0.005)"
    with shop.serving("--workers", "1") as server:
        shop.write("new", first=f"here.joinpath('importing').touch()\n{shop_gate}")
        asked = subprocess.Popen(
            [*BEAVER, "reload", "--data", str(shop.data)],
            stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        eventually(shop.path.joinpath("importing").exists, "the new code is being imported")
        enqueue(shop.data, *({"id": f"before-{n}", "task": "work"} for n in range(20)))
        server.drained(20)
        assert asked.poll() is None
        shop.let_go("gate")
        out, _ = asked.communicate(timeout=60)
        assert (asked.returncode, "reloaded" in out) == (0, True)
        enqueue(shop.data, {"id": "after", "task": "work"})
        server.drained(21)
        assert (shop.result("before-19"), shop.result("after")) == ("old", "new")


@pytest.mark.parametrize(
    ("first", "said"),
    [("import no_such_module", "no_such_module"), ("raise SystemExit(3)", "SystemExit")],
    ids=["it cannot be imported", "its import ends the process"],
)
def test_new_code_that_cannot_be_imported_leaves_the_old_one_serving(
    shop: Shop, first: str, said: str
) -> None:
    """Who asked is told why, with exit code 2; the log says so too."""
    with shop.serving("--workers", "1") as server:
        before = ready(shop.data)
        shop.write("new", first=first)
        assert said in shop.reload(code=2)
        assert workers(shop.data) == before
        enqueue(shop.data, {"id": "a", "task": "work"})
        server.drained(1)
        assert shop.result("a") == "old"
        assert any("the former workers serve on" in line for line in server.stderr)
        shop.write("mended")
        shop.reload()
        enqueue(shop.data, {"id": "b", "task": "work"})
        server.drained(2)
        assert shop.result("b") == "mended"


def test_a_hangup_reloads_code_and_settings_and_names_what_needs_a_restart(shop: Shop) -> None:
    """SIGHUP: the settings file is read again."""
    file = shop.path / "beaver.yaml"
    file.write_text("workers: 1\nmax_attempts: 3\n")
    with shop.serving() as server:
        enqueue(shop.data, {"id": "a", "task": "work"})
        file.write_text("workers: 2\nmax_attempts: 7\nsegment_size: 32MiB\n")
        shop.write("new")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: any("reloaded" in line for line in server.stderr), "it has reloaded")
        assert len([w for w in workers(shop.data) if not w["leaving"]]) == 2
        enqueue(shop.data, {"id": "b", "task": "work"})
        server.drained(2)
        assert shop.result("b") == "new"
        assert any("segment_size was changed" in line for line in server.stderr)
    limits = {e["job"]: e["max_attempts"] for e in events(shop.data) if e["event"] == "ENQUEUE"}
    assert limits == {"a": 3, "b": 7}


def test_a_setting_that_is_wrong_changes_nothing(shop: Shop) -> None:
    file = shop.path / "beaver.yaml"
    file.write_text("workers: 1\n")
    with shop.serving():
        before = ready(shop.data)
        file.write_text("workers: none\n")
        assert "workers" in shop.reload(code=2)
        assert workers(shop.data) == before


def test_a_new_task_runs_after_a_reload_and_a_removed_one_waits(shop: Shop) -> None:
    """Which tasks are known changes with the workers, at once."""
    with shop.serving("--workers", "1") as server:
        enqueue(shop.data, {"id": "early", "task": "added"})
        shop.write("new", first="@app.job()\ndef added(): return 'added'")
        shop.reload()
        server.drained(1)
        assert shop.result("early") == "added"
        shop.write("newer")
        shop.reload()
        enqueue(shop.data, {"id": "late", "task": "added"}, {"id": "b", "task": "work"})
        server.drained(2)
        assert status(shop.data)["pending"] == 1


def test_a_kill_9_with_two_crews_charges_what_had_started_in_either(shop: Shop) -> None:
    """The slots of both are read at the next start; what waited behind them is free."""
    server = Server(shop.data, "-A", "shop:app", "--workers", "1", cwd=shop.path,
                    PYTHONDONTWRITEBYTECODE="1")  # fmt: skip
    try:
        server.ready()
        shop.hold("first")
        shop.reload()
        shop.hold("second")
    finally:
        server.kill()
    for name in ("first", "second"):
        shop.let_go(name)
    with shop.serving("--workers", "1") as again:
        again.drained(2)
    for name in ("first", "second"):
        assert events_of(shop.data, name)[:3] == ["ENQUEUE", "DISPATCH", "TIMEOUT"]


def test_limits_and_cancels_reach_the_jobs_of_former_workers(shop: Shop) -> None:
    """They end as at any time; the worker is not replaced."""
    with shop.serving("--workers", "2") as server:
        job = {"task": "hold", "max_attempts": 1}
        enqueue(shop.data, {**job, "id": "late", "payload": "late", "timeout_ms": 1_500},
                {**job, "id": "stopped", "payload": "stopped"})  # fmt: skip
        eventually(shop.path.joinpath("late.runs").exists, "both run")
        eventually(shop.path.joinpath("stopped.runs").exists, "both run")
        shop.reload()
        beaver("cancel", "stopped", "--data", str(shop.data))
        eventually(lambda: server.status()["cancelled"] == 1, "it is cancelled")
        eventually(lambda: server.status()["dead"] == 1, "its time is over")
        assert [w["leaving"] for w in workers(shop.data)] == [False, False]
    assert events_of(shop.data, "late") == ["ENQUEUE", "DISPATCH", "DEAD"]


def test_a_stop_during_a_reload_lets_the_jobs_of_both_crews_end(shop: Shop) -> None:
    with shop.serving("--workers", "1") as server:
        shop.hold("first")
        shop.reload()
        shop.hold("second")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: any("stopping" in line for line in server.stderr), "it stops")
        shop.let_go("first")
        shop.let_go("second")
        assert server.wait() == 0
    for name in ("first", "second"):
        assert events_of(shop.data, name) == ["ENQUEUE", "DISPATCH", "ACK"]


@pytest.mark.parametrize("asked", ["reload", "hangup"])
def test_a_stop_does_not_wait_for_code_that_is_still_imported(shop: Shop, asked: str) -> None:
    """Whoever takes over waits for the end of this server: an import must not put it off."""
    with shop.serving("--workers", "1") as server:
        shop.write("2", first="here.joinpath('imports').touch(); time.sleep(120)")
        reload = subprocess.Popen(
            [*BEAVER, "reload", "--data", str(shop.data)], stderr=subprocess.PIPE, text=True
        ) if asked == "reload" else None  # fmt: skip
        if reload is None:
            server.process.send_signal(signal.SIGHUP)
        eventually(shop.path.joinpath("imports").exists, "the new code is imported")
        assert server.stop() == 0
        assert not any("does not end by itself" in line for line in server.stderr)
        if reload is not None:
            assert "nothing of it was carried out" in reload.communicate(timeout=60)[1]
            assert reload.returncode == 3


def test_reloads_that_pile_up_are_refused_and_nothing_is_harmed(shop: Shop) -> None:
    """Each former crew takes memory: there is a bound, and the message says what to do."""
    with shop.serving("--workers", "1") as server:
        for name in ("one", "two", "three"):
            shop.hold(name)
            shop.reload()
        shop.hold("four")
        said = shop.reload(code=2)
        assert "former reloads still have" in said
        assert len(workers(shop.data)) == 4
        shop.let_go("one")
        server.drained(1)
        eventually(lambda: len(workers(shop.data)) == 3, "the oldest has left")
        shop.reload()
        for name in ("two", "three", "four"):
            shop.let_go(name)
        server.drained(4)


def test_the_zygote_of_a_former_crew_may_die(shop: Shop) -> None:
    """Its jobs are charged as those of any lost worker, and nobody starts it again."""
    with shop.serving("--workers", "1") as server:
        shop.hold("first")
        (zygote,) = _children(server.process.pid)
        shop.reload()
        shop.let_go("first")
        os.kill(zygote, signal.SIGKILL)
        server.drained(1)
        eventually(lambda: len(workers(shop.data)) == 1, "the former worker has left")
        eventually(lambda: zygote not in _children(server.process.pid), "it is reaped")
        assert len(_children(server.process.pid)) == 1


def test_several_who_ask_at_once_are_all_answered(shop: Shop) -> None:
    with shop.serving("--workers", "1"):
        said: list[str] = []
        asking = [threading.Thread(target=lambda: said.append(shop.reload())) for _ in range(3)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert len(said) == 3
        eventually(lambda: len(workers(shop.data)) == 1, "one crew is left")


def test_a_link_to_the_current_release_is_followed_anew(tmp_path: Path) -> None:
    """Deployments make a new directory, and turn a link: its name counts, not where it led."""
    releases = [Shop(tmp_path / name) for name in ("one", "two")]
    for shop in releases:
        shop.path.mkdir()
        shop.write(shop.path.name)
    link, data = tmp_path / "current", tmp_path / "data"
    link.symlink_to(releases[0].path)
    first = f"cd {link}"
    server = Server(data, "-A", "shop:app", "--workers", "1", first=first)
    try:
        server.ready()
        link.unlink()
        link.symlink_to(releases[1].path)
        assert run_beaver("reload", "--data", str(data)).returncode == 0
        enqueue(data, {"id": "a", "task": "work"})
        server.drained(1)
        assert server.stop() == 0
    finally:
        if server.process.poll() is None:
            server.kill()
    assert json.loads(beaver("show", "a", "--data", str(data), "--json"))["result"] == "two"


def test_a_keeper_has_no_workers_to_reload(tmp_path: Path) -> None:
    """What producers share where no server runs is none."""
    data = tmp_path / "data"
    for name in ("a", "b", "c", "d"):
        enqueue(data, {"id": name})
    assert run_beaver("reload", "--data", str(data)).returncode == 3


def test_without_a_server_there_is_nothing_to_reload(tmp_path: Path) -> None:
    assert run_beaver("reload", "--data", str(tmp_path / "nowhere")).returncode == 6
    enqueue(tmp_path / "data", {"id": "a"})
    done = run_beaver("reload", "--data", str(tmp_path / "data"))
    assert done.returncode == 3
    assert "no server runs" in done.stderr


def _children(pid: int) -> list[int]:
    """Pids of the zygotes that a server has."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    names = {int(p): Path(f"/proc/{p}/comm").read_text().strip() for p in text.split()}
    return [child for child, name in names.items() if name == "beaver-zygote"]


if sys.platform != "linux":
    pytest.skip("the processes are looked up in /proc", allow_module_level=True)
