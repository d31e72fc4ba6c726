"""Without a server an enqueue costs the same, however many jobs are pending."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaver.bench.serverless import keeper_s, kept
from tests.bench.ratios import PENDING, Pin, judge


@pytest.mark.bench
def test_an_enqueue_without_a_server_does_not_grow_with_pending_jobs(tmp_path: Path) -> None:
    """At 100,000 pending jobs it takes the keeper what it does at 1,000, half as much allowed.

    Who recovers the store for each takes a hundred times as long.
    """
    level = Pin(1.0, 0.5, False)
    with kept(str(tmp_path), 1_000) as (few, _), kept(str(tmp_path), PENDING) as (many, _):
        assert len(judge(level, lambda: keeper_s(many) / keeper_s(few))) < 3
