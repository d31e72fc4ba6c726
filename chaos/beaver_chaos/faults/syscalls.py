"""Failing system calls of the real server: `strace` answers in the kernel's place.

The server alone is traced, not what it starts, unless its writer process is the one whose
calls are to fail.  A call is named by its kind and its number in the life of its process,
counted over those that touch the log or the names in its directory.  An injected error means
that the kernel never saw the call; what reached the page cache before is real.

A trial is two lives of one store: one in which calls fail, and one in which all is well
and producers send again what was not answered.  Then everything is checked as behind
`rounds`.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from beaver.engine.group_commit import IDLE_S
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.reader import frames
from beaver.system.disk import SystemDisk
from beaver_chaos.faults.table import Experiment, experiment
from beaver_chaos.program.process import ChaosFailure
from beaver_chaos.program.session import Session, given_up, together

SHORT_WRITE: Final = "a short write"
REQUESTS: Final = 5
"""Requests of one producer in one trial."""


class Injection(NamedTuple):
    """A fault injected into some system calls."""

    calls: str
    """Their names, with commas; each kind is counted by itself."""
    effect: str
    """As strace has it: `error=EIO`, `retval=20` (a short write), `signal=SIGKILL`."""
    when: str = "1+"
    """Which of them: `3`, or `3+` for that and all later ones."""

    def __str__(self) -> str:
        return f"{self.calls}:{self.effect}:when={self.when}"

    @property
    def fault(self) -> str:
        """Its name in the table of faults and outcomes."""
        kind, _, value = self.effect.partition("=")
        if kind == "signal":
            return "kill -9 at a write, sync or name of the log"
        return f"{value} from a system call" if kind == "error" else SHORT_WRITE

    @property
    def where(self) -> str:
        return f"{self.calls} {self.when}"


class TrialResult(NamedTuple):
    """The findings of a trial that broke no promise."""

    code: int
    """How the server ended under the injection; 0 where it was not met, or survived."""
    injected: int
    """Calls that were answered by strace."""
    output: str


def can_trace() -> str | None:
    """Returns why system calls cannot be injected here, or `None`."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    return None


def tracer(
    data: Path, trace: Path, injections: Sequence[Injection], *, children: bool = False
) -> list[str]:
    """Returns the command below which a server is run to have calls injected.

    Args:
        data: The data directory.
        trace: Where the calls are listed.
        injections: The faults.
        children: Trace whatever the server starts, too; each process is counted by itself.
    """
    layout = Layout(str(data))
    paths = [layout.path, layout.log, layout.next, layout.adopted, layout.archive]
    command = ["strace", *(["-f"] if children else []), "-qq", "-o", str(trace)]
    for path in paths:
        command += ["-P", path]
    calls = ",".join(injection.calls for injection in injections)
    command += ["-e", f"trace={calls}"]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    return command


def inject(
    directory: Path, *injections: Injection, store_first: bool = False, writer: bool = False
) -> TrialResult:
    """Runs one trial on a new store in `directory`.

    Args:
        directory: Where the files go.
        injections: The faults during its first run.
        store_first: Make the store, with some jobs in it, in a life before that; without, the
            calls that make a store are counted too.
        writer: Let the writer process write the log, and have its calls fail.

    Raises:
        ChaosFailure: A promise was broken, or the server left a traceback.
    """
    session = Session(directory, "trial")
    where = " and ".join(injection.where for injection in injections)
    where += " of the writer process" if writer else ""
    where += " at a restart" if store_first else ""
    try:
        with experiment(injections[-1].fault, where) as told:
            return asyncio.run(_trial(session, injections, store_first, writer, told))
    except Exception as error:
        what = str(error) if isinstance(error, ChaosFailure) else f"{type(error).__name__}: {error}"
        raise ChaosFailure(
            f"{what}\ninjected: {', '.join(map(str, injections))}; files in {directory}\n"
            f"The server's last output:\n{session.program.output_tail()}"
        ) from error
    finally:
        session.program.clear_away()


async def _trial(
    session: Session,
    injections: Sequence[Injection],
    store_first: bool,
    writer: bool,
    told: Experiment,
) -> TrialResult:
    program = session.program
    trace = program.output.with_name("trace.txt")
    if store_first:
        program.start()
        await session.ready()
        await session.finish(together([session.producers[0].produce(REQUESTS)]))
        program.signal(signal.SIGKILL)
        await session.ended()
    program.commit = "writer" if writer else "inline"
    program.start(below=tracer(program.data, trace, injections, children=writer))
    await session.ready_or_ended()
    # With the next segment at hand, the first jobs have the active one sealed: the calls of
    # sealing come at about the same numbers each time.
    adopted = Path(Layout(str(program.data)).adopted)
    await session.until(lambda: adopted.exists() or not program.running, "a segment is prepared")
    work = together([producer.produce(REQUESTS) for producer in session.producers])
    try:
        await session.until(lambda: work.done() or not program.running, "producers are answered")
        if program.running:
            program.signal(signal.SIGTERM)
        code, output = await _second_life(session, told, work)
    finally:
        await given_up(work)
    await session.drain()
    injected = trace.read_text(encoding="utf-8", errors="replace").count("(INJECTED)")
    if code == -signal.SIGKILL:
        injected = 1  # The call at which it was killed is the last line, without a mark.
    told.times, told.acknowledged = injected, len(session.witness.acknowledged)
    return TrialResult(code, injected, output)


async def _second_life(
    session: Session, told: Experiment, work: asyncio.Future[Any]
) -> tuple[int, str]:
    """Waits for the end of the server, and has the next one serve everybody.

    Returns:
        The exit code of the first server, and the end of what both have printed.
    """
    code = await session.ended()
    session.check()
    session.program.start()
    told.recovery_s.append(await session.ready())
    await session.finish(work)
    return code, session.program.output_tail()


def cut_a_write_short(directory: Path) -> TrialResult:
    """Makes the kernel take only the first bytes of a frame, by a limit on file sizes.

    Raises:
        ChaosFailure: As `inject`.
    """
    session = Session(directory, "short write")
    try:
        with experiment(SHORT_WRITE, "a commit, cut by a limit on file sizes") as told:
            return asyncio.run(_short_write(session, told))
    finally:
        session.program.clear_away()


async def _short_write(session: Session, told: Experiment) -> TrialResult:
    program = session.program
    program.commit = "inline"
    program.start()
    await session.ready()
    await session.finish(together([producer.produce(REQUESTS) for producer in session.producers]))
    await session.drained()
    limit = await _resting_end(program.data) + 30
    _, hard = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (limit, hard))
    work = together([producer.produce(REQUESTS) for producer in session.producers])
    try:
        code, output = await _second_life(session, told, work)
    finally:
        await given_up(work)
    await session.drain()
    told.acknowledged = len(session.witness.acknowledged)
    return TrialResult(code, 1, output)


async def _resting_end(data: Path) -> int:
    """Returns the end of the log once the last frame is marked and nothing follows."""
    before, end = -1, log_end(data)
    while end != before:
        await asyncio.sleep(2 * IDLE_S)
        before, end = end, log_end(data)
    return end


def log_end(data: Path) -> int:
    """Returns the offset at which the next frame of the active segment will begin."""
    layout = Layout(str(data))
    file = SystemDisk().open(layout.log)
    try:
        scan = frames(file, layout.log)
        for _ in scan:
            pass
        return scan.offset
    finally:
        file.close()
