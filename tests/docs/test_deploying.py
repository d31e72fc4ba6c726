"""Units, image and compose file of the guides: what they start exists, and fits together."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from beaver.cli.commands import build
from beaver.cli.main import COMMANDS
from beaver.config.settings import SETTINGS
from beaver.errors import BeaverError
from beaver.text.durations import parse_duration_ms

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"```(\w+)\n# (/?[\w/.-]+)\n(.*?)```", re.DOTALL)


def files() -> dict[str, str]:
    """Every file that a guide spells out, by the name in its first line."""
    found: dict[str, str] = {}
    for page in HOW_TO.glob("*.md"):
        for _, name, text in BLOCK.findall(page.read_text()):
            found.setdefault(name, text)
    return found


FILES = files()
UNITS = [name for name in FILES if name.endswith(".service")]


def check_command(words: list[str]) -> None:
    """Sees that a command line of ours is one that the command line takes."""
    name = words[words.index(next(w for w in words if w.rpartition("/")[2] == "beaver")) + 1]
    assert name in COMMANDS
    command: Any = get_command(build(COMMANDS)).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words[words.index(name) + 1 :]:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{name} has no {word}"


def unit(name: str) -> dict[str, str]:
    lines = [line.partition("=") for line in FILES[name].splitlines() if "=" in line]
    return {key: value for key, _, value in lines}


def test_the_guides_hold_the_files_that_they_promise() -> None:
    assert {"Dockerfile", "compose.yaml"} <= FILES.keys()
    assert {Path(name).name for name in UNITS} >= {"beaver.service", "beaver-ship.service"}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_what_exists_and_restarts_what_may_be(name: str) -> None:
    found = unit(name)
    for key in ("ExecStart", "ExecReload"):
        if key in found:
            check_command(shlex.split(found[key]))
    hopeless = {int(code) for code in found["RestartPreventExitStatus"].split()}
    kinds: list[type[BeaverError]] = [BeaverError, *BeaverError.__subclasses__()]
    known = {kind.exit_code for kind in kinds}
    assert hopeless <= known
    assert {3, 7}.isdisjoint(hopeless)


def test_the_unit_of_the_server_is_notified_and_waits_for_the_grace() -> None:
    found = unit(next(name for name in UNITS if name.endswith("/beaver.service")))
    assert (found["Type"], found["NotifyAccess"]) == ("notify", "main")
    assert parse_duration_ms(found["WatchdogSec"]) >= 10_000
    assert found["KillMode"] == "mixed"
    settings = yaml.safe_load(next(text for name, text in FILES.items() if name == "beaver.yaml"))
    assert settings.keys() <= SETTINGS.keys()
    assert parse_duration_ms(found["TimeoutStopSec"]) > parse_duration_ms(settings["grace"])


@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_the_units(name: str, tmp_path: Path) -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None:
        return  # Elsewhere the tests above are all there is.
    text = re.sub(r"/srv/shop/.venv/bin/beaver", "/bin/true", FILES[name])
    text = re.sub(r"(User|EnvironmentFile|WorkingDirectory)=.*\n", "", text)
    (tmp_path / Path(name).name).write_text(text)
    done = subprocess.run(
        [analyse, "verify", str(tmp_path / Path(name).name)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if Path(name).name in line]
    assert not ours


def instructions(text: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_has_stages_no_rights_and_a_health_check() -> None:
    found = instructions(FILES["Dockerfile"])
    words = [word for word, _ in found]
    assert words.count("FROM") == 2
    user = next(rest for word, rest in found if word == "USER")
    assert user.split(":")[0].isdigit()
    assert user.split(":")[0] != "0"
    assert words.index("USER") > len(words) - 6  # Nothing is changed as that user.
    check = next(rest for word, rest in found if word == "HEALTHCHECK")
    program = json.loads(check[check.index("[") :])
    assert program[0] == "python"
    compile(program[2], "HEALTHCHECK", "exec")
    assert "127.0.0.1:9090/healthz" in program[2]
    assert SETTINGS["http"].default_text() == "127.0.0.1:9090"
    check_command(json.loads(next(rest for word, rest in found if word == "CMD")))
    volume = next(rest for word, rest in found if word == "VOLUME")
    assert f"BEAVER_DATA={volume}/data" in FILES["Dockerfile"]


def test_the_compose_file_runs_what_exists_and_waits_for_the_grace() -> None:
    found = yaml.safe_load(FILES["compose.yaml"])
    services = found["services"]
    volumes = {service["volumes"][0] for service in services.values()}
    assert len(volumes) == 1
    assert volumes.pop().partition(":")[0] in found["volumes"]
    check_command(services["ship"]["command"])
    command = json.loads(dict(instructions(FILES["Dockerfile"]))["CMD"])
    grace_ms = parse_duration_ms(command[command.index("--grace") + 1])
    assert parse_duration_ms(services["queue"]["stop_grace_period"]) > grace_ms
