"""Who may do what: tokens, roles, hosts and origins; for every route there is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web

from beaver.access import tokens
from beaver.access.roles import ROLES, Right
from beaver.errors import InvalidInput
from beaver.server.http import page
from beaver.server.http.api import OPEN, ROUTES, add_routes
from beaver.server.http.routing import PARAMETER, Route
from beaver.system.clock import SystemClock, SystemEntropy
from tests.http_api.client import Http
from tests.support.program import Server, beaver, enqueue, eventually, run_beaver, serving

ENTROPY = SystemEntropy()
NAMES = [f"{route.method} {route.path}" for route in ROUTES]
GUARDED = [route for route in ROUTES if route.right is not Right.ANYONE]
"""All but signing in."""


def path_of(route: Route) -> str:
    """Returns a path of a route, of something that there is not."""
    return PARAMETER.sub("none", route.path)


def make(data: Path, *arguments: str) -> str:
    """Makes a token."""
    told = json.loads(beaver("token", "create", *arguments, "--data", str(data), "--json"))
    return str(told["token"])


@pytest.fixture(scope="module")
def by_role(server: Server) -> dict[str, Http]:
    return {role: Http(server.data, make(server.data, "--role", role)) for role in ROLES}


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
def test_each_role_may_what_the_table_says_and_nothing_else(
    by_role: dict[str, Http], route: Route
) -> None:
    path = path_of(route)
    for role, rights in ROLES.items():
        answer = by_role[role].ask(route.method, path)
        assert (answer.status == 403) == (route.right not in rights), (role, answer)
        assert answer.status != 401
        assert "beaver-seq" in answer.headers


def test_every_route_of_the_server_is_in_the_table_and_says_who_may_use_it(server: Server) -> None:
    """One that was added beside the table would have no role, and nobody would ask for one."""
    app = web.Application()
    add_routes(app, cast("Any", None))
    served = {
        (route.method, resource.canonical)
        for resource in app.router.resources()
        for route in resource
        if route.method != "HEAD"
    }
    assert served == {(route.method, route.path) for route in ROUTES} | {
        ("GET", path) for path in page.PATHS
    }
    for route in ROUTES:
        assert any(route.right in rights for rights in ROLES.values()), route
        assert route.right is not Right.OPEN, "that is for pages without a table"
    for_anyone = {(route.method, route.path) for route in ROUTES if route not in GUARDED}
    assert for_anyone == {("POST", "/v1/session")}
    nobody = Http(server.data, "")
    assert {path for path in ("/", *OPEN) if nobody.get(path).status == 200} == {"/", *OPEN}


def test_each_right_belongs_to_the_roles_that_the_contract_names() -> None:
    """A slip in the table of roles would open what no test of routes sees."""
    who = {right: {role for role, rights in ROLES.items() if right in rights} for right in Right}
    everybody = set(ROLES)
    assert who[Right.ADMIN] == {"admin"}
    assert who[Right.OPERATE] == {"operate", "admin"}
    assert who[Right.READ] == {"read", "operate", "admin"}
    assert who[Right.ENQUEUE] == {"produce", "operate", "admin"}
    assert who[Right.JOB] == {"produce", "read", "operate", "admin"}
    assert who[Right.WORK] == {"work", "admin"}
    assert who[Right.DISMISS] == {"work", "operate", "admin"}
    assert who[Right.SELF] == who[Right.ANYONE] == everybody


@pytest.mark.parametrize("route", GUARDED, ids=[f"{r.method} {r.path}" for r in GUARDED])
def test_no_route_is_open_without_a_good_token(server: Server, route: Route) -> None:
    path = path_of(route)
    good = (server.data / "token").read_text().strip()
    for token in ("", "x", good[:-1], good + "x"):
        answer = Http(server.data, token).ask(route.method, path)
        assert (answer.status, answer.type) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    nobody = Http(server.data, "")
    basic = nobody.ask(route.method, path, headers={"Authorization": f"Basic {good}"})
    assert basic.status == 401
    told = nobody.ask(route.method, f"{path}?token={good}")
    assert told.status == 401, "a token in a URL ends up in logs"


def test_what_is_unknown_is_401_without_a_token_and_404_with_one(
    server: Server, http: Http
) -> None:
    for path in ("/x", "/v1", "/v1/nothing", "/v2/jobs", "/v1/jobs/a/b/c"):
        assert Http(server.data, "").get(path).status == 401
        assert http.get(path).type == "not_found"
    answer = http.ask("DELETE", "/v1/status")
    assert (answer.status, answer.type) == (405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


def test_the_open_pages_need_no_token_here(server: Server) -> None:
    nobody = Http(server.data, "")
    for path in ("/metrics", "/healthz", "/readyz"):
        assert nobody.get(path).status == 200


@pytest.mark.parametrize("path", ["/v1/status", "/healthz", "/metrics", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "192.0.2.1"])
def test_a_name_that_is_not_ours_is_403_everywhere(http: Http, host: str, path: str) -> None:
    """A name of a stranger's that points here (DNS rebinding) opens nothing."""
    answer = http.get(path, {"Host": host})
    assert (answer.status, answer.type) == (403, "forbidden")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:9090", "127.0.0.2"]
)
def test_our_own_names_are_served(http: Http, host: str) -> None:
    assert http.get("/v1/status", {"Host": host}).status == 200


