"""The load: producers and an operator who send, are cut off, and send again.

A producer never gives up a request whose outcome it does not know: it sends the very same
again, which is safe.  What it is answered goes to the `ClientRecord`.  All choices come from a
seeded generator; which of them meet a fault is up to the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Final

from beaver.client import asynchronous
from beaver.client.asynchronous import AsyncClient
from beaver.errors import BeaverError, DiskFull, QueueFull, ServerGone, StoreUnavailable
from beaver.request.requests import make_request
from beaver.structs.messages import Request
from beaver_chaos.checker.client_record import ClientRecord
from beaver_model.events import Cancelled, CancelRequested, Discarded, Requeued

REQUESTS_A_ROUND: Final = 12
"""Requests of one producer in one round."""
_PAUSE_S: Final = 0.03
_POLL_S: Final = 0.01
_PAD_BYTES: Final = 60_000
_BACKOFF: Final = "5ms"
CROWDS: Final = (5, 9, 30, 110)
"""Numbers of requests that one client sends at once: above and below each threshold of batching."""
_CROWD_SHARE: Final = 0.04

EAGER: Final = "eager"
"""A queue whose jobs may start before their DISPATCH is durable."""

Kind = tuple[float, str, Callable[[random.Random], dict[str, Any]], dict[str, Any]]

_LIST_MAX: Final = 20
_CHANGES: Final = (
    ("cancel", "in_flight"),
    ("cancel", "in_flight"),
    ("cancel", "pending"),
    ("requeue", "dead"),
    ("requeue", "cancelled"),
    ("discard", "dead"),
    ("discard", "pending"),
)
"""Operations, and the state of the jobs that each is for."""
_CANCEL_ANSWERS: Final = {
    "cancelled": Cancelled.NAME,
    "cancel_requested": CancelRequested.NAME,
}

KINDS: Final[tuple[Kind, ...]] = (
    (60, "work", lambda _: {}, {}),
    (12, "work", lambda r: {"sleep_ms": r.randint(1, 40)}, {}),
    (3, "work", lambda r: {"lines": r.randint(1, 20)}, {}),
    (3, "work", lambda r: {"pad": "x" * r.randint(1, _PAD_BYTES)}, {}),
    (4, "work", lambda _: {"sleep_ms": 1}, {"delay": "30ms", "priority": 2}),
    (5, "flaky", lambda r: {"fails": r.randint(1, 3)}, {}),
    (2, "flaky", lambda _: {"fails": 99}, {"max_attempts": 2}),
    (3, "steered", lambda r: {"how": r.choice(["snooze", "cancel", "dead"])}, {}),
    (4, "parent", lambda r: {"children": r.randint(1, 5)}, {}),
    (0.7, "overrun", lambda r: {"times": r.randint(1, 2)}, {"timeout": "60ms", "max_attempts": 2}),
    (0.7, "poison", lambda r: {"times": r.randint(1, 2)}, {"max_attempts": 2}),
    (0.6, "litter", lambda _: {}, {}),
)
"""Share, task, payload and options of the jobs that are sent."""


def chance_of(seed: str) -> random.Random:
    """Returns the generator of a seed: the same draws each time."""
    return random.Random(seed)  # noqa: S311 - repeatable, which is what counts here


def draw_request(chance: random.Random, name: str) -> Request:
    """Returns one job, drawn from `KINDS`."""
    (kind,) = chance.choices(KINDS, [kind[0] for kind in KINDS])
    _, task, payload, options = kind
    queue = chance.choice(["default", "mail", EAGER])
    return make_request(task, payload(chance), id=name, queue=queue, backoff=_BACKOFF, **options)


class Connected:
    """A connection to the server that is there, made anew whenever it is lost."""

    def __init__(self, data: str) -> None:
        self._data = data
        self._client: AsyncClient | None = None

    @property
    def connected(self) -> bool:
        """False once all that a dead server had sent was heard, and the end of it."""
        return self._client is not None and not self._client.closed

    async def client(self) -> AsyncClient:
        """Returns a connection; waits for a server where there is none."""
        while self._client is None or self._client.closed:
            try:
                self._client = await asynchronous.find(self._data)
            except BeaverError:
                self._client = None
            if self._client is None:
                await asyncio.sleep(_POLL_S)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class LoadClient(Connected):
    """Sends jobs, singly and in batches, until each request is answered."""

    def __init__(
        self, data: str, number: int, witness: ClientRecord, chance: random.Random
    ) -> None:
        super().__init__(data)
        self._number = number
        self._witness = witness
        self._chance = chance
        self._sent = 0

    async def produce(self, requests: int = REQUESTS_A_ROUND) -> None:
        """Sends so many requests, with pauses between; returns when all are answered.

        Now and then a crowd comes at once: many small requests in one turn of the loop.
        """
        for _ in range(requests):
            if self._chance.random() < _CROWD_SHARE:
                crowd = range(self._chance.choice(CROWDS))
                await asyncio.gather(*(self.send([self._small()]) for _ in crowd))
            size = self._chance.choice([1, 1, 1, 1, 2, 5, 20])
            await self.send([self._draw() for _ in range(size)])
            await asyncio.sleep(self._chance.random() * _PAUSE_S)

    def _small(self) -> Request:
        self._sent += 1
        return make_request("work", {}, id=f"p{self._number}-{self._sent}", backoff=_BACKOFF)

    def _draw(self) -> Request:
        self._sent += 1
        return draw_request(self._chance, f"p{self._number}-{self._sent}")

    async def send(self, batch: list[Request]) -> None:
        """Sends one request until it is answered."""
        names = [request.id for request in batch]
        self._witness.sending(names)
        while True:
            client = await self.client()
            try:
                answers = await client.enqueue(batch)
            except (DiskFull, QueueFull):
                self._witness.refuse(names)
                return
            except (ServerGone, StoreUnavailable):
                self._witness.lose(names)
            except asyncio.CancelledError:
                self._witness.lose(names)
                raise
            else:
                self._witness.acknowledge(answers)
                return


class Operator(Connected):
    """Cancels, requeues and discards jobs that it finds; asks once each."""

    def __init__(self, data: str, witness: ClientRecord, chance: random.Random) -> None:
        super().__init__(data)
        self._witness = witness
        self._chance = chance

    async def operate(self, changes: int) -> None:
        """Tries so many changes, with pauses between."""
        for _ in range(changes):
            await asyncio.sleep(self._chance.random() * 4 * _PAUSE_S)
            what, state = self._chance.choice(_CHANGES)
            client = await self.client()
            # Refused, or the server went away: then it may have happened or not.
            with contextlib.suppress(BeaverError):
                jobs = await client.list_jobs(state=state, limit=_LIST_MAX)
                if jobs:
                    await self._change(client, what, self._chance.choice(jobs).id)

    async def _change(self, client: AsyncClient, what: str, job: str) -> None:
        if what == "cancel":
            event = _CANCEL_ANSWERS.get(await client.cancel(job))
            if event is not None:
                self._witness.change(event, job)
        elif what == "requeue":
            await client.requeue(job)
            self._witness.change(Requeued.NAME, job)
        else:
            await client.discard(job)
            self._witness.change(Discarded.NAME, job)
