"""`python -m beaver_chaos`: rounds of faults on the real program, from the command line."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from beaver_chaos.faults.power.aim import Aim, drawn_aims
from beaver_chaos.faults.power.cuts import cut_power
from beaver_chaos.faults.power.disk import FILE_SYSTEMS, FileSystem, can_cut
from beaver_chaos.faults.report import markdown, write_faults
from beaver_chaos.faults.rounds import Progress, run_rounds
from beaver_chaos.faults.table import REPORTS_VARIABLE
from beaver_chaos.program.process import ChaosFailure

_ROUNDS_DEFAULT = 25
_CUTS_MAX = 3 * len(Aim)


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
    rounds.add_argument(
        "--rounds", type=int, default=_ROUNDS_DEFAULT, help="rounds of each seed (%(default)s)"
    )
    rounds.add_argument("--minutes", type=float, help="go on with the next seeds for so long")
    power = commands.add_parser(
        "power",
        help="cut the power of its file system, and check that nothing is lost",
        description="Needs root, loop devices, ext4 and XFS. A failure names the seed.",
    )
    power.add_argument(
        "--cuts", type=int, default=len(Aim), help="cuts on each file system (%(default)s)"
    )
    power.add_argument(
        "--file-system", choices=[fs.name for fs in FILE_SYSTEMS], help="only this one"
    )
    for command in (rounds, power):
        command.add_argument("--seed", type=int, help="first seed; else drawn from the clock")
        command.add_argument(
            "--data", type=Path, help="where stores go; kept. Else a temporary place"
        )
        command.add_argument(
            "--report", type=Path, help="directory to add what came of it to (see `table`)"
        )
    table = commands.add_parser(
        "table",
        help="write the table of faults and outcomes",
        description="Writes faults.json, for `beaver check --include`, beside faults.jsonl, to "
        "which experiments were told, and shows the table.",
    )
    table.add_argument("report", type=Path, help="directory of faults.jsonl")
    given = parser.parse_args(arguments)
    if given.command == "table":
        print(markdown(write_faults(given.report)))  # noqa: T201
        return 0
    if not sys.platform.startswith("linux"):
        parser.error("processes are found in /proc, so this runs on Linux only")
    if given.report is not None:
        os.environ[REPORTS_VARIABLE] = str(given.report)
    seed = given.seed if given.seed is not None else int(time.time())
    if given.command == "power":
        if given.cuts < 1:
            parser.error("--cuts: at least 1")
        missing = can_cut()
        if missing:
            parser.error(f"no power can be cut here: {missing}")
        chosen = [fs for fs in FILE_SYSTEMS if given.file_system in (None, fs.name)]
        return _power(seed, given.cuts, chosen, given.data)
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    return _rounds(seed, given.rounds, given.minutes, given.data)


def _power(seed: int, cuts: int, file_systems: Sequence[FileSystem], data: Path | None) -> int:
    """Cuts each file system's power; a store lives through `_CUTS_MAX` cuts, then comes another."""
    root = Path(tempfile.mkdtemp(prefix="beaver-power-")) if data is None else data
    while cuts > 0:
        for file_system in file_systems:
            directory = root / f"seed-{seed}-{file_system.name.replace(' ', '-')}"
            if directory.exists():
                return _refuse(directory)
            try:
                aims = drawn_aims(seed, min(cuts, _CUTS_MAX))
                print(cut_power(seed, aims, file_system, directory), flush=True)  # noqa: T201
            except (ChaosFailure, OSError) as failure:
                print(f"FAILED: {failure}", file=sys.stderr)  # noqa: T201
                return 1
            if data is None:
                shutil.rmtree(directory)
        cuts -= _CUTS_MAX
        seed += 1
    if data is None:
        root.rmdir()
    return 0


def _refuse(directory: Path) -> int:
    print(f"{directory} exists; give another place with --data", file=sys.stderr)  # noqa: T201
    return 2


def _rounds(seed: int, rounds: int, minutes: float | None, data: Path | None) -> int:
    deadline_s = time.monotonic() + (minutes or 0) * 60
    root = Path(tempfile.mkdtemp(prefix="beaver-chaos-")) if data is None else data
    while True:
        directory = root / f"seed-{seed}"
        if directory.exists():
            return _refuse(directory)
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
