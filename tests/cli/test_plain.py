"""What is read without typer is what typer would have read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main

from beaver.cli import becoming
from beaver.cli.commands import build
from beaver.cli.plain import read_plain
from beaver.config.settings import SETTINGS

RUN = {"run": "serving"}

VALUES = {
    **{setting.flag: setting.default_text() or "shop:app" for setting in SETTINGS.values()},
    "-A": "shop:app",
    "--workers": "2",
    "--data": "some where",
    "--exec-allow": "/bin/true",
    "--http-host": "queue.example",
    "--config": "settings.yaml",
}
FLAGS = sorted(
    {"-A", "--data", "--config"}
    | {s.flag for s in SETTINGS.values() if s.run_flag and s.kind != "bool"}
)
SWITCHES = sorted(
    {"--debug"}
    | {
        text
        for s in SETTINGS.values()
        if s.run_flag and s.kind == "bool"
        for text in (s.flag, f"--no-{s.flag[2:]}")
    }
)


Reads = Callable[[list[str]], tuple[dict[str, Any], str | None, bool]]


class _Begun(Exception):
    pass


@pytest.fixture
def typer_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Returns what typer makes of arguments: settings by name, the file, and `debug`."""
    (tmp_path / "settings.yaml").write_text("workers: 3\n")

    def begun(told: becoming.Handover) -> None:
        raise _Begun(told)

    monkeypatch.setattr(becoming, "become_server", begun)

    def read(arguments: list[str]) -> tuple[dict[str, Any], str | None, bool]:
        with pytest.raises(_Begun) as caught:
            build(RUN)(["run", *arguments], prog_name="beaver", standalone_mode=False)
        told = caught.value.args[0]
        return {k: v for k, v in told.asked.items() if v is not None}, told.file, told.debug

    return read


def test_each_flag_of_run_is_read_as_typer_reads_it(typer_reads: Reads) -> None:
    """Alone, with its value behind it or behind an equals sign."""
    forms = [[flag, VALUES[flag]] for flag in FLAGS]
    forms += [[f"{flag}={VALUES[flag]}"] for flag in FLAGS if flag.startswith("--")]
    forms += [[switch] for switch in SWITCHES]
    for arguments in forms:
        plain = read_plain(arguments)
        assert plain is not None, arguments
        assert tuple(plain) == typer_reads(arguments), arguments


def test_every_option_of_run_is_known_to_the_plain_reading() -> None:
    """So that a new one is plain as well, or is told here."""
    command = build(RUN)
    group = typer.main.get_command(command)
    assert isinstance(group, typer.core.TyperGroup)
    (run,) = group.commands.values()
    options = {
        name
        for parameter in run.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name not in ("--help", "-h")
    }
    assert options == {*FLAGS, *SWITCHES}


def test_a_flag_that_may_be_repeated_is_read_as_typer_reads_it(typer_reads: Reads) -> None:
    arguments = ["--exec-allow", "/bin/a", "--burst", "--exec-allow=/bin/b,/bin/c"]
    plain = read_plain(arguments)
    assert plain is not None
    assert tuple(plain) == typer_reads(arguments)
    assert plain.asked["exec_allow"] == ["/bin/a", "/bin/b,/bin/c"]


def test_a_plain_start_loads_neither_typer_nor_python_twice(tmp_path: Path) -> None:
    """What it loads is told by the interpreter; a new start of it would load `site` again."""
    command = [sys.executable, "-X", "importtime", "-m", "beaver", "run", "--burst"]
    done = subprocess.run(
        [*command, "--http", "off", "--workers", "1", "--data", str(tmp_path / "data")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "beaver.server.serve" in loaded
    assert "typer" not in loaded
    assert loaded.count("site") == 1


def test_several_flags_are_read_as_typer_reads_them(typer_reads: Reads) -> None:
    arguments = ["-A", "shop:app", "--workers=4", "--burst", "--no-takeover", "--data", "d"]
    plain = read_plain(arguments)
    assert plain is not None
    assert tuple(plain) == typer_reads(arguments)
    assert plain.asked["takeover"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--workers"],
        ["--workers", "--burst"],
        ["--workers", "-1"],
        ["--workers="],
        ["--workers", "1", "--workers", "2"],
        ["--burst=true"],
        ["--wrokers", "2"],
        ["-Ashop:app"],
        ["-A=shop:app"],
        ["data"],
        ["--"],
        ["--debug=1"],
        ["--no-workers", "1"],
    ],
)
def test_whatever_is_not_plain_is_left_to_typer(arguments: list[str]) -> None:
    assert read_plain(arguments) is None
