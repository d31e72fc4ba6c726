"""Programs over HTTP: for the role `admin`, from a list, and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beaver.access.roles import ROLES
from tests.http_api.client import Http
from tests.http_api.test_access import make
from tests.support.program import Server, enqueue, eventually, run_beaver, serving

ECHO = {"argv": ["/bin/echo", "hello"]}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves every program to this machine, and one to others."""
    data = tmp_path_factory.mktemp("exec") / "data"
    flags = ("--allow-exec", "--exec-allow", "/bin/echo", "--http", "127.0.0.1:0")
    with serving(data, *flags, "--max-attempts", "1", "--workers", "1") as running:
        yield running


def test_an_administrator_runs_what_is_listed(programs: Server) -> None:
    http = Http(programs.data)
    answer = http.post("/v1/jobs", {"id": "listed", "task": "exec", "payload": ECHO})
    assert answer.status == 201, answer
    assert http.ended("listed")["result"]["output_tail"] == "hello\n"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {"argv": []},
        {"argv": ["/bin/sh", "-c", "id"]},
        {"argv": ["echo", "hello"]},
        {"argv": ["/bin/../bin/echo"]},
        {"argv": ["/bin/echo "]},
        {**ECHO, "env": {"LD_PRELOAD": "/tmp/x.so"}},
        {**ECHO, "cwd": "/tmp"},
    ],
)
def test_nobody_runs_anything_else_over_http(programs: Server, payload: Any) -> None:
    http = Http(programs.data)
    job = {"task": "exec", "payload": payload}
    for body in (job, [{"task": "echo"}, job]):
        answer = http.post("/v1/jobs", body)
        assert (answer.status, answer.type) == (403, "forbidden")
    assert answer.json["index"] == 1


@pytest.mark.parametrize("role", [role for role in ROLES if role != "admin"])
def test_no_other_role_runs_a_program(programs: Server, role: str) -> None:
    user = Http(programs.data, make(programs.data, "--role", role))
    assert user.post("/v1/jobs", {"task": "exec", "payload": ECHO}).type == "forbidden"
    line = b'{"id": "line", "task": "exec", "payload": {"argv": ["/bin/echo"]}}\n'
    answer = user.post("/v1/jobs", line, {"Content-Type": "application/x-ndjson"})
    assert b"urn:beaver:forbidden" in answer.raw
    assert Http(programs.data).get("/v1/jobs/line").status == 404


def test_a_retry_over_http_makes_no_other_program_of_a_job(programs: Server) -> None:
    """Else whoever may retry a job could run anything by editing one that has failed."""
    data, http = programs.data, Http(programs.data)
    other = {"payload": {"argv": ["/bin/sh", "-c", "id"]}}
    enqueue(data, {"id": "ours", "task": "exec", "payload": {"argv": ["/bin/false"]}})
    http.ended("ours")
    operator = Http(data, make(data, "--role", "operate"))
    for user in (operator, http):
        for edited in (other, {"payload": ECHO}):
            answer = user.post("/v1/jobs/ours/retry", edited)
            assert (answer.status, answer.type) == (403, "forbidden"), answer
    assert http.job("ours")["state"] == "dead"
    assert http.post("/v1/jobs/ours/retry").status == 200, "as it stands it may run again"
    http.ended("ours")

    body = {"id": "theirs", "task": "exec", "payload": {"argv": ["/bin/echo"]}, "delay": "1h"}
    assert http.post("/v1/jobs", body).status == 201
    assert http.post("/v1/jobs/theirs/cancel").status == 200
    assert operator.post("/v1/jobs/theirs/retry", {"payload": ECHO}).type == "forbidden"
    assert http.post("/v1/jobs/theirs/retry", other).type == "forbidden"
    assert http.post("/v1/jobs/theirs/retry", {"payload": ECHO}).status == 200


def test_the_list_that_counts_is_the_one_of_the_server_that_runs_a_job(tmp_path: Path) -> None:
    data = tmp_path / "data"
    flags = ("--http", "127.0.0.1:0", "--max-attempts", "1", "--workers", "1")
    with serving(data, *flags, "--exec-allow", "/bin/echo"):
        job = {"id": "late", "task": "exec", "payload": ECHO, "delay": "1s"}
        assert Http(data).post("/v1/jobs", job).status == 201
    with serving(data, *flags, "--exec-allow", "/bin/true"):
        http = Http(data)
        ended = eventually(lambda: http.job("late")["state"] == "dead" and http.job("late"), "dead")
        assert "none of the programs" in ended["error"]
        enqueue(data, {"id": "sh", "task": "exec", "payload": {"argv": ["/bin/sh"]}})
        assert "without allow_exec" in http.ended("sh")["error"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("echo", "an absolute path"),
        ("/bin/../bin/echo", "an absolute path"),
        ("/no/such/program", "is no program"),
        ("/etc", "is no program"),
    ],
)
def test_a_program_that_cannot_be_meant_is_refused_at_the_start(
    tmp_path: Path, program: str, said: str
) -> None:
    told = run_beaver("run", "--data", str(tmp_path / "data"), "--exec-allow", program, "--burst")
    assert told.returncode == 2
    assert said in told.stderr