def test_a_page_of_another_origin_changes_nothing_even_with_a_token(http: Http) -> None:
    own = f"{http.host}:{http.port}"
    body = {"id": "origin", "task": "nobody"}
    for origin in ("https://evil.example", "null", f"http://{http.host}", "x"):
        answer = http.post("/v1/jobs", body, {"Origin": origin, "Host": own})
        assert (answer.status, answer.type) == (403, "forbidden")
        assert http.get("/v1/status", {"Origin": origin, "Host": own}).status == 200
    answer = http.post("/v1/jobs", body, {"Origin": f"http://{own}", "Host": own})
    assert answer.status == 201


# -- tokens ----------------------------------------------------------------------------------------


def test_a_revoked_token_is_good_for_no_more_than_a_second(server: Server) -> None:
    user = Http(server.data, make(server.data, "--role", "read", "--name", "soon"))
    assert user.get("/v1/status").status == 200
    beaver("token", "revoke", "soon", "--data", str(server.data))
    began_s = time.monotonic()
    eventually(lambda: user.get("/v1/status").status == 401, "it is revoked", 20)
    assert time.monotonic() - began_s < 20


def test_a_token_ends_when_it_was_to(server: Server) -> None:
    now_ms = time.time_ns() // 1_000_000
    _, secret = tokens.create(
        str(server.data), "read", now_ms=now_ms, entropy=ENTROPY, expires_ms=now_ms + 3_000
    )
    user = Http(server.data, secret)
    assert user.get("/v1/status").status == 200
    eventually(lambda: user.get("/v1/status").status == 401, "it has expired", 20)


def test_a_producer_bound_to_a_queue_sees_and_fills_no_other(server: Server, http: Http) -> None:
    mail = Http(server.data, make(server.data, "--role", "produce", "--queue", "mail"))
    assert mail.post("/v1/jobs", {"id": "m1", "task": "nobody", "queue": "mail"}).status == 201
    http.post("/v1/jobs", {"id": "other", "task": "nobody", "queue": "web"})
    assert mail.get("/v1/jobs/m1").status == 200
    for part in ("", "/result", "/history", "/explain"):
        assert mail.get(f"/v1/jobs/other{part}").type == "not_found"
    assert mail.post("/v1/jobs", {"task": "add"}).type == "forbidden", "its queue is default"
    several = [{"id": "m2", "queue": "mail"}, {"id": "w2", "queue": "web"}]
    answer = mail.post("/v1/jobs", several)
    assert (answer.type, answer.json["index"]) == ("forbidden", 1)
    assert http.get("/v1/jobs/m2").status == 404, "nothing was enqueued"


def test_tokens_work_without_a_server_and_are_kept_hashed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    secret = make(data, "--role", "admin", "--name", "first")
    assert secret not in (data / "tokens.json").read_text()
    assert (data / "tokens.json").stat().st_mode & 0o777 == 0o600
    listed = beaver("token", "list", "--data", str(data))
    assert "first" in listed
    assert secret not in listed
    told = run_beaver("token", "create", "--role", "read", "--name", "first", "--data", str(data))
    assert told.returncode == 2
    assert "there is a token named first" in told.stderr
    beaver("token", "revoke", "first", "--data", str(data))
    assert run_beaver("token", "revoke", "first", "--data", str(data)).returncode == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create",), "--role"),
        (("create", "--role", "raed"), "did you mean read"),
        (("create", "--role", "read", "--queue", "q"), "only a token with the role produce"),
        (("create", "--role", "read", "--expires", "soon"), "--expires"),
        (("create", "x", "--role", "read"), "takes no token"),
        (("list", "--role", "read"), "--role goes with"),
        (("revoke",), "name the token"),
        (("creat",), "did you mean create"),
    ],
)
def test_a_slip_on_the_command_line_is_told(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    told = run_beaver("token", *arguments, "--data", str(tmp_path / "data"))
    assert told.returncode == 2
    assert said in told.stderr


def test_a_store_has_as_many_tokens_as_the_limit_says_and_no_more(tmp_path: Path) -> None:
    data = str(tmp_path)
    first, secret = tokens.create(data, "read", now_ms=1, entropy=ENTROPY)
    file = {"tokens": [msgspec.structs.replace(first, id=str(n)) for n in range(tokens.TOKENS_MAX)]}
    (tmp_path / "tokens.json").write_bytes(msgspec.json.encode(file))
    with pytest.raises(InvalidInput, match="at most 1000 tokens"):
        tokens.create(data, "read", now_ms=1, entropy=ENTROPY)
    assert tokens.Tokens(data, SystemClock()).find(secret)
    tokens.revoke(data, "7")
    tokens.create(data, "read", now_ms=1, entropy=ENTROPY)


def test_a_damaged_file_of_tokens_lets_nobody_in_and_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0"):
        http = Http(data)
        assert http.get("/v1/status").status == 200
        (data / "tokens.json").write_text("{")
        eventually(lambda: http.get("/v1/status").status == 503, "it is noticed")
        assert "tokens.json cannot be read" in http.get("/v1/status").json["detail"]
        enqueue(data, {"id": "a"})


def test_a_start_makes_the_token_of_its_owner_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make(data, "--role", "read")
    with serving(data, "--http", "127.0.0.1:0"):
        first = (data / "token").read_text()
        assert Http(data).get("/v1/status").status == 200
        assert (data / "token").stat().st_mode & 0o777 == 0o600
    with serving(data, "--http", "127.0.0.1:0"):
        assert (data / "token").read_text() == first
