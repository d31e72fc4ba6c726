"""Attacks on HTTP, each by its name: afterwards the server answers, and holds nothing of them.

Smuggling and slow or greedy clients stand in modules of their own.
"""

from __future__ import annotations

import gzip
import zlib
from functools import partial

import pytest

from tests.http_api.attacks import LAST, Target
from tests.http_api.client import Http
from tests.support.program import beaver, eventually, run_beaver

# -- whom it takes a request from ------------------------------------------------------------------


HOSTS = [
    "evil.example", "localhost.evil.example", "localhost@evil.example", "evil@localhost",
    "localhost/evil", "localhost#", "localhost?", "localhost\\evil", "localhost,evil.example",
    "localhost evil", "localhost:80:80", "localhost:x", "127.0.0.1.", "127.1", "0177.0.0.1",
    "2130706433", "0x7f000001", "[::1", "::1", "[localhost]", "%6cocalhost", "192.0.2.7", "",
]  # fmt: skip


def test_dns_rebinding(target: Target) -> None:
    for host in HOSTS:
        raw = target.head(last=True).replace(b"Host: localhost", f"Host: {host}".encode())
        heard = target.send(raw)
        assert heard.statuses in ([403], [400]), (host, heard)


def test_dns_rebinding_by_a_second_host_or_by_none(target: Target) -> None:
    """What an absolute URL says counts for nothing."""
    for lines in (("Host: evil.example",), ("Host: localhost",)):
        assert target.ask(*lines).statuses in ([400], [403])
    without = target.head(last=True).replace(b"Host: localhost\r\n", b"")
    assert target.send(without).statuses in ([400], [403])
    absolute = target.head(path="http://localhost/v1/status", last=True)
    evil = absolute.replace(b"Host: localhost", b"Host: evil.example")
    assert target.send(evil).statuses == [403]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_cross_site_requests(target: Target, kind: str) -> None:
    """What a page can send without asking first is no change, and it may not ask first."""
    body = b'{"id": "forged", "task": "nobody"}'
    head = target.head(
        f"Content-Type: {kind}", f"Content-Length: {len(body)}", method="POST", path="/v1/jobs"
    )
    assert target.send(head + body).statuses == [415]
    asked = target.head(
        "Origin: https://evil.example", "Access-Control-Request-Method: POST",
        method="OPTIONS", path="/v1/jobs",
    )  # fmt: skip
    heard = target.send(asked)
    assert heard.statuses[0] >= 400
    assert b"access-control-" not in heard.raw.lower()
    assert target.http.get("/v1/jobs/forged").status == 404


# -- paths -----------------------------------------------------------------------------------------

PATHS = [
    "/v1/../v1/status", "/v1/./status", "/v1/%2e%2e/v1/status", "/v1/%2e/status", "//v1/status",
    "///v1/status", "/v1//status", "/v1/status/", "/v1/status%2f", "/%2fv1/status", "/v1%2fstatus",
    "/V1/status", "/v1/status%00", "/v1/status;x", "/v1/status%20", "/v1\\status", "/metrics/..",
    "/metrics/../v1/status", "/metrics%2f..%2fv1%2fstatus", "/healthz/%2e%2e/v1/status",
    "/metrics//v1/status", "/metrics%00/v1/status", "/..%2f..%2ftoken", "/../../../etc/passwd",
    "/v1/jobs/..%2f..%2ftoken", "/v1/jobs/%00", "/v1/queues/%2e%2e", "/v1/jobs/%ff", "/%", "/%zz",
    "/v1/session/../status", "/v1/session%2f..%2fstatus", "/./v1/status",
]  # fmt: skip


def test_path_tricks(target: Target) -> None:
    """Without a token none of them leads anywhere; with one, none leads out of the API."""
    for path in PATHS:
        nobody = target.send(f"GET {path} HTTP/1.1\r\n{LAST}\r\n".encode())
        assert nobody.statuses in ([400], [401], [403]), (path, nobody)
        admin = target.ask(path=path)
        assert admin.statuses in ([400], [404], [405]), (path, admin)
        for secret in (target.http.token.encode(), b"root:"):
            assert secret not in nobody.raw + admin.raw


