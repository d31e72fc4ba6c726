"""The command as a whole: help, versions, errors and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib import metadata

import pytest

from beaver.cli.main import COMMANDS
from beaver.config.settings import SETTINGS
from tests.cli.conftest import Command, serving

HEAVY = ("asyncio", "aiohttp", "prometheus_client", "sqlite3", "yaml", "rich", "uvloop")


def test_help_names_every_command_and_each_shows_examples(beaver: Command) -> None:
    told = beaver("--help")
    assert told.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in told.out
        assert f"\n    beaver {name}" in beaver(name, "--help").out, name


def test_help_alone_says_what_each_argument_is_and_what_may_be_chosen(beaver: Command) -> None:
    """Every argument is explained, every choice is named, and no default stands twice."""
    for name in COMMANDS:
        _, _, parameters = beaver(name, "--help").out.partition("\n\n")
        assert not re.search(r"^ +\S+ <\S+>(  \[required\])?$", parameters, re.MULTILINE), name
        for option in re.split(r"\n  (?=-)", parameters)[1:]:
            assert option.count("[default") <= 1, option
    told = " ".join(beaver("run", "--help").out.split())
    for setting in SETTINGS.values():
        if setting.choices and setting.run_flag:
            assert ", ".join(setting.choices) in told, setting.name


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["config"]])
def test_nothing_heavy_is_imported_for_help(arguments: list[str]) -> None:
    code = (
        "import sys; from beaver.cli.main import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr == "[]\n"


def test_the_version_is_that_of_the_distribution(beaver: Command) -> None:
    assert beaver("--version").out == f"beaver {metadata.version('beaver-raft')}\n"


def test_completion_can_be_asked_for(beaver: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    assert "_BEAVER_COMPLETE" in beaver("--show-completion", "bash").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["statsu"], "beaver: No such command 'statsu'"),
        (["status", "--jsn"], "beaver: No such option: --jsn"),
        (["show"], "beaver: Missing argument 'JOB'"),
        (["list", "--limit", "x"], "beaver: Invalid value for '--limit'"),
        (["run", "--workers", "0"], "beaver: --workers: 1 to 1024 is allowed"),
        (["run", "--executor", "fork"], "beaver: --executor: one of process, thread, async"),
        (["run", "--config", "none.yaml"], "beaver: none.yaml: No such file or directory"),
        (["run", "--http", "0.0.0.0:80"], "beaver: --http: 0.0.0.0 is not loopback"),
        (["replay", ".", "--until", "soon"], "beaver: --until: 'soon' is no time"),
    ],
)
def test_wrong_usage_ends_with_2_in_a_few_lines_that_name_it(
    beaver: Command, arguments: list[str], said: str
) -> None:
    told = beaver(*arguments)
    assert told.code == 2
    assert told.err.startswith(said)
    assert len(told.err.splitlines()) <= 3
    assert "Traceback" not in told.err


def test_a_traceback_is_shown_with_debug_only(beaver: Command) -> None:
    assert "Traceback" not in beaver("status").err
    assert "Traceback" in beaver("status", "--debug").err


def test_common_flags_may_stand_before_the_command(beaver: Command) -> None:
    beaver("enqueue", "echo", "--id", "a", "--data", "here")
    told = beaver("--data", "here", "--json", "status")
    assert told.one["pending"] == beaver("--data=here", "status", "--json").one["pending"] == 1


def test_the_data_directory_comes_from_flag_environment_or_file(
    beaver: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("beaver.yaml", "w") as file:
        file.write("data: from-file\n")
    assert "from-file" in beaver("status").err
    monkeypatch.setenv("BEAVER_DATA", "from-environment")
    assert "from-environment" in beaver("status").err
    assert "from-flag" in beaver("status", "--data", "from-flag").err


def test_config_prints_each_value_and_its_origin(
    beaver: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAVER_GRACE", "5m")
    told = beaver("config", "--json", "--data", "here").one
    assert told["grace"] == {"value": "5m", "origin": "BEAVER_GRACE"}
    assert told["data"] == {"value": "here", "origin": "--data"}
    assert told["segment_size"] == {"value": "64MiB", "origin": "default"}
    lines = beaver("config").out.splitlines()
    assert any(line.split() == ["grace", "5m", "BEAVER_GRACE"] for line in lines)


def test_nothing_is_coloured_or_cut_when_stdout_is_no_terminal(beaver: Command) -> None:
    job = "j" * 255
    beaver("enqueue", "echo", "--id", job)
    told = beaver("list")
    assert job in told.out
    assert "\x1b" not in told.out


def test_a_name_that_the_locale_cannot_show_does_not_end_a_command() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "beaver", "enqueue", "echo", "--id", "日本"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "enqueued \\u65e5\\u672c (seq 1)\n")


def test_json_is_utf_8_in_any_locale(beaver: Command) -> None:
    beaver("enqueue", "echo", '"é日"', "--id", "é")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "beaver", "show", "é", "--json"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert (json.loads(done.stdout)["id"], json.loads(done.stdout)["payload"]) == ("é", "é日")


def test_a_closed_pipe_ends_a_listing_quietly(beaver: Command) -> None:
    jobs = "\n".join(f'{{"payload": "{"x" * 900}{n}"}}' for n in range(500))
    beaver("enqueue", "--file", "-", stdin=jobs)
    command = [sys.executable, "-m", "beaver", "replay", "data"]
    listing = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert listing.stdout is not None
    assert listing.stderr is not None
    assert listing.stdout.readline().startswith("1 ")
    listing.stdout.close()
    assert listing.wait(20) == 141
    assert listing.stderr.read() == ""
    listing.stderr.close()


def test_ctrl_c_ends_a_waiting_command_with_130(beaver: Command) -> None:
    with serving():
        command = [sys.executable, "-m", "beaver", "enqueue", "echo", '{"sleep_ms": 60000}']
        waiting = subprocess.Popen(
            [*command, "--id", "a", "--wait"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "enqueued a (seq 2)\n"
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=20)
        assert waiting.returncode == 130
        assert "Traceback" not in err
        assert beaver("show", "a", "--json").one["state"] in ("pending", "in_flight")
