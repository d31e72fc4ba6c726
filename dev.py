#!/usr/bin/env python3
"""Everything one does in this repository, with nothing installed but Python.

    python3 dev.py            lists what there is
    python3 dev.py demo       sets up, then shows a queue that survives kill -9
    python3 dev.py check      sets up, then runs every check that CI runs

Set-up makes a virtual environment in `.venv` (or `$BEAVER_VENV`) and installs Beaver into
it, editable, with the tools of the `dev` group in the versions that `requirements-dev.txt`
pins.  It is repeated when that file or `pyproject.toml` changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = Path(os.environ.get("BEAVER_VENV", ROOT / ".venv"))
REPORTS = ROOT / "reports"
LOCK = ROOT / "requirements-dev.txt"


def main(arguments: list[str]) -> int:
    """Runs one task; returns its exit code."""
    if len(arguments) < 1 or arguments[0] not in TASKS:
        print(f"usage: {Path(sys.argv[0]).name} TASK [ARGUMENT ...]\n\nTasks:")
        for name, (_, text) in TASKS.items():
            print(f"  {name:<12}{text}")
        return 0 if not arguments else 2
    os.chdir(ROOT)
    task, _ = TASKS[arguments[0]]
    return task(arguments[1:])


def set_up() -> None:
    """Makes the virtual environment, unless it is there and fits `pyproject.toml` and the lock."""
    mark = VENV / "beaver-set-up"
    files = (ROOT / "pyproject.toml", LOCK)
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if mark.exists() and mark.read_text() == wanted:
        return
    print(f"setting up {VENV} ...", flush=True)
    venv.create(VENV, with_pip=True, clear=VENV.exists())
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # The lock is whole: nothing may come in beside it, and nothing that it lacks is tolerated.
    locked = ["--requirement", str(LOCK), "--editable", "."]
    subprocess.run([*pip, "install", "--no-deps", *locked], check=True)
    subprocess.run([*pip, "check"], check=True)
    mark.write_text(wanted)


def run(*commands: list[str]) -> int:
    """Runs commands from the virtual environment until one fails."""
    set_up()
    for command in commands:
        print("$", " ".join(command), flush=True)
        program = VENV / "bin" / command[0]
        code = subprocess.run([str(program), *command[1:]], check=False).returncode
        if code:
            return code if code > 0 else 128 - code
    return 0


def check(arguments: list[str]) -> int:
    """Runs every check of CI.  A test that fails fails it, whatever a second try gives."""
    collect_faults()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    at_once = str(cores + 1)  # Tests with processes of their own wait for a third of their time.
    return (
        run(*LINT)
        or tests(
            "-n", at_once, "--dist", "loadgroup", "-m", f"side_by_side and {OF_CI}", *arguments
        )
        or tests("-m", f"not side_by_side and {OF_CI}", *arguments)
        or run(*fault_table())
        or run(model_check())
    )


def tests(*arguments: str) -> int:
    """Runs tests.  What fails gets a second try, which only tells whether it is flaky."""
    FAILED.unlink(missing_ok=True)
    code = run(["pytest", *arguments])
    if code != TESTS_FAILED:
        return code
    before = failed_tests()
    if before and len(before) <= SECOND_TRIES:
        print("\nwhat failed runs once more, to tell whether it is flaky", flush=True)
        run(["pytest", "--tb=no", "--no-summary", "-q", *sorted(before)])
    for name in sorted(before):
        said = "failed twice" if name in failed_tests() else "FLAKY, it failed and then passed"
        print(f"{said}: {name}", flush=True)
    return code


def failed_tests() -> set[str]:
    """Returns what failed where it ran last."""
    return set(json.loads(FAILED.read_text())) if FAILED.exists() else set()


def chaos(arguments: list[str]) -> int:
    """Runs the real faults and shows what came of them."""
    collect_faults()
    code = run(["pytest", "-m", "chaos", *arguments])
    return run(*fault_table()) or code


def collect_faults() -> None:
    """Has the tests that follow tell of their faults to `reports`; forgets what is there."""
    for name in ("faults.jsonl", "faults.json", "mutants.json", "seconds.json"):
        (REPORTS / name).unlink(missing_ok=True)
    os.environ["BEAVER_FAULT_REPORTS"] = str(REPORTS)


def fault_table() -> list[list[str]]:
    """Returns the command that makes the table of faults and outcomes, where some were told."""
    if not (REPORTS / "faults.jsonl").exists():
        return []
    return [["python", "-m", "beaver_chaos", "table", str(REPORTS)]]


def model_check() -> list[str]:
    """Returns the command, with what mutants and faults gave where they were tried."""
    tables = [REPORTS / name for name in ("mutants.json", "faults.json")]
    included = [part for path in tables if path.exists() for part in ("--include", str(path))]
    return [*MODEL_CHECK, *included]


OF_CI = "not nightly and not spec"
"""`beaver check --spec` runs what is marked `spec`."""

TESTS_FAILED = 1
FAILED = ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed"
SECOND_TRIES = 10
"""Where more tests failed, more is wrong than a race."""

MODEL_CHECK = ["beaver", "check", "--spec", "--report", "reports"]
LINT = [
    ["ruff", "format", "--check", "."],
    ["ruff", "check", "."],
    ["mypy"],
    ["lint-imports"],
    ["python", "docs/generate.py", "--check"],
]

PIP = ["python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]

PERFORMANCE = "docs/explanation/performance.md"

QUICK = "not chaos and not bench and not mutants and not nightly"


def fuzz(arguments: list[str]) -> int:
    """Fuzzes with atheris where it can be had, else with Hypothesis alone."""
    if run([*PIP, "--group", "fuzz"]):
        print("atheris cannot be installed here", flush=True)
    return run(["python", "-m", "tests.fuzz.run", *arguments])


IN_STEPS = "invariants or mutants or chaos or spec"
"""What the steps of the night run by other names."""


def nightly(arguments: list[str]) -> int:
    """Everything that looks for what nobody thought of: `--minutes M`, six hours by default.

    Hypothesis, the fuzzers, the simulator and rounds of chaos share the time; mutants, the tests
    of chaos, the large scopes and the specification without each of its guards take what they
    take, about three quarters of an hour, and Hypothesis tries no fewer examples than in CI.
    Other arguments go to pytest.
    Every step runs, whatever became of those before it; which one failed is said at the end.
    """
    minutes = 360.0
    if arguments[:1] == ["--minutes"]:
        minutes, arguments = float(arguments[1]), arguments[2:]
    os.environ["HYPOTHESIS_PROFILE"] = "nightly"
    os.environ["BEAVER_EXAMPLES"] = str(max(EXAMPLES_OF_CI, round(EXAMPLES_A_MINUTE * minutes)))
    readers = (ROOT / "tests" / "fuzz" / "targets.py").read_text().count(": Target(")
    fuzzing = max(1, round(60 * minutes / 5 / readers))
    cuts = max(1, round(CUTS_A_MINUTE * minutes))
    faults = ["python", "-m", "beaver_chaos"]
    to_table = ["--report", str(REPORTS)]
    steps: dict[str, Callable[[], int]] = {
        "Hypothesis": lambda: run(["pytest", "-m", "invariants", *arguments]),
        "fuzzing": lambda: fuzz(["--seconds", str(fuzzing)]),
        "simulator": lambda: run(["beaver", "simulate", "--minutes", str(minutes / 5)]),
        "mutants": lambda: run(["pytest", "-m", "mutants", *arguments]),
        "chaos": lambda: chaos(arguments),
        "the rest": lambda: run(["pytest", "-m", f"nightly and not ({IN_STEPS})", *arguments]),
        "rounds": lambda: run([*faults, "rounds", "--minutes", str(minutes / 12), *to_table]),
        "power cuts": lambda: run([*faults, "power", "--cuts", str(cuts), *to_table]),
        "pythons": lambda: pythons([]),
        "model check": lambda: run(*fault_table()) or run([*model_check(), "--deep"]),
        "guards": lambda: run(
            ["python", "-m", "beaver_spec.specification.guards_check", "--write"]
        ),
    }
    codes, lines = [], []
    for name, step in steps.items():
        started = time.monotonic()
        codes.append(step())
        passed = (time.monotonic() - started) / 60
        lines.append(f"{name:<12}{passed:7.1f} min  {'ok' if not codes[-1] else 'FAILED'}")
    print("", *lines, sep="\n", flush=True)
    return max(codes)


def lock(arguments: list[str]) -> int:
    """Pins the development environment anew: `dev.py lock --upgrade` takes the newest releases.

    Without `--upgrade` pinned versions stay, and only what `pyproject.toml` asks for is added
    or taken out.  One file serves every supported Python and system.
    """
    resolve = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    names = ["--group", "dev", "--output-file", LOCK.name, "pyproject.toml"]
    told = ["--custom-compile-command", "python3 dev.py lock"]
    return run([*PIP, "uv"], [*resolve, *told, *names, *arguments])


def pythons(arguments: list[str]) -> int:
    """Runs a task (`test` by default) under every other Python at hand, each in its `.venv-3.N`."""
    from tests.support.pythons import other_pythons

    codes, lines = [], []
    for python in other_pythons():
        name = "{}.{}".format(*python.version)
        environment = os.environ | {
            "BEAVER_VENV": str(ROOT / f".venv-{name}"),
            "HYPOTHESIS_PROFILE": "ci",
        }
        print(f"Python {name}: {python.path}", flush=True)
        command = [python.path, "dev.py", *(arguments or ["test"])]
        codes.append(subprocess.run(command, env=environment, check=False).returncode)
        lines.append(f"Python {name:<8}{'ok' if not codes[-1] else 'FAILED'}")
    print("", *(lines or ["no other Python is at hand"]), sep="\n", flush=True)
    return max(codes, default=1)


def figures(arguments: list[str]) -> int:
    """Measures all that is published: tables beside the peers, the profile, the pinned ratios."""
    report = ["--report", PERFORMANCE]
    return run(
        [*PIP, "--group", "peers"],
        ["beaver", "bench", "--peers", *report, *arguments],
        ["python", "-m", "beaver.bench.profile", *report],
        ["python", "-m", "tests.bench.ratios"],
    )


EXAMPLES_A_MINUTE = 14
"""Of each Hypothesis test: at that rate they take about half of the night."""

CUTS_A_MINUTE = 300 / 360
"""On each file system: 300 in a night."""

EXAMPLES_OF_CI = 100
"""With fewer the machines do not reach all that they are there for."""

Task = Callable[[list[str]], int]
TASKS: dict[str, tuple[Task, str]] = {
    "setup": (lambda _: run(), "make or refresh the virtual environment"),
    "demo": (lambda a: run(["python", "examples/demo.py", *a]), "a queue that survives kill -9"),
    "check": (check, "lint, types, contracts, docs and all tests"),
    "lint": (lambda _: run(*LINT), "formatting, lint, types, import contracts, generated docs"),
    "test": (lambda a: run(["pytest", "-m", QUICK, *a]), "tests but chaos and mutants"),
    "invariants": (lambda a: run(["pytest", "-m", "invariants", *a]), "the model-driven tests"),
    "integration": (lambda a: run(["pytest", "tests/scenarios", *a]), "the program as a whole"),
    "chaos": (chaos, "kill -9, failing system calls, a full disk, power cuts: with a table"),
    "mutants": (lambda a: run(["pytest", "-m", "mutants", *a]), "seeded bugs and their layers"),
    "fuzz": (fuzz, "foreign bytes to every reader: [--seconds N] [READER ...]"),
    "nightly": (nightly, "the same as CI for hours: [--minutes M], then arguments of pytest"),
    "model-check": (lambda a: run([*MODEL_CHECK, *a]), "explorer and specification, reported"),
    "simulate": (lambda a: run(["beaver", "simulate", *a]), "the runtime on a simulated machine"),
    "bench": (lambda a: run(["beaver", "bench", *a]), "measure, beside a raw sync probe"),
    "peers": (lambda _: run([*PIP, "--group", "peers"]), "install what `bench --peers` measures"),
    "profile": (
        lambda a: run(["python", "-m", "beaver.bench.profile", "--report", PERFORMANCE, *a]),
        "where a microsecond goes: flame graph and table",
    ),
    "figures": (figures, "all that is published of speed, on a quiet machine: page and pins"),
    "lock": (lock, "pin the development environment anew: [--upgrade]"),
    "pythons": (pythons, "a task, or the tests, under every other Python at hand"),
    "docs": (lambda _: run(["python", "docs/generate.py"]), "write the generated references"),
    "format": (lambda _: run(["ruff", "format", "."], ["ruff", "check", "--fix", "."]), "tidy"),
    "build": (lambda _: run(["python", "-m", "pip", "wheel", "--no-deps", "-w", "dist", "."]),
              "a wheel in dist/"),
    "coverage": (
        lambda a: run(
            ["python", "-m", "pip", "install", "--quiet", "coverage"],
            ["coverage", "run", "-m", "pytest", "-m", QUICK, *a],
            ["coverage", "report"],
        ),
        "tests with coverage",
    ),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
