"""The machine's clock jumps under the real program, while it works and while it is down.

By default only the wall clock jumps, as when somebody sets it or NTP steps it.  With
`monotonic` both clocks jump: a machine that stood still for hours and did not notice, and
across a start one that has booted again.

Beside the load, whose history is checked as ever, each jump meets jobs of a few kinds at a
chosen moment (`Probes`).  What the log must then show is in `Times`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from beaver.engine.group_commit import IDLE_S
from beaver.errors import WaitTimeout
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import read_commits
from beaver.request.requests import make_request
from beaver.structs.messages import Request
from beaver.system.disk import SystemDisk
from beaver_chaos.faults.clock.fakes import BothClocks, WallClock
from beaver_chaos.faults.clock.times import OVERRUN, Times
from beaver_chaos.faults.table import Experiment, experiment
from beaver_chaos.program.load import Connected
from beaver_chaos.program.process import ChaosFailure, PromiseBroken
from beaver_chaos.program.session import Session, given_up, together

FAULT: Final = "clock jumps"
DAY_S: Final = 86_400
REQUESTS: Final = 4
"""Requests of each producer at each jump."""
NOTICED_S: Final = 15.0
"""Deadline for jobs that are due.  A server notices a jump within a second or so, and the longest
of the probes runs for less; this is far more."""
SOWN_S: Final = 4.0
"""The same for a server that has a bug and shall be seen to be late."""
BEHIND: Final = " s behind the log"
"""The warning of a server that starts with its clock set back."""


class Jump(NamedTuple):
    """Where the clock goes, in seconds from the true time."""

    name: str
    offset_s: int
    makes_due: bool = False
    """Jobs due in three hours become due at once."""


def at_work() -> tuple[Jump, ...]:
    """Jumps while the server works, back and forth: behind the first, stamps run ahead."""
    return (
        Jump("four hours ahead", 4 * 3_600, makes_due=True),
        Jump("back before the newest record", -2 * DAY_S),
        Jump("a month ahead", 30 * DAY_S, makes_due=True),
        Jump("back to 1970", 60 - int(time.time())),
    )


IDLE: Final = Jump("two months ahead", 60 * DAY_S, makes_due=True)
"""While nothing runs and nobody asks: no commit makes the server look."""


def across_a_start() -> tuple[Jump, ...]:
    """Jumps between a kill -9 and the next start."""
    return (Jump("a day back", -DAY_S), Jump("90 days ahead", 90 * DAY_S, makes_due=True))


SOWN: Final = {
    "stamps follow the wall clock": """
import beaver.engine.stamps
beaver.engine.stamps.Stamper.now_ms = lambda stamper: stamper._clock.wall_ms()
""",
    "limits are measured by the wall clock": """
import time
time.monotonic_ns = time.time_ns
""",
}
"""Bugs that the checks must see, as code that every process of the server runs at its start."""


def sow(bug: str, directory: Path) -> dict[str, str]:
    """Returns the variables under which a program has one of the bugs `SOWN`."""
    (directory / "sown").mkdir()
    (directory / "sown" / "sitecustomize.py").write_text(SOWN[bug], encoding="utf-8")
    known = os.environ.get("PYTHONPATH")
    paths = [str(directory / "sown"), *([known] if known else [])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


class Probes:
    """One job of each kind that a clock could hurt, sent together before a jump."""

    def __init__(self, name: str, *, monotonic: bool) -> None:
        name, day = name.replace(" ", "-"), "86400s"
        self.long = f"long-{name}"
        """Runs while the clock jumps, and has a limit that is shorter than the jump."""
        self.over = f"over-{name}"
        """Runs over its limit while the clock jumps, and must be stopped for it."""
        self.soon = f"soon-{name}"
        """Waits for a short while, which a jump may end early and never make long."""
        self.later = f"later-{name}"
        self.again = f"again-{name}"
        """Fails at once, and waits three hours for its second attempt."""
        limit = "30d" if monotonic else "1h"
        self.requests = [
            make_request("flaky", {"fails": 1}, id=self.again, backoff="3h", timeout=day),
            make_request("work", {"sleep_ms": 700}, id=self.long, timeout=limit, max_attempts=1),
            make_request(OVERRUN, {"times": 1}, id=self.over, timeout="400ms", backoff="5ms"),
            make_request("work", id=self.soon, delay="400ms"),
            make_request("work", id=self.later, delay="3h", timeout=day),
        ]

    @property
    def now(self) -> list[str]:
        """Those that end by themselves, whatever the clock does."""
        return [self.long, self.over, self.soon]

    @property
    def distant(self) -> list[str]:
        """Those that wait for a jump forwards."""
        return [self.later, self.again]


class JumpReport(NamedTuple):
    """The report of a run that broke no promise."""

    jumps: int
    acknowledged: int
    timeouts: int
    """Attempts that ran over their limit."""
    events: Counter[str]
    log_ahead_s: float
    """How far the log's last stamp was ahead of the true time."""


