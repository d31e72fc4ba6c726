"""From what a worker reports to commands: in order, fenced by what the worker holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from beaver.dispatch.outcome_checks import fault_of, running_ms
from beaver.dispatch.outcomes import command_of
from beaver.dispatch.slots_view import KillCause, WorkerState
from beaver.dispatch.submitting import Submitter
from beaver.dispatch.supervision import Supervisor
from beaver.dispatch.task_times import TaskTimes
from beaver.engine.engine import Engine
from beaver.ports import Entropy
from beaver.structs.messages import Attempt, Outcome, OutcomeKind, Request
from beaver_model.commands import AnyCommand, CompleteBatch, Done, NewJob
from beaver_model.rows import Origin

log = logging.getLogger("beaver")

_OK: Final = OutcomeKind.OK

DONE_BYTES: Final = 64 << 10
"""Bytes of results from which a command for several successes takes no further one."""

REFUSED_MAX: Final = 100
"""A worker is killed after this many outcomes for attempts that it does not hold."""


class OutcomeHandler:
    """Turns the outcomes of workers into commands, and submits them."""

    def __init__(
        self,
        engine: Engine,
        entropy: Entropy,
        submitter: Submitter,
        supervisor: Supervisor,
        times: TaskTimes,
        *,
        to_job: Callable[[Request, int, int], NewJob],
        on_ended: Callable[[Attempt], None],
    ) -> None:
        """Wires the parts; see `Controller` for the callables."""
        self._engine, self._entropy = engine, entropy
        self._submitter, self._supervisor = submitter, supervisor
        self._times = times
        self._to_job = to_job
        self._on_ended = on_ended

    def take(self, worker: WorkerState, outcomes: Sequence[Outcome]) -> None:
        """Submits what becomes of the attempts that a worker has ended."""
        worker.useful, worker.deaths = True, 0
        self._submitter.submit(*self._commands(worker, outcomes))
        self._engine.touch()

    def _commands(self, worker: WorkerState, outcomes: Sequence[Outcome]) -> Iterator[AnyCommand]:
        """Yields the commands of outcomes, in order; the worker no longer holds the attempts.

        Successes that come one after another make one command.
        """
        random = self._entropy.random
        done: list[Done] = []
        size = 0
        for outcome in outcomes:
            held = worker.held.get(outcome.token)
            if held is None or not held.sent or held.attempt.job != outcome.job:
                self._refuse(worker, outcome)
                continue
            del worker.held[outcome.token]
            elapsed_ms = running_ms(outcome)
            if elapsed_ms is not None:
                self._times.of(held.attempt.task).learn(elapsed_ms)
            plain = outcome.kind == _OK and not outcome.children and not fault_of(outcome)
            if done and not (plain and size < DONE_BYTES):
                yield CompleteBatch(done)
                done, size = [], 0
            if plain:
                done.append(Done(outcome.job, outcome.token, outcome.result))
                size += len(outcome.result)
            else:
                self._on_ended(held.attempt)
                yield command_of(outcome, self._to_child, random)
        if done:
            yield CompleteBatch(done)

    def _refuse(self, worker: WorkerState, outcome: Outcome) -> None:
        """Drops the outcome of an attempt that the worker does not hold.

        It is late, said twice, or made up by user code.  A worker that goes on so is killed,
        and what it runs is charged.
        """
        worker.refused += 1
        if worker.refused in (1, REFUSED_MAX):
            log.warning(
                "worker %d answers for job %s with token %d, which it does not run: refused",
                worker.number,
                outcome.job,
                outcome.token,
            )
        if worker.refused >= REFUSED_MAX and worker.killed is None:
            self._supervisor.kill(worker, KillCause.REFUSED, set())

    def _to_child(self, request: Request) -> NewJob:
        return self._to_job(request, self._engine.now_ms(), Origin.JOB)