def test_bytes_that_no_path_has(target: Target) -> None:
    for byte in (b"\0", b"\x01", b"\x7f", b"\x80", b"\r", b"\t", b" "):
        raw = target.head(last=True).replace(b"/v1/status", b"/v1/sta" + byte + b"tus")
        assert target.send(raw).statuses in ([400], [404]), byte
        nobody = b"GET /healthz" + byte + b"x HTTP/1.1\r\n" + LAST.encode() + b"\r\n"
        assert target.send(nobody).statuses in ([400], [401]), byte


# -- too much --------------------------------------------------------------------------------------


def test_an_oversize_url(target: Target) -> None:
    for path in ("/" + "x" * 9_000, "/v1/status?" + "a=b&" * 4_000, "/v1/jobs/" + "%41" * 5_000):
        assert target.send(target.head(path=path)).statuses in ([400], [414])


def test_an_oversize_header_and_a_flood_of_headers(target: Target) -> None:
    for lines in (
        ["X: " + "y" * 9_000],
        ["X" * 9_000 + ": y"],
        [f"X-{number}: y" for number in range(20_000)],
        ["Cookie: " + "a=b; " * 4_000],
        ["Accept: */*"] * 5_000,
    ):
        heard = target.send(target.head(*lines))
        assert heard.statuses in ([400], [431]), heard.raw[:500]


def test_an_oversize_body_is_refused_before_it_comes(target: Target) -> None:
    head = target.head("Content-Length: 99999999", method="POST", path="/v1/jobs")
    assert target.send(head).statuses == [413]
    for path in ("/v1/session", "/v1/snapshot", "/v1/jobs/x/cancel"):
        head = target.head("Content-Length: 99999999", method="POST", path=path)
        assert target.send(head).statuses == [413]
    chunked = target.head("Transfer-Encoding: chunked", method="POST", path="/v1/snapshot")
    assert target.send(chunked + b"fffff\r\n" + b" " * 0xFFFFF + b"\r\n").statuses == [413]


def test_decompression_bombs(target: Target) -> None:
    """Nothing is unpacked, whatever it is called: 32 MiB in 32 kB stay 32 kB."""
    plain = b" " * (32 << 20)
    packed, deflated = gzip.compress(plain), zlib.compress(plain)
    for encoding in ("gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x"):
        bomb = deflated if encoding == "deflate" else packed
        for path, kind in (
            ("/v1/jobs", "application/json"), ("/v1/jobs", "application/x-ndjson"),
            ("/v1/snapshot", "application/json"), ("/v1/session", "application/json"),
        ):  # fmt: skip
            head = target.head(
                f"Content-Encoding: {encoding}", f"Content-Type: {kind}",
                f"Content-Length: {len(bomb)}", method="POST", path=path, last=True,
            )  # fmt: skip
            assert target.send(head + bomb).statuses == [415], (encoding, path)
        coded = target.head(f"Transfer-Encoding: {encoding}, chunked", method="POST", last=True)
        assert target.send(coded + b"0\r\n\r\n").statuses[0] in (400, 405, 415, 501)


def test_an_answer_is_never_packed(target: Target) -> None:
    """Else secrets beside what an attacker chooses show in its length."""
    heard = target.send(target.head("Accept-Encoding: gzip, deflate, br"))
    assert b"content-encoding" not in heard.raw.lower()


# -- tokens and logs -------------------------------------------------------------------------------


URLS = [
    "/v1/status?token={}", "/v1/status?access_token={}", "/v1/status?authorization=Bearer%20{}",
    "http://{}@localhost/v1/status", "http://x:{}@localhost/v1/status", "/v1/status;token={}",
    "/v1/status#{}",
]  # fmt: skip


def test_a_token_in_a_url(target: Target) -> None:
    for url in URLS:
        raw = f"GET {url.format(target.http.token)} HTTP/1.1\r\n{LAST}\r\n"
        assert target.send(raw.encode()).statuses in ([400], [401]), url


def test_no_token_is_in_the_log(target: Target) -> None:
    """Not even that of a request which nobody could read, and which is therefore told."""
    token = target.http.token
    for raw in (
        f"GET /v1/status?token={token} HTTP/1.1\nHost: localhost\n\n",
        f"GET /{token} HTTP/9.9\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization Bearer {token}\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization: Bearer {token}\nX: y\r\n\r\n",
        f"Bearer {token}\r\n\r\n",
    ):
        before = len(told_malformed(target))
        assert target.send(raw.encode()).statuses == [400], raw
        eventually(partial(is_told, target, before + 1), "it is told")
    assert not [line for line in target.server.stderr if token[:20] in line]


