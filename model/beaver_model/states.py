"""The states of a job and what can happen to it, as names and numbers.

Apart from `lifecycle`, so that who only reads rows and events (clients, workers) need not
load the Machine.  The numbers stand in logs and snapshots: they never change.
"""

from __future__ import annotations

from enum import IntEnum


class JobState(IntEnum):
    """Where a job is.  `NEW` and `FORGOTTEN` are the ends of the Machine, held by no row."""

    NEW = 0
    PENDING = 1
    IN_FLIGHT = 2
    COMPLETED = 3
    DEAD = 4
    CANCELLED = 5
    FORGOTTEN = 6


class Trigger(IntEnum):
    """The transitions of a job; each logged job event is one of them."""

    ENQUEUE = 0
    DISPATCH = 1
    ACK = 2
    RETRY = 3
    TIMEOUT = 4
    RELEASE = 5
    DEAD = 6
    CANCEL_REQUESTED = 7
    CANCEL = 8
    REQUEUE = 9
    DISCARD = 10
