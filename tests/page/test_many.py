"""A list of any length, and a page that stays open: what it keeps is bounded."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.http_api.client import Http
from tests.page.conftest import Open

FRAME_MS_MAX = 100
"""Longest time between two frames, at its 95th percentile, while 100,000 jobs are scrolled."""

SCROLL = """async () => {
  const list = document.querySelector('.list');
  const gaps = [];
  let last = performance.now();
  for (let step = 0; step < 120; step += 1) {
    list.scrollTop = (list.scrollHeight - list.clientHeight) * Math.abs(Math.sin(step / 7));
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    gaps.push(now - last);
    last = now;
  }
  gaps.sort((a, b) => a - b);
  return gaps[Math.floor(0.95 * gaps.length)];
}"""

WINDOW = """async (path) => {
  const { Pages } = await import(path);
  let asked = 0;
  let problem = null;
  const fetch = async (_, { cursor, limit }) => {
    asked += 1;
    if (problem) throw problem;
    const first = Number(cursor ?? 0);
    const job = (_, at) => ({ id: String(first + at + 1), seq: first + at + 1 });
    const end = first + limit;
    const cursor_ = end >= 100000 ? null : String(end);
    return { jobs: Array.from({ length: limit }, job), cursor: cursor_, scanned_to: end };
  };
  const pages = new Pages({}, () => {}, fetch);
  const found = { kept: 0 };
  for (let index = 0; index < 100000; index += 150) {
    await pages.want(index, index + 40);
    found.kept = Math.max(found.kept, pages.kept.size);
  }
  await pages.want(99990, 100000);
  found.length = pages.length;
  found.whole = pages.whole;
  found.last = pages.row(99999)?.id;
  found.dropped = pages.row(0) === undefined;
  await pages.want(0, 40);
  found.first = pages.row(0)?.id;
  found.fortieth = pages.row(39)?.id;
  return found;
}"""


def test_a_list_keeps_a_window_and_gets_again_what_it_dropped(visit: Open, http: Http) -> None:
    page = visit("queues")
    module = f"http://{http.host}:{http.port}/page/jobs.js"
    found = page.evaluate(WINDOW, module)
    assert found["kept"] <= 14
    assert (found["length"], found["whole"]) == (100_000, True)
    assert (found["last"], found["dropped"]) == ("100000", True)
    assert (found["first"], found["fortieth"]) == ("1", "40")


def many(http: Http, count: int) -> None:
    http.ask("PATCH", "/v1/queues/many", {"paused": True})
    for first in range(0, count, 10_000):
        jobs = [
            {"id": f"many-{n}", "task": "echo", "payload": n, "queue": "many"}
            for n in range(first, min(count, first + 10_000))
        ]
        assert http.post("/v1/jobs", jobs).status == 200


def to_the_end(page: Page, last: str, steps: int) -> None:
    for _ in range(steps):
        page.evaluate("{const list = document.querySelector('.list'); list.scrollTop = 1e9}")
        if page.get_by_role("link", name=last, exact=True).count():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{last} never came")


def test_scrolling_comes_to_the_last_of_a_thousand(visit: Open, http: Http) -> None:
    many(http, 1_000)
    page = visit("jobs?queue=many")
    expect(page.get_by_role("link", name="many-0", exact=True)).to_be_visible()
    to_the_end(page, "many-999", 600)
    assert page.get_by_role("row").count() < 100, "rows that nobody sees are drawn"


@pytest.mark.nightly
def test_a_hundred_thousand_jobs_scroll_smoothly(visit: Open, http: Http) -> None:
    """Within the stated time a frame, and no more than a few megabytes are kept."""
    many(http, 100_000)
    page = visit("jobs?queue=many")
    before = heap(page)
    to_the_end(page, "many-99999", 20_000)
    p95_ms = page.evaluate(SCROLL)
    grown = heap(page) - before
    print(json.dumps({"frame_p95_ms": p95_ms, "grown_bytes": grown}))
    assert p95_ms < FRAME_MS_MAX
    assert grown < 16 << 20


@pytest.mark.nightly
def test_an_open_page_keeps_its_memory(visit: Open, http: Http) -> None:
    """For an hour of its own time, with jobs that come and go; its samples are bounded too."""
    page = visit()
    page.clock.install()
    sizes = []
    for minute in range(60):
        http.post("/v1/jobs", [{"task": "echo", "payload": n} for n in range(100)])
        for _ in range(30):
            page.clock.run_for(2000)
        if minute in (10, 59):
            sizes.append(heap(page))
    assert sizes[1] < sizes[0] + (4 << 20), sizes


def heap(page: Page) -> int:
    """Returns the bytes of what the page holds, garbage apart."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return int(used)
