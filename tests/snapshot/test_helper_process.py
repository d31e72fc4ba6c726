"""The helper as a process: it does its work, dies with its server, and inherits nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beaver.errors import Corruption, HelperFailed, LiveStateDiffers
from beaver.helper.process import HelperProcess
from beaver.history.database import LogIndex
from beaver.snapshot.files import load_snapshot
from beaver.structs.questions import Known
from beaver.transport.framing import encode_frame
from beaver_model import fingerprint, freeze, thaw
from beaver_model.contents import glance_at
from tests.worlds.model import job
from tests.worlds.stores import STORE, LoggedWorld, events_of, flip

KEEP = 1 << 50
DEADLINE_S = 20.0


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
        time.sleep(0.005)
    return found


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.005)


def size_of(path: str) -> int:
    return Path(path).stat().st_size


def spoil(path: str) -> None:
    Path(path).write_bytes(b"no database" * 1_000)


def children_of(pid: int) -> list[int]:
    """Returns the children of a process, where the kernel tells."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def is_gone(pid: int) -> bool:
    return not is_alive(pid)


def with_helper(
    path: str, use: Callable[[HelperProcess], Coroutine[Any, Any, Any]], store: str = ""
) -> Any:
    async def run() -> Any:
        helper = HelperProcess(path, store)
        try:
            return await use(helper)
        finally:
            await helper.stop()

    return asyncio.run(run())


@pytest.fixture
def world(tmp_path: Path) -> LoggedWorld:
    world = LoggedWorld(tmp_path / "data")
    for name in ("a", "b", "c"):
        world.run(name, b'{"name": "%s"}' % name.encode())
    world.fail_and_wait("d")
    return world


def test_it_prepares_takes_snapshots_and_projects(world: LoggedWorld) -> None:
    async def use(helper: HelperProcess) -> None:
        seq = world.state.last_seq
        taken, applied, _ = await asyncio.gather(
            helper.snapshot(seq, KEEP, KEEP),
            helper.project(seq),
            helper.prepare(world.layout.next, 1 << 20),
        )
        assert taken.last_seq == applied == seq
        assert taken.fingerprint == fingerprint(world.state)
        assert taken.ledger == world.state.ledger
        assert taken.bytes == size_of(world.layout.snapshot)
        assert taken.seconds > 0

    with_helper(world.path, use)
    assert freeze(load_snapshot(world.disk, world.layout.snapshot).state) == freeze(world.state)
    assert Path(world.layout.next).read_bytes() == bytes(1 << 20)
    assert bytes(events_of(world.disk, world.layout, "b")[-1].result) == b'{"name": "b"}'


def test_it_compares_with_what_the_server_sees_and_says_which_comparison_failed(
    world: LoggedWorld,
) -> None:
    async def use(helper: HelperProcess) -> None:
        seq = world.state.last_seq
        live = thaw(*freeze(world.state))
        live.jobs["d"].payload = b'"other"'
        with pytest.raises(LiveStateDiffers, match="job d differs"):
            await helper.snapshot(seq, KEEP, KEEP, glance_at(live))
        assert not world.disk.exists(world.layout.snapshot)
        taken = await helper.snapshot(seq, KEEP, KEEP, glance_at(world.state))
        assert taken.fingerprint == fingerprint(world.state)

    with_helper(world.path, use)


def test_it_follows_a_log_that_grows_and_is_sealed(world: LoggedWorld) -> None:
    async def use(helper: HelperProcess) -> None:
        for round_number in range(6):
            world.run(f"more-{round_number}")
            if round_number % 2:
                world.seal()
            assert await helper.project(world.state.last_seq) == world.state.last_seq
            taken = await helper.snapshot(world.state.last_seq, 0, 0)
            assert taken.fingerprint == fingerprint(world.state)

    with_helper(world.path, use)
    # Only the segment that the older snapshot does not hold whole is left.
    assert len(world.disk.listdir(world.layout.archive)) == 1
    with LogIndex(world.layout.history, STORE) as history:
        assert history.applied_seq == world.state.last_seq
    assert len(events_of(world.disk, world.layout, "more-5")) == 3


