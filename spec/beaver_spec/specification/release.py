"""The engine's release rule under Spin: `spec/promela/release.pml`.

What lives here: finding Spin and a C compiler, one run, and the bugs that the model must
catch.  Nothing is seen outside before it is durable: replies, refusals, no-ops, reads and
dispatches alike, but for the dispatches of a queue that has durably opted out; and whoever
asks is answered.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from beaver_spec.results import CheckResult, Verdict
from beaver_spec.specification.storage_tlc import Missing

MODEL: Final = Path(__file__).resolve().parents[2] / "promela" / "release.pml"
TIMEOUT_S: Final = 300.0
MEMORY_MB: Final = 4_096
BOUNDS: Final = {"CRASHES": 2, "ASKS": 2}
LARGER: Final = {"CRASHES": 3, "ASKS": 2}
CLAIM: Final = "nothing is seen outside before it is durable, and whoever asks is answered"

SOWN: Final = {
    "ACK_EARLY": "a producer is answered once its job is applied",
    "DUPLICATE_EARLY": "a duplicate is answered before the original's sync",
    "READ_EARLY": "a read of speculative state is answered at once",
    "REFUSAL_EARLY": "a refusal that rests on speculative state is answered at once",
    "DISPATCH_EARLY": "a worker gets a job before its DISPATCH is synced, and no queue opted out",
    "SETTING_EARLY": "a queue has opted out before that is synced, and a worker gets its job",
    "OPTED_ACK_EARLY": "a queue that has opted out answers its producers early as well",
    "OUTCOME_EARLY": "the outcome of an attempt that was sent early is answered early as well",
    "JOINED_EARLY": "what was applied during a sync is told with that sync, not with its own",
    "GO_ON": "a failed sync is tried again instead of ending the process",
    "NOOP_WAITS": "an answer over a durable state waits for a commit that nobody needs",
}
"""The bugs: the macro that sows each, and what it does."""

_WORDS: Final = {
    "tell 0": "the producer is answered",
    "tell 1": "the one who sends again is answered",
    "tell 2": "the reader is answered",
    "tell 3": "the operator is answered",
    "tell 4": "the worker hears that its outcome was taken",
    "tell 5": "the worker gets the job",
    "power cut 1": "the power is cut",
    "power cut 0": "the process is killed",
}
_STORED: Final = re.compile(r"^\s*([\d.e+]+) states, stored", re.MULTILINE)
_NEVER: Final = re.compile(r"^\t\w+\.pml:(\d+), state \d+, \"(.*)\"$", re.MULTILINE)
_ERROR: Final = re.compile(r"pan:\d+: (.+?) \(at depth")


class Spin(NamedTuple):
    """A Spin that can be run."""

    spin: str
    compiler: str
    version: str


class SpinRun(NamedTuple):
    """The result of one run."""

    is_finished: bool
    error: str
    states: int
    seconds: float
    steps: list[str]
    never: frozenset[str]
    """Statements that no run reaches."""
    output: str


def find_spin() -> Spin:
    """Returns Spin with a C compiler.

    Raises:
        Missing: One of them, or the model, is not here.
    """
    if not MODEL.is_file():
        raise Missing(f"{MODEL} is not here: the specification comes with the sources")
    spin, compiler = shutil.which("spin"), shutil.which("gcc") or shutil.which("cc")
    if spin is None:
        raise Missing("there is no spin (Debian: spin)")
    if compiler is None:
        raise Missing("there is no C compiler for what spin writes (Debian: gcc, libc6-dev)")
    done = subprocess.run([spin, "-V"], capture_output=True, text=True, check=False)
    version = re.search(r"Spin Version ([\d.]+)", done.stdout)
    if version is None:
        raise Missing(f"{spin} is another spin: {done.stdout.splitlines()[:1]}")
    return Spin(spin, compiler, f"Spin {version[1]}")


def run_spin(
    spin: Spin,
    *,
    bug: str = "",
    bounds: dict[str, int] = BOUNDS,
    timeout_s: float = TIMEOUT_S,
    model: str = "",
    merge: bool = True,
) -> SpinRun:
    """Checks the model in a directory of its own; with a bug, searches breadth first.

    Breadth first gives the shortest counterexample; without a bug there is none, and depth
    first takes less memory.  `model` stands for the file's text where it is another;
    with `merge=False` Spin keeps each statement a step of its own, so that `never` is exact.
    """
    macros = [f"-D{name}={value}" for name, value in bounds.items()]
    macros += [f"-D{bug}"] if bug else []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="beaver-spin-") as name:
        (Path(name) / MODEL.name).write_text(model or MODEL.read_text())

        def run(*command: str) -> str:
            done = subprocess.run(
                command, cwd=name, capture_output=True, text=True, check=False, timeout=timeout_s
            )
            return done.stdout + done.stderr

        search = ["-DBFS", "-O0"] if bug else ["-DCOLLAPSE", "-O1"]
        try:
            output = run(spin.spin, "-a", *([] if merge else ["-o3"]), *macros, MODEL.name)
            output += run(
                spin.compiler, "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MB}", *search, "-o", "pan",
                "pan.c",
            )  # fmt: skip
            if not (Path(name) / "pan").exists():
                return SpinRun(False, "", 0, time.monotonic() - started, [], frozenset(), output)
            output = run("./pan", "-m1000000")
            trail = run(spin.spin, "-t", *macros, MODEL.name) if bug else ""
        except subprocess.TimeoutExpired:
            return SpinRun(False, "", 0, timeout_s, [], frozenset(), f"ended after {timeout_s:g} s")
    error, stored = _ERROR.search(output), _STORED.search(output)
    is_whole = "errors: 0" in output and "Search not completed" not in output
    return SpinRun(
        is_finished=error is not None or is_whole,
        error=error[1] if error else "",
        states=int(float(stored[1])) if stored else 0,
        seconds=time.monotonic() - started,
        steps=_steps(trail),
        never=frozenset(f"{text} (line {line})" for line, text in _NEVER.findall(output)),
        output=output,
    )


def _steps(trail: str) -> list[str]:
    """Returns a trail as numbered steps in words."""
    lines = [line.split("MSC:")[1].strip() for line in trail.splitlines() if "MSC:" in line]
    steps = []
    for number, line in enumerate(lines, 1):
        text = line
        for mark, words in _WORDS.items():
            text = text.replace(mark, words)
        steps.append(f"{number}. {text}")
    return steps


def check(spin: Spin, *, larger: bool = False) -> CheckResult:
    """Checks the release rule as it is."""
    bounds = LARGER if larger else BOUNDS
    run = run_spin(spin, bounds=bounds, timeout_s=3_600 if larger else TIMEOUT_S)
    verdict = Verdict.VIOLATED if run.error else Verdict.HOLDS
    details = [f"broken: {run.error}"] if run.error else []
    if not run.is_finished:
        verdict, details = Verdict.ERROR, run.output.splitlines()[:20]
    return _result(spin, CLAIM, verdict, run, details, bounds)


def check_sown(spin: Spin, bug: str) -> CheckResult:
    """Checks that the model catches a bug that is sown in it."""
    run = run_spin(spin, bug=bug)
    wanted = "invalid end state" if bug == "NOOP_WAITS" else "assertion violated"
    details = [SOWN[bug]]
    if wanted in run.error:
        verdict = Verdict.CAUGHT
    elif run.is_finished:
        verdict = Verdict.MISSED
        details.append(f"it was to end in '{wanted}', and ended in '{run.error or 'nothing'}'")
    else:
        verdict, details = Verdict.ERROR, [*details, *run.output.splitlines()[:20]]
    if run.error:
        details += [f"broken: {run.error}", *run.steps]
    return _result(spin, f"release, sown: {bug}", verdict, run, details, BOUNDS)


def _result(
    spin: Spin,
    name: str,
    verdict: Verdict,
    run: SpinRun,
    details: list[str],
    bounds: dict[str, int],
) -> CheckResult:
    return CheckResult(
        name=name,
        kind="release",
        tool=spin.version,
        bounds={"crashes": bounds["CRASHES"], "questions of each client": bounds["ASKS"]},
        verdict=verdict,
        states=run.states,
        seconds=run.seconds,
        details=details,
    )
