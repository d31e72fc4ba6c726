"""Links that sign a browser in, and `beaver ui`, which makes one."""

from __future__ import annotations

import json
import re
import sys
import threading
from html import unescape
from pathlib import Path

import pytest

from beaver.access import links, tokens
from beaver.cli import ui
from beaver.errors import InvalidInput
from tests.http_api.browser import ENTROPY, Browser, link_of, server_token
from tests.support.certificates import Authority
from tests.support.program import Server, environment, eventually, run_beaver, serving


def test_a_link_signs_in_once(server: Server, browser: Browser) -> None:
    secret = link_of(server.data)
    answer = browser.sign_in(link=secret)
    assert (answer.status, answer.json["role"]) == (201, "admin")
    assert browser.get("/v1/status").status == 200
    again = Browser(server.data).sign_in(link=secret)
    assert (again.status, again.type) == (401, "unauthenticated")
    assert "beaver ui" in again.json["detail"]
    assert secret not in "".join(p.name for p in (server.data / "links").iterdir())


def test_of_many_who_use_a_link_at_once_one_gets_in(server: Server) -> None:
    secret = link_of(server.data)
    statuses: list[int] = []

    def use() -> None:
        statuses.append(Browser(server.data).sign_in(link=secret).status)

    crowd = [threading.Thread(target=use) for _ in range(16)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert sorted(statuses) == [201] + [401] * 15


def test_a_link_is_good_for_a_minute_and_no_longer(tmp_path: Path) -> None:
    data = str(tmp_path)
    for later_ms, good in ((0, True), (59_999, True), (60_000, False), (-1, False)):
        secret = links.create(data, "id", 1_000_000, ENTROPY)
        found = links.take(data, secret, 1_000_000 + later_ms)
        assert found == ("id" if good else None), later_ms
        assert links.take(data, secret, 1_000_000) is None, "it is used up in any case"
    forgotten = links.create(data, "id", 1_000_000, ENTROPY)
    links.create(data, "id", 1_060_000, ENTROPY)
    assert len(list((tmp_path / "links").iterdir())) == 1, "what is over goes"
    assert links.take(data, forgotten, 1_000_000) is None
    (file,) = (tmp_path / "links").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_link_ends_with_the_token_of_its_owner(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0"):
        secret = link_of(data)
        browser = Browser(data)
        assert browser.sign_in(link=link_of(data)).status == 201
        tokens.revoke(str(data), "local")
        eventually(lambda: browser.get("/v1/session").status == 401, "the session is over", 20)
        assert browser.sign_in(link=secret).status == 401
        told = run_beaver("ui", "--data", str(data), "--no-open")
        assert told.returncode == 3
        assert "beaver token create" in told.stderr


def test_ui_prints_a_link_that_a_browser_can_follow_and_opens_it_unseen(
    tmp_path: Path,
) -> None:
    """All users of the machine see the arguments of a browser: the secret is not among them."""
    data, seen = tmp_path / "data", tmp_path / "seen"
    fake = tmp_path / "browser"
    fake.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    fake.chmod(0o700)
    with serving(data, "--http", "127.0.0.1:0"):
        done = run_command("ui", "--data", str(data), BROWSER=f"{fake} %s")
        (link,) = done.splitlines()
        address = json.loads((data / "server.json").read_text())["http"]
        assert re.fullmatch(re.escape(address) + r"/#link=[\w-]{43}", link)
        opened = eventually(lambda: seen.exists() and seen.read_text().strip(), "it is opened")
        assert opened == (data / "ui.html").absolute().as_uri()
        assert link in unescape((data / "ui.html").read_text())
        assert (data / "ui.html").stat().st_mode & 0o777 == 0o600
        seen.unlink()
        public = run_command(
            "ui", "--data", str(data), "--no-open", "--url", "https://q.example/b",
            BROWSER=f"{fake} %s",
        )  # fmt: skip
        assert public.startswith("https://q.example/b/#link=")
        assert not seen.exists()


def run_command(*arguments: str, **env: str) -> str:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "beaver", *arguments],
        capture_output=True, text=True, check=True, timeout=60, env=environment(**env),
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize(
    "url",
    ["q.example", "ftp://q", "https://q/?a=b", "https://q/#x", "http://", "http://a b/", "//["],
)
def test_ui_refuses_what_is_no_address_of_a_page(url: str) -> None:
    with pytest.raises(InvalidInput, match="--url: https://name/path/ is expected"):
        ui._checked(url)


def test_ui_says_where_there_is_no_page(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert run_beaver("ui", "--data", str(data)).returncode == 6
    with serving(data):
        told = run_beaver("ui", "--data", str(data))
        assert (told.returncode, "without HTTP" in told.stderr) == (2, True)
    assert run_beaver("ui", "--data", str(data)).returncode == 3


def test_with_tls_the_cookie_is_sent_over_tls_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    data = tmp_path / "data"
    with serving(data, "--http", "127.0.0.1:0", *authority.issue("server").flags):
        browser = Browser(data, authority.cert)
        assert browser.sign_in(link=link_of(data)).status == 201
        assert "; Secure" in browser.told
        assert browser.get("/v1/status").status == 200


def test_behind_a_proxy_with_tls_the_cookie_is_secure_as_well(server: Server) -> None:
    browser = Browser(server.data)
    browser.origin = {"Origin": "https://localhost", "Host": "localhost"}
    assert browser.sign_in(token=server_token(server)).status == 201
    assert "; Secure" in browser.told
