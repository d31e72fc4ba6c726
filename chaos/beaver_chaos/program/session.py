"""One store under test with everyone who uses it: the server, producers, an operator.

What lives here: starting, waiting, checking and draining, which faults of every kind share.
What may not: the faults (`rounds`, `syscalls`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from beaver_chaos.checker.client_record import ClientRecord
from beaver_chaos.checker.history import HistoryCheck
from beaver_chaos.program.load import EAGER, Connected, LoadClient, Operator, chance_of
from beaver_chaos.program.process import DEADLINE_S, ChaosFailure, Program, PromiseBroken
from beaver_spec.traces.following import validate_store

PRODUCERS: Final = 3
_POLL_S: Final = 0.003


class Session:
    """A store from its first start to its last check."""

    def __init__(self, directory: Path, seed: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        settings = directory / "beaver.yaml"
        settings.write_text(f"queues: {{{EAGER}: {{durable_dispatch: false}}}}\n")
        self.program = Program(directory, flags=["--config", str(settings)])
        self.witness = ClientRecord()
        data = str(self.program.data)
        self.producers = [
            LoadClient(data, number, self.witness, chance_of(f"producer {number} of {seed}"))
            for number in range(PRODUCERS)
        ]
        self.operator = Operator(data, self.witness, chance_of(f"operator of {seed}"))

    # -- the server --------------------------------------------------------------------------

    async def until(self, ask: Callable[[], bool], what: str) -> None:
        """Waits until the answer is true, while producers go on.

        Raises:
            ChaosFailure: It did not become true in time.
        """
        deadline_s = time.monotonic() + DEADLINE_S
        while not ask():
            if time.monotonic() > deadline_s:
                raise ChaosFailure(f"not within {DEADLINE_S:g} s: {what}")
            await asyncio.sleep(_POLL_S)

    async def ready(self) -> float:
        """Waits until the server listens; returns the seconds since it was started.

        Raises:
            ChaosFailure: It ended instead, or took too long.
        """
        await self.ready_or_ended()
        self.refuse_end()
        return time.monotonic() - self.program.started_s

    async def ready_or_ended(self) -> None:
        """Waits until the server listens or has ended."""
        program = self.program
        await self.until(lambda: program.listening or not program.running, "the server is ready")

    async def ended(self) -> int:
        """Waits for the server's end; returns its exit code, negative for a signal."""
        await self.until(lambda: not self.program.running, "the server ends")
        code = self.program.exit_code
        assert code is not None
        return code

    def refuse_end(self) -> None:
        """Checks that the server runs.

        Raises:
            ChaosFailure: It does not.
        """
        if not self.program.running:
            raise ChaosFailure(f"the server ended with {self.program.exit_code}, unasked")

    async def finish(self, work: asyncio.Future[Any]) -> None:
        """Waits until producers have all their answers, while the server runs.

        Raises:
            ChaosFailure: It ended, or they are not answered in time.
        """
        program = self.program
        await self.until(lambda: work.done() or not program.running, "producers are answered")
        if not work.done():
            self.refuse_end()
        await work

    # -- checks ------------------------------------------------------------------------------

    def check(self, *, quiet: bool = False) -> HistoryCheck:
        """Compares the log so far with what was answered and run.

        Raises:
            PromiseBroken: They do not fit.
        """
        history = self.program.history(self.witness, quiet=quiet)
        if history.violations:
            raise PromiseBroken("\n".join(history.violations), len(history.lost))
        return history

    async def drained(self) -> None:
        """Waits until the server has nothing left to do.

        Raises:
            ChaosFailure: Something is left for too long.
        """
        asker = Connected(str(self.program.data))
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    status = await (await asker.client()).status()
                    if not status.pending and not status.in_flight:
                        return
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            self.check()
            raise ChaosFailure(f"not drained within {DEADLINE_S:g} s") from None
        finally:
            asker.close()

    async def drain(self) -> HistoryCheck:
        """Waits until nothing is left to do, ends the server, and checks everything."""
        await self.drained()
        self.close()
        self.program.stop()
        self.program.refuse_leftovers()
        history = self.check(quiet=True)
        self.program.refuse_damage()
        self.program.refuse_tracebacks()
        refuse_drift(self.program.data)
        return history

    def close(self) -> None:
        """Closes the connections of all who use it."""
        for side in (*self.producers, self.operator):
            side.close()


def refuse_drift(data: Path) -> None:
    """Follows the log by the specification of a job's life, event by event.

    Raises:
        PromiseBroken: It leaves it somewhere.
    """
    verdict = validate_store(str(data))
    if not verdict.ok:
        raise PromiseBroken(
            f"the specification rejects the log at seq {verdict.seq}: {verdict.reason}"
        )


async def given_up(work: asyncio.Future[Any]) -> None:
    """Ends what producers are doing; what they have sent has an unknown outcome."""
    work.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await work


def together(work: Sequence[Awaitable[None]]) -> asyncio.Future[list[None]]:
    """Starts what several do at once."""
    return asyncio.gather(*work)
