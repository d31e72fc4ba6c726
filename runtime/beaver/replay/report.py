"""The verdict over a log, as `beaver verify` and `beaver replay` show it."""

from __future__ import annotations

import msgspec

from beaver.errors import Corruption


class DamageView(msgspec.Struct):
    """Where and why a log is corrupt."""

    file: str
    offset: int
    seq: int
    reason: str

    @classmethod
    def of(cls, error: Corruption) -> DamageView:
        return cls(error.file, error.offset, error.seq, error.reason)


class CheckReport(msgspec.Struct):
    """The verdict over a log."""

    ok: bool
    base: str
    """`start`, `snapshot`, `older snapshot`, or `none`."""
    frames: int
    events: int
    first_seq: int
    last_seq: int
    counts: dict[str, int]
    """Jobs by state at `last_seq`; empty where the state cannot be known."""
    fingerprint: str | None
    """Fingerprint of the state at `last_seq`; null if it cannot be computed."""
    violations: list[str]
    torn_tail_bytes: int
    error: DamageView | None = None
