"""`python -m beaver_chaos`: rounds of faults on the real program, from the command line."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from beaver_chaos.program import ChaosFailure
from beaver_chaos.rounds import Progress, run_rounds

_ROUNDS_DEFAULT = 25


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the arguments ask for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m beaver_chaos", description="Faults on the real program."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rounds = commands.add_parser(
        "rounds",
        help="kill it at random moments under load, and check that nothing is lost",
        description="Each seed is a new store. A failure names the seed that repeats it.",
    )
    rounds.add_argument("--seed", type=int, help="first seed; drawn from the clock if left out")
    rounds.add_argument(
        "--rounds", type=int, default=_ROUNDS_DEFAULT, help="rounds of each seed (%(default)s)"
    )
    rounds.add_argument("--minutes", type=float, help="go on with the next seeds for so long")
    rounds.add_argument("--data", type=Path, help="where stores go; kept. Else a temporary place")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    if not sys.platform.startswith("linux"):
        parser.error("processes are found in /proc, so this runs on Linux only")
    seed = given.seed if given.seed is not None else int(time.time())
    return _rounds(seed, given.rounds, given.minutes, given.data)


def _rounds(seed: int, rounds: int, minutes: float | None, data: Path | None) -> int:
    deadline_s = time.monotonic() + (minutes or 0) * 60
    root = Path(tempfile.mkdtemp(prefix="beaver-chaos-")) if data is None else data
    while True:
        directory = root / f"seed-{seed}"
        if directory.exists():
            print(f"{directory} exists; give another place with --data", file=sys.stderr)  # noqa: T201
            return 2
        try:
            report = run_rounds(seed, rounds, directory, _progress_line(seed))
        except ChaosFailure as failure:
            _clear_line()
            print(f"FAILED: {failure}", file=sys.stderr)  # noqa: T201
            return 1
        _clear_line()
        print(report, flush=True)  # noqa: T201
        if data is None:
            shutil.rmtree(directory)
        if time.monotonic() >= deadline_s:
            if data is None:
                root.rmdir()
            return 0
        seed += 1


def _progress_line(seed: int) -> Callable[[Progress], None] | None:
    """Returns what shows where a run is, on a terminal."""
    if not sys.stderr.isatty():
        return None

    def show(progress: Progress) -> None:
        sys.stderr.write(
            f"\r\x1b[Kseed {seed}: round {progress.round} of {progress.rounds}, "
            f"{progress.jobs} jobs acknowledged; {progress.fault}"
        )
        sys.stderr.flush()

    return show


def _clear_line() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
