"""`beaver doctor`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from beaver.cli import flags, output

EXIT_FOUND: Final = 1
_COLOURS: Final = {"ok": "green", "note": "yellow", "bad": "red"}


def doctor_command(
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 also where there are only notes.")
    ] = False,
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Check whether this machine and directory are fit for a store.

    Disk, sync time, limits, CRC extension, clock, permissions, free space, versions, server. Run it
    as the user and with the limits of the server. Exit code 1 means that something has to be
    changed; nothing is changed by it.

    Examples:
      beaver doctor
      beaver doctor --data /srv/queue --json | jq '.findings[] | select(.level != "ok")'
    """
    from beaver.doctor.checks import examine
    from beaver.doctor.facts import take

    facts = take(flags.configuration(data, config))
    findings = examine(facts)
    wrong = [one for one in findings if one.level == "bad" or (strict and one.level == "note")]
    if as_json:
        output.json_line({"ok": not wrong, "data": facts.data, "findings": findings})
    else:
        width = max(len(one.check) for one in findings)
        for one in findings:
            level = output.paint(f"{one.level:<4}", _COLOURS[one.level])
            output.line(f"{level}  {one.check:<{width}}  {one.said}")
            if one.advice:
                output.line(f"      {'':<{width}}  {one.advice}")
    if wrong:
        raise typer.Exit(EXIT_FOUND)
