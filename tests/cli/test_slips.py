"""Slips: whatever is misspelt is told, with the name that was probably meant."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from beaver import Beaver
from beaver.api.handle import _told
from beaver.cli.main import COMMANDS
from tests.cli.conftest import Command, serving

APP = """
from beaver import Beaver
app = Beaver("data")

@app.job
def send_mail(to: str) -> str:
    return to
"""


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["list", "--stat", "dead"], "--state"),
        (["list", "--state", "ded"], "did you mean dead?"),
        (["list", "--queue", "defalt"], "did you mean default?"),
        (["resume", "defalt"], "did you mean default?"),
        (["enqueue", "echo", "--qeue", "x"], "--queue"),
        (["enqeue", "echo"], "enqueue"),
        (["staus"], "status"),
        (["run", "--executor", "procss"], "did you mean process?"),
        (["run", "--log-level", "debugg"], "did you mean debug?"),
        (["enqueue", "echo", "--backoff", '{"knd": "fixed"}'], "did you mean kind?"),
        (["enqueue", "echo", "--backoff", '{"kind": "exponental"}'], "did you mean exponential?"),
    ],
)
def test_a_slip_on_the_command_line_names_what_was_meant(
    beaver: Command, arguments: list[str], meant: str
) -> None:
    assert beaver("enqueue", "echo").code == 0
    told = beaver(*arguments)
    assert told.code in (2, 6)
    assert meant in told.err
    assert len(told.err.splitlines()) <= 3


@pytest.mark.parametrize(
    ("payload", "written"),
    [
        ("hello", "A text is JSON with quotes of its own: '\"hello\"'."),
        ("{order: 7}", "'{\"order\": 7}'"),
        ("it's", "quotes of its own"),
    ],
)
def test_a_payload_that_is_no_json_is_told_how_it_is_written_in_a_shell(
    beaver: Command, payload: str, written: str
) -> None:
    told = beaver("enqueue", "send", payload)
    assert told.code == 2
    assert written in told.err
    assert len(told.err.splitlines()) == 2
    for other in ('{"a": 1, "a": 2}', "NaN", ""):
        assert len(beaver("enqueue", "send", other).err.splitlines()) == 1


def test_every_command_is_offered_for_a_slip_in_its_name(beaver: Command) -> None:
    for name in COMMANDS:
        assert name in beaver(name[:-1] + "xx" if len(name) > 4 else f"{name}x").err


def test_a_task_that_no_worker_knows_is_told_and_its_job_taken_in(
    beaver: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mail.py").write_text(APP)
    with serving("-A", "mail:app"):
        told = beaver("enqueue", "send_mial", '{"to": "x"}')
        assert told.code == 0
        assert told.out.startswith("enqueued ")
        assert told.err == (
            "beaver: warning: no worker of the server knows task 'send_mial'; did you mean "
            "send_mail? Its jobs wait until one does.\n"
        )
        known = beaver("enqueue", "send_mail", '{"to": "x"}', "--wait")
        assert (known.code, known.err) == (0, "")

        lines = [{"task": task, "id": f"{task}{n}"} for n in range(3) for task in ("zzz", "echo")]
        (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        file = beaver("enqueue", "--file", "jobs.jsonl", "--json")
        assert len(file.json) == 6
        assert file.err.count("warning") == 1
        assert "'zzz'. Its jobs wait" in file.err
        again = beaver("enqueue", "--file", "jobs.jsonl", "--json")
        assert not any(job["created"] for job in again.json)
        assert again.err == file.err

        _told.clear()
        app = Beaver(str(tmp_path / "data"))
        with caplog.at_level(logging.WARNING, "beaver"):
            for _ in range(3):
                assert app.enqueue("send_mial", {"to": "x"}).status().waiting == "unknown_task"
            assert app.enqueue("send_mail", {"to": "x"}).result(timeout=30) == "x"
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "did you mean send_mail?" in caplog.text


def test_without_a_server_nobody_knows_which_tasks_there_will_be(beaver: Command) -> None:
    assert beaver("enqueue", "send_mial").err == ""
