"""Power cuts under the real program: its data directory on a file system that goes dark.

One cut: producers and an operator are at work, the power goes at a drawn moment, or just
when the program does something delicate; every process dies; the file system is mounted
again, which replays its journal.  Then, before anything has repaired anything, the log is
compared with all that was answered and all that workers ran.  The server is started again,
everyone is served to the end, and behind the last cut everything drains and is checked, the
files by `beaver verify` and the file system by its own checker.

An answer that had reached a client when the power went counts, though it is heard behind the
cut: it was sent after its sync.  Between the cut and the new mount nothing else runs here, so
no producer meets a half-dead server.  The workers' account lies on another file system; it
tells what really ran.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Final, NamedTuple

from beaver.errors import Corruption
from beaver.journal.wal.layout import Layout
from beaver.request.requests import make_request
from beaver.workers.leftovers import find_leftovers
from beaver_chaos.faults.power.aim import Aim, Signs
from beaver_chaos.faults.power.disk import FLUSH, NO_FLUSH, FileSystem, Flush, PowerDisk, power_disk
from beaver_chaos.faults.power.inside import environment
from beaver_chaos.faults.power.log import FollowedLog
from beaver_chaos.faults.table import Experiment, experiment
from beaver_chaos.program.load import LoadClient, chance_of
from beaver_chaos.program.process import ChaosFailure, PromiseBroken, eventually, peek_mark
from beaver_chaos.program.session import PRODUCERS, Session, given_up, refuse_drift, together

REQUESTS: Final = 8
"""Requests of one producer between two cuts."""
CHANGES: Final = 3
BULK_JOBS: Final = 60
BULK_BYTES: Final = 12_000
BULK_PAUSE_S: Final = 0.008
"""Jobs that fill the log, so that segments are sealed all the time."""
CUT_WITHIN_S: Final = 0.4
"""Longest time from the beginning of the load to the cut, or to the wait for its aim."""
AIM_S: Final = 1.5
"""How long a cut waits for its aim before it strikes anyway."""
_POLL_S: Final = 0.0003
_GONE_S: Final = 10.0
COMMITS: Final = ("inline", "writer")
FLUSHES: Final = (NO_FLUSH, NO_FLUSH, FLUSH)
"""What happens to the journal in memory, one cut after the other."""
FILLER: Final = PRODUCERS
START_S: Final = 0.5
"""Longest time into a start at which the power is cut."""


class PowerReport(NamedTuple):
    """The report of a run that broke no promise."""

    seed: int
    file_system: str
    seconds: float
    cuts: Counter[str]
    aimed: Counter[str]
    """Cuts that hit what they were aimed at."""
    jobs: int
    acknowledged: int
    first_seq: int
    """First seq of the log at the end; everything before it was pruned."""

    def __str__(self) -> str:
        cuts = "\n".join(
            f"  {count:>4}  {aim} ({self.aimed[aim]} hit)" for aim, count in self.cuts.items()
        )
        return (
            f"seed {self.seed}, {self.file_system}: {self.cuts.total()} cuts in "
            f"{self.seconds:.1f} s, {self.jobs} jobs, {self.acknowledged} acknowledged\n{cuts}"
        )


def cut_power(
    seed: int,
    aims: Sequence[Aim],
    file_system: FileSystem,
    directory: Path,
    *,
    sown: Experiment | None = None,
) -> PowerReport:
    """Cuts the power of a new store, and checks it.

    Args:
        seed: Seed of all random choices.
        aims: When the power goes, cut by cut.
        file_system: The file system of the store.
        directory: Where image, output and the workers' account go.
        sown: An experiment with a bug of `inside.BUGS`, which is sown.  The cuts are
            noted in it; without it each cut is told as an experiment of its own.

    Raises:
        PromiseBroken: A promise was broken.
        ChaosFailure: The run did not come to its end.
        OSError: No such file system can be made or mounted here.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with power_disk(file_system, directory) as disk:
        run = PowerCuts(seed, aims, disk, directory, sown.sown if sown else "")
        try:
            return asyncio.run(run.run())
        except Exception as error:
            raise run.explained(error) from error
        finally:
            run.kill_everything()
            if sown is not None:
                run.note(sown)


