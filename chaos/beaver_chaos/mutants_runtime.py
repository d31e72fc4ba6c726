"""Nothing yet."""

from __future__ import annotations

from typing import Final

from beaver_chaos.mutants import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = ()
