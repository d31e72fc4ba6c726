"""What user code can write ends, freezes or bloats no server: each channel is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from beaver.client.opening import open_client
from beaver.errors import NotFound
from beaver.request.requests import make_request
from beaver.structs.views import EventView
from beaver_model.bounds import ERROR_BYTES_MAX
from tests.support.program import Server, beaver, eventually, serving

HERE = Path(__file__).parent
MB = 1 << 20

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="jobs look in /proc")
pytestmark = needs_proc


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("hostile") / "data"
    with serving(
        data, "--workers", "2", "-A", "hostile:app", "--grace", "1s", cwd=HERE, STORE=str(data)
    ) as running:
        yield running


_count = iter(range(1000))


def attack(server: Server, task: str, payload: Any = None, **options: Any) -> str:
    """Enqueues an attack of one attempt; returns its id."""
    job = f"{task}-{next(_count)}"
    fields: dict[str, Any] = {"max_attempts": 1, "timeout": 1.5, **options}
    with closing(open_client(str(server.data))) as client:
        client.enqueue([make_request(task, payload, id=job, **fields)])
    return job


def fate(server: Server, job: str) -> EventView:
    """The last event of a job, once it has ended."""

    def ended() -> EventView | None:
        with closing(open_client(str(server.data))) as client:
            last: EventView = client.explain(job).events[-1]
        return last if last.event in ("ACK", "DEAD", "CANCEL") else None

    last = eventually(ended, f"{job} has ended")
    assert last is not None
    return last


def runs(server: Server, job: str) -> None:
    eventually(lambda: any(w["job"] == job for w in server.status()["workers"]), "it runs")


def serves_on(server: Server) -> None:
    """The server lives, and runs other jobs at once."""
    assert fate(server, attack(server, "echo", 7, max_attempts=5)).event == "ACK"
    assert server.process.poll() is None
    resident = Path(f"/proc/{server.process.pid}/status").read_text().split("VmRSS:")[1]
    assert int(resident.split()[0]) < 400_000, "kB of memory"


def test_a_cancel_meets_permits_that_were_made_blocking(server: Server) -> None:
    """A read of the server's from a pipe that user code made blocking would never end."""
    job = attack(server, "block_the_permits", timeout=30)
    runs(server, job)
    beaver("cancel", job, "--data", str(server.data))
    assert fate(server, job).event == "CANCEL"
    serves_on(server)


@pytest.mark.parametrize("what", ["half", "own", "much"])
def test_permits_that_were_never_given_cost_the_worker_alone(server: Server, what: str) -> None:
    """What lies in the pipe is believed only where the server has written it."""
    job = attack(server, "fill_the_permits", {"what": what}, timeout=30)
    runs(server, job)
    beaver("cancel", job, "--data", str(server.data))
    assert fate(server, job).event in ("CANCEL", "DEAD")
    serves_on(server)


@pytest.mark.parametrize(
    ("task", "payload", "error"),
    [
        ("shut_the_jobs", {"how": 0}, "ran longer"),
        ("shut_the_jobs", {"how": 2}, "ran longer"),
        ("half_a_frame", {"size": 50 * MB}, "no outcome"),
        ("half_a_frame", {"size": MB}, "ran longer"),
        ("noise", None, "no outcome"),
        ("cut_the_slots", {"size": 0}, "slot"),
        ("cut_the_slots", {"size": 72}, "slot"),
        ("overwrite_the_slots", {"value": 2**64 - 1}, "slot"),
        ("overwrite_the_slots", {"value": 0}, "slot"),
        ("move_the_time_on", None, "ran longer"),
        ("flood", {"token": 1}, "does not hold"),
        ("flood", {"token": 10**9}, "has not started"),
    ],
)
def test_an_attack_on_a_channel_ends_the_attempt_and_nothing_else(
    server: Server, task: str, payload: Any, error: str
) -> None:
    job = attack(server, task, payload)
    last = fate(server, job)
    assert last.event == "DEAD"
    assert error in (last.error or "")
    serves_on(server)


def test_a_job_that_closes_everything_costs_its_worker(server: Server) -> None:
    job = attack(server, "close_everything")
    assert fate(server, job).cause == "worker_lost"
    serves_on(server)


def test_a_job_that_lengthens_the_slots_stops_no_later_worker(server: Server) -> None:
    """Each worker that follows starts, those of a reload too."""
    for _ in range(3):
        job = attack(server, "lengthen_the_slots")
        assert fate(server, job).cause == "worker_lost"
    beaver("reload", "--data", str(server.data))
    serves_on(server)


def test_a_job_that_kills_the_parent_of_all_workers_pays_with_its_attempts(
    server: Server,
) -> None:
    """Again and again within seconds, and the server starts a new one each time."""
    job = attack(
        server, "kill_the_zygote", max_attempts=7, backoff={"kind": "fixed", "base_ms": 10}
    )
    last = fate(server, job)
    assert (last.event, last.attempt, last.cause) == ("DEAD", 7, "worker_lost")
    serves_on(server)


def test_another_workers_token_is_refused_as_stale(server: Server) -> None:
    """The victim's own outcome counts, and the thief's own."""
    victim = attack(server, "echo", {"sleep_ms": 1500}, timeout=30)
    runs(server, victim)
    with closing(open_client(str(server.data))) as client:
        token = client.show(victim).token
    thief = attack(server, "steal", {"token": token, "job": victim}, timeout=30)
    assert bytes(fate(server, thief).result) == b'"mine"'
    assert bytes(fate(server, victim).result) == b'{"sleep_ms":1500}'
    eventually(lambda: [line for line in server.stderr if "refused" in line], "it is told")


@pytest.mark.parametrize(
    ("kind", "what", "delay_ms", "error"),
    [
        (0, "no json", None, "not JSON"),
        (0, "empty", None, "not JSON"),
        (0, "not utf-8", None, "not JSON"),
        (0, "deep", None, "too deep"),
        (0, "large", None, "at most 1048576"),
        (1, "error", None, "left out"),
        (0, "many children", None, "at most 1000"),
        (0, "large children", None, "at most"),
        (0, "bad child", None, ""),
        (0, "fat options", None, "options"),
        (77, "", None, "kind 77"),
        (1, "", 10**15, "delay"),
        (1, "", -(10**15), "delay"),
        (3, "", 10**15, "delay"),
        (3, "", -1, "delay"),
    ],
)
def test_an_outcome_out_of_bounds_fails_the_attempt_and_says_why(
    server: Server, kind: int, what: str, delay_ms: int | None, error: str
) -> None:
    """What the worker's own code would have checked is checked again by the server."""
    job = attack(server, "tell", {"kind": kind, "what": what, "delay_ms": delay_ms})
    last = fate(server, job)
    assert last.event == "DEAD"
    assert error in (last.error or "")
    assert len((last.error or "").encode()) <= ERROR_BYTES_MAX
    serves_on(server)
    assert error in beaver("explain", job, "--data", str(server.data))


def test_no_child_of_a_refused_outcome_is_left(server: Server) -> None:
    with closing(open_client(str(server.data))) as client, pytest.raises(NotFound):
        client.show("c0")
