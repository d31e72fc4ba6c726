"""The settings that a server is handed over when it begins anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from beaver.cli import becoming
from beaver.config.layers import load_config


def test_settings_are_handed_over_where_no_temporary_file_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, say, or where the data directory alone may be written."""
    if not hasattr(os, "memfd_create"):
        pytest.skip("files in memory are Linux's")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    monkeypatch.setattr("os.execv", lambda *arguments: None)
    monkeypatch.setenv(becoming.VARIABLE, "")
    config = load_config({"data": str(tmp_path / "data")})
    asked = {"data": str(tmp_path / "data"), "workers": "3"}
    hand_over: Callable[[becoming.Handover], object] = becoming.become_server
    hand_over(becoming.Handover(config, debug=True, asked=asked))
    number = int(os.environ[becoming.VARIABLE])
    assert os.get_inheritable(number)
    with os.fdopen(number, "rb") as file:
        told = msgspec.json.decode(file.read(), type=becoming.Handover)
    assert (told.config, told.debug, told.asked) == (config, True, asked)


def test_the_flags_of_the_interpreter_stay() -> None:
    program = "from beaver.cli import becoming; print(*becoming._interpreter_flags())"
    told = subprocess.run(
        [sys.executable, "-I", "-O", "-X", "dev", "-c", program],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {"-I", "-O"} <= set(told)
    assert told[told.index("-X") + 1] == "dev"
