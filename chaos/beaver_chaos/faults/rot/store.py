"""A store with every kind of file, as a real server leaves it that was killed at its work.

Its segments are small, so that hundreds of damaged copies can be tried: nothing else about it
is special.  What is known of the intact store is what each damaged copy is compared with.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from beaver.client.asynchronous import AsyncClient
from beaver.helper import work
from beaver.history import stories
from beaver.history.database import LogIndex
from beaver.history.rows import delete_history
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import read_commits
from beaver.request.requests import make_request
from beaver.server.booting import boot_command
from beaver.store.recovery import read_store
from beaver.structs.questions import Known, Search
from beaver.system.disk import SystemDisk
from beaver.workers.slots import read_previous
from beaver_chaos.faults.rot.regions import frames_of
from beaver_chaos.faults.syscalls import log_end
from beaver_chaos.program.load import Connected
from beaver_chaos.program.process import ChaosFailure, Program, eventually
from beaver_model import State, decide, fingerprint, replay

SEGMENT_BYTES: Final = 256 << 10
COMMIT_BYTES: Final = 128 << 10
"""The largest commit; a segment must hold it twice, and real ones of 8 MiB are too large here."""
_SMALL: Final = f"""
import os
os.environ["BEAVER_SEGMENT_SIZE"] = "{SEGMENT_BYTES}"
import beaver_model.bounds
beaver_model.bounds.BATCH_BYTES_MAX = {COMMIT_BYTES}
"""
PREPARED_S: Final = 60.0
"""Time that the server has for its next segment."""
_PAD: Final = "x" * 5_000
_JOBS: Final = 30
"""Large jobs between two stops; more than a segment holds."""


class Intact(NamedTuple):
    """An intact store, and what is known of it."""

    data: Path
    older: Path
    """The same store some time before."""
    jobs: int
    """Acknowledged jobs in it."""
    last_seq: int
    fingerprint: str
    prints: dict[int, str]
    """Fingerprint at the end of each frame of the active segment, by its last seq."""
    boot: list[Any]
    """Events of the next BOOT."""
    histories: list[list[Any]]
    """All that the history tells; then what one tells that is made anew, where that is less."""

    def names(self) -> list[str]:
        """Returns the files, relative to the directory."""
        return files_of(self.data)


def files_of(data: Path) -> list[str]:
    """Returns the regular files of a data directory, by name relative to it."""
    found = [path for path in data.rglob("*") if stat.S_ISREG(path.lstat().st_mode)]
    return sorted(str(path.relative_to(data)) for path in found)


def make_store(directory: Path) -> Intact:
    """Runs servers until every kind of file is there, and kills the last one.

    Raises:
        ChaosFailure: The program did not come to where it had to.
    """
    program = Program(directory)
    (directory / "sown").mkdir(parents=True)
    (directory / "sown" / "sitecustomize.py").write_text(_SMALL, encoding="utf-8")
    known = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([str(directory / "sown"), *([known] if known else [])])
    environment = {"PYTHONPATH": paths}
    try:
        for round_number in range(2):
            program.start(environment=environment)
            program.ready()
            asyncio.run(_work(program, round_number))
            program.stop()
        shutil.copytree(program.data, directory / "older", ignore=_no_sockets)
        _tear(program.data)
        program.start(environment=environment)
        program.ready()
        asyncio.run(_work(program, 2))
        asyncio.run(_leave_at_work(program))
        program.signal(signal.SIGKILL)
        program.wait()
        program.refuse_leftovers()
    finally:
        program.clear_away()
    return know(program.data, directory / "older", directory / "known")


def _no_sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if stat.S_ISSOCK(Path(directory, name).lstat().st_mode)]


def _tear(data: Path) -> None:
    """Leaves the beginning of a frame that was never finished at the end of the log."""
    with (data / "wal.log").open("r+b") as file:
        file.seek(log_end(data))
        file.write(b"\xffBF\xfe" + bytes(range(1, 60)))


async def _work(program: Program, round_number: int) -> None:
    """Jobs of all ends, enough of them that segments are sealed."""
    asker = Connected(str(program.data))
    client = await asker.client()
    await _fill_until_prepared(client, program.data, f"r{round_number}-fill")
    names = [f"r{round_number}-{n}" for n in range(_JOBS)]
    for name in names:
        await client.enqueue([make_request("work", {"pad": _PAD}, id=name)])
    ends = {"d": ("steered", {"how": "dead"}), "c": ("steered", {"how": "cancel"})}
    for name, (task, payload) in ends.items():
        names.append(f"r{round_number}-{name}")
        await client.enqueue([make_request(task, payload, id=names[-1])])
    await client.set_queue("closed", paused=True)
    waits = make_request("work", {"pad": "waits"}, id=f"r{round_number}-w", queue="closed")
    await client.enqueue([waits])
    for name in names:
        await client.wait(name, timeout=30)
    asker.close()


async def _fill_until_prepared(client: AsyncClient, data: Path, prefix: str) -> None:
    """Fills the active segment until the server has the next one prepared.

    It looks once a second, and a segment that was filled meanwhile has grown: that one is filled.
    """
    log, number = data / "wal.log", 0
    adopted = Path(Layout(str(data)).adopted)
    deadline_s = time.monotonic() + PREPARED_S
    while not await asyncio.to_thread(adopted.exists):
        if time.monotonic() > deadline_s:
            raise ChaosFailure(f"the next segment is not prepared within {PREPARED_S:g} s")
        if log.stat().st_size - log_end(data) > SEGMENT_BYTES // 3:
            await client.enqueue([make_request("work", {"pad": _PAD}, id=f"{prefix}-{number}")])
            number += 1
        else:
            await asyncio.sleep(0.05)


async def _leave_at_work(program: Program) -> None:
    """Lets each worker begin a job that it will not end, and everything else come to rest."""
    asker = Connected(str(program.data))
    client = await asker.client()
    await _fill_until_prepared(client, program.data, "rest")
    running = [make_request("overrun", {"times": 1}, id=f"running-{n}") for n in range(2)]
    await client.enqueue(running)
    begun = {request.id for request in running}
    eventually(lambda: begun <= {run.job for run in program.account()}, "jobs begin")
    status = await client.status()
    last_seq, store, layout = status.last_seq, status.store, Layout(str(program.data))

    def rests() -> bool:
        with LogIndex(layout.history, bytes.fromhex(store)) as history:
            projected = history.applied_seq >= last_seq
        frames, _ = frames_of(Path(layout.log))
        return projected and not frames[-1].count

    eventually(rests, "the log is marked, the history projected")
    asker.close()


# -- what is known of it ---------------------------------------------------------------------------


def know(data: Path, older: Path, scratch: Path) -> Intact:
    """Reads an intact store; `scratch` is a directory that is made for what writes."""
    disk = SystemDisk()
    state, _ = read_store(disk, str(data))
    store = store_of(data)
    boot = boot_events(state, data, store)
    copy = scratch / "data"
    shutil.copytree(data, copy, ignore=_no_sockets)
    delete_history(Layout(str(copy)).history)
    work.project(disk, Layout(str(copy)), state.last_seq)
    told = tell_history(copy, state.last_seq)
    jobs = len(state.jobs) + len(state.tombstones)
    return Intact(
        data, older, jobs, state.last_seq, fingerprint(state), _prints(data), boot, [told]
    )


def know_history(data: Path, scratch: Path, last_seq: int) -> list[Any]:
    """Returns what a history tells that is made anew, in a copy at `scratch`."""
    shutil.copytree(data, scratch, ignore=_no_sockets)
    layout = Layout(str(scratch))
    delete_history(layout.history)
    work.project(SystemDisk(), layout, last_seq)
    return tell_history(scratch, last_seq)


def store_of(data: Path) -> bytes:
    """Returns the id of the store."""
    file = SystemDisk().open(str(data / "wal.log"))
    try:
        return file.pread(32, 0)[16:]
    finally:
        file.close()


def boot_events(state: State, data: Path, store: bytes) -> list[Any]:
    """Returns what the next BOOT would log."""
    command = boot_command(state, read_previous(str(data / "slots")), store)
    events = decide(state, command, state.time_ms)
    assert isinstance(events, list)
    return events


def tell_history(data: Path, last_seq: int) -> list[Any]:
    """Returns the stories and ends of all jobs, as a server tells them.

    One that finds the index damaged has it made anew, and asks again (`past`).
    """
    layout, disk = Layout(str(data)), SystemDisk()
    answers, is_damaged = _stories(layout, last_seq)
    if is_damaged:
        delete_history(layout.history)
        work.project(disk, layout, last_seq)
        answers, is_damaged = _stories(layout, last_seq)
    assert not is_damaged, "it was made anew"
    return answers


def _stories(layout: Layout, last_seq: int) -> tuple[list[Any], bool]:
    disk = SystemDisk()
    state, _ = read_store(disk, layout.path)
    known = [Known(n, state.seq_of(n) or 0, n in state.tombstones) for n in _names()]
    told = stories.tell(disk, layout, known, last_seq)
    _, listed = stories.find_finished(disk, layout, Search("completed"), last_seq)
    answers = [msgspec.json.encode(told.by_job), told.first_seq, listed.count]
    return answers, told.damaged or listed.damaged


def _names() -> list[str]:
    ends = [f"r{n}-{end}" for n in range(3) for end in ("d", "c", "w")]
    return [f"r{n}-{job}" for n in range(3) for job in range(_JOBS)] + ends


def _prints(data: Path) -> dict[int, str]:
    """Returns the fingerprint that a log has which ends with a frame of the active segment."""
    frames, _ = frames_of(data / "wal.log")
    begin_seq = frames[0].first_seq - 1
    state, prints = State(), {}
    for first_seq, time_ms, events in read_commits(SystemDisk(), Layout(str(data)), 0):
        replay(state, first_seq, time_ms, events)
        if state.last_seq >= begin_seq:
            prints[state.last_seq] = fingerprint(state)
    return prints


def prune(intact: Intact, directory: Path) -> Intact:
    """Returns the store as it is once the program has pruned all that it may of the archive."""
    data, older = directory / "data", directory / "older"
    shutil.copytree(intact.data, data, ignore=_no_sockets)
    shutil.copytree(intact.older, older, ignore=_no_sockets)
    layout = Layout(str(data))
    first_seq = work.prune_archive(
        SystemDisk(), layout, keep_bytes=0, keep_ms=0, now_ms=1 << 60, applied_seq=intact.last_seq
    )
    assert first_seq > 1, "there is something to prune"
    anew = know_history(data, directory / "known", intact.last_seq)
    return intact._replace(data=data, older=older, histories=[*intact.histories, anew])
