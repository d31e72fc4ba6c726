"""Roles: what the bearer of a token may do."""

from __future__ import annotations

from enum import Enum
from typing import Final


class Right(Enum):
    """What a request needs."""

    ANYONE = "anyone"
    """Nothing: it is how one signs in."""
    OPEN = "open"
    """Nothing, from this machine; elsewhere `READ`."""
    SELF = "self"
    """Any token that is good."""
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


_ALL: Final = frozenset({Right.ANYONE, Right.SELF})

ROLES: Final[dict[str, frozenset[Right]]] = {
    "produce": _ALL | {Right.ENQUEUE, Right.JOB},
    "work": _ALL | {Right.WORK, Right.DISMISS},
    "read": _ALL | {Right.JOB, Right.READ},
    "operate": _ALL | {Right.ENQUEUE, Right.JOB, Right.READ, Right.OPERATE, Right.DISMISS},
    "admin": frozenset(Right),
}
"""The rights of each role."""
