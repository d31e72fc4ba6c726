"""`GET /v1/throughput`: what came and went, and its bounds."""

from __future__ import annotations

import time

import pytest

from beaver.server.http.throughput import STEPS_MAX
from tests.http_api.client import Http
from tests.support.program import eventually


def test_what_happened_is_counted(http: Http) -> None:
    since_ms = time.time_ns() // 1_000_000 - 1_000
    http.post("/v1/jobs", [{"task": "add", "payload": {"a": 1, "b": n}} for n in range(20)])
    http.post("/v1/jobs", {"task": "fail", "payload": {"text": "no"}})

    def counted() -> bool:
        found = http.get(f"/v1/throughput?since_ms={since_ms}&step=1m").json
        assert found["step_ms"] == 60_000
        sums = [sum(s[key] for s in found["steps"]) for key in ("enqueued", "completed", "failed")]
        return bool(sums[0] >= 21 and sums[1] >= 20 and sums[2] >= 1)

    eventually(counted, "all are counted")


@pytest.mark.parametrize(
    ("steps", "status"), [(STEPS_MAX - 2, 200), (STEPS_MAX + 2, 400), (10 * STEPS_MAX, 400)]
)
def test_the_number_of_steps_is_bounded(http: Http, steps: int, status: int) -> None:
    since_ms = time.time_ns() // 1_000_000 - steps * 10_000
    assert http.get(f"/v1/throughput?since_ms={since_ms}&step=10s").status == status


@pytest.mark.parametrize("query", ["step=0", "step=999", "step=x", "since_ms=-1", "steps=5"])
def test_what_cannot_be_meant_is_refused(http: Http, query: str) -> None:
    assert http.get(f"/v1/throughput?{query}").type == "invalid"
