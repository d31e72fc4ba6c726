"""Completions: what a shell offers for a half-written command, as bash asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beaver.cli.completing import FILES_BYTES_MAX
from tests.cli.conftest import Command, serving


def offered(line: str, **environment: str) -> list[str]:
    """Returns what is offered behind a line, and checks that nothing else is said."""
    words = line.split(" ")
    told = subprocess.run(
        [sys.executable, "-m", "beaver"],
        env={
            **os.environ,
            "_BEAVER_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.stderr == ""
    return told.stdout.split()


@pytest.fixture
def store(beaver: Command) -> None:
    for name, queue in (("order-1", "mail"), ("order-2", "images"), ("other", "mail")):
        assert beaver("enqueue", "send", "--id", name, "--queue", queue).code == 0
    assert beaver("cancel", "order-2").code == 0


def test_states_are_offered() -> None:
    assert offered("beaver list --state d") == ["dead", "discarded"]
    assert "in_flight" in offered("beaver list --state ")
    assert not Path("data").exists()


def test_the_values_of_a_setting_are_offered() -> None:
    assert offered("beaver run --executor ") == ["process", "thread", "async"]
    assert offered("beaver run --log-format j") == ["json"]


def test_queues_tasks_and_jobs_of_the_files_are_offered(store: None) -> None:
    assert sorted(offered("beaver list --queue ")) == ["images", "mail"]
    assert offered("beaver pause m") == ["mail"]
    assert offered("beaver enqueue s") == ["send"]
    assert sorted(offered("beaver show o")) == ["order-1", "order-2", "other"]


def test_only_jobs_are_offered_to_which_the_command_can_be_done(store: None) -> None:
    assert sorted(offered("beaver cancel o")) == ["order-1", "other"]
    assert offered("beaver cancel order-1 o") == ["other"]
    assert offered("beaver retry ") == ["order-2"]


def test_the_store_is_the_one_that_the_line_names(store: None, tmp_path: Path) -> None:
    Path("data").rename("elsewhere")
    assert offered("beaver show o") == []
    assert sorted(offered("beaver show --data elsewhere o")) == ["order-1", "order-2", "other"]
    assert sorted(offered("beaver retry ", BEAVER_DATA="elsewhere")) == ["order-2"]


def test_a_server_is_asked_where_one_runs(store: None) -> None:
    with serving():
        assert sorted(offered("beaver cancel o")) == ["order-1", "other"]
        assert offered("beaver list --queue i") == ["images"]


def test_nothing_is_offered_or_said_where_something_is_wrong(store: None) -> None:
    Path("broken.yaml").write_text("wrokers: 1\n")
    assert offered("beaver show --config broken.yaml o") == []
    with Path("data/wal.log").open("r+b") as log:
        log.truncate(FILES_BYTES_MAX + 1)
    assert offered("beaver show o") == []
    Path("data/wal.log").write_bytes(b"no log")
    assert offered("beaver show o") == []
