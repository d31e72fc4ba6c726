"""Queue names never run out, and neither page nor loop suffers from how many there were."""

from __future__ import annotations

import time
import urllib.request
from contextlib import closing
from pathlib import Path

from beaver.client.blocking import Client, connect
from beaver.request.requests import make_request
from beaver.server.queue_counters import LABELS_MAX
from beaver_model.bounds import QUEUES_MAX
from tests.scenarios.test_descriptors import http_of
from tests.support.program import beaver, events, eventually, serving, status


def fill(client: Client, prefix: str, count: int, task: str = "echo") -> None:
    for at in range(0, count, 2_000):
        names = range(at, min(count, at + 2_000))
        client.enqueue([make_request(task, queue=f"{prefix}-{n}") for n in names])


def scrape(data: Path) -> str:
    host, port = http_of(data)
    with urllib.request.urlopen(f"http://{host}:{port}/metrics") as page:
        text: str = page.read().decode()
    return text


def test_names_of_queues_come_and_go_and_the_default_always_works(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0", "--workers", "1") as server:
        with closing(connect(str(data))) as client:
            fill(client, "a", QUEUES_MAX)
            eventually(lambda: client.status().completed == QUEUES_MAX, "all have run", 120)
            fill(client, "b", 500)
            client.enqueue([make_request("echo", id="last")])
            eventually(lambda: client.status().completed == QUEUES_MAX + 501, "these too", 60)
            page = scrape(data)
            assert page.count('queue_jobs_pending{queue="') == LABELS_MAX + 1
            assert len(page) < 100_000
        assert len(server.status()["queues"]) <= QUEUES_MAX + 1
    assert status(data)["completed"] == QUEUES_MAX + 501, "the same after a restart"
    forgotten = [event for event in events(data) if event["event"] == "FORGET_QUEUE"]
    assert len(forgotten) >= 500
    assert beaver("verify", "--data", str(data))


def test_ten_thousand_queues_with_jobs_are_full_and_hold_nobody_up(tmp_path: Path) -> None:
    """The refusal says why, `default` works, and a scrape leaves the loop to the others."""
    data = tmp_path / "data"
    with (
        serving(data, "--http", "127.0.0.1:0", "--workers", "1"),
        closing(connect(str(data))) as client,
    ):
        fill(client, "q", QUEUES_MAX, task="nobody")
        said = beaver("enqueue", "echo", "--queue", "more", "--data", str(data), code=2)
        assert not said
        client.enqueue([make_request("echo", id="default")])
        eventually(lambda: client.status().completed == 1, "the default queue works")
        scrape(data)  # The first one loads what makes the page.
        before = client.status().longest_stall_ms
        began = time.monotonic()
        page = scrape(data)
        took_ms = (time.monotonic() - began) * 1000
        assert 'queue_jobs_pending{queue="other"} %.1f' % (QUEUES_MAX - LABELS_MAX) in page
        assert client.status().longest_stall_ms <= max(before, took_ms)