def is_told(target: Target, count: int) -> bool:
    return len(told_malformed(target)) >= count


def told_malformed(target: Target) -> list[str]:
    return [line for line in target.server.stderr if "malformed HTTP request" in line]


WRONG_PLACES = [
    "Authorization: Bearer {0}\r\nAuthorization: Bearer {0}",
    "Authorization: Bearer {0}, Bearer {0}",
    "Authorization: Bearer  x {0}",
    "Authorization: Basic {0}",
    "Authorization: {0}",
    "Proxy-Authorization: Bearer {0}",
    "X-Authorization: Bearer {0}",
    "Cookie: token={0}",
    "Cookie: Authorization=Bearer {0}",
]


def test_a_token_where_none_belongs(target: Target) -> None:
    for place in WRONG_PLACES:
        told = place.format(target.http.token)
        raw = f"GET /v1/status HTTP/1.1\r\n{LAST}{told}\r\n\r\n"
        assert target.send(raw.encode()).statuses in ([400], [401]), place


FORGED = "2030-01-01 00:00:00,000 forged"


def test_log_injection(target: Target) -> None:
    """Whatever stands in a request, no line of the log begins with it, and none is coloured."""
    quoted = FORGED.replace(" ", "%20")
    evil = f"x%0d%0a{quoted}%0a{quoted}%1b[31m%e2%80%ae"
    for path in (
        f"/{evil}", f"/v1/jobs/{evil}", f"/v1/queues/{evil}", f"/v1/jobs?queue={evil}",
        f"/v1/jobs?{evil}=1", f"/v1/events?job={evil}&x=1",
    ):  # fmt: skip
        target.ask(path=path)
    for method, path in (("POST", "cancel"), ("POST", "retry")):
        target.ask("Content-Length: 0", method=method, path=f"/v1/jobs/{evil}/{path}")
    body = f'{{"id": "l", "task": "a\\u202e\\u001b{FORGED}"}}'.encode()
    for sent in (body, body.replace(b"\\u001b", b"")):
        length = f"Content-Length: {len(sent)}"
        target.send(target.head(length, method="POST", path="/v1/jobs") + sent)
    for raw in (
        f"GET / HTTP/1.1\r\nHost: x\r\n{FORGED}\x1b[31m\r\n\r\n",
        f"{FORGED}\x1b[31m\r\n\r\n",
        f"GET /\x1b[31m{FORGED} HTTP/1.1\r\n\r\n",
    ):
        target.send(raw.encode())
    data = str(target.server.data)
    for name in ("a\nb", "a\x1b[31m"):
        told = run_beaver("token", "create", "--role", "read", "--name", name, "--data", data)
        assert told.returncode == 2
    reversed_name = "\u202egnp.exe"
    secret = beaver(
        "token", "create", "--role", "read", "--name", reversed_name, "--data", data
    ).strip()
    answer = Http(target.server.data, "").post("/v1/session", {"token": secret})
    assert answer.status == 201
    eventually(lambda: "has signed in" in "".join(target.server.stderr), "it is logged")
    for line in target.server.stderr:
        assert not line.startswith(FORGED), line
        assert line.rstrip("\n").isprintable(), line


# -- other protocols -------------------------------------------------------------------------------


def test_a_websocket_upgrade(target: Target) -> None:
    """It is answered as any request; what follows is not read as one of another protocol."""
    lines = (
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    for path in ("/v1/status", "/healthz", "/v1/nothing"):
        heard = target.send(target.head(*lines, path=path))
        assert len(heard.statuses) == 1
        assert heard.statuses[0] in (200, 400, 404, 426)
    heard = target.send(target.head(*lines) + b"\x81\x85\0\0\0\0hello")
    assert 101 not in heard.statuses
    h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert 101 not in target.send(target.head(*h2c)).statuses
    connect = target.send(target.head(method="CONNECT", path="evil.example:443"))
    assert connect.statuses[0] >= 400


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /metrics\r\n", b"GET /metrics\r\n\r\n", b"GET /metrics HTTP/0.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1.1\r\nHost: localhost\r\n\r\n",
        b"GET / http/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", b"EHLO x\r\n",
        b"*1\r\n$4\r\nPING\r\n",
    ],
)  # fmt: skip
def test_http_0_9_and_what_is_no_http_at_all(target: Target, raw: bytes) -> None:
    heard = target.send(raw, half_close=True)
    assert heard.statuses in ([400], []), heard
    assert heard.closed
