"""Rounds of the real program under load, killed at random moments.

One round: producers and an operator are at work, a fault strikes at a drawn moment, the log
so far is compared with what had been answered by then, the server is started again where it
was killed, and everyone is served to the end.  Behind the last round everything drains, and
the whole history and the files are checked.

The draws come from the seed.  What they meet depends on the machine, so a seed does not
repeat a run to the letter; it repeats the same faults under the same load.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from beaver.errors import BeaverError
from beaver_chaos.checker.history import HistoryCheck
from beaver_chaos.faults.table import Experiment, experiment
from beaver_chaos.program.load import chance_of
from beaver_chaos.program.process import EXIT_STORAGE, ChaosFailure
from beaver_chaos.program.session import Session, given_up, together

CHANGES_A_ROUND: Final = 5
FAULT_WITHIN_S: Final = 0.25
"""Longest time from the beginning of a round's load to its fault."""
COMMITS: Final = ("auto", "inline", "writer")
"""How servers write their log; one is drawn for each start."""
ZYGOTE_KILLS_MAX: Final = 3
"""Killed workers of one server at most: after five within ten seconds it rightly gives up."""


class ProgramFault(Enum):
    """A fault on the running program."""

    KILL_SERVER = "kill -9 of the server"
    KILL_EVERYTHING = "kill -9 of server, writer, zygote, workers and helper at once"
    KILL_WORKERS = "kill -9 of all workers"
    KILL_WORKER = "kill -9 of a worker"
    KILL_ZYGOTE = "kill -9 of the zygote"
    KILL_HELPER = "kill -9 of the helper"
    KILL_WRITER = "kill -9 of the writer process"
    PAUSE = "SIGSTOP, then SIGCONT of the server"
    PAUSE_AND_KILL = "SIGSTOP, then kill -9 of the server"
    STOP = "SIGTERM, and a clean end"
    KILL_WHILE_STOPPING = "SIGTERM, then kill -9"
    KILL_WHILE_STARTING = "kill -9, and again while it recovers"


SHARES: Final[dict[ProgramFault, int]] = {
    ProgramFault.KILL_SERVER: 26,
    ProgramFault.KILL_EVERYTHING: 16,
    ProgramFault.KILL_WORKERS: 6,
    ProgramFault.KILL_WORKER: 8,
    ProgramFault.KILL_ZYGOTE: 6,
    ProgramFault.KILL_HELPER: 5,
    ProgramFault.KILL_WRITER: 4,
    ProgramFault.PAUSE: 6,
    ProgramFault.PAUSE_AND_KILL: 4,
    ProgramFault.STOP: 5,
    ProgramFault.KILL_WHILE_STOPPING: 6,
    ProgramFault.KILL_WHILE_STARTING: 8,
}
"""How often each is drawn, in percent."""


SURVIVED: Final = frozenset(
    {
        ProgramFault.KILL_WORKERS,
        ProgramFault.KILL_WORKER,
        ProgramFault.KILL_ZYGOTE,
        ProgramFault.KILL_HELPER,
        ProgramFault.PAUSE,
    }
)
"""The server lives through these."""


class Progress(NamedTuple):
    """Where a run is."""

    round: int
    rounds: int
    fault: str
    jobs: int
    """Acknowledged so far."""


class RoundsReport(NamedTuple):
    """The report of a run that broke no promise."""

    seed: int
    rounds: int
    seconds: float
    faults: Counter[str]
    jobs: int
    acknowledged: int
    """Jobs that producers sent; the others are children."""
    runs: int
    """Attempts that workers began."""
    events: Counter[str]

    def __str__(self) -> str:
        faults = "\n".join(f"  {count:>4}  {fault}" for fault, count in self.faults.most_common())
        events = ", ".join(f"{count} {name}" for name, count in self.events.most_common())
        return (
            f"seed {self.seed}: {self.rounds} rounds in {self.seconds:.1f} s, {self.jobs} jobs "
            f"({self.acknowledged} acknowledged, the rest children), {self.runs} attempts run\n"
            f"{faults}\n  {events}"
        )


def drawn_faults(seed: int, rounds: int) -> list[ProgramFault]:
    """Returns the faults of a seed, one a round."""
    chance = chance_of(f"faults of {seed}")
    faults: list[ProgramFault] = []
    zygote_kills = 0
    while len(faults) < rounds:
        (fault,) = chance.choices(list(SHARES), list(SHARES.values()))
        if fault not in SURVIVED:
            zygote_kills = 0
        elif fault is ProgramFault.KILL_ZYGOTE:
            if zygote_kills == ZYGOTE_KILLS_MAX:
                continue
            zygote_kills += 1
        faults.append(fault)
    return faults


def run_rounds(
    seed: int,
    rounds: int,
    directory: Path,
    on_progress: Callable[[Progress], None] | None = None,
) -> RoundsReport:
    """Runs rounds on a new store in `directory`, and checks them.

    Raises:
        ChaosFailure: A promise was broken; the message says which, and how to run it again.
            The files stay for inspection.
    """
    run = Rounds(seed, rounds, directory, on_progress)
    try:
        return asyncio.run(run.run())
    except Exception as error:
        what = str(error) if isinstance(error, ChaosFailure) else f"{type(error).__name__}: {error}"
        raise ChaosFailure(
            f"{what}\n"
            f"seed {seed}, round {run.round} of {rounds} ({run.fault}); files in {directory}\n"
            f"Again: python -m beaver_chaos rounds --seed {seed} --rounds {rounds}\n"
            f"The server's last output:\n{run.program.output_tail()}"
        ) from error
    finally:
        run.program.clear_away()


