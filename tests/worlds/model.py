"""A store in memory for the tests of the model: commands in, state out."""

from __future__ import annotations

from typing import Any

from beaver_model import Offer, Rejection, Row, Spec, State, apply, decide, legal, select
from beaver_model.commands import AnyCommand, Dispatch, Enqueue, NewJob
from beaver_model.events import AnyEvent
from beaver_model.legality import JudgedFrame
from beaver_model.rows import encode_spec


def job(name: str = "a", digest: bytes = b"d" * 12, run_at_ms: int = 0, **options: Any) -> NewJob:
    """Returns a job of the task `echo` with the given options of its spec."""
    spec = Spec(**{"task": "echo", **options})
    return NewJob(name, encode_spec(spec), b"null", digest, run_at_ms)


class World:
    """The real model, with a clock that tests set and a log that they can replay."""

    def __init__(self) -> None:
        self.state = State()
        self.now_ms = 1_000
        self.log: list[tuple[int, AnyEvent]] = []
        self.frames: list[tuple[int, int, list[AnyEvent]]] = []

    def ask(self, command: AnyCommand) -> list[AnyEvent] | Rejection:
        """Decides and applies; returns the events or the refusal."""
        decision = decide(self.state, command, self.now_ms)
        if not isinstance(decision, Rejection):
            self.frames.append((self.state.last_seq + 1, self.now_ms, decision))
            for event in decision:
                apply(self.state, event, self.now_ms)
                self.log.append((self.now_ms, event))
        return decision

    def do(self, command: AnyCommand) -> list[AnyEvent]:
        """The same, where a refusal is a failure of the test."""
        decision = self.ask(command)
        assert not isinstance(decision, Rejection), decision
        return decision

    def legal(self, event: AnyEvent) -> str | None:
        """Returns why an event, alone in its frame, cannot be the next one."""
        return legal(self.state, event, JudgedFrame(self.now_ms))

    def enqueue(self, *jobs: NewJob) -> None:
        self.do(Enqueue(jobs))

    def dispatch(self, name: str = "a", worker: int = 1) -> int:
        """Dispatches a job and returns its token."""
        self.do(Dispatch(name, worker))
        return self.state.jobs[name].token

    def select(self, **offer: Any) -> Row | None:
        while self.state.advance(self.now_ms):
            pass
        return select(self.state, Offer(**offer), self.now_ms)

    def start_next(self, worker: int = 1) -> str:
        """Dispatches what the policy picks and returns its id."""
        row = self.select()
        assert row is not None
        self.dispatch(row.id, worker)
        return row.id

    def row(self, name: str = "a") -> Row:
        return self.state.jobs[name]
