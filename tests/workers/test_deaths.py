"""Who dies with whom: kills, crashes, a lost zygote, a lost server, leftovers."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.workers import wire
from beaver.workers.leftovers import find_leftovers, kill_leftovers
from beaver.workers.permits import Permits
from beaver.workers.slots import read_previous
from tests.worlds.workers import APPS, World, alive, in_world, pid_in, until, wait_until

EXECUTORS = ["process", "thread", "async"]
ROOT = Path(__file__).parents[2]

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and PDEATHSIG")


# -- one worker ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["busy_in_c", "nap_in_slices", "nap_async"])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_killed_worker_is_reaped_before_its_end_is_reported(
    tmp_path: Path, task: str, executor: str
) -> None:
    async def test(world: World) -> None:
        pid = world.events.pids[1]
        token = world.send(1, task, {"path": str(tmp_path / "pid")})
        await until((tmp_path / "pid").exists)
        gone: list[bool] = []
        world.events.on_exit = lambda worker: gone.append(not Path(f"/proc/{pid}").exists())
        world.pool.kill(1)
        await until(lambda: world.events.exits)
        assert gone == [True], "reaped, not a zombie, when the pool says so"
        assert world.events.exits == [(1, token, "killed by signal 9 (SIGKILL)")]
        assert token not in world.events.by_token

    in_world(tmp_path, test, executor=executor, concurrency=2)


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@linux_only
def test_a_program_that_begins_as_its_worker_dies_is_gone_with_it(tmp_path: Path) -> None:
    """While it is exec'd, nothing says yet whose it is."""

    async def test(world: World) -> None:
        world.events.on_exit = world.pool.add
        for number in range(1, 31):
            pid_file = tmp_path / str(number)
            world.send(1, "die_beside_a_program", str(pid_file))
            await until(partial(have_exited, world, number))
            assert not is_there(pid_in(pid_file)), f"the program of worker {number}"

    in_world(tmp_path, test)


@pytest.mark.parametrize("new_session", [False, True])
@linux_only
def test_the_subprocesses_of_a_killed_worker_are_gone_when_its_end_is_reported(
    tmp_path: Path, new_session: bool
) -> None:
    """Also those that have left its process group: they are handed to the zygote."""

    async def test(world: World) -> None:
        files = {"pid_file": str(tmp_path / "program"), "own_pid_file": str(tmp_path / "own")}
        world.send(1, "with_subprocess", {**files, "new_session": new_session})
        await until((tmp_path / "program").exists)
        program = pid_in(tmp_path / "program")
        assert alive(program)
        left: list[bool] = []
        world.events.on_exit = lambda worker: left.append(Path(f"/proc/{program}").exists())
        world.pool.kill(1)
        await until(lambda: world.events.exits)
        assert left == [False], "reaped, too"

    in_world(tmp_path, test)


