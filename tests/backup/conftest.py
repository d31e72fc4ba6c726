"""Fixtures of the tests of copies."""

from __future__ import annotations

from tests.backup.stores import world

__all__ = ["world"]
