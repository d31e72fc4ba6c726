"""Reports of remote workers: how attempts ended, and the same report sent again.

A report is taken where its token is held (`leases`).  What was answered is remembered for a while,
so that a worker that has lost the answer may send it again; `server.http` finds older ones in the
log.

What may not live here: the words of HTTP, and how a report is read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from beaver.dispatch.leases import Leases
from beaver.dispatch.outcome_checks import fault_of
from beaver.dispatch.outcomes import command_of
from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Reply
from beaver.errors import BeaverError, InvalidInput
from beaver.ports import Entropy
from beaver.request.rejections import error_of
from beaver.structs.messages import Attempt, Outcome, OutcomeKind, Request
from beaver_model import Rejection
from beaver_model.commands import AnyCommand, Complete, NewJob, Release
from beaver_model.events import AttemptEnded, Cause
from beaver_model.rows import Origin
from beaver_model.states import JobState

ANSWERS_MAX: Final = 50_000
"""Answers that are remembered to be given again; older ones are found in the log."""


class Report(msgspec.Struct, gc=False):
    """What a worker says of an attempt."""

    outcome: Outcome
    is_given_back: bool = False
    """It does not run it: no outcome at all."""
    mark: bytes = b""
    """Tells this report of the attempt from every other."""


class Answer(NamedTuple):
    """What a report was answered with."""

    state: str
    seq: int
    mark: bytes


class Reports:
    """Takes reports.  Every method belongs to the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        leases: Leases,
        entropy: Entropy,
        *,
        to_job: Callable[[Request, int, int], NewJob],
        on_ended: Callable[[Attempt], None],
    ) -> None:
        """Wires the parts; see `Controller` for the callables."""
        self._engine, self._leases, self._entropy = engine, leases, entropy
        self._to_job, self._on_ended = to_job, on_ended
        self._answers: OrderedDict[int, Answer] = OrderedDict()

    def answered(self, token: int) -> Answer | None:
        """Returns what a report with that token was answered with, as far as that is known."""
        return self._answers.get(token)

    def take(self, report: Report, done: Callable[[Answer | BeaverError], None]) -> bool:
        """Carries a report out; `done` gets the answer once it is durable.

        False, with nothing done, where no remote worker holds the attempt.

        Raises:
            InvalidInput: It is out of bounds; the attempt goes on.
        """
        outcome = report.outcome
        worker = self._leases.holder(outcome.token)
        if worker is None:
            return False
        attempt = worker.held[outcome.token].attempt
        outcome.job = attempt.job
        command = self._command(report)

        def judge(reply: Reply) -> Answer | BeaverError:
            if isinstance(reply, Rejection):
                return error_of(reply)
            if not isinstance(reply, Applied):
                return reply
            self._leases.ended(worker, outcome.token)
            at = next(
                index
                for index, event in enumerate(reply.events)
                if isinstance(event, AttemptEnded) and event.token == outcome.token
            )
            row = self._engine.state.jobs.get(attempt.job)
            state = JobState.COMPLETED if row is None else row.state
            answer = Answer(state.name.lower(), reply.first_seq + at, report.mark)
            self._remember(outcome.token, answer)
            return answer

        if not isinstance(command, Complete):
            self._on_ended(attempt)
        self._engine.change(command, judge, done)
        return True

    def _remember(self, token: int, answer: Answer) -> None:
        self._answers[token] = answer
        if len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)

    def _command(self, report: Report) -> AnyCommand:
        """Returns what to ask of the state.

        Raises:
            InvalidInput: The report is out of bounds.
        """
        outcome = report.outcome
        job, token = outcome.job, outcome.token
        if report.is_given_back:
            return Release(job, token, Cause.DRAIN)
        if fault := fault_of(outcome):
            raise InvalidInput(fault)
        if outcome.kind == OutcomeKind.OK:
            now_ms = self._engine.now_ms()
            children = tuple(self._to_job(child, now_ms, Origin.JOB) for child in outcome.children)
            return Complete(job, token, outcome.result, children, may_send_again=True)
        return command_of(outcome, _no_child, self._entropy.random)


def _no_child(request: Request) -> NewJob:
    raise AssertionError("only what has completed has children")
