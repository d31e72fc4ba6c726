"""A page that stays open while its server is killed and comes back."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import BrowserContext, expect

from tests.http_api.client import Http
from tests.page.conftest import sign_in
from tests.support.program import serving


def test_a_restart_is_survived_without_a_reload(context: BrowserContext, tmp_path: Path) -> None:
    """It says that it cannot reach the server, and goes on where it can, still signed in."""
    data = tmp_path / "data"
    page = context.new_page()
    with serving(data, "--workers", "1", "--http", "127.0.0.1:0") as server:
        http = Http(data)
        address = f"{http.host}:{http.port}"
        http.ask("PATCH", "/v1/queues/default", {"paused": True})
        page.goto(f"http://{address}/#/jobs?task=echo")
        sign_in(page, http.token)
        expect(page.get_by_text("0 jobs match")).to_be_visible()
        page.evaluate("window.stayed = true")
        server.kill()
        expect(page.get_by_text("The server cannot be reached")).to_be_visible()
    with serving(data, "--workers", "1", "--http", address):
        assert http.post("/v1/jobs", {"id": "later", "task": "echo", "payload": 1}).status == 201
        expect(page.get_by_text("The server cannot be reached")).to_have_count(0)
        expect(page.get_by_role("link", name="later")).to_be_visible()
        assert page.evaluate("window.stayed") is True
        page.get_by_role("link", name="later").click()
        expect(page.get_by_role("region", name="Why it does not run now")).to_be_visible()
        http.ask("PATCH", "/v1/queues/default", {"paused": False})
        expect(page.get_by_text("attempt 1: completed")).to_be_visible()
