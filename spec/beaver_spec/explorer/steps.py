"""The result of one command on one state, and the counts of what was met.

What lives here: results, as the explorer keeps them.  What may not: how they come about
(`space`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from beaver_model.events import AnyEvent, JobEvent, TimedOut
from beaver_model.states import Trigger
from beaver_spec.explorer.properties import (
    TOLD_CANCEL,
    TOLD_DONE,
    TOLD_EXISTS,
    TOLD_GONE,
    Move,
    Wrong,
)
from beaver_spec.explorer.rows import ABSENT, NAMES, Model

FORGET: Final = -1
"""Effect on what is known of a job: its id is free again, nothing binds."""
REVIVE: Final = -2
"""Effect of a requeue: an earlier cancel binds no more."""

Effect = tuple[int, int]
"""What a released reply tells: a job's place, and a `TOLD_*` bit, `FORGET` or `REVIVE`."""


class Step:
    """The result of one command on one state."""

    __slots__ = (
        "edges",
        "effects",
        "events",
        "label",
        "labels",
        "mid",
        "moves",
        "refusal",
        "wrong",
    )

    def __init__(self, mid: int) -> None:
        self.mid = mid
        """The state after it; the same where nothing changed."""
        self.moves: tuple[Move, ...] = ()
        self.refusal = ""
        self.label = 0
        """The token that DISPATCH gave, as a label."""
        self.labels: tuple[int, ...] = ()
        """The same of a command for several."""
        self.effects: tuple[Effect, ...] = ()
        """What clients learn from its events, once they are durable."""
        self.wrong: tuple[Wrong, ...] = ()
        self.events: Sequence[AnyEvent] = ()
        """The events, where whole states are kept; for telling."""
        self.edges = 0
        """How often the explorer went this way."""


class Tally:
    """The witnesses reached."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, str, str], int] = {}
        """Edges by (event, state before, state after)."""
        self.refusals: dict[str, int] = {}
        """Pairs of state and command that were refused, by code."""
        self.situations: dict[str, int] = {}
        """Pairs of state and command that met a situation, by its words."""
        self.asked = 0
        """Pairs of state and command that were put to the model."""


def is_job_event(event: AnyEvent) -> bool:
    """True for an event of one job."""
    return isinstance(event, JobEvent)


def move_of(event: Any) -> Move:
    """Returns an event of a job as the properties see it."""
    suspect = isinstance(event, TimedOut) and event.suspect
    return Move(event.TRIGGER, NAMES.index(event.job), getattr(event, "cause", ""), suspect)


def effects_of(moves: Sequence[Move], before: Model, after: Model) -> list[Effect]:
    """Returns what the events of a step let a client know, once they are durable."""
    effects: list[Effect] = []
    for move in moves:
        if move.trigger == Trigger.ACK:
            effects.append((move.job, TOLD_DONE))
        elif move.trigger == Trigger.REQUEUE:
            effects.append((move.job, REVIVE))
    effects += [
        (place, FORGET)
        for place in (*before.buried, *(move.job for move in moves))
        if after.rows[place] == ABSENT
    ]
    return effects


REPLIES: Final = {"enqueue": TOLD_EXISTS, "cancel": TOLD_CANCEL, "discard": TOLD_GONE}
"""What the reply to a command tells in addition to its events."""