def see_bug(
    seed: int, aims: Sequence[Aim], file_system: FileSystem, directory: Path, bug: str
) -> PromiseBroken | None:
    """Cuts the power of a program with a bug; returns what the checker said, if it saw any.

    Raises:
        ChaosFailure: The run did not come to its end.
    """
    with experiment(f"power cut on {file_system.name}", sown=bug) as told:
        try:
            cut_power(seed, aims, file_system, directory, sown=told)
        except PromiseBroken as broken:
            told.note(broken)
            return broken
    return None


def _lives(pid: int) -> bool:
    """True where a process runs; a zombie has no command any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


class PowerCuts(Session):
    """One run."""

    def __init__(
        self, seed: int, aims: Sequence[Aim], disk: PowerDisk, directory: Path, sown: str
    ) -> None:
        super().__init__(directory, f"power {seed}")
        assert self.program.data == disk.path
        self._seed, self._disk, self._directory, self._sown = seed, disk, directory, sown
        self._layout = Layout(str(disk.path))
        self._aims = list(aims)
        self._chance = chance_of(f"cuts of {seed}")
        self._filler = LoadClient(str(disk.path), FILLER, self.witness, self._chance)
        self._log = FollowedLog(self._layout)
        self._boot = 0
        self._mark = ""
        self._cuts: Counter[str] = Counter()
        self._aimed: Counter[str] = Counter()
        self._last = "no cut yet"

    async def run(self) -> PowerReport:
        started_s = time.monotonic()
        if Aim.MAKE not in self._aims[:1]:
            await self._start()
        for number, aim in enumerate(self._aims, 1):
            where = f"power cut on {self._disk.file_system.name}"
            telling = nullcontext(Experiment(fault=where)) if self._sown else experiment(where, aim)
            before = len(self.witness.acknowledged)
            with telling as told:
                await (self._cut_young(told) if aim is Aim.MAKE else self._one_cut(aim, told))
                if number == len(self._aims):
                    await self._end()
                told.acknowledged = len(self.witness.acknowledged) - before
        return PowerReport(
            self._seed,
            self._disk.file_system.name,
            time.monotonic() - started_s,
            self._cuts,
            self._aimed,
            len(self._log.history.jobs),
            len(self.witness.acknowledged),
            self._log.first_seq,
        )

    def note(self, told: Experiment) -> None:
        """Notes all cuts as one experiment."""
        told.times = self._cuts.total()
        told.acknowledged = len(self.witness.acknowledged)

    async def _one_cut(self, aim: Aim, told: Experiment) -> None:
        flush = FLUSHES[self._cuts.total() % len(FLUSHES)]
        self._last = f"{aim}; {flush.name}"
        load = [producer.produce(REQUESTS) for producer in self.producers]
        work = together([*load, self.operator.operate(CHANGES), self._fill()])
        try:
            await asyncio.sleep(self._chance.random() * CUT_WITHIN_S)
            if aim is Aim.START:
                self._cut(NO_FLUSH)
                told.times += 1
                self._launch()
                await asyncio.sleep(self._chance.random() * START_S)
                self._aimed[aim] += not self.program.listening
            else:
                self._aimed[aim] += await self._wait_for(aim)
            self._cut(flush)
            self._cuts[aim] += 1
            await self._hear()
            self._check()
            told.recovery_s.append(await self._start())
            await self.finish(work)
        finally:
            await given_up(work)

    async def _cut_young(self, told: Experiment) -> None:
        """Cuts the power before the first server listens; nobody was answered anything yet."""
        self._last = Aim.MAKE
        self._launch()
        await asyncio.sleep(self._chance.random() * START_S)
        self._aimed[Aim.MAKE] += not self.program.listening
        self._cut(NO_FLUSH)
        self._cuts[Aim.MAKE] += 1
        told.recovery_s.append(await self._start())

    async def _fill(self) -> None:
        """Sends jobs that take up room in the log."""
        for _ in range(BULK_JOBS):
            number = len(self.witness.sent)
            job = make_request("swallow", {"pad": "x" * BULK_BYTES}, id=f"bulk-{number}")
            await self._filler.send([job])
            self._log.copy(self.witness.acknowledged.get(job.id, 0))
            await asyncio.sleep(BULK_PAUSE_S)

    async def _wait_for(self, aim: Aim) -> bool:
        """Waits for the moment that is aimed at; false where it did not come."""
        signs = Signs(self._layout)
        deadline_s = time.monotonic() + AIM_S
        while not signs.show(aim):
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    # -- the power -----------------------------------------------------------------------------

    def _cut(self, flush: Flush) -> None:
        """Cuts the power and mounts again, without giving way to anybody meanwhile."""
        program = self.program
        program.refuse_tracebacks()
        self._disk.cut(flush)
        self.kill_everything()
        # Output about a disk that no longer answers: a machine without power prints nothing.
        program.output.rename(program.output.with_name(f"output-{self._boot}.txt"))
        self._disk.unmount()
        self._disk.mount()

    async def _hear(self) -> None:
        """Lets everyone hear the answers that had reached them when the power went."""
        sides = [*self.producers, self.operator, self._filler]
        await self.until(lambda: not any(s.connected for s in sides), "the last answers are heard")

    def kill_everything(self) -> None:
        """Ends every process, as a loss of power does."""
        program = self.program
        own = [*program.writers(), *program.helpers(), *program.zygotes(), *program.workers()]
        program.signal(signal.SIGKILL)
        if program.running:
            program.wait(_GONE_S)

        def are_gone() -> bool:
            left = find_leftovers(self._mark) if self._mark else []
            left += filter(_lives, own)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        eventually(are_gone, "all processes are gone", _GONE_S)

    def _launch(self) -> None:
        self._boot += 1
        self.program.commit = self._chance.choice(COMMITS)
        self.program.start(environment=environment(self._directory, self._boot, self._sown))

    async def _start(self) -> float:
        """Starts the server in a boot of its own; returns the seconds until it listens."""
        self._launch()
        await self.ready_or_ended()
        if not self.program.running:
            code = self.program.exit_code
            kind = PromiseBroken if code == Corruption.exit_code else ChaosFailure
            raise kind(f"it ended with {code} instead of starting")
        self._mark = peek_mark(self.program.data) or ""
        return time.monotonic() - self.program.started_s

    # -- the checks ----------------------------------------------------------------------------

    def _check(self, *, quiet: bool = False) -> None:
        self._log.check(self.witness, self.program.account, quiet=quiet)

    async def _end(self) -> None:
        """Waits until nothing is left to do, ends the server, and checks everything."""
        await self.drained()
        self.close()
        self._filler.close()
        self.program.stop()
        self.program.refuse_leftovers()
        self._check(quiet=True)
        self.program.refuse_damage()
        refuse_drift(self.program.data)
        self.program.refuse_tracebacks()
        self._disk.unmount()
        self._disk.refuse_damage()
        self._disk.mount()

    def explained(self, error: Exception) -> ChaosFailure:
        """Returns an error with what one needs to look into it; keeps a copy of the files."""
        with suppress(OSError, shutil.Error):
            shutil.copytree(self._disk.path, self._directory / "kept")
        what = str(error) if isinstance(error, ChaosFailure) else f"{type(error).__name__}: {error}"
        name = self._disk.file_system.name
        text = (
            f"{what}\nseed {self._seed} on {name}, cut {self._cuts.total()} of {len(self._aims)} "
            f"({self._last}); files in {self._directory}\n"
            f"Again: python -m beaver_chaos power --seed {self._seed} --cuts {len(self._aims)} "
            f"--file-system '{name}'\nThe server's last output:\n{self.program.output_tail()}"
        )
        if isinstance(error, PromiseBroken):
            return PromiseBroken(text, error.lost)
        return ChaosFailure(text)
