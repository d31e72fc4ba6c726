"""`--url`: every command that asks a server asks one that is elsewhere."""

from __future__ import annotations

import inspect
import json
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from beaver.cli.main import COMMANDS
from tests.http_client.conftest import token_of, url_of
from tests.support.program import BEAVER, Server, environment, eventually

FAR = {
    "status", "list", "show", "explain", "cancel", "retry", "discard", "pause", "resume", "reload",
    "enqueue", "outbox", "bulk",
}  # fmt: skip


class Elsewhere:
    """A directory without a store, from which a server is asked."""

    def __init__(self, server: Server, place: Path) -> None:
        self.url, self._token, self.place = url_of(server.data), token_of(server.data), place

    def __call__(
        self, *arguments: str, code: int = 0, stdin: str | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*BEAVER, *arguments],
            cwd=self.place,
            env=environment(**{"BEAVER_TOKEN": self._token, **env}),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done
        assert list(self.place.iterdir()) == [], "nothing is made here"
        return done


@pytest.fixture
def far(server: Server, tmp_path: Path) -> Elsewhere:
    place = tmp_path / "elsewhere"
    place.mkdir()
    return Elsewhere(server, place)


def test_jobs_are_enqueued_and_operated_by_url(far: Elsewhere) -> None:
    url = ("--url", far.url)
    done = far("enqueue", "add", '{"a": 1, "b": 2}', "--id", "far-1", "--wait", "--json", *url)
    came_in, ended = map(json.loads, done.stdout.splitlines())
    assert (came_in["id"], came_in["created"]) == ("far-1", True)
    assert (ended["state"], ended["result"]) == ("completed", 3)
    lines = "\n".join(json.dumps({"id": f"far-f{n}", "task": "nobody"}) for n in range(3))
    assert "3 jobs" in far("enqueue", "--file", "-", "--chunked", *url, stdin=lines).stdout
    assert json.loads(far("show", "far-1", "--json", *url).stdout)["state"] == "completed"
    assert "ENQUEUE" in far("explain", "far-1", *url).stdout
    assert far("cancel", "far-f0", "far-f1", *url).stdout.count("cancelled") == 2
    assert "pending" in far("retry", "far-f0", *url).stdout
    assert "discarded" in far("discard", "far-f1", *url).stdout
    assert "paused" in far("pause", "far-queue", *url).stdout
    assert "resumed" in far("resume", "far-queue", *url).stdout
    listed = far("list", "--json", *url).stdout.splitlines()
    assert {"far-f0", "far-f2"} <= {json.loads(line)["id"] for line in listed}
    assert json.loads(far("status", "--json", *url).stdout)["running"]
    assert f"a server runs on {far.url}" in far("status", *url).stdout
    eventually(lambda: "new workers" in far("reload", *url).stdout, "it reloads")


def test_the_environment_names_the_server_and_the_command_line_goes_before_it(
    far: Elsewhere, server: Server
) -> None:
    assert far.url in far("status", BEAVER_URL=far.url).stdout
    near = far("status", "--data", str(server.data), BEAVER_URL="http://127.0.0.1:1")
    assert str(server.data) in near.stdout
    assert far.url in far("--url", far.url, "status", BEAVER_URL="http://127.0.0.1:1").stdout


def test_what_is_wrong_has_the_same_exit_codes(far: Elsewhere, tmp_path: Path) -> None:
    url = ("--url", far.url)
    assert "no job" in far("show", "nobody", *url, code=6).stderr
    assert "Invalid" in far("list", "--state", "lost", *url, code=2).stderr
    assert "not known" in far("status", *url, code=3, BEAVER_TOKEN="beaver_x").stderr
    far("enqueue", "fail", "--wait", *url, code=1)
    far("enqueue", "nobody", "--wait-timeout", "50ms", *url, code=5)
    both = far("status", *url, "--data", str(tmp_path), code=2).stderr
    assert "only one of them" in both
    assert "no URL" in far("status", "--url", "http://", code=2).stderr
    assert "BEAVER_TOKEN" in far("status", "--url", "http://secret@host", code=2).stderr
    assert "--ca-file" in far("status", "--ca-file", "x.pem", code=2).stderr
    assert "TLS" in far("status", *url, "--ca-file", "x.pem", code=2).stderr


def test_each_command_that_makes_sense_from_afar_has_the_flag_and_no_other() -> None:
    """A new command is in one of both lists."""
    found = {}
    for name, module in COMMANDS.items():
        command = getattr(import_module(f"beaver.cli.{module}"), f"{name}_command")
        found[name] = "ca_file" in inspect.signature(command).parameters
    assert {name for name, far in found.items() if far} == FAR
