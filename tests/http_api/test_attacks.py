"""Attacks on HTTP, each by its name: afterwards the server answers, and holds nothing of them."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from beaver.server.http import doors
from tests.http_api.attacks import Heard, Target, hear
from tests.http_api.client import Http
from tests.support.program import Server, beaver, eventually, run_beaver, serving

CONNECTIONS = 50
"""With 300 descriptors a server has so many for HTTP."""
LAST = "Host: localhost\r\nConnection: close\r\n"
SLOW_HEADS = (b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")


class Slow:
    """Clients that send a byte now and then, from before the first test to the last one."""

    def __init__(self, target: Target) -> None:
        self.began_s = time.monotonic()
        self.clients = [target.connect() for _ in SLOW_HEADS]
        for client, head in zip(self.clients, SLOW_HEADS, strict=True):
            client.sendall(head)
        self._stop = threading.Event()
        self._drip = threading.Thread(target=self._go, daemon=True)
        self._drip.start()

    def _go(self) -> None:
        while not self._stop.wait(0.5):
            try:
                self.clients[-1].sendall(b"x")
            except OSError:
                return

    def close(self) -> None:
        self._stop.set()
        for client in self.clients:
            client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("attacked") / "data"
    flags = ("--http", "127.0.0.1:0", "--workers", "1", "--log-level", "debug")
    with serving(data, *flags, first="ulimit -n 300") as running:
        yield running


@pytest.fixture(scope="module")
def shared(server: Server) -> Target:
    return Target(server)


@pytest.fixture(scope="module", autouse=True)
def slow(shared: Target) -> Iterator[Slow]:
    clients = Slow(shared)
    yield clients
    clients.close()


@pytest.fixture
def target(shared: Target, slow: Slow) -> Iterator[Target]:
    """The server; when a test is over, the server is as it was before."""
    yield shared
    shared.check()


def smuggled(target: Target) -> bytes:
    """A request that would show itself by an event in the log."""
    return target.head("Content-Length: 0", method="POST", path="/v1/snapshot")


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


# -- smuggling -------------------------------------------------------------------------------------

AMBIGUOUS = {
    "CL and TE": ("Content-Length: 5", "Transfer-Encoding: chunked"),
    "TE and CL": ("Transfer-Encoding: chunked", "Content-Length: 5"),
    "two CL": ("Content-Length: 5", "Content-Length: 6"),
    "two equal CL": ("Content-Length: 5", "Content-Length: 5"),
    "a list of CL": ("Content-Length: 5, 5",),
    "CL with a sign": ("Content-Length: +5",),
    "CL below zero": ("Content-Length: -5",),
    "CL in hex": ("Content-Length: 0x5",),
    "CL with underscores": ("Content-Length: 0_5",),
    "CL of no digits": ("Content-Length: five",),
    "CL beyond 2^64": ("Content-Length: 18446744073709551621",),
    "CL in foreign digits": ("Content-Length: \xb5",),
    "two TE": ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "TE chunked twice": ("Transfer-Encoding: chunked, chunked",),
    "TE unknown": ("Transfer-Encoding: xchunked",),
    "TE identity behind chunked": ("Transfer-Encoding: chunked, identity",),
    "TE with a space before the colon": ("Transfer-Encoding : chunked",),
    "CL with a space before the colon": ("Content-Length : 5",),
    "obs-fold in TE": ("Transfer-Encoding:\r\n chunked",),
    "obs-fold in CL": ("Content-Length:\r\n\t5",),
    "obs-fold behind CL": ("Content-Length: 5\r\n 6",),
    "a header without a name": (": 5", "Content-Length: 0"),
    "NUL in a header": ("Content-Length: 5\0",),
    "a bare CR in a header": ("X: a\rContent-Length: 5",),
    "a vertical tab before TE": ("\x0bTransfer-Encoding: chunked",),
    "a space before TE": (" Transfer-Encoding: chunked",),
}


def expect_nothing_smuggled(target: Target, heard: Heard) -> None:
    assert heard.statuses == [400], heard
    assert heard.closed, "nothing behind it may be taken for a request"


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_smuggling_by_a_body_of_two_lengths(target: Target, name: str) -> None:
    """One answer, 400, and no more on that connection: a proxy may see another end of the body."""
    head = target.head(*AMBIGUOUS[name], method="POST", path="/v1/snapshot")
    expect_nothing_smuggled(target, target.send(head + b"0\r\n\r\n" + smuggled(target)))


@pytest.mark.parametrize(
    "chunk",
    [
        b"0x2\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"+2\r\n{}\r\n0\r\n\r\n",
        b"2 \r\n{}\r\n0\r\n\r\n", b" 2\r\n{}\r\n0\r\n\r\n", b"2\n{}\n0\n\n", b"2\r\n{}0\r\n\r\n",
        b"2\r{}\r0\r\r", b"\r\n2\r\n{}\r\n0\r\n\r\n", b"g\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffff2\r\n{}\r\n0\r\n\r\n", b"2;a\nb\r\n{}\r\n0\r\n\r\n",
        b"2_0\r\n{}\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\nX : y\r\n\r\n",
    ],
)  # fmt: skip
def test_smuggling_by_chunks_that_two_may_read_differently(target: Target, chunk: bytes) -> None:
    head = target.head("Transfer-Encoding: chunked", method="POST", path="/v1/snapshot")
    heard = target.send(head + chunk + smuggled(target))
    assert len(heard.statuses) == 1, heard
    assert heard.statuses[0] in (400, 408), heard
    assert heard.closed


def test_smuggling_by_bare_line_feeds(target: Target) -> None:
    """A line that ends without a carriage return is refused, and nothing behind it is read."""
    for raw in (
        target.head().replace(b"\r\n", b"\n"),
        target.head("X: a\nY: b"),
        target.head("X: a").replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
        target.head()[:-2] + b"\n",
    ):
        expect_nothing_smuggled(target, target.send(raw + smuggled(target)))


def test_a_body_in_proper_chunks_is_taken(target: Target) -> None:
    """Else the tests above could not fail."""
    head = target.head("Transfer-Encoding: chunked", method="POST", path="/v1/snapshot")
    heard = target.send(head + b"2\r\n{}\r\n0\r\n\r\n" + smuggled(target), answers=2)
    assert heard.statuses == [200, 200]


def test_the_rest_of_a_body_that_was_refused_is_no_request(target: Target) -> None:
    """A refusal may come before the body does: what follows is still that body, or the end."""
    inner = smuggled(target)
    length = f"Content-Length: {len(inner)}"
    for path in ("/v1/nothing", "/v1/jobs/none/cancel", "/healthz"):
        heard = target.send(target.head(length, method="POST", path=path) + inner)
        assert len(heard.statuses) == 1, (path, heard)
    nobody = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode()
    assert target.send(nobody + inner).statuses == [401]


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


# -- order and half-open connections ---------------------------------------------------------------


def test_pipelining_a_thousand_requests(target: Target) -> None:
    """Each is answered, in order; another client is served meanwhile."""
    count = 1_000
    with target.connect() as client:
        sending = threading.Thread(
            target=client.sendall,
            args=(b"".join(target.head(path=f"/v1/jobs/n{n}") for n in range(count)),),
        )
        sending.start()
        assert target.http.get("/v1/status").status == 200
        heard = hear(client, count)
        sending.join()
    assert heard.statuses == [404] * count
    told = [int(n) for n in re.findall(rb'"detail":"no job n(\d+)', heard.raw)]
    assert told == list(range(count))


def test_pipelining_without_reading_takes_no_memory_of_the_server(target: Target) -> None:
    def resident() -> int:
        text = Path(f"/proc/{target.pid}/statm").read_text()
        return int(text.split()[1]) * 4_096

    target.send(target.head() * 50, answers=50)
    before = resident()
    clients = [target.connect() for _ in range(5)]
    flood = target.head() * 300_000
    for client in clients:
        client.settimeout(1.0)
        try:
            client.sendall(flood)
        except TimeoutError:
            pass  # The server reads no more: so it should be.
        else:
            pytest.fail("the server reads requests whose answers nobody takes")
    grown = resident() - before
    assert target.http.get("/v1/status").status == 200
    for client in clients:
        client.close()
    assert grown < len(flood)


def test_leaving_at_any_byte(target: Target) -> None:
    """Gently or by a reset: nothing is enqueued, and nothing is left."""
    body = b'{"id": "left", "task": "nobody"}'
    head = target.head(f"Content-Length: {len(body)}", method="POST", path="/v1/jobs")
    raw = head + body
    for length in range(0, len(raw), 5):
        with target.connect() as client:
            client.sendall(raw[:length])
        with target.connect() as client:
            client.sendall(raw[:length])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert target.http.get("/v1/jobs/left").status == 404


# -- crowds ----------------------------------------------------------------------------------------


def test_too_many_connections_for_all(target: Target) -> None:
    """One more than there may be reads 503 with `Retry-After`; who leaves makes room."""
    crowd: list[socket.socket] = []
    refused = None
    for _ in range(CONNECTIONS + 20):
        client = target.connect()
        crowd.append(client)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        heard = hear(client)
        if heard.statuses != [200]:
            refused = heard
            break
    assert refused is not None, "nobody was refused"
    assert refused.statuses == [503]
    assert b"Retry-After" in refused.raw
    assert b"urn:beaver:unavailable" in refused.raw
    assert len(crowd) <= CONNECTIONS + 1
    crowd.pop(0).close()
    eventually(lambda: target.send(target.head()).statuses == [200], "there is room again", 20)
    for client in crowd:
        client.close()


def test_too_many_streams_for_one_token(target: Target) -> None:
    """With so few connections the bound of a token is not reached; the others are served."""
    streams = [target.connect() for _ in range(CONNECTIONS // 2)]
    for stream in streams:
        stream.sendall(target.head(path="/v1/events"))
    assert all(hear(stream).statuses == [200] for stream in streams)
    assert target.http.get("/v1/status").status == 200
    for stream in streams:
        stream.close()


# -- patience --------------------------------------------------------------------------------------


def test_slowloris_in_a_body(target: Target) -> None:
    """A body holds its connection and nothing else; `test_doors` has its time."""
    crowd = [target.connect() for _ in range(CONNECTIONS // 2)]
    head = target.head("Content-Length: 8000000", method="POST", path="/v1/jobs")
    for client in crowd:
        client.sendall(head + b"[")
    body = b'{"id": "beside the slow", "task": "nobody"}'
    for _ in range(3):
        for client in crowd:
            client.sendall(b" ")
        assert target.http.get("/v1/status").status == 200
    assert target.http.post("/v1/jobs", body).status in (200, 201)
    for client in crowd:
        client.close()


def test_slowloris_in_a_head(shared: Target, slow: Slow) -> None:
    """The last test: by now the slow clients have had their time, byte by byte or not."""
    for client in slow.clients:
        heard = hear(client)
        assert heard.statuses == [408]
        assert heard.closed
    assert time.monotonic() - slow.began_s >= doors.HEAD_S
    slow.close()
    shared.check()