def test_who_is_cancelled_leaves_a_projection_that_the_next_waits_for(world: LoggedWorld) -> None:
    """Two at once would take each other's rows for damage, and make the history anew."""
    for batch in range(8):
        world.enqueue(*(job(f"job-{batch}-{number}") for number in range(5_000)))
    with LogIndex.create(world.layout.history, STORE), open(world.layout.history, "rb") as file:

        async def use(helper: HelperProcess) -> None:
            asked = asyncio.create_task(helper.project(world.state.last_seq))
            with LogIndex(world.layout.history, STORE) as history:
                while not history.applied_seq:  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.001)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert await helper.project(world.state.last_seq) == world.state.last_seq
            assert os.fstat(file.fileno()).st_nlink == 1, "it is the same file"

        with_helper(world.path, use)


def test_a_damaged_history_is_made_anew(world: LoggedWorld) -> None:
    async def use(helper: HelperProcess) -> None:
        await helper.project(world.state.last_seq)
        spoil(world.layout.history)
        world.run("more")
        assert await helper.project(world.state.last_seq) == world.state.last_seq

    with_helper(world.path, use)
    with LogIndex(world.layout.history, STORE) as history:
        assert history.first_seq == 1
    told = events_of(world.disk, world.layout, "a")
    assert [event.event for event in told] == ["ENQUEUE", "DISPATCH", "ACK"]


def test_its_errors_arrive_as_what_they_are(world: LoggedWorld) -> None:
    async def use(helper: HelperProcess) -> None:
        flip(world.layout.log, 64 + 40)
        with pytest.raises(Corruption, match=r"wal\.log"):
            await helper.snapshot(world.state.last_seq, KEEP, KEEP)
        with pytest.raises(HelperFailed, match=r"No such file.*nowhere"):
            await helper.prepare(str(Path(world.path) / "nowhere" / "wal.next"), 4096)
        # None of that ended the helper.
        await helper.prepare(world.layout.next, 4096)

    with_helper(world.path, use)


def test_a_helper_that_is_killed_fails_the_request_and_the_next_one_works(
    world: LoggedWorld,
) -> None:
    async def use(helper: HelperProcess) -> None:
        await helper.project(world.state.last_seq)
        pid = helper.pid
        assert pid is not None
        # A request that takes long enough to be met by the kill.
        asked = asyncio.create_task(helper.prepare(world.layout.next, 4 << 30))
        temporary = world.layout.next + ".tmp"
        await until(lambda: world.disk.exists(temporary), "the helper writes")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(HelperFailed, match=f"died.*{pid}"):
            await asked
        await helper.prepare(world.layout.next, 4096)
        assert helper.pid not in (None, pid)
        assert not world.disk.exists(temporary)

    with_helper(world.path, use)
    assert Path(world.layout.next).stat().st_size == 4096


def test_a_long_request_does_not_hold_up_another_kind(world: LoggedWorld) -> None:
    async def use(helper: HelperProcess) -> None:
        long = asyncio.create_task(helper.prepare(world.layout.next, 8 << 30))
        await helper.project(world.state.last_seq)
        assert not long.done()
        long.cancel()

    with_helper(world.path, use)


def test_stopping_leaves_no_process_and_no_half_file(world: LoggedWorld) -> None:
    pids: list[int] = []

    async def use(helper: HelperProcess) -> None:
        await helper.project(world.state.last_seq)
        assert helper.pid is not None
        asked = asyncio.create_task(helper.prepare(world.layout.next, 8 << 30))
        pids.append(helper.pid)
        temporary = world.layout.next + ".tmp"
        await until(lambda: world.disk.exists(temporary), "the helper writes")
        pids.extend(children_of(helper.pid))
        await helper.stop()
        with pytest.raises(HelperFailed):
            await asked
        with pytest.raises(HelperFailed, match="stopped"):
            await helper.project(1)

    with_helper(world.path, use)
    for pid in pids:
        wait_until(partial(is_gone, pid), f"{pid} is gone")
    assert not world.disk.exists(world.layout.next)


