"""Remote workers as the server sees them: what each may hold and holds, and since when.

Plain data without I/O, shared by `leases`, `pulls` and `reports`.  Nothing here is logged: after a
restart of the server it is found anew, from the rows that are in flight and from what the workers
say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from beaver.structs.messages import Attempt
from beaver_model import Offer

WORKERS_MAX: Final = 1_000
"""Remote workers that are registered at once."""
WORKERS_OF_TOKEN_MAX: Final = 250
"""The same, for one token."""
NAMES_MAX: Final = 256
"""Tasks, and queues, of one remote worker."""
CAPACITY_MAX: Final = 1_000
"""Attempts that one remote worker may hold."""
PULL_BYTES: Final = 8 << 20
"""Payloads of one pull, together; a single larger one still fits."""
TAKEN_BACK_MAX: Final = CAPACITY_MAX
"""Attempts of one worker that were taken back and that it has not let go yet."""

Given = Callable[[Sequence[Attempt]], None]


class Progress(msgspec.Struct, omit_defaults=True):
    """How far an attempt is, as its worker said."""

    fraction: float | None = None
    note: str = ""
    time_ms: int = 0


class Lease(msgspec.Struct, gc=False):
    """One attempt that a remote worker holds."""

    attempt: Attempt
    """Without its payload, which has been sent."""
    since_ns: int = 0
    """When it went out; 0 while its DISPATCH is not durable."""
    named_ns: int = 0
    """When the worker was last known to have it."""
    progress: Progress | None = None


class RemoteWorker:
    """One registration."""

    def __init__(
        self,
        number: int,
        name: str,
        tasks: frozenset[str],
        queues: frozenset[str] | None,
        capacity: int,
        owner: str,
        now_ns: int,
    ) -> None:
        """Makes one that holds nothing.

        Args:
            number: As DISPATCH names it.
            name: What it calls itself.
            tasks: What it can run.
            queues: Whose jobs it takes; `None` for all.
            capacity: Attempts that it may hold.
            owner: The id of its token.
            now_ns: When it was heard of.
        """
        self.number, self.name, self.owner = number, name, owner
        self.capacity = capacity
        self.offer = Offer(tasks, queues)
        self.held: dict[int, Lease] = {}
        """By token, in the order of dispatch."""
        self.taken_back: dict[int, None] = {}
        """Tokens of attempts over their time limit: told until the worker no longer names them."""
        self.heard_ns = now_ns
        self.pulls: set[Pull] = set()
        """Its requests for work that are under way."""
        self.draining = False

    @property
    def room(self) -> int:
        """Attempts that it may still be given."""
        return 0 if self.draining else max(0, self.capacity - len(self.held))


class Pull:
    """One request for work, until it is answered."""

    def __init__(self, worker: RemoteWorker, count: int, given: Given, *, waits: bool) -> None:
        self.worker, self.given = worker, given
        self.room, self.bytes = count, 0
        """Attempts that it may still take, and bytes of payloads that it has."""
        self.waits = waits
        """It stays where there is nothing to do now."""
        self.attempts: list[Attempt] = []
        self.is_over = False
        """It was answered, or nobody waits for the answer."""

    @property
    def wants(self) -> int:
        """Attempts that it would take now."""
        if self.is_over or (self.attempts and self.bytes >= PULL_BYTES):
            return 0
        return min(self.room, self.worker.room)
