"""All mutants, whatever they are sown in."""

from __future__ import annotations

from typing import Final

from tests.mutants.sown import (
    api,
    applied,
    bounds,
    client,
    compared,
    copies,
    crowds,
    files,
    history,
    keeper,
    law,
    leases,
    lifecycle,
    log,
    model,
    orders,
    replay,
    runs,
    runtime,
    stateful,
    trust,
    whole,
)
from tests.mutants.workshop import Mutant

SOWN_MIN: Final = 25
"""So many seeded bugs are promised."""

MUTANTS: Final[tuple[Mutant, ...]] = (
    *model.MUTANTS,
    *runs.MUTANTS,
    *replay.MUTANTS,
    *log.MUTANTS,
    *compared.MUTANTS,
    *copies.MUTANTS,
    *applied.MUTANTS,
    *crowds.MUTANTS,
    *bounds.MUTANTS,
    *runtime.MUTANTS,
    *orders.MUTANTS,
    *stateful.MUTANTS,
    *client.MUTANTS,
    *trust.MUTANTS,
    *whole.MUTANTS,
    *files.MUTANTS,
    *history.MUTANTS,
    *keeper.MUTANTS,
    *lifecycle.MUTANTS,
    *law.MUTANTS,
    *leases.MUTANTS,
    *api.MUTANTS,
)
