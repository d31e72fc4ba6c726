"""Fuzzes the readers for as long as one likes, guided by coverage where atheris is installed.

    python -m tests.fuzz.run --seconds 60              every reader, a minute each
    python -m tests.fuzz.run --seconds 600 snapshot    one of them
    python -m tests.fuzz.run --repeat FILE snapshot    an input that was found, once more

Inputs that lead to new code are kept in `reports/fuzz/READER/` and begin the next run; one
that breaks a promise is written beside them, and its path is printed.  Without atheris
(`pip install --group fuzz`; it has no wheels for some Pythons) Hypothesis does the work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "reports" / "fuzz"
INPUT_BYTES_MAX = 8_192
INSTRUMENTED = ["beaver", "beaver_model", "aiohttp", "yarl"]
"""Whose branches guide atheris: ours, and what reads HTTP for us."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the readers of foreign bytes.")
    parser.add_argument("targets", nargs="*", help="readers; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="time for each reader")
    parser.add_argument("--repeat", type=Path, help="run one input that was found")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeat is not None:
        return repeat(options.targets[0], options.repeat)
    if options.inside:
        fuzz(options.targets[0], options.seconds)
        return 0
    if find_spec("atheris") is None:
        return with_hypothesis()
    return with_atheris(options.targets, options.seconds)


def with_hypothesis() -> int:
    print("atheris is not installed: Hypothesis draws many inputs, without looking at coverage")
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "nightly"}
    command = [sys.executable, "-m", "pytest", "-q", "tests/fuzz"]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def with_atheris(names: list[str], seconds: int) -> int:
    """Fuzzes one reader after another, each in a process of its own."""
    from tests.fuzz.targets import TARGETS

    found = []
    for name in names or TARGETS:
        corpus = KEPT / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(TARGETS[name].seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.run", "--inside"]
        done = subprocess.run([*command, f"--seconds={seconds}", name], cwd=ROOT, check=False)
        if done.returncode:
            found.append(name)
    if found:
        print(f"broken promises in {', '.join(found)}; the inputs are in {KEPT}")
        print("repeat one with: python -m tests.fuzz.run --repeat FILE READER")
    return 1 if found else 0


def fuzz(name: str, seconds: int) -> None:
    """Fuzzes one reader in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.limits import within_limits
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    # Once for all inputs: each start and stop would leave some kilobytes behind.
    tracemalloc.start()

    def one(data: bytes) -> None:
        within_limits(
            target.run, data, constant=target.constant, factor=target.factor, guarded=False
        )

    corpus = KEPT / name
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-max_total_time={seconds}",
            f"-max_len={INPUT_BYTES_MAX}",
            f"-artifact_prefix={KEPT}/{name}-",
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        one,
    )
    atheris.Fuzz()


def repeat(name: str, path: Path) -> int:
    from tests.fuzz.limits import limits
    from tests.fuzz.targets import TARGETS

    target, data = TARGETS[name], path.read_bytes()
    with limits(len(data), constant=target.constant, factor=target.factor):
        print(sorted(target.run(data)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