SERVER = """
import asyncio, sys
from beaver.system.disk import SystemDisk
from beaver.helper.process import HelperProcess
from beaver.journal.wal.layout import Layout

async def main(path):
    lock = SystemDisk().lock(Layout(path).lock)
    assert lock is not None
    helper = HelperProcess(path, "f" * 32)
    await helper.project(0)
    work = asyncio.create_task(helper.prepare(Layout(path).next, 8 << 30))
    while not SystemDisk().exists(Layout(path).next + ".tmp"):
        await asyncio.sleep(0.005)
    print(helper.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def server(world: LoggedWorld) -> Any:
    world.wal.close()
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, world.path], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        found.extend(children_of(one))
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_killed_server_takes_its_helper_and_all_its_work_along(
    world: LoggedWorld, server: subprocess.Popen[str]
) -> None:
    assert server.stdout is not None
    helper = int(server.stdout.readline())
    pids = descendants(helper)
    assert len(pids) == 2
    server.kill()
    server.wait()
    for pid in pids:
        wait_until(partial(is_gone, pid), f"{pid} is gone")
    lock = world.disk.lock(world.layout.lock)
    assert lock is not None
    lock.release()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_a_helper_inherits_nothing_of_the_server(
    world: LoggedWorld, server: subprocess.Popen[str]
) -> None:
    assert server.stdout is not None
    helper = int(server.stdout.readline())
    for pid in descendants(helper):
        targets = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
        assert not any(target.endswith(("LOCK", "wal.log")) for target in targets), targets
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert b"BEAVER_STORE=" + b"f" * 32 in environment
    assert os.getsid(helper) == helper


def test_the_data_directory_may_be_relative(
    world: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(world.path).parent)
    world.enqueue(job("e"))

    async def use(helper: HelperProcess) -> int:
        await helper.prepare("data/wal.next", 4096)
        return await helper.project(world.state.last_seq)

    assert with_helper("data", use) == world.state.last_seq
    assert Path(world.layout.next).stat().st_size == 4096


def test_a_server_that_hangs_up_on_an_answer_is_an_end_like_any_other(world: LoggedWorld) -> None:
    """Closed with bytes that were not read, a socket resets its other end."""
    ours, theirs = socket.socketpair()
    helper = subprocess.Popen(
        [sys.executable, "-m", "beaver.helper", str(world.path), str(os.getpid())],
        stdin=theirs.fileno(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    theirs.close()
    ours.sendall(encode_frame([1, "project", [world.state.last_seq]]))
    assert select.select([ours], [], [], 30)[0], "there is an answer"
    ours.close()
    _, said = helper.communicate(timeout=30)
    assert said == b""


# -- questions about jobs -----------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_questions_about_jobs_share_a_child_that_goes_when_nobody_asks(world: LoggedWorld) -> None:
    asked = [Known("a", world.state.seq_of("a") or 0, True)]
    seq = world.state.last_seq

    async def use(helper: HelperProcess) -> None:
        answers: list[bytes] = []
        tellers: set[int] = set()
        for _ in range(5):
            answers.append(await helper.tell(asked, seq))
            assert helper.pid is not None
            tellers.update(children_of(helper.pid))
        assert len(tellers) == 1
        assert len(set(answers)) == 1
        by_job, as_of_seq, *_ = msgspec.json.decode(answers[0])
        assert as_of_seq == seq
        assert [event["event"] for event in by_job["a"]] == ["ENQUEUE", "DISPATCH", "ACK"]
        os.kill(tellers.pop(), signal.SIGKILL)
        await until(lambda: not children_of(helper.pid or 0), "the child is gone")
        assert await helper.tell(asked, seq) == answers[0]
        assert len(children_of(helper.pid or 0)) == 1
        await until(lambda: not children_of(helper.pid or 0), "the child is gone")

    with_helper(world.path, use)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nobody_waits_for_a_child_that_died(world: LoggedWorld) -> None:
    asked = [Known("a")]

    async def use(helper: HelperProcess) -> None:
        await helper.tell(asked, 1)
        (teller,) = children_of(helper.pid or 0)
        os.kill(teller, signal.SIGSTOP)
        answer = asyncio.create_task(helper.tell(asked, 1))
        await asyncio.sleep(0)
        os.kill(teller, signal.SIGKILL)
        # Or the question had not come to it yet: then another one answers.
        with contextlib.suppress(HelperFailed):
            await asyncio.wait_for(answer, DEADLINE_S)
        assert await helper.tell(asked, 1)

    with_helper(world.path, use)
