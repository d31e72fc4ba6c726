"""The functions of the model that are explored, so that tests can sow bugs into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import beaver_model
from beaver_model import Offer, Rejection, Row, State
from beaver_model.commands import AnyCommand
from beaver_model.events import AnyEvent
from beaver_model.legality import JudgedFrame


def at_once(state: State, events: Sequence[AnyEvent], time_ms: int) -> None:
    """Applies the events of one decision in their bulk forms, however few they are."""
    beaver_model.apply_all(state, events, time_ms, run_min=1)


def recover(state: State, first_seq: int, time_ms: int, events: Sequence[AnyEvent]) -> None:
    """Replays a frame in bulk forms, as recovery does to a state without indexes."""
    beaver_model.replay(state, first_seq, time_ms, events, run_min=1)
    beaver_model.build_indexes(state)


class ModelUnderTest(NamedTuple):
    """The functions of the model that are explored; tests replace some by broken ones."""

    decide: Callable[[State, AnyCommand, int], list[AnyEvent] | Rejection] = beaver_model.decide
    apply: Callable[[State, AnyEvent, int], None] = beaver_model.apply
    legal: Callable[[State, AnyEvent, JudgedFrame], str | None] = beaver_model.legal
    violations: Callable[[State], list[str]] = beaver_model.violations
    select: Callable[[State, Offer, int], Row | None] = beaver_model.select
    at_once: Callable[[State, Sequence[AnyEvent], int], None] = at_once
    recover: Callable[[State, int, int, Sequence[AnyEvent]], None] = recover
