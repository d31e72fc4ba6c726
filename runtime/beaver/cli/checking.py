"""`beaver check`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from beaver.cli import flags, output
from beaver.errors import InvalidInput

EXIT_FOUND: Final = 1
CHECKERS: Final = "beaver_spec"
"""Imported only here and by name: the program does not need its checkers."""


def check_command(
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="NAME", help="Explore only this scope; may be repeated."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also explore the large scopes; takes minutes.")
    ] = False,
    spec: Annotated[
        bool, typer.Option("--spec", help="Also check the specification (TLC, Spin, z3).")
    ] = False,
    report: Annotated[
        str,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Where the report goes [default: reports].",
            show_default=False,
        ),
    ] = "reports",
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", metavar="FILE", help="Results of another checker, for the same report."
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            "--processes",
            metavar="N",
            help="Explorations at once [default: one per core].",
            show_default=False,
        ),
    ] = 0,
    pin: Annotated[
        bool, typer.Option("--pin", help="Pin the state counts that are found, on purpose.")
    ] = False,
    as_json: flags.Json = False,
    debug: flags.Debug = False,
) -> None:
    """Check the model: every cell, and every interleaving within stated bounds.

    Writes model-check.md, .html, .json and .xml (JUnit). Exit code 1 means that something
    was found; "nothing found" holds within the bounds of the report, and is no proof.

    Examples:
      beaver check
      beaver check --scope core --scope cancel
      beaver check --deep --spec --report reports
    """
    if find_spec(CHECKERS) is None:
        raise InvalidInput(
            f"{CHECKERS} is not installed here; `beaver check` comes with the full distribution"
        )
    checking: Any = import_module(f"{CHECKERS}.checking")
    try:
        scopes = checking.chosen(scope or (), deep=deep)
    except KeyError as error:
        raise InvalidInput(str(error.args[0])) from None
    if processes < 0:
        raise InvalidInput("--processes is 1 or more, or 0 for one per core")
    included = [_included(checking, path) for path in include or ()]
    with _progress(checking) as events:
        found = checking.run(
            scopes,
            specification=spec,
            larger=deep,
            included=included,
            pin=pin,
            processes=processes,
            events=events,
        )
    rendering: Any = import_module(f"{CHECKERS}.report.rendering")
    try:
        paths = rendering.write(found, Path(report))
    except OSError as error:
        raise InvalidInput(f"the report cannot be written: {error}") from None
    if as_json:
        output.line(rendering.json_text(found).rstrip("\n"))
    else:
        _tell(found, paths)
    if not found.ok:
        raise typer.Exit(EXIT_FOUND)


def _included(checking: Any, path: str) -> Any:
    import msgspec

    try:
        return checking.read_included(Path(path))
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"{path} holds no results of a checker: {error}") from None


def _tell(found: Any, paths: list[Path]) -> None:
    """Writes the outcome: each check a line, then what was found, then where the report is."""
    rows = [
        [
            r.kind,
            r.name if len(r.name) <= 60 else r.name[:59] + "…",
            str(r.verdict),
            str(r.states),
            f"{r.seconds:.1f}",
        ]
        for r in found.results
    ]
    colours = [None if r.ok else "red" for r in found.results]
    output.table(["kind", "check", "verdict", "states", "seconds"], rows, colours)
    for finding in found.findings:
        output.line(f"{output.paint('found', 'red')}  {finding}")
    for scope in found.scopes:
        if scope.story is not None:
            output.line(f"\n{scope.story.claim}: not so.")
            for step in scope.story.steps:
                output.line(f"  {step}")
    verdict = (
        output.paint("nothing found within these bounds; that is no proof", "green")
        if found.ok
        else output.paint(f"found {len(found.findings)}", "red")
    )
    output.line(f"\n{verdict}: {', '.join(map(str, paths))}")


@contextmanager
def _progress(checking: Any) -> Iterator[Any]:
    """Shows on a terminal how far each scope is."""
    import sys

    if not sys.stderr.isatty():
        yield checking.QUIET
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[seen]} states, {task.fields[left]} to go"),
        TimeElapsedColumn(),
    )
    with output.bars(*columns) as bar:
        tasks: dict[str, Any] = {}

        def scope_at(name: str, seen: int, left: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None, seen=0, left=0)
            bar.update(tasks[name], total=seen, completed=seen - left, seen=seen, left=left)

        def scope_done(row: Any) -> None:
            if row.name in tasks:
                bar.remove_task(tasks.pop(row.name))

        def result(found: Any) -> None:
            bar.console.print(f"{found.kind}: {found.name}: {found.verdict}", markup=False)

        yield checking.Events(scope_at, scope_done, result)
