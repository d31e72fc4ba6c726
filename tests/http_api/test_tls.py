"""HTTP beyond this machine: with TLS, or because somebody has said that it needs none."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from beaver.cli.plain import read_plain
from beaver.config.exposure import check_exposure
from beaver.config.layers import load_config
from beaver.errors import InvalidInput
from beaver.server.http import vestibule
from beaver.server.http.listener import HttpServer
from beaver.server.http.tls import Certificate
from tests.http_api.client import Http
from tests.support.certificates import Authority, Pair
from tests.support.needs import need
from tests.support.program import Server, beaver, enqueue, eventually, run_beaver, serving, status
from tests.worlds.http import no_store
from tests.worlds.runtime import on_loop

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("secure") / "data"
    with serving(data, "--http", "127.0.0.1:0", *pair.flags, "--http-host", "q.example") as running:
        yield running


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.cert)


# -- what is refused -------------------------------------------------------------------------------


def flags_of(*arguments: str) -> dict[str, Any]:
    """Returns the settings that stand on a command line."""
    plain = read_plain(arguments)
    assert plain is not None
    return plain.asked


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--http", "0.0.0.0:0"], "--http: 0.0.0.0 is not loopback"),
        (["--http", "[::]:0"], "--http: :: is not loopback"),
        (["--http", "queue.example:0"], "--http: queue.example is not loopback"),
        (["--http", "127.0.0.1.example:0"], "--http: 127.0.0.1.example is not loopback"),
        (["--http", "0.0.0.0:0", "--tls-cert", "x"], "--tls-cert: .* give --tls-key as well"),
        (["--tls-key", "x"], "--tls-key: .* give --tls-cert as well"),
        (["--http-host", "*"], "--http-host: a name such as"),
        (["--http-host", "https://q.example"], "--http-host: a name such as"),
        (["--http-host", "q.example:80"], "--http-host: a name such as"),
        (["--http-host", "x" * 254], "--http-host: a name such as"),
    ],
)
def test_nothing_listens_beyond_loopback_unless_that_is_said(flags: list[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        check_exposure(load_config(flags_of(*flags), environ={}))


@pytest.mark.parametrize(
    "flags",
    [
        ["--http", "0.0.0.0:0", "--http-insecure"],
        ["--http", "[::]:0", "--tls-cert", "x", "--tls-key", "y"],
        ["--http", "localhost:0"],
        ["--http", "[::1]:0"],
        ["--http", "127.9.9.9:0"],
        ["--http", "off", "--tls-cert", "x"],
        ["--http-host", "q.example", "--http-host", "192.0.2.1,[::2],a_b"],
    ],
)
def test_what_is_meant_or_reaches_nobody_else_is_taken(flags: list[str]) -> None:
    check_exposure(load_config(flags_of(*flags), environ={}))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--http", "0.0.0.0:0"], "--tls-cert and --tls-key, or --http-insecure"),
        (["--tls-cert", "/no/such", "--tls-key", "/no/such"], "--tls-cert: cannot read /no/such"),
    ],
)
def test_a_refusal_says_what_to_do_and_nothing_was_touched(
    tmp_path: Path, flags: list[str], said: str
) -> None:
    told = run_beaver("run", "--data", str(tmp_path / "data"), "--burst", *flags)
    assert told.returncode == 2, told.stderr
    assert said in told.stderr
    assert "Traceback" not in told.stderr
    assert not (tmp_path / "data").exists()


def test_only_run_asks_whether_that_is_meant(tmp_path: Path) -> None:
    """An address in the environment of a container is no matter of `beaver status`."""
    data = tmp_path / "data"
    enqueue(data, {"id": "a"})
    (tmp_path / "beaver.yaml").write_text(f"http: 0.0.0.0:80\ndata: {data}\n")
    assert "pending" in beaver("status", "--config", str(tmp_path / "beaver.yaml"))


def test_a_pair_that_cannot_be_used_is_named(tmp_path: Path, authority: Authority) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", one.key, "-aes256", "-passout", "pass:x", "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    for cert, key, said in (
        (one.cert, other.key, "is not the key of the certificate"),
        (one.key, one.key, "hold no certificate and key"),
        (one.cert, locked, "is encrypted"),
        (one.cert, tmp_path, "cannot read"),
    ):
        with pytest.raises(InvalidInput, match=said):
            Certificate(str(cert), str(key))


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660, 0o604, 0o602])
def test_a_key_that_others_can_use_is_warned_of(
    authority: Authority, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    pair = authority.issue("modes")
    pair.key.chmod(mode)
    Certificate(str(pair.cert), str(pair.key))
    assert ("by others" in caplog.text) == (mode not in (0o600, 0o640))


# -- what is served --------------------------------------------------------------------------------


def test_a_job_comes_in_over_tls_and_our_own_commands_go_on(
    secure: Server, authority: Authority
) -> None:
    http = Http(secure.data, ca=authority.cert)
    assert http.post("/v1/jobs", {"id": "one", "payload": 1}).status == 201
    assert http.ended("one") == {"state": "completed", "result": 1}
    assert json.loads((secure.data / "server.json").read_text())["http"].startswith("https://")
    assert "https://127.0.0.1" in secure.stdout[0]
    assert status(secure.data)["completed"] == 1
    beaver("token", "list", "--data", str(secure.data))


def test_names_of_the_operator_are_answered_to_and_no_others(
    secure: Server, authority: Authority
) -> None:
    http = Http(secure.data, ca=authority.cert)
    for host, expected in (
        ("q.example", 200), ("Q.EXAMPLE:8443", 200), ("localhost", 200),
        ("q.example.evil.example", 403), ("a.q.example", 403), ("q.example.", 403),
    ):  # fmt: skip
        assert http.get("/v1/status", {"Host": host}).status == expected
    public = {"Host": "q.example", "Origin": "https://q.example"}
    assert http.post("/v1/jobs", {"id": "two"}, public).status == 201
    other = {"Host": "q.example", "Origin": "https://q.example:444"}
    assert http.post("/v1/jobs", {"id": "three"}, other).status == 403


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "served"),
    [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)],
)
def test_nothing_older_than_tls_1_2_is_spoken(
    secure: Server, authority: Authority, version: str, served: bool
) -> None:
    http = Http(secure.data, ca=authority.cert)
    context = trusting(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion[version]
    http.context = context
    if served:
        assert http.get("/v1/status").status == 200
    else:
        with pytest.raises(ssl.SSLError):
            http.get("/v1/status")


def test_plain_http_is_not_spoken_where_tls_is(secure: Server, authority: Authority) -> None:
    http = Http(secure.data, ca=authority.cert)
    for sent in (GET, b"", b"\x16\x03\x01", b"\0" * 10_000):
        with socket.create_connection((http.host, http.port), 60) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert b"HTTP" not in client.recv(1_000)
    assert http.get("/v1/status").status == 200


def test_a_renewed_certificate_is_shown_without_a_restart(
    tmp_path: Path, authority: Authority
) -> None:
    """Also where certificate and key are replaced one after the other."""
    data, first, second = tmp_path / "data", authority.issue("first"), authority.issue("second")
    shown = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    shutil.copy(first.cert, shown.cert)
    shutil.copy(first.key, shown.key)

    def name() -> str:
        with (
            socket.create_connection((http.host, http.port), 60) as plain,
            trusting(authority).wrap_socket(plain, server_hostname="localhost") as client,
        ):
            certificate: Any = client.getpeercert()
        (((_, found),),) = certificate["subject"]
        return str(found)

    with serving(data, "--http", "127.0.0.1:0", *shown.flags) as server:
        http = Http(data, ca=authority.cert)
        kept = http.connect()
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        assert name() == "first"
        for new, old in ((second.cert, shown.cert), (second.key, shown.key)):
            fresh = tmp_path / "fresh"
            shutil.copy(new, fresh)
            fresh.rename(old)
            assert name() in ("first", "second"), "there is always one that fits"
        eventually(lambda: name() == "second", "the new certificate is shown")
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n", "who was there stays"
        kept.close()
        shown.cert.write_text("no certificate")
        eventually(lambda: "cannot be used" in "".join(server.stderr), "it is told")
        assert name() == "second"


# -- bounds before TLS is up -----------------------------------------------------------------------


class Site:
    """A server with TLS on a free port, in this process."""

    def __init__(self, pair: Pair, connections_max: int) -> None:
        certificate = Certificate(str(pair.cert), str(pair.key))
        self.server = HttpServer(
            CollectorRegistry, lambda: None, no_store(), connections_max, certificate=certificate
        )
        self.writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Site:
        address = await self.server.start("127.0.0.1", 0, explicit=False)
        self.port = int(address.rpartition(":")[2])
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self.writers:
            writer.close()
        await self.server.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def status(self, authority: Authority) -> int:
        """Asks over TLS; returns 0 where the server hangs up."""
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=trusting(authority)
            )
        except (ConnectionError, ssl.SSLError):
            return 0
        writer.write(GET)
        try:
            return int((await reader.read())[9:12] or b"0")
        except ConnectionError:
            return 0
        finally:
            writer.close()


def test_handshakes_that_are_not_finished_count_and_end(
    authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    @on_loop
    async def main() -> None:
        async with asyncio.timeout(60), Site(pair, 3) as site:
            assert await site.status(authority) == 200
            monkeypatch.setattr(vestibule, "HANDSHAKE_S", 60.0)
            silent = [await site.connect() for _ in range(3)]
            while await site.status(authority) not in (0, 503):
                pass
            for _, writer in silent:
                writer.close()
            while await site.status(authority) != 200:
                pass
            monkeypatch.setattr(vestibule, "HANDSHAKE_S", 0.2)
            for reader, _ in [await site.connect() for _ in range(3)]:
                assert await reader.read() == b"", "it is hung up on"
            assert await site.status(authority) == 200

    main()


def test_handshakes_that_fail_take_nobodys_place(authority: Authority, pair: Pair) -> None:
    @on_loop
    async def main() -> None:
        async with asyncio.timeout(60), Site(pair, 3) as site:
            for _ in range(20):
                reader, writer = await site.connect()
                writer.write(b"no handshake at all" * 100)
                await reader.read()
                writer.close()
            assert await site.status(authority) == 200
            gone = [await site.connect() for _ in range(30)]
            for _, writer in gone:
                writer.close()
            while await site.status(authority) != 200:
                pass

    main()


# -- who is outside --------------------------------------------------------------------------------


def test_the_open_pages_need_a_token_from_another_machine(tmp_path: Path) -> None:
    """A network of its own has an address beyond loopback that nobody else reaches."""
    alone = ["unshare", "-n" if os.geteuid() == 0 else "-rn"]
    tried = subprocess.run([*alone, "true"], capture_output=True, check=False)
    need(None if tried.returncode == 0 else "no network namespace can be made here")
    done = subprocess.run(
        [*alone, sys.executable, "-m", "tests.http_api.outside", str(tmp_path / "data")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    for path in ("/metrics", "/healthz", "/readyz"):
        assert found["127.0.0.1"][path] == {"": 200, "produce": 200, "read": 200}
        assert found["10.9.8.7"][path] == {"": 401, "produce": 403, "read": 200}
    assert found["10.9.8.7"]["/v1/status"] == {"": 401, "produce": 403, "read": 200}
    assert found["hosts"] == {"10.9.8.7": 200, "10.9.8.6": 403, "0.0.0.0": 200}
