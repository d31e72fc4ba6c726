"""What a checker reports: one result for each thing that was checked.

What lives here: the shape alone.  The checkers fill it, the reports print it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Verdict(StrEnum):
    """How a check ended."""

    HOLDS = "holds"
    """Everything within the bounds was looked at, and nothing is wrong."""
    CAUGHT = "caught"
    """A bug was sown on purpose, and the check saw it: as it should be."""
    VIOLATED = "violated"
    """Something is wrong; `details` tells what, as numbered steps where there are steps."""
    MISSED = "missed"
    """A bug was sown on purpose, and the check did not see it: the check is blind."""
    ERROR = "error"
    """The tool did not finish: nothing is known."""
    SKIPPED = "skipped"
    """The tool is not here; `skipped` says what is missing."""


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one check."""

    name: str
    """The claim that was checked."""
    kind: str
    """`cells`, `explorer`, `storage`, `release`, `induction`, `lifecycle` or `traces`."""
    tool: str
    """The checker, with its version if that is known."""
    bounds: dict[str, Any] = {}
    """How far it looked; empty where there is no bound."""
    verdict: Verdict
    states: int = 0
    """Distinct states that were looked at; 0 where the tool does not go through states."""
    seconds: float = 0.0
    details: list[str] = []
    """Lines to read: assumptions, counterexamples, what was not looked at."""
    skipped: str = ""
    """Why it did not run."""

    @property
    def ok(self) -> bool:
        """False where a run of the checks must fail because of this one."""
        return self.verdict in {Verdict.HOLDS, Verdict.CAUGHT, Verdict.SKIPPED}
