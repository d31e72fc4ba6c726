"""`beaver simulate` and `beaver audit`: the checkers that need `beaver_chaos`."""

from __future__ import annotations

import itertools
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, Final

import typer

from beaver.cli import flags, output
from beaver.errors import InvalidInput
from beaver.text.foreign import counted

EXIT_VIOLATED: Final = 1
EXIT_CORRUPT: Final = 4
SEEDS_DEFAULT: Final = 1_000
CHECKERS: Final = "beaver_chaos"
"""Imported only here and by name: the program does not need its checkers."""


def simulate_command(
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Run this seed, or begin with it."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="N", min=1, help="How many seeds to run.")
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="M", min=0.0, help="Run seeds for so long.")
    ] = 0.0,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, help="Acts of one run.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option("--plan", metavar="JSON", help="Run this plan, as a failure tells it."),
    ] = None,
    favour: Annotated[
        str, typer.Option("--favour", metavar="FAULT", help="Let this fault strike often.")
    ] = "",
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Run the whole queue in a simulated world, with faults that a seed decides.

    The real engine, log, recovery and protocol; simulated time, disk, network and workers.
    A failure is shrunk and told with the command that repeats it. Exit code 1 means that a
    promise was broken.

    Examples:
      beaver simulate --seeds 5000
      beaver simulate --minutes 10 --steps 100
      beaver simulate --seed 17 --json
    """
    campaigns = _checker("sim.campaign")
    first = 1 if seed is None else seed
    plans = _checker("sim.plan")
    steps = steps or plans.STEPS_DEFAULT
    if favour and favour not in plans.FAVOURS:
        raise InvalidInput(f"no fault {favour!r}; there are {', '.join(plans.FAVOURS)}")
    if plan is not None:
        if seed is not None or seeds is not None or minutes:
            raise InvalidInput("--plan is one run: it takes no --seed, --seeds or --minutes")
        try:
            campaign = campaigns.repeat(_checker("sim.text").plan_of(plan))
        except ValueError as error:
            raise InvalidInput(f"--plan: {error}") from error
    else:
        count = seeds or (1 if seed is not None and not minutes else SEEDS_DEFAULT)
        numbers = itertools.count(first) if minutes else iter(range(first, first + count))
        with output.progress("simulating", 0, "runs") as advance:
            campaign = campaigns.simulate(
                numbers,
                first,
                steps=steps,
                favour=favour,
                minutes=minutes,
                on_progress=lambda so_far: advance(so_far.runs, 0 if minutes else count),
            )
    if as_json:
        output.json_line(campaign)
    else:
        _tell(campaign)
    if not campaign.ok:
        raise typer.Exit(EXIT_VIOLATED)


def audit_command(
    path: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="A data directory.", show_default=False),
    ] = None,
    clients: Annotated[
        str | None,
        typer.Option("--clients", metavar="FILE", help="What producers were told (JSON lines)."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", metavar="FILE", help="What workers ran (JSON lines)."),
    ] = None,
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Check a log against the promises, and against what clients and workers saw.

    Independent of the model that wrote it. Works while a server appends, and on copies.
    Exit code 4 means that a promise was broken.

    Examples:
      beaver audit data
      beaver enqueue --file jobs.json --json > told.jsonl; beaver audit data --clients told.jsonl
    """
    path = path or flags.configuration(data, config).data
    report = _checker("checker.audit").audit(path, clients=clients, workers=workers)
    if as_json:
        output.json_line(report)
    else:
        _tell_audit(report)
    if not report.ok:
        raise typer.Exit(EXIT_CORRUPT)


def _checker(name: str) -> Any:
    if find_spec(CHECKERS) is None:
        raise InvalidInput(f"the package {CHECKERS} is not installed; this command needs it")
    return import_module(f"{CHECKERS}.{name}")


def _tell(campaign: Any) -> None:
    verdict = output.paint("ok", "green") if campaign.ok else output.paint("VIOLATED", "red")
    rate = campaign.runs / campaign.seconds if campaign.seconds else 0.0
    output.line(
        f"{verdict}: {counted(campaign.runs, 'run')} from seed {campaign.first_seed}, "
        f"{counted(campaign.steps, 'act')} each; {counted(campaign.callbacks, 'callback')}, "
        f"{counted(campaign.events, 'event')}, "
        f"{campaign.virtual_seconds:.0f} s of virtual time in {campaign.seconds:.1f} s "
        f"({rate:.0f} runs/s)"
    )
    failure = campaign.failure
    if failure is None:
        return
    for violation in failure.violations:
        output.line(f"violated: {violation}")
    output.line(f"\nseed {failure.seed}, shrunk to {counted(failure.shrunk_acts, 'act')}:")
    for line in failure.timeline:
        output.line(line)
    output.line(f"\nrepeat it:       {failure.shrunk_command}")
    output.line(f"the whole run:   {failure.command}")


def _tell_audit(report: Any) -> None:
    output.line(output.paint("ok", "green") if report.ok else output.paint("VIOLATED", "red"))
    output.line(f"base         {report.base}")
    output.line(f"events       {report.events} (seq {report.first_seq} to {report.last_seq})")
    states = ", ".join(f"{state} {count}" for state, count in report.jobs.items())
    output.line(f"jobs         {states or 'none'}")
    output.line(f"clients      {counted(report.acknowledged, 'acknowledgement')} compared")
    output.line(f"workers      {counted(report.runs, 'line')} compared")
    for violation in report.violations:
        output.line(f"violated     {violation}")
    if report.error:
        output.line(f"damage       {report.error}")
