"""Limits: one bound on a payload wherever a job comes from, and refusals that name their limit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beaver import Beaver, InvalidInput, JobContext, QueueFull
from beaver.config.settings import SETTINGS
from beaver.limits import LIMITS, variable
from beaver_model.bounds import CHILDREN_MAX, PAYLOAD_BYTES_CEILING
from tests.api.served import ServerProcess

BOUND = 2 << 20
NAMED = r"payload_size_max: in beaver\.yaml, or as BEAVER_PAYLOAD_SIZE_MAX, up to 4194304"


def text_of(size: int) -> str:
    """A payload whose JSON has so many bytes."""
    return "x" * (size - 2)


def beaver(directory: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "beaver", *arguments],
        cwd=directory,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def raised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes payloads of two MiB; nothing else knows of that."""
    server = ServerProcess(tmp_path_factory.mktemp("raised"))
    server.start(
        [
            *("-m", "beaver", "run", "-A", "served_app:app", "--workers", "1", "--http", "off"),
            *("--data", server.data, "--payload-size-max", "2MiB"),
        ]
    )
    yield server
    server.kill()


def test_a_raised_bound_on_the_server_holds_for_python(raised: ServerProcess) -> None:
    """At the bound it comes in; one byte above it is refused, and the setting is named."""
    app = Beaver(raised.data)
    assert app.enqueue("echo", text_of(BOUND)).created
    with pytest.raises(InvalidInput, match=rf"at most 2097152 bytes.*{NAMED}"):
        app.enqueue("echo", text_of(BOUND + 1))


def test_it_holds_for_the_command_line_and_for_files(raised: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "fits.jsonl").write_text(json.dumps({"id": "f", "payload": text_of(BOUND)}))
    (tmp_path / "above.jsonl").write_text(
        json.dumps({"id": "g", "payload": 1})
        + "\n"
        + json.dumps({"id": "h", "payload": text_of(BOUND + 1)})
    )
    fits = beaver(tmp_path, "enqueue", "--file", "fits.jsonl", "--data", raised.data)
    assert (fits.returncode, fits.stderr) == (0, "")
    above = beaver(tmp_path, "enqueue", "--file", "above.jsonl", "--data", raised.data)
    assert above.returncode == 2
    assert "line 2: payload: at most 2097152 bytes" in above.stderr
    assert "BEAVER_PAYLOAD_SIZE_MAX" in above.stderr
    assert beaver(tmp_path, "show", "g", "--data", raised.data).returncode == 6


def test_a_line_too_long_for_any_payload_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text('{"id": "x", "payload": "' + "y" * (3 << 20) + '"}\n')
    told = beaver(tmp_path, "enqueue", "--file", "long.jsonl")
    assert told.returncode == 2
    assert "line 1: longer than 2097152 bytes" in told.stderr
    assert "BEAVER_PAYLOAD_SIZE_MAX" in told.stderr


def test_without_a_server_the_settings_of_the_producer_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = Beaver(tmp_path / "data")
    with pytest.raises(InvalidInput, match=rf"at most 1048576 bytes.*{NAMED}"):
        app.enqueue("echo", text_of((1 << 20) + 1))
    monkeypatch.setenv("BEAVER_PAYLOAD_SIZE_MAX", "2MiB")
    assert Beaver(tmp_path / "data").enqueue("echo", text_of(BOUND)).created
    monkeypatch.delenv("BEAVER_PAYLOAD_SIZE_MAX")
    (tmp_path / "beaver.yaml").write_text("payload_size_max: 2MiB\nmax_attempts: 3\n")
    handle = Beaver(tmp_path / "data").enqueue("echo", text_of(BOUND))
    assert handle.status().max_attempts == 3
    with Beaver(tmp_path / "data").testing():
        assert Beaver(tmp_path / "data").request("echo", text_of(BOUND))


def test_above_the_ceiling_no_setting_helps_and_the_refusal_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no setting changes that: store it elsewhere"):
        Beaver(tmp_path / "data").enqueue("echo", text_of(PAYLOAD_BYTES_CEILING + 1))
    told = beaver(tmp_path, "config", "--data", "data")
    assert told.returncode == 0
    refused = subprocess.run(
        [sys.executable, "-m", "beaver", "config"],
        cwd=tmp_path,
        env={"BEAVER_PAYLOAD_SIZE_MAX": "5MiB"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "BEAVER_PAYLOAD_SIZE_MAX: 2 to 4MiB is allowed" in refused.stderr


def test_a_full_queue_names_the_setting_of_the_queue(tmp_path: Path) -> None:
    app = Beaver(tmp_path / "data")
    app.enqueue("echo", 1, queue="small")
    app.client.set_queue("small", bytes_max=5_000)
    with pytest.raises(QueueFull, match=r"at most 5000.*\n.*queues: NAME: bytes_max.*set_queue"):
        app.enqueue("echo", text_of(6_000), queue="small")


def test_too_many_children_are_told_what_else_to_do(tmp_path: Path) -> None:
    app = Beaver(tmp_path / "data")

    @app.job
    def parent(ctx: JobContext) -> None:
        for _ in range(CHILDREN_MAX + 1):
            ctx.enqueue_json("echo")

    with app.testing() as testing:
        handle = parent.options(max_attempts=1).enqueue()
        testing.drain()
        said = handle.status().error
    assert said is not None
    assert "at most 1000 jobs; no setting changes that: let a child" in said


def test_every_limit_names_a_setting_that_exists_with_its_value() -> None:
    for name, limit in LIMITS.items():
        if not limit.setting or ":" in limit.setting:
            continue
        setting = SETTINGS[limit.setting]
        assert setting.default == limit.value, name
        assert not limit.ceiling or setting.most == limit.ceiling, name
        assert setting.variable == variable(limit.setting)
