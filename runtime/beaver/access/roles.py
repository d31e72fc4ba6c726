"""Roles: what the bearer of a token may do."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Right(Enum):
    """What a request needs."""

    OPEN = "open"
    """Nothing, from this machine; elsewhere `READ`."""
    ENQUEUE = "enqueue"
    JOB = "job"
    """State, result and story of a single job."""
    READ = "read"
    """Everything that only reads."""
    WORK = "work"
    DISMISS = "dismiss"
    """Drain a remote worker, or see it off."""
    OPERATE = "operate"
    """Cancel, retry, discard; queues, snapshots."""
    ADMIN = "admin"


ROLES: Final[dict[str, frozenset[Right]]] = {
    "produce": frozenset({Right.ENQUEUE, Right.JOB}),
    "work": frozenset({Right.WORK, Right.DISMISS}),
    "read": frozenset({Right.JOB, Right.READ}),
    "operate": frozenset({Right.ENQUEUE, Right.JOB, Right.READ, Right.OPERATE, Right.DISMISS}),
    "admin": frozenset(Right),
}
"""The rights of each role."""
