"""A service over an engine, where no worker and no helper is."""

from __future__ import annotations

import msgspec

from beaver.engine.engine import Engine
from beaver.inspect import queries
from beaver.request.resolving import Resolver
from beaver.server.results import Results
from beaver.server.service import Service
from beaver.structs.questions import Ending, Known, Listed, Search, Told


class NoPast:
    """A past that tells nothing."""

    async def tell(self, known: Known, until_seq: int) -> Told:
        return Told([], until_seq, 1)

    async def ending(self, token: int, until_seq: int) -> Ending | None:
        return None

    async def find(self, search: Search, until_seq: int) -> Listed:
        return Listed(msgspec.Raw(b"[]"), 0, 0, until_seq, damaged=False)

    async def close(self) -> None:
        """Nothing is asked of anybody."""


def service_over(engine: Engine, results: Results | None = None) -> Service:
    """Returns a service that answers from an engine's state, and observes its results."""
    results = results or Results()
    engine.observers.append(results.observe)
    return Service(
        engine,
        results,
        NoPast(),
        to_job=Resolver().job,
        status=lambda state: queries.status(state, engine.now_ms(), running=True),
        payload_bytes_max=1 << 20,
    )
