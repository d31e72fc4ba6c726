"""Workers in any language: they register, pull, report, fall silent and come back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from beaver.dispatch.remote_workers import CAPACITY_MAX, NAMES_MAX, WORKERS_OF_TOKEN_MAX
from beaver.server.http.site import HELD_MAX
from beaver_model.bounds import RESULT_BYTES_MAX
from tests.http_api.client import Http
from tests.http_api.remote import Worker, causes, report, start_pull
from tests.support.program import Server, beaver, eventually, serving

LEASE_S = 2.0
PATIENT = {"backoff": "1h"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("workers") / "data"
    with serving(data, "--http", "127.0.0.1:0", "--lease", "10m", "--workers", "1") as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Http:
    """A server on which no lease ends by itself."""
    return Http(server.data)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Http]:
    """A server on which silence is noticed soon."""
    data: Path = tmp_path_factory.mktemp("quick") / "data"
    options = ("--lease", f"{LEASE_S:g}s", "--heartbeat", "1s", "--workers", "1")
    with serving(data, "--http", "127.0.0.1:0", *options):
        yield Http(data)


# -- coming and going --------------------------------------------------------------------------


def test_a_worker_learns_its_number_and_what_is_expected_of_it(http: Http) -> None:
    worker = Worker(http, "mail", capacity=3, queues=["a", "b"])
    assert worker.terms == {"worker": worker.number, "lease_ms": 600_000, "heartbeat_ms": 5000}
    listed = {w["id"]: w for w in http.get("/v1/workers").json["workers"]}
    mine = listed[worker.number]
    assert (mine["name"], mine["capacity"], mine["tasks"]) == ("w", 3, ["mail"])
    assert mine["queues"] == ["a", "b"]
    assert 0 < mine["lease_ms"] <= 600_000
    assert listed[1]["capacity"] == 0, "the server's own workers are there, too"
    status = json.loads(beaver("status", "--json", "--data", str(http.data)))
    assert worker.number in [w["id"] for w in status["workers"]]
    assert "remote" in beaver("status", "--data", str(http.data))
    assert worker.leave().status == 200
    assert worker.leave().status == 404
    assert worker.number not in [w["id"] for w in http.get("/v1/workers").json["workers"]]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"capacity": 0}, 400),
        ({"capacity": 1}, 201),
        ({"capacity": CAPACITY_MAX}, 201),
        ({"capacity": CAPACITY_MAX + 1}, 400),
        ({"capacity": True}, 400),
        ({"tasks": []}, 400),
        ({"tasks": ["x"] * NAMES_MAX}, 201),
        ({"tasks": ["x"] * (NAMES_MAX + 1)}, 400),
        ({"tasks": ["a\nb"]}, 400),
        ({"tasks": ["exec"]}, 400),
        ({"queues": []}, 400),
        ({"queues": None}, 201),
        ({"name": ""}, 400),
        ({"name": "x" * 200}, 201),
        ({"name": "x" * 201}, 400),
        ({"colour": 1}, 400),
    ],
)
def test_a_registration_is_taken_up_to_each_bound_and_refused_beyond(
    http: Http, change: dict[str, Any], status: int
) -> None:
    body = {"name": "w", "tasks": ["bound"], "capacity": 1, **change}
    answer = http.post("/v1/workers", body)
    assert answer.status == status, answer
    if status == 201:
        assert http.ask("DELETE", f"/v1/workers/{answer.json['worker']}").status == 200


def test_a_token_registers_so_many_workers_and_no_more(quick: Http) -> None:
    secret = json.loads(
        beaver("token", "create", "--role", "work", "--data", str(quick.data), "--json")
    )["token"]
    many = Http(quick.data, secret)
    body = {"name": "m", "tasks": ["many"], "capacity": 1}
    with ThreadPoolExecutor(16) as threads:
        answers = list(
            threads.map(lambda _: many.post("/v1/workers", body), range(WORKERS_OF_TOKEN_MAX + 3))
        )
    refused = [answer for answer in answers if answer.status != 201]
    taken = [answer for answer in answers if answer.status == 201]
    assert len(taken) >= WORKERS_OF_TOKEN_MAX
    for answer in refused:
        assert answer.type == "too_many_requests"
        assert "retry-after" in answer.headers
    # The silent ones go by themselves.
    eventually(lambda: many.post("/v1/workers", body).status == 201, "there is room again")


@pytest.mark.parametrize("worker", ["0", "1", "x", "1000000999", "9" * 40, "-1"])
def test_a_worker_that_nobody_knows_is_404(http: Http, worker: str) -> None:
    for what in ("heartbeat", "pull"):
        assert http.post(f"/v1/workers/{worker}/{what}", {}).type == "not_found"
    assert http.ask("DELETE", f"/v1/workers/{worker}").type == "not_found"


# -- work --------------------------------------------------------------------------------------


def test_a_pull_gives_what_is_durable_with_all_that_the_worker_needs(http: Http) -> None:
    worker = Worker(http)
    worker.enqueue("p1", payload={"n": 2**80}, tags=["x"], timeout_ms=5000, max_attempts=3)
    attempt = worker.get()
    token = attempt.pop("token")
    key = attempt.pop("idempotency_key")
    assert attempt == {
        "job": "p1", "task": worker.tasks[0], "queue": "default", "payload": {"n": 2**80},
        "attempt": 1, "max_attempts": 3, "timeout_ms": 5000, "tags": ["x"],
    }  # fmt: skip
    dispatch = http.get("/v1/jobs/p1/history").json["events"][-1]
    assert (dispatch["event"], dispatch["seq"]) == ("DISPATCH", token)
    assert dispatch["worker"] == worker.number
    answer = report(http, token, "fail", error="no", retry_in_ms=0)
    assert answer.json["state"] == "pending"
    again = worker.get()
    assert (again["attempt"], again["idempotency_key"]) == (2, key)
    assert report(http, again["token"], "ack", result=1).json["state"] == "completed"


def test_a_pull_waits_for_a_job_and_no_longer_than_it_says(http: Http) -> None:
    worker = Worker(http)
    assert worker.pull(wait_ms=0) == []
    assert worker.pull(wait_ms=50) == []
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(worker.pull, 1, 30_000)
        eventually(
            lambda: "beaver_remote_pulls 1.0" in http.get("/metrics").raw.decode(), "it waits"
        )
        worker.enqueue("late")
        assert [attempt["job"] for attempt in waiting.result()] == ["late"]
    for wrong in ({"max": 0}, {"max": CAPACITY_MAX + 1}, {"wait_ms": -1}, {"wait_ms": 60_001}):
        assert worker.ask("pull", wrong).type == "invalid"
    worker.leave()


def test_a_token_waits_with_so_many_pulls_and_no_more(http: Http) -> None:
    """One more is told when to come again; none of them is left behind."""
    worker = Worker(http)
    waiting = [start_pull(http, worker.number, 30_000) for _ in range(HELD_MAX)]
    eventually(
        lambda: f"beaver_remote_pulls {HELD_MAX}.0" in http.get("/metrics").raw.decode(), "all wait"
    )
    refused = worker.ask("pull", {"wait_ms": 30_000})
    assert refused.type == "too_many_requests"
    assert "retry-after" in refused.headers
    assert worker.pull(wait_ms=0) == [], "who does not wait is answered"
    for connection in waiting:
        connection.close()
    eventually(lambda: "beaver_remote_pulls 0.0" in http.get("/metrics").raw.decode(), "none waits")
    assert worker.pull(wait_ms=1) == []
    worker.leave()


def test_a_worker_never_holds_more_than_its_capacity(http: Http) -> None:
    """Not by pulls at once, nor by asking for more."""
    worker = Worker(http, capacity=5)
    for number in range(20):
        worker.enqueue(f"c{number}")
    with ThreadPoolExecutor(4) as threads:
        pulls = list(threads.map(lambda _: worker.pull(100, 100), range(4)))
    held = [attempt["token"] for attempts in pulls for attempt in attempts]
    assert len(held) == len(set(held)) == 5
    assert worker.pull(100) == []
    assert report(http, held[0], "ack").status == 200
    assert len(worker.pull(100)) == 1
    worker.leave()


def test_jobs_go_to_who_can_run_them_and_as_their_queues_say(http: Http) -> None:
    one, other = Worker(http, capacity=10), Worker(http, capacity=10, queues=["q2"])
    one.enqueue("n1", priority=9)
    one.enqueue("n2", priority=0)
    other.enqueue("n3", queue="q1")
    other.enqueue("n4", queue="q2")
    assert [attempt["job"] for attempt in one.pull(10)] == ["n2", "n1"]
    assert [attempt["job"] for attempt in other.pull(10)] == ["n4"]
    http.ask("PATCH", "/v1/queues/q2", {"paused": True})
    other.enqueue("n5", queue="q2")
    assert other.pull(10, 50) == []
    http.ask("PATCH", "/v1/queues/q2", {"paused": False})
    assert [attempt["job"] for attempt in other.pull(10, 5_000)] == ["n5"]
    assert http.job("n3")["waiting"] == "slot"
    for worker in (one, other):
        worker.leave()
    assert http.job("n3")["waiting"] == "unknown_task", "nobody is left who knows it"


def test_local_and_remote_workers_share_the_jobs_of_a_task(http: Http) -> None:
    """Whoever has a free slot runs it, and neither gets what only the other can run."""
    worker = Worker(http, "echo", "mine", capacity=5)
    http.post("/v1/jobs", {"id": "long", "task": "echo", "payload": {"sleep_ms": 60_000}})
    eventually(lambda: http.job("long")["state"] == "in_flight", "the local worker is busy")
    worker.enqueue("both")
    http.post("/v1/jobs", {"id": "only", "task": "mine"})
    assert sorted(attempt["job"] for attempt in worker.pull(5, 5_000)) in (
        ["both"], ["both", "only"], ["only"],
    )  # fmt: skip
    http.post("/v1/jobs/long/cancel")
    worker.leave()
    assert http.ended("both")["state"] == "completed", "the local worker takes it over"
    assert http.job("only")["waiting"] == "unknown_task"


def test_what_a_client_got_that_has_gone_is_given_back(http: Http) -> None:
    """Its attempt never left, so none is spent."""
    worker = Worker(http)
    connection = start_pull(http, worker.number, 30_000)
    eventually(lambda: "beaver_remote_pulls 1.0" in http.get("/metrics").raw.decode(), "it waits")
    connection.close()
    eventually(lambda: "beaver_remote_pulls 0.0" in http.get("/metrics").raw.decode(), "it is gone")
    worker.enqueue("kept")
    attempt = worker.get()
    assert attempt["attempt"] == 1
    worker.leave()


# -- outcomes ----------------------------------------------------------------------------------

OUTCOMES: list[tuple[str, dict[str, Any], str]] = [
    ("ack", {"result": {"a": 1}}, "completed"),
    ("ack", {}, "completed"),
    ("fail", {"error": "no"}, "pending"),
    ("fail", {"error": "no", "retry_in_ms": 3_600_000}, "pending"),
    ("fail", {"error": "no", "final": True}, "dead"),
    ("snooze", {"delay_ms": 3_600_000}, "pending"),
    ("release", {}, "pending"),
]


@pytest.mark.parametrize(("kind", "members", "state"), OUTCOMES)
def test_an_outcome_is_taken_once_and_the_same_one_answered_again(
    http: Http, kind: str, members: dict[str, Any], state: str
) -> None:
    worker = Worker(http)
    job = worker.enqueue(f"o-{kind}-{len(members)}-{state}", **PATIENT)
    token = worker.get()["token"]
    first = report(http, token, kind, **members)
    assert (first.status, first.json["state"]) == (200, state), first
    before = http.get("/v1/status").json["last_seq"]
    for _ in range(2):
        assert report(http, token, kind, **members).json == first.json
    others: dict[str, dict[str, Any]] = {
        "ack": {"result": 2},
        "fail": {"error": "x"},
        "snooze": {"delay_ms": 1},
        "release": {},
    }
    for other, different in others.items():
        if (other, different) != (kind, members):
            assert report(http, token, other, **different).type == "stale_token"
    assert http.get("/v1/status").json["last_seq"] == before, "nothing was changed"
    assert http.job(job)["state"] == state
    worker.leave()


def test_two_of_the_same_outcome_at_once_are_one(http: Http) -> None:
    worker = Worker(http)
    worker.enqueue("twice")
    token = worker.get()["token"]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: report(http, token, "ack", result=1), range(8)))
    assert len({answer.raw for answer in answers}) == 1
    assert causes(http, "twice") == ["ENQUEUE", "DISPATCH", "ACK"]


@pytest.mark.parametrize(
    ("kind", "members", "status"),
    [
        ("fail", {}, 400),
        ("fail", {"error": 1}, 400),
        ("fail", {"error": "x", "retry_in_ms": -1}, 400),
        ("fail", {"error": "x", "until": 1}, 400),
        ("snooze", {}, 400),
        ("snooze", {"delay_ms": 1 << 60}, 400),
        ("release", {"x": 1}, 400),
        ("ack", {"reslt": 1}, 400),
        ("ack", {"result": "x" * RESULT_BYTES_MAX}, 413),
        ("ack", {"children": [{"task": ""}]}, 400),
        ("ack", {"children": [{"task": "exec"}]}, 400),
        ("ack", {"children": [{"task": "x", "id": "same"}, {"task": "y", "id": "same"}]}, 400),
        ("ack", {"children": [{"task": "x"}] * 1_001}, 400),
        ("ack", {"children": [{"task": "other", "id": "there"}]}, 409),
        ("progress", {"fraction": 1.1}, 400),
        ("progress", {"note": "x" * 1_001}, 400),
    ],
)
def test_an_outcome_that_is_none_changes_nothing_and_the_attempt_goes_on(
    http: Http, kind: str, members: dict[str, Any], status: int
) -> None:
    http.post("/v1/jobs", {"id": "there", "task": "nobody"})
    worker = Worker(http)
    job = worker.enqueue(f"wrong{time.monotonic_ns()}")
    token = worker.get()["token"]
    answer = report(http, token, kind, **members)
    assert answer.status == status, answer
    assert answer.type == {400: "invalid", 413: "too_large", 409: "conflict"}[status]
    assert http.job(job)["token"] == token
    assert report(http, token, "ack", result="x" * (RESULT_BYTES_MAX - 2)).status == 200


@pytest.mark.parametrize("token", ["0", "1", "999999999", "9" * 19])
def test_a_token_of_nobody_is_stale_and_no_number_is_invalid(http: Http, token: str) -> None:
    for kind, members, _ in OUTCOMES:
        assert http.post(f"/v1/attempts/{token}/{kind}", members).type == "stale_token"
        assert http.post(f"/v1/attempts/x{token}/{kind}", members).type == "invalid"
    assert http.post(f"/v1/attempts/{token}/progress", {}).type == "stale_token"


def test_an_attempt_of_a_local_worker_is_not_answered_over_http(http: Http) -> None:
    http.post("/v1/jobs", {"id": "local", "task": "echo", "payload": {"sleep_ms": 60_000}})
    eventually(lambda: http.job("local")["state"] == "in_flight", "it runs")
    token = http.job("local")["token"]
    assert report(http, token, "ack").type == "stale_token"
    worker = Worker(http)
    assert worker.beat(token)["lost"] == [token]
    http.post("/v1/jobs/local/cancel")
    worker.leave()


def test_children_come_with_the_ack_and_not_without(http: Http) -> None:
    worker = Worker(http)
    worker.enqueue("parent")
    token = worker.get()["token"]
    child = {"id": "child", "task": worker.tasks[0], "payload": [1]}
    answer = report(http, token, "ack", children=[child])
    assert answer.status == 200
    assert http.job("child")["parent"] == "parent"
    assert http.get("/v1/jobs/child/history").json["events"][0]["seq"] == answer.json["seq"] + 1
    assert report(http, worker.get()["token"], "ack").status == 200
    worker.leave()


def test_many_outcomes_are_one_commit_each_with_its_own_answer(http: Http) -> None:
    worker = Worker(http, capacity=4)
    for number in range(4):
        worker.enqueue(f"m{number}", **PATIENT)
    tokens = [attempt["token"] for attempt in worker.pull(4, 5_000)]
    outcomes = [
        {"token": tokens[0], "outcome": "ack", "result": {"n": 1}},
        {"token": tokens[1], "outcome": "fail", "error": "no"},
        {"token": 1, "outcome": "ack"},
        {"token": tokens[2], "outcome": "release"},
        {"token": tokens[0], "outcome": "ack", "result": {"n": 1}},
        {"token": tokens[0], "outcome": "ack", "result": {"n": 2}},
        {"token": tokens[3], "outcome": "snooze", "delay_ms": 60_000},
    ]
    answer = http.post("/v1/attempts", {"outcomes": outcomes})
    told = answer.json["outcomes"]
    assert [one["token"] for one in told] == [outcome["token"] for outcome in outcomes]
    assert [one.get("state") for one in told] == [
        "completed", "pending", None, "pending", "completed", None, "pending",
    ]  # fmt: skip
    assert [one["error"]["type"] for one in told if "error" in one] == [
        "urn:beaver:stale_token"
    ] * 2
    seqs = [told[place]["seq"] for place in (0, 1, 3, 6)]
    assert seqs == list(range(seqs[0], seqs[0] + 4)), "nothing else came between"
    assert report(http, tokens[0], "ack", result={"n": 1}).status == 200, "one alone is the same"
    held = worker.pull()[0]["token"]
    bad = [{"token": held, "outcome": "ack"}, {"token": held, "outcome": "eat"}]
    refused = http.post("/v1/attempts", {"outcomes": bad})
    assert (refused.type, refused.json["index"]) == ("invalid", 1)
    assert report(http, held, "release").status == 200, "nothing of it was carried out"
    assert http.post("/v1/attempts", {"outcomes": []}).json == {"outcomes": []}
    worker.leave()


def test_progress_is_shown_while_the_attempt_runs(http: Http) -> None:
    worker = Worker(http)
    worker.enqueue("slow")
    token = worker.get()["token"]
    assert report(http, token, "progress", fraction=0.25, note="a").json["state"] == "in_flight"
    shown = http.job("slow")["progress"]
    assert (shown["fraction"], shown["note"]) == (0.25, "a")
    report(http, token, "ack")
    assert report(http, token, "progress").type == "stale_token"
    assert "progress" not in http.job("slow")


# -- cancels and limits ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "members", "state"),
    [
        ("fail", {"error": "x"}, "cancelled"),
        ("snooze", {"delay_ms": 5}, "cancelled"),
        ("release", {}, "cancelled"),
        ("ack", {}, "completed"),
    ],
)
def test_a_cancel_is_told_until_the_outcome_and_only_an_ack_wins(
    http: Http, kind: str, members: dict[str, Any], state: str
) -> None:
    worker = Worker(http)
    job = worker.enqueue(f"cancel-{kind}")
    token = worker.get()["token"]
    assert worker.beat(token)["cancel"] == []
    assert http.post(f"/v1/jobs/{job}/cancel").json["state"] == "in_flight"
    for running in ([token], [], [token]):
        assert worker.beat(*running)["cancel"] == [token]
    assert report(http, token, kind, **members).json["state"] == state
    assert worker.beat()["cancel"] == []
    assert report(http, token, kind, **members).status == 200
    worker.leave()


def test_an_attempt_over_its_limit_is_taken_back_and_told_until_it_is_let_go(http: Http) -> None:
    worker = Worker(http)
    worker.enqueue("over", timeout_ms=300, **PATIENT)
    token = worker.get()["token"]
    eventually(lambda: worker.beat(token)["cancel"] == [token], "it is to stop")
    assert causes(http, "over") == ["ENQUEUE", "DISPATCH", "TIMEOUT time_limit"]
    assert worker.beat(token) == {"cancel": [token], "lost": [], "drain": False}
    assert report(http, token, "ack").type == "stale_token"
    assert worker.beat() == {"cancel": [], "lost": [], "drain": False}
    assert worker.beat(token)["lost"] == [token], "it was let go"
    worker.leave()


# -- silence -----------------------------------------------------------------------------------


def test_a_silent_worker_loses_its_jobs_at_the_lease_and_no_sooner(quick: Http) -> None:
    silent, other = Worker(quick), Worker(quick)
    taken_s = time.monotonic()
    job = silent.enqueue("silent", **PATIENT)
    token = silent.get()["token"]
    eventually(lambda: causes(quick, job)[-1] == "TIMEOUT lease_expired", "the lease ends")
    assert time.monotonic() - taken_s > LEASE_S * 0.9
    assert silent.ask("heartbeat", {"running": [token]}).status == 404
    for kind, members, _ in OUTCOMES:
        assert report(quick, token, kind, **members).type == "stale_token"
    again = Worker(quick, *silent.tasks)
    assert again.number != silent.number
    assert again.get()["attempt"] == 2, "at once, and not after its backoff"
    assert other.ask("heartbeat", {}).status == 404
    again.leave()


@pytest.mark.parametrize("attempts", [1, 2])
def test_the_last_lease_that_ends_kills_the_job_and_a_cancel_ends_it_too(
    quick: Http, attempts: int
) -> None:
    worker = Worker(quick)
    job = worker.enqueue(f"last{attempts}", max_attempts=attempts)
    worker.get()
    if attempts == 2:
        quick.post(f"/v1/jobs/{job}/cancel")
    assert quick.ended(job)["state"] == ("dead" if attempts == 1 else "cancelled")
    assert causes(quick, job)[-1] == ("DEAD lease_expired" if attempts == 1 else "CANCEL operator")


def test_a_worker_that_leaves_gives_back_what_it_holds_and_spends_nothing(http: Http) -> None:
    worker = Worker(http, capacity=2)
    worker.enqueue("left1")
    worker.enqueue("left2")
    tokens = [attempt["token"] for attempt in worker.pull(2, 5_000)]
    assert worker.leave().json == {"worker": worker.number, "jobs": 2}
    again = Worker(http, *worker.tasks, capacity=2)
    assert [attempt["attempt"] for attempt in again.pull(2, 5_000)] == [1, 1]
    assert causes(http, "left1")[2] == "RELEASE drain"
    assert report(http, tokens[0], "ack").type == "stale_token"
    again.leave()


def test_a_drained_worker_gets_nothing_more_is_told_to_leave_and_ends_its_jobs(http: Http) -> None:
    worker = Worker(http, capacity=2)
    worker.enqueue("d1")
    token = worker.get()["token"]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(worker.ask, "pull", {"max": 1, "wait_ms": 30_000})
        eventually(
            lambda: "beaver_remote_pulls 1.0" in http.get("/metrics").raw.decode(), "it waits"
        )
        assert worker.ask("drain").json == {"worker": worker.number, "jobs": 1}
        assert waiting.result().json == {"attempts": [], "drain": True}
    worker.enqueue("d2")
    assert worker.pull(1, 50) == []
    assert worker.beat(token)["drain"]
    assert report(http, token, "ack").status == 200
    assert http.post("/v1/workers/1/drain").type == "conflict", "the server's own"
    worker.leave()
