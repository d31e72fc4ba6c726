"""The lifecycle of a job as the design states it, written a second time.

What lives here: states, transitions, causes and bounds, as data.  What may not: anything of
`beaver_model`, and how a log is walked along them (`rules`).
"""

from __future__ import annotations

from typing import Final

NEW: Final = "new"
PENDING: Final = "pending"
IN_FLIGHT: Final = "in_flight"
COMPLETED: Final = "completed"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"
FORGOTTEN: Final = "forgotten"

LIFE: Final[dict[str, dict[str, str]]] = {
    "ENQUEUE": {NEW: PENDING},
    "DISPATCH": {PENDING: IN_FLIGHT},
    "ACK": {IN_FLIGHT: COMPLETED},
    "RETRY": {IN_FLIGHT: PENDING},
    "TIMEOUT": {IN_FLIGHT: PENDING},
    "RELEASE": {IN_FLIGHT: PENDING},
    "DEAD": {IN_FLIGHT: DEAD, PENDING: DEAD},
    "CANCEL_REQUESTED": {IN_FLIGHT: IN_FLIGHT},
    "CANCEL": {PENDING: CANCELLED, IN_FLIGHT: CANCELLED},
    "REQUEUE": {DEAD: PENDING, CANCELLED: PENDING},
    "DISCARD": {PENDING: FORGOTTEN, DEAD: FORGOTTEN, CANCELLED: FORGOTTEN},
}
"""The transitions of a job: event, from, to."""

SNOOZES_MAX: Final = 10_000
CHILDREN_MAX: Final = 1_000
WEIGHT: Final = 10
"""Weight of a queue that was never set."""
TOMBSTONES_MAX: Final = 1_000_000
"""Until a BOUNDS event says otherwise."""
QUEUES_MAX: Final = 10_000
REMOTE_FROM: Final = 1_000_000
"""The first number of a remote worker."""
TIMEOUT_CAUSES: Final = frozenset({"time_limit", "lease_expired", "node_lost"})
CHARGED: Final = TIMEOUT_CAUSES | {"failed", "worker_lost"}
"""Causes that use up an attempt: a job dies of one only in its last attempt."""
GIVEN_BACK: Final = frozenset({"drain", "snooze", "never_started", "neighbour"})
FOR_GOOD: Final = frozenset({"not_retryable", "child_conflict", "snooze_limit"})
CANCELLED_BY: Final = frozenset({"operator", "job"})
OTHERWISE: Final = {
    "RETRY": TIMEOUT_CAUSES | GIVEN_BACK | FOR_GOOD | CANCELLED_BY,
    "TIMEOUT": CHARGED - TIMEOUT_CAUSES | GIVEN_BACK | FOR_GOOD | CANCELLED_BY,
    "RELEASE": CHARGED | FOR_GOOD | CANCELLED_BY,
    "DEAD": GIVEN_BACK | CANCELLED_BY,
    "CANCEL": CHARGED | GIVEN_BACK | FOR_GOOD,
}
"""Causes that an event cannot have.  One that is in no list is a later release's."""
