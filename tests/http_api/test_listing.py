"""Lists of jobs over HTTP: every filter, in order, once each, however many there are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from beaver.server.http.listing import PAGE_BYTES
from tests.http_api.client import Http
from tests.http_api.conftest import APP
from tests.support.program import eventually, serving


def listed(http: Http, **query: Any) -> list[dict[str, Any]]:
    """Returns all pages of a list."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        asked = {**query, **({} if cursor is None else {"cursor": cursor})}
        answer = http.get(f"/v1/jobs?{urlencode(asked)}")
        assert answer.status == 200, answer
        page = answer.json
        found += page["jobs"]
        if page["cursor"] is None:
            return found
        assert cursor is None or int(page["cursor"]) > int(cursor)
        assert page["scanned_to"] == int(page["cursor"])
        cursor = page["cursor"]


def ids(jobs: list[dict[str, Any]]) -> list[str]:
    return [job["id"] for job in jobs]


@pytest.fixture(scope="module")
def jobs(http: Http) -> dict[str, list[str]]:
    """Jobs of a queue in every state."""
    queue = {"queue": "listed"}
    http.post("/v1/jobs", [{"id": f"p{n}", "task": "nobody", **queue} for n in range(5)])
    http.post("/v1/jobs", {"id": "c0", "task": "nobody", **queue})
    http.post("/v1/jobs/c0/cancel")
    http.post("/v1/jobs", {"id": "x0", "task": "nobody", **queue})
    http.post("/v1/jobs/x0/discard")
    add = {"task": "add", "payload": {"a": 1, "b": 2}, "tags": ["sum", "a tag"], **queue}
    http.post("/v1/jobs", [{"id": f"d{n}", **add} for n in range(4)])
    http.post("/v1/jobs", {"id": "e0", "task": "fail", "payload": {"text": "needle"}, **queue})
    for job in ("d0", "d1", "d2", "d3", "e0"):
        http.ended(job)
    return {
        "pending": [f"p{n}" for n in range(5)],
        "cancelled": ["c0"],
        "discarded": ["x0"],
        "completed": [f"d{n}" for n in range(4)],
        "dead": ["e0"],
        "in_flight": [],
    }


def test_each_state_is_listed_as_single_jobs_are_shown(
    http: Http, jobs: dict[str, list[str]]
) -> None:
    for state, expected in jobs.items():
        found = listed(http, state=state, queue="listed")
        assert ids(found) == expected
        assert found == [http.job(job) for job in expected]
    everything = listed(http, queue="listed")
    assert sorted(ids(everything)) == sorted(job for state in jobs.values() for job in state)
    assert all(one["seq"] < other["seq"] for one, other in pairwise(everything))


@pytest.mark.parametrize("limit", [1, 2, 3, 12, 1000])
def test_pages_of_any_size_give_each_job_once_in_order(
    http: Http, jobs: dict[str, list[str]], limit: int
) -> None:
    whole = listed(http, queue="listed")
    assert listed(http, queue="listed", limit=limit) == whole
    for state, expected in jobs.items():
        assert ids(listed(http, queue="listed", state=state, limit=limit)) == expected


def test_task_tag_text_parent_and_time_filter(http: Http, jobs: dict[str, list[str]]) -> None:
    assert ids(listed(http, task="add", queue="listed")) == jobs["completed"]
    assert ids(listed(http, tag="a tag")) == jobs["completed"]
    assert ids(listed(http, text="needle", queue="listed")) == ["e0"]
    assert ids(listed(http, text='"b": 2', queue="listed")) == jobs["completed"]
    assert ids(listed(http, text="ValueError", queue="listed")) == ["e0"], "it stands in the error"
    assert listed(http, parent="nobody") == []
    middle = http.job("c0")["enqueued_ms"]
    since, until = (
        listed(http, queue="listed", since_ms=middle),
        listed(http, queue="listed", until_ms=middle),
    )
    assert ids(since + until).count("c0") == 1
    assert {job["enqueued_ms"] >= middle for job in since} == {True}
    assert {job["enqueued_ms"] < middle for job in until} <= {True}
    assert len(since + until) == 12
    pending = listed(http, state="pending", queue="listed", since_ms=1)
    assert ids(pending) == jobs["pending"]