def jump_about(directory: Path, *, monotonic: bool = False, sown: str = "") -> JumpReport:
    """Makes the clock of a server jump, at work and across a kill and a start.

    Args:
        directory: Where the files go.
        monotonic: Both clocks jump, not the wall clock alone.
        sown: A bug that the server has; one of `SOWN`.

    Raises:
        ChaosFailure: A promise was broken.
    """
    clock = BothClocks(directory) if monotonic else WallClock(directory)
    session = Session(directory, FAULT)
    variables = clock.environment() | (sow(sown, directory) if sown else {})
    run = _Jumps(session, clock, monotonic, variables, SOWN_S if sown else NOTICED_S)
    which = "wall and monotonic clock" if monotonic else "wall clock"
    record = nullcontext(Experiment(fault=FAULT)) if sown else experiment(FAULT, which)
    try:
        with record as told:
            try:
                return asyncio.run(run.run(told))
            except Exception as error:
                raise run.explained(error, directory) from error
    finally:
        session.program.clear_away()
        run.clear_away()


class _Jumps:
    """The story, step by step."""

    def __init__(
        self,
        session: Session,
        clock: WallClock | BothClocks,
        monotonic: bool,
        environment: dict[str, str],
        patience_s: float,
    ) -> None:
        self._session, self._clock, self._monotonic = session, clock, monotonic
        self._environment = environment
        self._patience_s = patience_s
        self._asker = Connected(str(session.program.data))
        self._pids: list[int] = []
        self._waiting: list[str] = []
        self.where = "true"

    async def run(self, told: Experiment) -> JumpReport:
        session = self._session
        self._start()
        await session.ready()
        jumps = [jump for jump in at_work() if jump.makes_due or not self._monotonic]
        for jump in jumps:
            await self._at_work(jump)
        await self._while_idle(IDLE)
        starts = across_a_start()
        for jump in starts:
            told.recovery_s.append(await self._across_a_start(jump))
        self._asker.close()
        history = await session.drain()
        told.times = len(jumps) + 1 + len(starts)
        told.acknowledged = len(session.witness.acknowledged)
        times = self.times()
        if times.violations:
            raise PromiseBroken("\n".join(times.violations))
        return JumpReport(
            told.times,
            told.acknowledged,
            times.timeouts.total(),
            history.counts,
            times.last_ms / 1000 - time.time(),
        )

    def times(self) -> Times:
        """Returns what the log says of times so far."""
        times = Times()
        times.read(read_commits(SystemDisk(), Layout(str(self._session.program.data)), 0))
        return times

    async def _at_work(self, jump: Jump) -> None:
        self.where = f"{jump.name}, at work"
        probes = Probes(self.where, monotonic=self._monotonic)
        work = together([producer.produce(REQUESTS) for producer in self._session.producers])
        try:
            await self._send_and_begin(probes)
            self._clock.jump(jump.offset_s)
            await self._ended(probes.now)
            if jump.makes_due:
                await self._waiting_ended()
            await self._session.finish(work)
        finally:
            await given_up(work)
        self._session.check()

    async def _while_idle(self, jump: Jump) -> None:
        self.where = f"{jump.name}, while idle"
        probes = Probes(self.where, monotonic=self._monotonic)
        await self._send_and_begin(probes)
        await self._ended(probes.now)
        await asyncio.sleep(2 * IDLE_S)
        self._clock.jump(jump.offset_s)
        await self._waiting_ended()
        self._session.check()

    async def _across_a_start(self, jump: Jump) -> float:
        """Returns the seconds that the start took."""
        session, program = self._session, self._session.program
        self.where = f"{jump.name}, killed and started again"
        probes = Probes(self.where, monotonic=self._monotonic)
        probes.requests = [r for r in probes.requests if r.id != probes.long]
        await self._send_and_begin(probes)
        program.signal(signal.SIGKILL)
        await session.ended()
        self._clock.jump(jump.offset_s)
        self._asker.close()
        said = self._said_behind()
        self._start()
        took_s = await session.ready()
        await self._ended([probes.over, probes.soon])
        if (told := self._said_behind() - said) != (jump.offset_s < 0):
            raise PromiseBroken(f"clock {jump.name}: told {told} times at the start")
        if jump.makes_due:
            await self._waiting_ended()
        session.check()
        return took_s

    def _said_behind(self) -> int:
        """Returns how often servers have said that their clock is behind the log."""
        return self._session.program.output.read_text("utf-8", "replace").count(BEHIND)

    def _start(self) -> None:
        self._session.program.start(environment=self._environment)
        self._pids.append(self._session.program.pid)

    async def _send_and_begin(self, probes: Probes) -> None:
        """Sends the probes; returns once those run that a jump has to meet at work."""
        await self._send(probes.requests)
        self._waiting += probes.distant
        begun = {request.id for request in probes.requests} - {probes.soon, probes.later}
        program = self._session.program
        await self._session.until(
            lambda: begun <= {run.job for run in program.account()}, f"{sorted(begun)} begin"
        )

    async def _send(self, requests: list[Request]) -> None:
        witness = self._session.witness
        for request in requests:
            witness.sending([request.id])
        witness.acknowledge(await (await self._asker.client()).enqueue(requests))

    async def _waiting_ended(self) -> None:
        """Waits for what a jump forwards has made due."""
        await self._ended(self._waiting)
        self._waiting.clear()

    async def _ended(self, jobs: Iterable[str]) -> None:
        """Waits until jobs have completed.

        Raises:
            ChaosFailure: One has not, or ended otherwise.
        """
        client = await self._asker.client()
        for job in jobs:
            try:
                ended = await client.wait(job, timeout=self._patience_s)
            except WaitTimeout as error:
                raise ChaosFailure(f"{error}; the clock is {self.where}") from error
            if ended.state != "completed":
                raise PromiseBroken(f"job {job} is {ended.state}: {ended.error or ended.cause}")

    def explained(self, error: Exception, directory: Path) -> ChaosFailure:
        """Returns what went wrong, with what the log says of times and where all of it was."""
        is_ours = isinstance(error, ChaosFailure)
        what = str(error) if is_ours else f"{type(error).__name__}: {error}"
        wrong = [line for line in self.times().violations if line not in what]
        words = "\n".join(
            [
                *wrong,
                what,
                f"clock {self.where}; files in {directory}",
                f"The server's last output:\n{self._session.program.output_tail()}",
            ]
        )
        if isinstance(error, PromiseBroken):
            return PromiseBroken(words, error.lost)
        return PromiseBroken(words) if wrong else ChaosFailure(words)

    def clear_away(self) -> None:
        """Closes the connection, and removes what killed processes left outside."""
        self._asker.close()
        for pid in self._pids:
            self._clock.forget(pid)
