"""The job lifecycle of Beaver as a pure state machine.

What lives here: rows, events, commands, `decide`, `apply`, the scheduling policy and the
invariants.  What may not: a clock, a file, a socket, a thread, a process, an environment
variable or a random number.  Times and randomness arrive as arguments.

Read `lifecycle` first, then `events`, `deciding` and `applying`.  The names below are loaded when
they are first used, so that a client pays only for what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beaver_model.applying import apply, apply_all, replay
    from beaver_model.bulk import build_indexes
    from beaver_model.commands import Rejection
    from beaver_model.deciding import decide
    from beaver_model.freezing import fingerprint, freeze, thaw
    from beaver_model.invariants import violations
    from beaver_model.legality import IllegalEvent, legal
    from beaver_model.policy import Offer, select, select_run, why
    from beaver_model.rows import Row, Spec
    from beaver_model.state import State
    from beaver_model.states import JobState, Trigger

_HOMES = {
    "IllegalEvent": "legality",
    "JobState": "states",
    "Offer": "policy",
    "Rejection": "commands",
    "Row": "rows",
    "Spec": "rows",
    "State": "state",
    "Trigger": "states",
    "apply": "applying",
    "apply_all": "applying",
    "build_indexes": "bulk",
    "decide": "deciding",
    "fingerprint": "freezing",
    "freeze": "freezing",
    "legal": "legality",
    "replay": "applying",
    "select": "policy",
    "select_run": "policy",
    "thaw": "freezing",
    "violations": "invariants",
    "why": "policy",
}

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
    "apply_all",
    "build_indexes",
    "decide",
    "fingerprint",
    "freeze",
    "legal",
    "replay",
    "select",
    "select_run",
    "thaw",
    "violations",
    "why",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