class Rounds(Session):
    """One run."""

    def __init__(
        self,
        seed: int,
        rounds: int,
        directory: Path,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        super().__init__(directory, str(seed))
        self.round = 0
        self.fault = "none yet"
        self._seed, self._rounds = seed, rounds
        self._on_progress = on_progress
        self._plan = drawn_faults(seed, rounds)
        self._chance = chance_of(f"moments of {seed}")
        self._faults: Counter[str] = Counter()
        self._strikes: dict[ProgramFault, Callable[[], Awaitable[None]]] = {
            ProgramFault.KILL_SERVER: self._kill_server,
            ProgramFault.KILL_EVERYTHING: self._kill_everything,
            ProgramFault.KILL_WORKERS: self._kill_workers,
            ProgramFault.KILL_WORKER: self._kill_worker,
            ProgramFault.KILL_ZYGOTE: self._kill_zygote,
            ProgramFault.KILL_HELPER: self._kill_helper,
            ProgramFault.KILL_WRITER: self._kill_writer,
            ProgramFault.PAUSE: self._pause,
            ProgramFault.PAUSE_AND_KILL: self._pause_and_kill,
            ProgramFault.STOP: self._stop,
            ProgramFault.KILL_WHILE_STOPPING: self._kill_while_stopping,
            ProgramFault.KILL_WHILE_STARTING: self._kill_while_starting,
        }

    async def run(self) -> RoundsReport:
        started_s = time.monotonic()
        self._start()
        await self.ready()
        history = HistoryCheck()
        for fault in self._plan:
            self.round += 1
            before = len(self.witness.acknowledged)
            with experiment(fault.value, f"under load, seed {self._seed}") as told:
                await self._one_round(fault, told)
                told.acknowledged = len(self.witness.acknowledged) - before
                if self.round == self._rounds:
                    self.fault = f"drained after {fault.value}"
                    history = await self.drain()
        return RoundsReport(
            self._seed,
            self._rounds,
            time.monotonic() - started_s,
            self._faults,
            len(history.jobs),
            len(self.witness.acknowledged),
            sum(not run.ended for run in self.program.account()),
            history.counts,
        )

    async def _one_round(self, fault: ProgramFault, told: Experiment) -> None:
        self.fault = fault.value
        self._faults[fault.value] += 1
        if self._on_progress is not None:
            done = len(self.witness.acknowledged)
            self._on_progress(Progress(self.round, self._rounds, fault.value, done))
        load = [producer.produce() for producer in self.producers]
        work = together([*load, self.operator.operate(CHANGES_A_ROUND)])
        try:
            await asyncio.sleep(self._chance.random() * FAULT_WITHIN_S)
            await self._strikes[fault]()
            self.check()
            if fault in SURVIVED:
                await self.ready()
            else:
                self._start()
                told.recovery_s.append(await self.ready())
            await self.finish(work)
        finally:
            await given_up(work)

    def _start(self) -> None:
        self.program.commit = self._chance.choice(COMMITS)
        self.program.start()

    async def _gone(self, *codes: int) -> None:
        """Waits for the server's end and checks how it ended."""
        code = await self.ended()
        if code not in codes:
            raise ChaosFailure(f"the server ended with {code}; expected was one of {codes}")

    # -- faults ------------------------------------------------------------------------------

    async def _kill_server(self) -> None:
        self.program.signal(signal.SIGKILL)
        await self._gone(-signal.SIGKILL)

    async def _kill_everything(self) -> None:
        program = self.program
        pids = [program.pid, *program.writers(), *program.helpers(), *program.zygotes()]
        pids += program.workers()
        self._chance.shuffle(pids)
        _kill(pids)
        # It may have missed its writer before its own turn came.
        await self._gone(-signal.SIGKILL, EXIT_STORAGE)

    async def _kill_workers(self) -> None:
        _kill(self.program.workers())

    async def _kill_worker(self) -> None:
        workers = self.program.workers()
        _kill([self._chance.choice(workers)] if workers else [])

    async def _kill_zygote(self) -> None:
        _kill(self.program.zygotes())

    async def _kill_helper(self) -> None:
        _kill(self.program.helpers())

    async def _kill_writer(self) -> None:
        """With a frame under way nobody knows whether that is durable: the server has to end.

        Between two frames the writer is replaced, or not even missed where commits are made on
        the loop by now; then the server is killed as well.
        """
        writers = self.program.writers()
        _kill(writers)
        goes_on = False
        if writers:
            # It learns of it with its next commit, for which the load may be through too soon.
            with suppress(BeaverError):
                client = await self.operator.client()
                await client.set_queue("none", weight=1 + self.round % 9)
                goes_on = True
        if goes_on or not writers:
            await self._kill_server()
        else:
            await self._gone(EXIT_STORAGE)

    async def _pause(self) -> None:
        self.program.signal(signal.SIGSTOP)
        await asyncio.sleep(0.02 + self._chance.random() * 0.2)
        self.program.signal(signal.SIGCONT)

    async def _pause_and_kill(self) -> None:
        self.program.signal(signal.SIGSTOP)
        await asyncio.sleep(self._chance.random() * 0.1)
        await self._kill_server()

    async def _stop(self) -> None:
        self.program.signal(signal.SIGTERM)
        await self._gone(0)
        self.program.refuse_leftovers()

    async def _kill_while_stopping(self) -> None:
        self.program.signal(signal.SIGTERM)
        await asyncio.sleep(self._chance.random() * 0.25)
        self.program.signal(signal.SIGKILL)
        # It may have come to its clean end first.
        await self._gone(-signal.SIGKILL, 0)

    async def _kill_while_starting(self) -> None:
        await self._kill_server()
        for _ in range(self._chance.randint(1, 2)):
            self._start()
            await asyncio.sleep(self._chance.random() * 0.45)
            await self._kill_server()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
