"""What a server hands to its HTTP; light, since it is made before the first client comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from beaver.dispatch.leases import Leases
from beaver.dispatch.reports import Reports
from beaver.engine.engine import Engine
from beaver.ports import Clock, Entropy
from beaver.server.bulk.choosing import Choosing
from beaver.server.service import Service
from beaver.server.throughput import Counts
from beaver.structs.messages import Request
from beaver.structs.questions import Wanted
from beaver.task.programs import Programs


class Served(NamedTuple):
    """The parts of a server that HTTP asks."""

    engine: Engine
    service: Service
    data: str
    """The data directory, where the tokens are."""
    store: str
    """Id of the store."""
    clock: Clock
    entropy: Entropy
    queue_of: Callable[[Request], str]
    """Returns the queue that a request goes to."""
    walk: Callable[[int, int, int], Awaitable[bytes]]
    """Reads the log; see `ports.Helper.walk`."""
    enqueued: Callable[[Wanted, int, int, int], Awaitable[bytes]]
    """Finds jobs in the log; see `ports.Helper.enqueued`."""
    snapshot: Callable[[], Awaitable[int]]
    """Takes a snapshot; returns up to which seq."""
    leases: Leases
    """The remote workers."""
    reports: Reports
    """How attempts at remote workers ended."""
    choosing: Choosing
    """The actions on many jobs."""
    throughput: Callable[[int, int, int], dict[int, Counts]]
    """Counts jobs in steps; see `Throughput.between`, the totals apart."""
    programs: Callable[[], Programs]
    """Returns what `exec` may run now."""
