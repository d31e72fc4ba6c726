"""`beaver bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from beaver.cli import flags
from beaver.setting import cores


def bench_command(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, less exact.")] = False,
    directory: Annotated[
        str | None,
        typer.Option("--dir", metavar="DIR", help="Measure the disk of this directory."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Worker processes.")] = 0,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Measure this machine, beside a raw sync probe.

    Enqueue, drain, latency and recovery of a million events. Every acknowledgement that is
    counted came after its sync.

    Examples:
      beaver bench --quick
      beaver bench --dir /srv --json
    """
    from beaver.bench.report import bench

    raise typer.Exit(
        bench(quick=quick, directory=directory, workers=workers or cores(), as_json=as_json)
    )