def test_named_jobs_come_in_the_order_they_were_asked_for(
    http: Http, jobs: dict[str, list[str]]
) -> None:
    answer = http.get("/v1/jobs?id=e0&id=..&id=d1&id=p3")
    assert ids(answer.json["jobs"]) == ["e0", "d1", "p3"]
    assert http.get("/v1/jobs?id=e0&state=dead").type == "invalid"
    http.post("/v1/jobs", {"id": "..", "task": "nobody"})
    assert ids(http.get("/v1/jobs?id=..").json["jobs"]) == [".."], "its path would be normalised"


def test_jobs_that_are_named_come_in_pages_where_they_are_large(http: Http) -> None:
    """A thousand ids of a megabyte each are no answer that anybody has memory for."""
    names = [f"large{n}" for n in range(10)]
    large = {"task": "nobody", "payload": "x" * 900_000}
    for name in names:
        assert http.post("/v1/jobs", {"id": name, **large}).status == 201
    asked, found, pages = urlencode([("id", name) for name in names]), list[str](), 0
    cursor: str | None = "0"
    while cursor is not None:
        answer = http.get(f"/v1/jobs?{asked}&cursor={cursor}")
        assert len(answer.raw) < 2 * PAGE_BYTES
        found += ids(answer.json["jobs"])
        cursor, pages = answer.json["cursor"], pages + 1
    assert found == names
    assert pages > 1
    for name in names:
        assert http.post(f"/v1/jobs/{name}/discard").status == 200


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=-1", "cursor"),
        ("state=penidng", "state"),
        ("since_ms=x", "since_ms"),
        ("queu=q", "did you mean queue"),
        ("state=dead&state=pending", "more than once"),
    ],
)
def test_a_wrong_filter_is_400(http: Http, query: str, said: str) -> None:
    answer = http.get(f"/v1/jobs?{query}")
    assert (answer.status, answer.type) == (400, "invalid")
    assert said in answer.json["detail"]


def test_a_thousand_jobs_in_many_states_are_listed_while_they_go_on(tmp_path: Path) -> None:
    """A job that matches from the first page to the last is never missed, and none comes twice."""
    (tmp_path / "shop.py").write_text(APP)
    data = tmp_path / "data"
    with serving(data, "-A", "shop:app", "--http", "127.0.0.1:0", cwd=tmp_path):
        http = Http(data)
        stay = [{"id": f"stay{n}", "task": "nobody", "queue": "q"} for n in range(500)]
        go = [
            {"id": f"go{n}", "task": "add", "payload": {"a": n, "b": 1}, "queue": "q"}
            for n in range(500)
        ]
        mixed = [job for pair in zip(stay, go, strict=True) for job in pair]
        http.post("/v1/jobs", mixed)
        found = listed(http, queue="q", state="pending", limit=70)
        assert [job for job in ids(found) if job.startswith("stay")] == [job["id"] for job in stay]
        assert len(set(ids(found))) == len(found)
        every = listed(http, queue="q", limit=333)
        assert ids(every) == [job["id"] for job in mixed]
        eventually(
            lambda: len(listed(http, queue="q", state="completed", limit=1000)) == 500, "all ended"
        )
        assert len(listed(http, text="7", task="add")) == len(
            [n for n in range(500) if "7" in str(n)]
        )


def test_jobs_that_came_in_before_the_log_begins_are_listed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    config = tmp_path / "beaver.yaml"
    config.write_text(
        "segment_size: 16MiB\nretention_size: 1\nsnapshot: 100ms\nretention_age: 1s\n"
    )
    with serving(data, "--http", "127.0.0.1:0", "--config", str(config)):
        http = Http(data)
        http.post("/v1/jobs", [{"id": f"old{n}", "task": "nobody"} for n in range(3)])
        http.post("/v1/jobs/old1/cancel")
        large = {"task": "nobody", "payload": "x" * 900_000, "queue": "large"}
        for _ in range(4):
            assert http.post("/v1/jobs", [large] * 8).status == 200

        def pruned() -> bool:
            http.post("/v1/jobs", {"task": "nobody", "queue": "later"})
            http.post("/v1/snapshot")
            return not (data / "archive" / "00000000000000000001.wal").exists()

        eventually(pruned, "the first segment is gone")
        assert ids(listed(http, queue="default")) == ["old0", "old1", "old2"]
        assert ids(listed(http, queue="default", state="cancelled")) == ["old1"]
        assert len(listed(http)) == len(listed(http, since_ms=1))
