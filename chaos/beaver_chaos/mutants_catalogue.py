"""All mutants, whatever they are sown in."""

from __future__ import annotations

from typing import Final

from beaver_chaos import (
    mutants_api,
    mutants_bounds,
    mutants_client,
    mutants_files,
    mutants_history,
    mutants_keeper,
    mutants_lifecycle,
    mutants_log,
    mutants_model,
    mutants_replay,
    mutants_runs,
    mutants_runtime,
    mutants_stateful,
    mutants_trust,
    mutants_whole,
)
from beaver_chaos.mutants import Mutant

SOWN_MIN: Final = 25
"""So many seeded bugs are promised."""

MUTANTS: Final[tuple[Mutant, ...]] = (
    *mutants_model.MUTANTS,
    *mutants_runs.MUTANTS,
    *mutants_replay.MUTANTS,
    *mutants_log.MUTANTS,
    *mutants_bounds.MUTANTS,
    *mutants_runtime.MUTANTS,
    *mutants_stateful.MUTANTS,
    *mutants_client.MUTANTS,
    *mutants_trust.MUTANTS,
    *mutants_whole.MUTANTS,
    *mutants_files.MUTANTS,
    *mutants_history.MUTANTS,
    *mutants_keeper.MUTANTS,
    *mutants_lifecycle.MUTANTS,
    *mutants_api.MUTANTS,
)
