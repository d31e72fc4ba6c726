"""The job lifecycle of Beaver as a pure state machine.

What lives here: rows, events, commands, `decide`, `apply`, the scheduling policy and the
invariants.  What may not: a clock, a file, a socket, a thread, a process, an environment
variable or a random number.  Times and randomness arrive as arguments.

Read `lifecycle` first, then `events`, `decide` and `apply`.
"""

from beaver_model.apply import IllegalEvent, apply, legal, replay
from beaver_model.commands import Rejection
from beaver_model.decide import decide
from beaver_model.invariants import violations
from beaver_model.lifecycle import JobState, Trigger
from beaver_model.policy import Offer, select, why
from beaver_model.rows import Row, Spec
from beaver_model.state import State, fingerprint, freeze, thaw

__all__ = [
    "IllegalEvent",
    "JobState",
    "Offer",
    "Rejection",
    "Row",
    "Spec",
    "State",
    "Trigger",
    "apply",
    "decide",
    "fingerprint",
    "freeze",
    "legal",
    "replay",
    "select",
    "thaw",
    "violations",
    "why",
]
