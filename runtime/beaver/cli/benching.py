"""`beaver bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from beaver.cli import flags, output


def bench_command(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, less exact.")] = False,
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure other queues too, where installed.")
    ] = False,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", min=0, help="Rounds; 0 means the usual number.")
    ] = 0,
    directory: Annotated[
        str | None,
        typer.Option("--dir", metavar="DIR", help="Measure the disk of this directory."),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write the tables into this Markdown page, plot and JSON beside it.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="ROW", help="Measure only rows with this word; repeat it."),
    ] = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Measure this machine, beside a raw sync probe.

    Enqueue, drain, latency, memory, recovery and restart, each with its spread over
    interleaved rounds. Every acknowledgement that is counted came after its sync.

    Examples:
      beaver bench --quick
      beaver bench --dir /srv --json
      beaver bench --only drain --only latency --rounds 1
      beaver bench --peers --report measured.md
    """
    from beaver.bench.report import require_marks, to_json, to_markdown, write_report
    from beaver.bench.run import FULL, QUICK, run

    if report is not None and Path(report).exists():
        require_marks(Path(report).read_text(), report)

    plan = QUICK if quick else FULL
    plan = plan._replace(rounds=rounds or plan.rounds)
    with output.steps() as tell:
        result = run(directory, plan, peers, tell, only or ())
    sys.stdout.write(to_json(result) + "\n" if as_json else to_markdown(result))
    if report is not None:
        write_report(result, report)