@linux_only
def test_the_end_of_a_worker_waits_for_a_subprocess_that_is_slow_to_die(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        pid_file = tmp_path / "program"
        world.send(1, "with_slow_to_die_subprocess", {"pid_file": str(pid_file)})
        await until(lambda: pid_file.exists() and pid_file.read_text())
        program = pid_in(pid_file)
        left: list[bool] = []
        world.events.on_exit = lambda worker: left.append(Path(f"/proc/{program}").exists())
        world.pool.kill(1)
        await until(lambda: world.events.exits)
        assert left == [False]

    in_world(tmp_path, test)


@linux_only
def test_what_a_retired_worker_left_running_goes_with_it(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        await world.result(1, "leave_subprocess", {"pid_file": str(tmp_path / "program")})
        program = pid_in(tmp_path / "program")
        assert alive(program), "a job's program may outlive the job, in its worker"
        left: list[bool] = []
        world.events.on_exit = lambda worker: left.append(Path(f"/proc/{program}").exists())
        world.pool.retire(1)
        await until(lambda: world.events.exits)
        assert left == [False]

    in_world(tmp_path, test)


@pytest.mark.parametrize(
    ("how", "detail"),
    [
        ("exit", "exited with 3"),
        ("segv", "killed by signal 11 (SIGSEGV)"),
        ("kill", "killed by signal 9 (SIGKILL)"),
    ],
)
def test_a_job_that_kills_its_worker_is_the_only_one_that_started(
    tmp_path: Path, how: str, detail: str
) -> None:
    async def test(world: World) -> None:
        before = world.send(1, "add", 1)
        killer = world.send(1, "die", how)
        after = world.send(1, "add", 2)
        await until(lambda: world.events.exits)
        assert world.events.exits == [(1, killer, detail)]
        assert world.events.order == [before], "its outcome was delivered first"
        assert after > killer

    in_world(tmp_path, test)


def test_a_death_leaves_the_other_workers_alone(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        other = world.send(2, "sleep", 0.3)
        world.send(1, "die", "kill")
        await until(lambda: world.events.exits)
        assert (await world.outcome(other)).result == b'"slept"'
        await world.add(1)
        assert await world.result(1, "add", 1) == 11
        assert [worker for worker, _, _ in world.events.exits] == [1]

    in_world(tmp_path, test, workers=(1, 2))


def test_a_kill_cannot_hit_the_successor(tmp_path: Path) -> None:
    """Kills that come too late, or twice, name a birth that is over."""

    async def test(world: World) -> None:
        for _ in range(5):
            world.pool.kill(1)
            world.pool.kill(1)
            await until(lambda: world.events.exits)
            world.events.exits.clear()
            await world.add(1)
            assert await world.result(1, "add", 1) == 11

    in_world(tmp_path, test)


def test_a_worker_may_be_killed_before_it_is_ready(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        for _ in range(10):
            world.pool.add(2)
            world.pool.kill(2)
            await until(lambda: world.events.exits)
            assert world.events.exits.pop()[0] == 2
        assert not world.events.failures

    in_world(tmp_path, test)


def test_a_worker_that_garbles_its_stream_is_killed(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.send(1, "garble", None)
        await until(lambda: world.events.exits)
        assert "no outcome" in world.events.exits[0][2]

    in_world(tmp_path, test)


def test_a_fork_of_a_worker_neither_answers_nor_takes_attempts(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        for _ in range(20):
            assert await world.result(1, "fork_and_return") == "parent"
            assert await world.result(1, "add", 1) == 11
        assert not world.events.exits

    in_world(tmp_path, test)


def test_a_worker_has_the_signal_handlers_of_the_application_and_not_the_zygotes(
    tmp_path: Path,
) -> None:
    async def test(world: World) -> None:
        default = str(signal.SIG_DFL)
        expected = {"SIGTERM": default, "SIGCHLD": default, "wakeup": "-1"}
        assert await world.result(1, "signals") == expected

    in_world(tmp_path, test)


def test_a_killed_worker_is_replaced_quickly(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        times = []
        for _ in range(5):
            world.events.on_exit = world.pool.add
            world.events.pids.pop(1)
            start = time.perf_counter()
            world.pool.kill(1)
            await until(lambda: 1 in world.events.pids)
            times.append(time.perf_counter() - start)
        world.events.on_exit = None
        print(f"kill to replacement: {min(times) * 1000:.1f} ms at best, {times}")
        assert min(times) < 0.5

    in_world(tmp_path, test)


# -- the zygote ---------------------------------------------------------------------------------


@linux_only
def test_a_lost_zygote_takes_its_workers_along_and_is_replaced(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        zygote = world.pool._zygote
        assert zygote is not None
        files = {"pid_file": str(tmp_path / "program"), "own_pid_file": str(tmp_path / "own")}
        running = world.send(1, "with_subprocess", files)
        await until((tmp_path / "program").exists)
        program, pids = pid_in(tmp_path / "program"), dict(world.events.pids)
        left: list[bool] = []
        world.events.on_exit = lambda worker: left.append(
            alive(program) or any(alive(pid) for pid in pids.values())
        )
        os.kill(zygote.pid, signal.SIGKILL)
        await until(lambda: len(world.events.exits) == 2)
        assert left == [False, False]
        assert sorted(world.events.exits) == [
            (1, running, "lost with the zygote"),
            (2, 0, "lost with the zygote"),
        ]
        await world.add(1, 2)
        assert await world.result(2, "add", 1) == 11
        assert not world.events.failures

    in_world(tmp_path, test, workers=(1, 2))


def have_exited(world: World, count: int) -> bool:
    return len(world.events.exits) == count


@linux_only
def test_zygotes_that_keep_dying_fail_the_pool(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.events.on_exit = world.pool.add
        for count in range(1, 6):
            assert not world.events.failures
            zygote = world.pool._zygote
            assert zygote is not None
            os.kill(zygote.pid, signal.SIGKILL)
            await until(partial(have_exited, world, count))
        assert len(world.events.failures) == 1
        assert "5 times" in world.events.failures[0]

    in_world(tmp_path, test)


def test_stop_reports_every_worker_and_leaves_no_process(tmp_path: Path) -> None:
    pids: list[int] = []
    store = secrets.token_hex(16)

    async def test(world: World) -> None:
        world.send(1, "sleep", 100)
        await until(lambda: world.pool.started(1)[0])
        pids.extend(world.events.pids.values())

    world = in_world(tmp_path, test, workers=(1, 2), mark=store)
    assert sorted(world.events.exits) == [
        (1, 1, "ended with the pool"),
        (2, 0, "ended with the pool"),
    ]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert find_leftovers(store) == []


# -- the server ---------------------------------------------------------------------------------


class Server:
    """A real server process that was told to run one job."""

    def __init__(self, path: Path, store: str, task: str, payload: dict[str, Any]) -> None:
        ready = path / f"ready-{secrets.token_hex(4)}"
        program = [sys.executable, "-m", "tests.workers.server_process"]
        arguments = [store, str(path / "slots"), task, msgspec.json.encode(payload).decode()]
        self.process = subprocess.Popen(
            [*program, *arguments, str(ready)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(APPS)},
            start_new_session=True,
        )
        wait_until(lambda: ready.exists() or self.process.poll() is not None)
        pids = msgspec.json.decode(ready.read_bytes())
        self.zygote: int = pids["zygote"]
        self.workers: list[int] = pids["workers"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def test_a_worker_killed_between_permit_and_body_has_started_nothing(tmp_path: Path) -> None:
    """It has read a permit and waits for the body, which a recall has read back, say."""

    async def test(world: World) -> None:
        done = await world.call(1, "nothing")
        permits = permits_of(world)
        os.write(permits._pipe, wire.PERMIT.pack(done.token + 1))
        await until(lambda: not permits._holds_permits())
        world.pool.kill(1)
        await until(lambda: world.events.exits)
        assert world.events.exits[0][:2] == (1, done.token)

    in_world(tmp_path, test)


@pytest.mark.parametrize("executor", ["process", "thread", "async"])
@pytest.mark.parametrize("waits_for", ["permit", "body"])
def test_a_worker_ends_where_its_server_is_gone(
    tmp_path: Path, executor: str, waits_for: str
) -> None:
    """Also without a zygote that would kill it."""

    async def test(world: World) -> None:
        permits = permits_of(world)
        if waits_for == "body":
            os.write(permits._pipe, wire.PERMIT.pack(1))
            await until(lambda: not permits._holds_permits())
        permits.close()
        await until(lambda: world.events.exits)
        assert world.events.exits == [(1, 0, "killed by signal 9 (SIGKILL)")]

    in_world(tmp_path, test, executor=executor, concurrency=2)


def permits_of(world: World) -> Permits:
    """Returns the server's side of the first worker's permits."""
    return world.pool._by_number[1]._permits


StartServer = Callable[..., Server]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers, and ends what a failed test left of them."""
    servers: list[tuple[Server, str]] = []

    def start(path: Path, store: str, task: str, payload: dict[str, Any]) -> Server:
        servers.append((Server(path, store, task, payload), store))
        return servers[-1][0]

    yield start
    for server, store in servers:
        server.kill()
        kill_leftovers(store)


@pytest.mark.parametrize("task", ["busy_in_c", "nap_in_slices"])
def test_kill_9_of_the_server_leaves_no_process(
    tmp_path: Path, start_server: StartServer, task: str
) -> None:
    server = start_server(tmp_path, secrets.token_hex(16), task, {"path": str(tmp_path / "pid")})
    worker = pid_in(tmp_path / "pid")
    assert worker in server.workers
    pids = [server.zygote, *server.workers]
    assert all(alive(pid) for pid in pids)
    server.kill()
    wait_until(lambda: not any(alive(pid) for pid in pids), f"{pids} are orphans")
    previous = read_previous(str(tmp_path / "slots"))
    assert previous is not None
    assert previous.same_boot
    assert previous.started == {1: 77}, "the slots outlive the server"


@pytest.mark.parametrize("new_session", [False, True])
@linux_only
def test_kill_9_of_the_server_takes_the_subprocesses_of_jobs_along(
    tmp_path: Path, start_server: StartServer, new_session: bool
) -> None:
    files = {"pid_file": str(tmp_path / "program"), "own_pid_file": str(tmp_path / "own")}
    payload = {**files, "new_session": new_session}
    server = start_server(tmp_path, secrets.token_hex(16), "with_subprocess", payload)
    program = pid_in(tmp_path / "program")
    assert alive(program)
    server.kill()
    pids = [program, server.zygote, *server.workers]
    wait_until(lambda: not any(alive(pid) for pid in pids), f"{pids} are orphans")


@linux_only
def test_leftovers_of_a_dead_server_are_found_by_the_next_one(
    tmp_path: Path, start_server: StartServer
) -> None:
    """Server and zygote die in one moment: nobody is there to kill a job's subprocess."""
    store = secrets.token_hex(16)
    files = {"pid_file": str(tmp_path / "program"), "own_pid_file": str(tmp_path / "own")}
    server = start_server(tmp_path, store, "with_subprocess", files)
    program = pid_in(tmp_path / "program")
    os.kill(server.zygote, signal.SIGSTOP)
    server.kill()
    os.kill(server.zygote, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in server.workers))
    assert alive(program)
    assert kill_leftovers(secrets.token_hex(16)) == 0, "of another store"
    assert alive(program)
    assert kill_leftovers(store) == 1
    assert not alive(program)
    assert kill_leftovers(store) == 0


@linux_only
def test_a_pool_spares_its_own_zygote_and_kills_another_servers(
    tmp_path: Path, start_server: StartServer
) -> None:
    store = secrets.token_hex(16)
    (tmp_path / "old").mkdir()
    server = start_server(tmp_path / "old", store, "busy_in_c", {"path": str(tmp_path / "pid")})
    pid_in(tmp_path / "pid")

    async def test(world: World) -> None:
        assert world.pool.claim(store) >= 3, "its zygote and two workers"
        assert not any(alive(pid) for pid in [server.zygote, *server.workers])
        assert await world.result(1, "add", 1) == 11
        assert not world.events.exits

    in_world(tmp_path, test, mark=store)


# -- descriptors --------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", EXECUTORS)
@linux_only
def test_workers_inherit_no_descriptor_of_server_and_zygote(tmp_path: Path, executor: str) -> None:
    """Neither what the server opened before or after the zygote, nor each other's sockets."""

    async def test(world: World) -> None:
        with open(tmp_path / "lock", "w") as lock:  # noqa: ASYNC230 -- a test's own file
            await world.add(2, 3)
            first = await world.result(1, "descriptors")
            third = await world.result(3, "descriptors")
            assert not any("lock" in name for name in first + third), lock.name
        assert not set(_sockets(first)) & set(_sockets(third))
        own = {"process": 2, "thread": 2, "async": 4}[executor]
        assert len(_sockets(third)) == own, third

    in_world(tmp_path, test, executor=executor)


def _sockets(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("socket:")]


def test_the_pool_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def test(world: World) -> None:
        before = count()
        for _ in range(5):
            world.send(1, "first", "x" * 200_000)
            world.send(1, "sleep", 10)
            world.send(1, "first", "x" * 200_000)
            world.pool.kill(1)
            await until(lambda: world.events.exits)
            world.events.exits.clear()
            await world.add(1)
        await asyncio.sleep(0)
        assert count() == before

    start = count()
    in_world(tmp_path, test)
    assert count() == start
