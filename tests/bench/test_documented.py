"""The benchmark's clients of the documented API, and the bare server beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beaver.bench import bare, senders
from beaver.bench.documented import Documented
from beaver.bench.served import Served, serving
from beaver.bench.subject import LoopBudget, Sizes
from beaver.client.blocking import connect
from beaver.errors import BeaverError


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        serving(str(tmp_path_factory.mktemp("documented") / "data"), workers=1) as server,
        closing(Served(server)) as found,
    ):
        yield found


@pytest.mark.bench
@pytest.mark.parametrize("way", ["lone", "batches", "tasks", "threads", "processes"])
def test_what_a_client_of_the_api_counts_is_what_came_in(served: Served, way: str) -> None:
    """Through every way of having clients: no job is counted that the server does not have."""
    api, budget = Documented(served), LoopBudget(200, 20.0)
    sent = {
        "lone": lambda: api.send_loop(way, 1, 1, budget),
        "batches": lambda: api.send_loop(way, 1, 100, budget),
        "tasks": lambda: api.send_loop(way, 4, 1, budget),
        "threads": lambda: api.send_threads(way, 4, budget),
        "processes": lambda: api.send_processes(way, 4, budget),
    }[way]()
    assert sent.jobs == 200
    assert sent.rate > 0
    with connect(served.data) as client:
        warm = 4 if way == "processes" else 0  # Each process sends one before the others begin.
        assert client.status().queues[way].pending == 200 + warm


@pytest.mark.bench
def test_a_client_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(BeaverError, match="a client of nobody did not start"):
        senders.send_with_processes("nobody", str(tmp_path), "q", 1, LoopBudget(1, 1.0))


@pytest.mark.bench
def test_the_bare_server_answers_every_kind_of_client(tmp_path: Path) -> None:
    few = LoopBudget(100, 20.0)
    found = bare.measure_bare(str(tmp_path), Sizes(few, few, few, few, few, few))
    assert set(found) == set(bare.ROWS)
    assert all(value > 0 for value in found.values())
