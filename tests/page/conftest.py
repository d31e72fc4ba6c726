"""A real browser before a real server; each test has a window of its own, and a clean console."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.http_api.client import Http
from tests.support.needs import need
from tests.support.program import Server, serving

APP = """
import time

from beaver import Beaver, Cancel, JobContext

app = Beaver()


@app.job
def add(a, b):
    return a + b


@app.job(max_attempts=1)
def fail(text="no"):
    raise ValueError(text)


@app.job(max_attempts=2, backoff="50ms")
def twice():
    raise ValueError("again and again")


@app.job(max_attempts=1)
def wait(ctx: JobContext):
    while not ctx.cancelled:
        time.sleep(0.02)
    raise Cancel
"""

FLAGS = (
    "--no-sandbox",  # CI runs as root.
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("page")
    (directory / "shop.py").write_text(APP)
    arguments = ("-A", "shop:app", "--workers", "2", "--http", "127.0.0.1:0")
    with serving(directory / "data", *arguments, cwd=directory) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Http:
    return Http(server.data)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    need(None if found else "a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser without cookies, whose console has to stay clean."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(15_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    complaints: list[str] = []

    def console(message: ConsoleMessage) -> None:
        # What the server refuses is told on the page; the browser notes it too.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    context.on("console", console)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def visit(context: BrowserContext, http: Http) -> Open:
    """Opens a view, signed in as whom one likes; the store's owner where nobody is named."""

    def open_view(address: str = "overview", token: str = "") -> Page:
        page = context.new_page()
        page.goto(f"http://{http.host}:{http.port}/#/{address}")
        sign_in(page, token or http.token)
        return page

    return open_view


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation").wait_for()
