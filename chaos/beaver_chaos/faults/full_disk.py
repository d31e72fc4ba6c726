"""A disk that is really full, and empties again: a small file system with ballast on it.

What has to hold: a commit never meets the full disk, since room for it was made before;
where none can be made, new jobs are refused and nothing else: what was taken in is run to
its end, a restart recovers on the full disk, and once there is room work goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from beaver.journal.wal.layout import Layout
from beaver.request.requests import make_request
from beaver.structs.views import StatusView
from beaver_chaos.faults.syscalls import log_end
from beaver_chaos.faults.table import Experiment, experiment
from beaver_chaos.program.load import Connected
from beaver_chaos.program.process import SEGMENT_BYTES, ChaosFailure
from beaver_chaos.program.session import Session, together

FAULT: Final = "a full disk that empties again, with kill -9 while it is full"
DISK_BYTES: Final = 4 * SEGMENT_BYTES
LEFT_BYTES: Final = SEGMENT_BYTES // 2
"""Room that the ballast leaves: too little for a segment, enough for most other files."""
PAD_BYTES: Final = 900_000
SLOW_JOBS: Final = 30
_CHUNK: Final = bytes(64 << 10)
_TRIES_MAX: Final = 200
_PAUSE_S: Final = 0.3


class FullDiskReport(NamedTuple):
    """What failed for want of room."""

    taken: int
    """Large jobs that were taken in before one was refused."""
    refused: int


def can_mount() -> str | None:
    """Returns why no small file system can be made here, or `None`."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "a small tmpfs is mounted by root on Linux only"
    if shutil.which("mount") is None:
        return "there is no mount command"
    return None


@contextlib.contextmanager
def small_disk(path: Path, size: int = DISK_BYTES) -> Iterator[Path]:
    """Mounts a tmpfs of `size` bytes at `path`, and takes it away again whatever happens.

    Raises:
        OSError: It cannot be mounted, root or not (in a container without the right to).
    """
    path.mkdir(parents=True, mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "beaver-chaos", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(errno.EPERM, done.stderr.strip(), str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # noqa: S607


class Ballast:
    """A file that takes up room."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def leave(self, free_bytes: int) -> None:
        """Grows until no more than so much is free; 0 fills the disk to the last block."""
        with self._path.open("ab", buffering=0) as file:
            while True:
                figures = os.statvfs(self._path.parent)
                too_much = figures.f_bavail * figures.f_frsize - free_bytes
                if too_much <= 0:
                    return
                try:
                    file.write(_CHUNK[:too_much])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def drop(self) -> None:
        self._path.unlink()


def fill_and_empty(directory: Path, *, rush: bool = False) -> FullDiskReport:
    """Fills the disk under a server at work, and empties it again.

    Args:
        directory: Where the files go.
        rush: Jobs come so fast that they fill the log before the server sees that no segment
            can be prepared: what is pending then has to wait for room.

    Raises:
        ChaosFailure: A promise was broken.
        OSError: The disk cannot be made here.
    """
    session = Session(directory, "full disk")
    told = experiment(FAULT, f"tmpfs, {'jobs come in a rush' if rush else 'as room runs out'}")
    with told as record, small_disk(session.program.data):
        try:
            return asyncio.run(_FullDisk(session, rush, record).run())
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise ChaosFailure(
                f"{what}\nfiles in {directory}\n"
                f"The server's last output:\n{session.program.output_tail()}"
            ) from error
        finally:
            session.program.clear_away()


class _FullDisk:
    """The story, step by step."""

    def __init__(self, session: Session, rush: bool, told: Experiment) -> None:
        self._session = session
        self._told = told
        self._rush = rush
        self._ballast = Ballast(session.program.data / "ballast")
        self._asker = Connected(str(session.program.data))
        self._large = 0
        self._refused = 0

    async def run(self) -> FullDiskReport:
        session, ballast = self._session, self._ballast
        program = session.program
        program.start()
        await session.ready()
        adopted = Path(Layout(str(program.data)).adopted)
        await session.until(adopted.exists, "the next segment is prepared")
        await session.finish(together([p.produce(3) for p in session.producers]))

        # 1. Jobs are under way when the disk fills up: the log needs a segment and gets none.
        await self._send_slow_jobs()
        ballast.leave(LEFT_BYTES)
        taken = await self._send_until(refused=True)
        await self._until_status(lambda status: status.disk_full, "the status tells")
        # 2. Accepted jobs go on, even without a byte left.
        ballast.leave(0)
        if self._rush:
            await self._until_status(lambda status: not status.in_flight, "what runs has ended")
        else:
            await session.drained()
        self._expect((await self._status()).disk_full, "the disk is full while jobs end")
        session.check()
        # 3. A killed server recovers on the full disk.
        program.signal(signal.SIGKILL)
        await session.ended()
        self._asker.close()
        program.start()
        self._told.recovery_s.append(await session.ready())
        await self._until_status(lambda status: status.disk_full, "the status tells again")
        self._expect(not await self._send_large(), "a new job is refused after the restart")
        # 4. There is room again.
        ballast.drop()
        await self._send_until(refused=False)
        await session.finish(together([p.produce(3) for p in session.producers]))
        self._expect(not (await self._status()).disk_full, "the disk is full no more")
        self._asker.close()
        await session.drain()
        self._told.acknowledged = len(session.witness.acknowledged)
        return FullDiskReport(taken, self._refused)

    def _expect(self, answer: bool, what: str) -> None:
        if not answer:
            raise ChaosFailure(f"this does not hold: {what}")

    async def _status(self) -> StatusView:
        return await (await self._asker.client()).status()

    async def _until_status(self, ask: Callable[[StatusView], bool], what: str) -> None:
        for _ in range(_TRIES_MAX):
            if ask(await self._status()):
                return
            await asyncio.sleep(_PAUSE_S)
        raise ChaosFailure(f"this does not come: {what}")

    async def _send_slow_jobs(self) -> None:
        """Sends jobs that will run on when the disk is full."""
        payload = {"sleep_ms": 100}
        jobs = [make_request("work", payload, id=f"slow-{n}") for n in range(SLOW_JOBS)]
        await self._session.producers[0].send(jobs)

    async def _send_until(self, *, refused: bool) -> int:
        """Sends large jobs until one is refused, or one is not; returns how many were taken."""
        taken = 0
        for _ in range(_TRIES_MAX):
            accepted = await self._send_large()
            taken += accepted
            if accepted is not refused:
                return taken
            if not accepted or (not self._rush and self._log_wants_room()):
                await asyncio.sleep(_PAUSE_S)
        raise ChaosFailure(
            f"after {_TRIES_MAX} large jobs none was {'' if refused else 'not '}refused"
        )

    def _log_wants_room(self) -> bool:
        """True where the server ought to prepare a segment, which it tries each second."""
        return log_end(self._session.program.data) > SEGMENT_BYTES // 2

    async def _send_large(self) -> bool:
        """Sends a large job; returns whether it was taken in."""
        self._large += 1
        job = make_request("swallow", {"pad": "x" * PAD_BYTES}, id=f"large-{self._large}")
        await self._session.producers[0].send([job])
        accepted = job.id in self._session.witness.acknowledged
        self._refused += not accepted
        return accepted
