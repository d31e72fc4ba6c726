"""Many jobs at once from the command line, the socket and Python: one set, settled first."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from beaver import Beaver
from beaver.cli.main import main
from beaver.client.embedded import TOGETHER
from beaver.errors import InvalidInput, NoServer, NotFound
from beaver.replay.replaying import check
from beaver.server.bulk.carrying_out import CHUNK_JOBS
from beaver.structs.views import BulkView
from beaver.system.disk import SystemDisk
from tests.http_client.conftest import token_of, url_of
from tests.support.program import BEAVER, Server, environment, events, eventually, serving

Act = Callable[..., BulkView]
"""Carries out an action by one of the ways; returns how it ended."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("many") / "data"
    with serving(data, "--http", "127.0.0.1:0") as running:
        yield running


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BEAVER_")]:
        monkeypatch.delenv(name)


class Said(NamedTuple):
    """What a command has said."""

    stdout: str
    stderr: str


Run = Callable[..., Said]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command where nobody sits at a terminal."""

    def run(*arguments: str, code: int = 0) -> Said:
        capfd.readouterr()
        ended = main([*arguments])
        sys.stdout.flush()
        said = Said(*capfd.readouterr())
        assert ended == code, said
        return said

    return run


def followed(app: Beaver, view: BulkView) -> BulkView:
    if view.state != "running":
        return view

    def ended() -> BulkView | None:
        now = app.bulk_status(view.bulk)
        assert now.done + now.refused <= now.matched == view.matched
        return now if now.state == "done" else None

    done = eventually(ended, f"bulk {view.bulk} is done")
    assert done is not None
    return done


def by_application(store: str, token: str | None = None) -> Act:
    app = Beaver(store, token=token)
    return lambda action, **how: followed(app, app.bulk(action, **how))


def awaited(store: str, token: str | None = None) -> Act:
    app = Beaver(store, token=token)

    async def act(action: Any, **how: Any) -> BulkView:
        view = await app.abulk(action, **how)
        while view.state == "running":
            view = await app.abulk_status(view.bulk)
        await app.aclose()
        return view

    return lambda action, **how: asyncio.run(act(action, **how))


def by_command(run: Run, *where: str) -> Act:
    def act(action: str, *, dry_run: bool = False, **how: Any) -> BulkView:
        flags = [text for name, value in how.items() for text in (f"--{name}", str(value))]
        said = run(action, *where, *flags, "--dry-run" if dry_run else "--yes", "--json")
        return BulkView(**json.loads(said.stdout))

    return act


WAYS = ("socket", "socket, awaited", "url", "url, awaited", "command", "command by url", "files")


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    tmp_path: Path,
    run: Run,
) -> tuple[str, Act, int]:
    """A store, as the path of its directory, a way to act on it, and more jobs than a commit."""
    data, url, token = str(server.data), url_of(server.data), token_of(server.data)
    if request.param == "files":
        store = str(tmp_path / "files")
        # Only what is done without a keeper is done on the files.
        monkeypatch.setenv("BEAVER_KEEPER_IDLE", "0s")
        return store, by_application(store), TOGETHER + 7
    monkeypatch.setenv("BEAVER_TOKEN", token)
    acts: dict[str, Callable[[], Act]] = {
        "socket": lambda: by_application(data),
        "socket, awaited": lambda: awaited(data),
        "url": lambda: by_application(url, token),
        "url, awaited": lambda: awaited(url, token),
        "command": lambda: by_command(run, "--data", data),
        "command by url": lambda: by_command(run, "--url", url),
    }
    return data, acts[request.param](), CHUNK_JOBS + 7


def test_every_way_changes_exactly_the_jobs_that_fit(way: tuple[str, Act, int]) -> None:
    """More than one commit holds; each filter, each action, and what is counted is what is done."""
    store, act, count = way
    app = Beaver(store)
    app.enqueue("nobody")
    queue = f"q{time.monotonic_ns()}"
    app.client.set_queue(queue, True)
    app.client.set_queue(f"{queue}-x", True)
    wanted = [app.request("echo", {"to": "ada"}, queue=queue, tags=["old"]) for _ in range(count)]
    others = [
        app.request("echo", {"to": "ada"}, queue=f"{queue}-x", tags=["old"]),
        app.request("echo", {"to": "bob"}, queue=queue, tags=["old"]),
        app.request("echo", {"to": "ada"}, queue=queue, tags=["new"]),
        app.request("other", {"to": "ada"}, queue=queue, tags=["old"]),
    ]
    handles = app.enqueue_many([*others, *wanted])
    which = {"queue": queue, "tag": "old", "text": '"ada"', "task": "echo", "state": "pending"}
    counted = act("cancel", dry_run=True, **which)
    assert (counted.matched, counted.state, counted.bulk, counted.done) == (count, "counted", "", 0)
    for action, state in (("cancel", "pending"), ("retry", "cancelled"), ("discard", "pending")):
        ended = act(action, **{**which, "state": state})
        assert (ended.action, ended.state) == (action, "done")
        assert (ended.matched, ended.done, ended.refused) == (count, count, 0), action
    assert [handle.status().state for handle in handles[:4]] == ["pending"] * 4
    assert {handle.status().state for handle in handles[4::100]} == {"discarded"}
    told = [event for event in events(Path(store)) if event["event"] == "DISCARD"]
    assert {event["by"].partition(":")[0] for event in told} <= {"uid", "token"}
    # By when they came in: all, and none.
    first_ms = handles[0].history()[0].time_ms
    assert act("cancel", queue=queue, since=first_ms, dry_run=True).matched == 3
    assert act("cancel", queue=queue, until=first_ms, dry_run=True).matched == 0
    assert check(SystemDisk(), store).ok


@pytest.mark.parametrize("kind", ["files", "socket", "url"])
@pytest.mark.parametrize(
    ("action", "how", "said"),
    [
        ("cancel", {}, "at least one filter"),
        ("cancel", {"queue": ""}, "queue"),
        ("cancel", {"queue": "", "tag": "t"}, "queue"),
        ("cancel", {"text": "", "tag": "t"}, "text"),
        ("cancel", {"state": "running"}, "no state 'running'|where.state"),
        ("purge", {"queue": "q"}, "no action 'purge'|action"),
        ("cancel", {"text": "x" * 5_000}, "4096"),
        ("cancel", {"since": "yesterday"}, "since"),
    ],
)
def test_what_would_match_more_than_was_meant_is_refused(
    kind: str, action: Any, how: Any, said: str, server: Server, tmp_path: Path
) -> None:
    """Everywhere, and nothing is changed."""
    app = {
        "files": lambda: Beaver(tmp_path / "files"),
        "socket": lambda: Beaver(server.data),
        "url": lambda: Beaver(url_of(server.data), token=token_of(server.data)),
    }[kind]()
    handle = app.enqueue("nobody", tags=["t"])
    with pytest.raises(InvalidInput, match=said):
        app.bulk(action, **how)
    with pytest.raises(TypeError, match="quueue"):
        app.bulk("cancel", quueue="q")  # type: ignore[call-arg]
    assert handle.status().state == "pending"


def test_how_far_an_action_is_cannot_be_asked_of_files(tmp_path: Path, server: Server) -> None:
    """Without a server all is done when the call returns, and nothing of it is kept."""
    with pytest.raises(NotFound, match="no bulk action 'nope'"):
        Beaver(server.data).bulk_status("nope")
    app = Beaver(tmp_path / "files")
    app.enqueue("nobody")
    from beaver.client.opening import open_client

    with open_client(app.store) as client, pytest.raises(NoServer):
        client.bulk_status("nope")


def test_it_works_in_the_memory_of_a_test(tmp_path: Path) -> None:
    app = Beaver(tmp_path)
    with app.testing() as testing:
        app.enqueue_many([app.request("nobody", tags=["t"]) for _ in range(3)])
        testing.advance("1h")
        app.enqueue("nobody")
        cut = testing.now.isoformat()
        assert app.bulk("cancel", until=cut, dry_run=True).matched == 3
        assert app.bulk("cancel", since=cut).done == 1
        assert app.bulk("discard", tag="t").done == 3
        assert [job.state for job in testing.jobs()] == ["cancelled"]


def test_a_command_line_says_which_jobs_and_that_it_is_meant(server: Server, run: Run) -> None:
    """Neither ids nor filters, both, or no `--yes` where nobody can be asked: 2, nothing done."""
    store = ("--data", str(server.data))
    app = Beaver(server.data)
    app.client.set_queue("said", True)
    handles = app.enqueue_many([app.request("echo", queue="said") for _ in range(2)])
    assert "ids of jobs are expected" in run("cancel", *store, code=2).stderr
    assert "--dry-run: which jobs?" in run("cancel", "--dry-run", *store, code=2).stderr
    assert "--yes: which jobs?" in run("discard", "--yes", *store, code=2).stderr
    both = run("cancel", handles[0].id, "--queue", "said", *store, code=2)
    assert "--queue: not with the ids" in both.stderr
    assert (
        "only one job"
        in run("retry", "--queue", "said", "--payload", "1", "--yes", *store, code=2).stderr
    )
    # A shell's variable that is not set: it must not come to mean every queue.
    unset = run("cancel", "--queue", "", "--state", "pending", "--yes", *store, code=2)
    assert "queue: an empty filter fits no job" in unset.stderr
    unasked = run("cancel", "--queue", "said", *store, code=2)
    assert "2 jobs would be cancelled: nothing was changed" in unasked.stderr
    assert (
        "2 jobs would be cancelled" in run("cancel", "--queue", "said", "--dry-run", *store).stdout
    )
    assert {handle.status().state for handle in handles} == {"pending"}
    assert run("cancel", "--queue", "said", "--yes", *store).stdout == "2 jobs cancelled\n"
    # There is nothing left to be asked about.
    assert run("cancel", "--queue", "said", *store).stdout == "0 jobs cancelled\n"
    assert run("retry", "--queue", "said", "--yes", *store).stdout == "2 jobs put back\n"
    assert "no bulk action" in run("bulk", "nope", *store, code=6).stderr


def test_a_terminal_is_asked_and_shown_how_far_it_is(server: Server) -> None:
    """`n` changes nothing; `y` does it, and a bar counts."""
    app = Beaver(server.data)
    app.client.set_queue("asked", True)
    app.enqueue_many([app.request("echo", queue="asked") for _ in range(300)])

    def answered(answer: str) -> tuple[int, str]:
        terminal, slave = pty.openpty()
        process = subprocess.Popen(
            [*BEAVER, "cancel", "--queue", "asked", "--data", str(server.data)],
            env=environment(TERM="xterm"),
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
        )
        os.close(slave)
        os.write(terminal, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=30)
        shown = b""
        try:
            while piece := os.read(terminal, 1 << 16):
                shown += piece
        except OSError:
            pass
        os.close(terminal)
        assert b"cancel 300 jobs?" in shown
        return process.returncode, out

    assert answered("n")[0] != 0
    assert app.status().queues["asked"].cancelled == 0
    assert answered("y") == (0, "300 jobs cancelled\n")


def test_it_goes_on_by_itself_and_is_found_by_its_id(tmp_path: Path, run: Run) -> None:
    """A server that takes over from a keeper, or was killed, carries out what was begun."""
    data = tmp_path / "data"
    with serving(data, "--http", "off") as first:
        app = Beaver(data)
        app.client.set_queue("k", True)
        app.enqueue_many([app.request("echo", queue="k") for _ in range(3_000)])
        begun = app.bulk("cancel", queue="k")
        assert (begun.state, begun.matched) == ("running", 3_000)
        first.kill()
    with serving(data, "--http", "off"):
        told = run("bulk", begun.bulk, "--wait", "--json", "--data", str(data))
        ended = BulkView(**json.loads(told.stdout))
        assert (ended.state, ended.done, ended.refused) == ("done", 3_000, 0)
        assert Beaver(data).status().queues["k"].cancelled == 3_000
    cancelled = [event["job"] for event in events(data) if event["event"] == "CANCEL"]
    assert len(cancelled) == len({*cancelled}) == 3_000


def test_a_keeper_carries_it_out_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody asks on: what was begun is done when no keeper is there any more."""
    monkeypatch.setenv("BEAVER_KEEPER_IDLE", "50ms")
    data = tmp_path / "data"
    app = Beaver(data)
    app.enqueue_many([app.request("nobody") for _ in range(6_000)])
    begun = app.bulk("cancel", task="nobody")
    assert begun.bulk, "a keeper took it on"
    app.close()
    eventually(lambda: not (data / "server.json").exists(), "the keeper has ended")
    assert Beaver(data).status().cancelled == 6_000
