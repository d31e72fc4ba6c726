"""`beaver replay` and `verify`: the log, listed and checked without a server."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beaver.cli import flags, output
from beaver.cli.checking import CHECKERS
from beaver.system.disk import SystemDisk
from beaver.text.foreign import counted

if TYPE_CHECKING:
    from beaver.replay.report import CheckReport
    from beaver.replay.verifying import VerifyReport

EXIT_CORRUPT = 4

Path = Annotated[
    str | None,
    typer.Argument(metavar="[PATH]", help="A data directory or a log file.", show_default=False),
]


def replay_command(
    path: Path = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="SEQ|TIME", help="Stop after this seq or time."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only the verdict.")] = False,
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """List every event of a log, or check it; nothing is written.

    It works beside a running server, and on copies.

    Examples:
      beaver replay data
      beaver replay data/wal.log --json | jq -c 'select(.job == "order-7")'
      beaver replay data --until 2030-01-31T12:00:00Z --check
    """
    from beaver.inspect.listing import event_line
    from beaver.replay import replaying

    path = path or flags.configuration(data, config).data
    end = None if until is None else replaying.parse_until(until)
    if not check:
        for view in replaying.event_views(SystemDisk(), path, end):
            if as_json:
                output.json_line(view)
            else:
                output.line(event_line(view))
        return
    with output.progress(f"checking {path}", 0) as advance:
        report = replaying.check(
            SystemDisk(), path, end, on_progress=advance, opinion=_second_opinion()
        )
    if as_json:
        output.json_line(report)
    else:
        _tell_check(report)
    if not report.ok:
        raise typer.Exit(EXIT_CORRUPT)


def verify_command(
    path: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="A data directory.", show_default=False),
    ] = None,
    data: flags.Data = None,
    config: flags.ConfigFile = None,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Check snapshots, archive and log together.

    All of them must give the same state. It works beside a running server, and on copies.

    Examples:
      beaver verify data
      beaver verify /backup/queue --json
    """
    from beaver.replay import verifying

    path = path or flags.configuration(data, config).data
    with output.progress(f"verifying {path}", 0) as advance:
        report = verifying.verify(
            SystemDisk(), path, on_progress=advance, opinion=_second_opinion()
        )
    if as_json:
        output.json_line(report)
    else:
        _tell_verify(report)
    if not report.ok:
        raise typer.Exit(EXIT_CORRUPT)


def _second_opinion() -> Any:
    """Returns the maker of the independent judge, where the checkers are installed."""
    if find_spec(CHECKERS) is None:
        return None
    return import_module(f"{CHECKERS}.traces.following").Opinion


def _verdict(ok: bool) -> str:
    return output.paint("ok", "green") if ok else output.paint("NOT OK", "red")


def _tell_check(report: CheckReport) -> None:
    """Writes the verdict over a log, one fact a line."""
    counts = ", ".join(f"{state} {count}" for state, count in report.counts.items())
    output.line(_verdict(report.ok))
    output.line(f"base         {report.base}")
    output.line(f"frames       {report.frames}")
    output.line(f"events       {report.events} (seq {report.first_seq} to {report.last_seq})")
    output.line(f"counts       {counts or 'not known'}")
    output.line(f"fingerprint  {report.fingerprint or 'not known'}")
    if report.torn_tail_bytes:
        output.line(f"torn tail    {counted(report.torn_tail_bytes, 'byte')}, never acknowledged")
    for violation in report.violations:
        output.line(f"violated     {violation}")
    if report.error is not None:
        damage = report.error
        output.line(f"damage       {damage.file} at offset {damage.offset}, seq {damage.seq}")
        output.line(f"             {damage.reason}")


def _tell_verify(report: VerifyReport) -> None:
    _tell_check(report.log)
    for snapshot in report.snapshots:
        what = (
            f"seq {snapshot.last_seq}, {snapshot.bytes} bytes" if snapshot.ok else snapshot.reason
        )
        output.line(f"{snapshot.name}: {_verdict(snapshot.ok)}, {snapshot.file}, {what}")
    for base in report.bases:
        what = base.fingerprint if base.ok else base.reason
        output.line(f"replayed from {base.base} (seq {base.seq}): {_verdict(base.ok)}, {what}")
    output.line(f"the store as a whole: {_verdict(report.ok)}")
