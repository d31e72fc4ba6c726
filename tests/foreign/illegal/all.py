"""Every illegal log."""

from __future__ import annotations

from typing import Final

from tests.foreign.illegal import booting, encoding, ending, entering, starting

KINDS: Final = (
    *starting.KINDS,
    *ending.KINDS,
    *booting.KINDS,
    *entering.KINDS,
    *encoding.KINDS,
)
