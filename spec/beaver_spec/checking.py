"""One run of all checks: cells, explorer, and the specification where it is here.

Scopes run side by side, each in a process of its own, so that the memory that is reported
is its own.  What lives here: running and collecting.  The command line stands in
`beaver.cli.checking`, the shape of what comes out in `report`.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import queue
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from beaver_spec.explorer.cells import cells_result, check_cells
from beaver_spec.explorer.concrete import agreement
from beaver_spec.explorer.explorer import Explorer
from beaver_spec.explorer.scopes import NOT_EXPLORED, SCOPES, Scope
from beaver_spec.report.report import (
    Included,
    Report,
    ScopeRow,
    findings_of,
    load_counts,
    pin_counts,
    properties_of,
    result_of,
    scope_row,
    witnesses_of,
)
from beaver_spec.report.telling import tell
from beaver_spec.results import CheckResult, Verdict

SAMPLES: Final = 25
"""Histories of each kind that are replayed over whole states, a scope."""

SPECIFICATION: Final = "beaver_spec.specification.running"


class Events(NamedTuple):
    """Called while it runs; all from the thread that called `run`, or that of a checker."""

    scope_at: Callable[[str, int, int], None]
    """Scope, states seen, states still to be expanded."""
    scope_done: Callable[[ScopeRow], None]
    result: Callable[[CheckResult], None]


QUIET: Final = Events(lambda *_: None, lambda _: None, lambda _: None)


def chosen(names: Sequence[str] = (), *, deep: bool = False) -> list[Scope]:
    """Returns the scopes of these names; without names those of CI, or with `deep` all.

    Raises:
        KeyError: There is no scope of a name.
    """
    known = {scope.name: scope for scope in SCOPES}
    for name in names:
        if name not in known:
            raise KeyError(f"no scope is named {name}; there are {', '.join(known)}")
    if names:
        return [scope for scope in SCOPES if scope.name in names]
    return [scope for scope in SCOPES if deep or not scope.deep]


def run(
    scopes: Sequence[Scope],
    *,
    specification: bool = False,
    larger: bool = False,
    included: Sequence[Included] = (),
    pin: bool = False,
    processes: int = 0,
    events: Events = QUIET,
) -> Report:
    """Runs the checks and returns what they found.

    Args:
        scopes: What the explorer looks at.
        specification: Also run the specification, as far as its tools are here.
        larger: Let the specification use its larger bounds.
        included: Results and tables of other checkers, for the same report.
        pin: Pin the counts that are found, instead of comparing them.
        processes: Explorations at once; 0 takes one per core.
        events: Called while it runs.
    """
    begun, started = datetime.now(UTC), time.perf_counter()
    results = [cells_result(check_cells())]
    events.result(results[0])
    rows = _explore_all(scopes, processes or os.cpu_count() or 1, events)
    if pin:
        pin_counts(rows)
        rows = [_pinned(row) for row in rows]
    results += map(result_of, rows)
    if specification:
        results += _specification(larger, events)
    results += [result for other in included for result in other.results]
    # Witnesses are promised of all scopes of CI together.
    partial = not {s.name for s in SCOPES if not s.deep} <= {row.name for row in rows}
    witnesses = witnesses_of(rows)
    findings = findings_of(results, rows, witnesses, partial=partial)
    return Report(
        ok=not findings,
        commit=commit(),
        versions=versions(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        started=begun.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - started,
        results=results,
        scopes=rows,
        properties=properties_of(rows),
        witnesses=witnesses,
        not_explored=list(NOT_EXPLORED),
        findings=findings,
        partial=partial,
        tables=[table for other in included for table in other.tables],
    )


def _pinned(row: ScopeRow) -> ScopeRow:
    """Returns a row whose counts are now the pinned ones."""
    wrong = row.story is not None or bool(row.difference)
    verdict = Verdict.VIOLATED if wrong else Verdict.HOLDS
    return msgspec.structs.replace(row, pinned=load_counts().get(row.name), verdict=verdict)


def check_scope(
    scope: Scope, progress: Callable[[int, int], None] | None = None, **options: Any
) -> ScopeRow:
    """Explores a scope, samples it over whole states, and tells what it found."""
    explorer = Explorer(scope, progress=progress, **options)
    found = explorer.run()
    story = tell(explorer, found.counterexample) if found.counterexample else None
    compared = agreement(explorer, SAMPLES) if story is None else (0, "")
    return scope_row(found, story, compared, load_counts())


# -- side by side --------------------------------------------------------------------------------

_reports: Any = None
"""In a child: the queue to its parent."""


def _set_up(reports: Any) -> None:
    global _reports  # noqa: PLW0603 - how a pool hands a queue to its children
    _reports = reports


def _in_child(scope: Scope) -> ScopeRow:
    return check_scope(scope, lambda seen, left: _reports.put((scope.name, seen, left)))


def _explore_all(scopes: Sequence[Scope], processes: int, events: Events) -> list[ScopeRow]:
    """Explores the scopes, the largest first; returns their rows in the order given."""
    if processes == 1 or len(scopes) < 2:
        rows = []
        for scope in scopes:
            rows.append(check_scope(scope, partial(events.scope_at, scope.name)))
            events.scope_done(rows[-1])
        return rows
    counts = load_counts()
    largest = sorted(scopes, key=lambda s: -counts.get(s.name, {}).get("states", 0))
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    done: dict[str, ScopeRow] = {}
    with ProcessPoolExecutor(
        min(processes, len(scopes)), context, _set_up, (reports,), max_tasks_per_child=1
    ) as pool:
        waiting: set[Future[ScopeRow]] = {pool.submit(_in_child, scope) for scope in largest}
        while waiting:
            finished, waiting = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
            _drain(reports, events)
            for future in finished:
                row = future.result()
                done[row.name] = row
                events.scope_done(row)
    reports.close()
    return [done[scope.name] for scope in scopes]


def _drain(reports: Any, events: Events) -> None:
    while True:
        try:
            events.scope_at(*reports.get_nowait())
        except queue.Empty:
            return


# -- what else belongs into a report -------------------------------------------------------------


def _specification(larger: bool, events: Events) -> list[CheckResult]:
    if util.find_spec(SPECIFICATION) is None:
        missing = CheckResult(
            name="the specification",
            kind="storage",
            tool="TLC, Spin, z3",
            verdict=Verdict.SKIPPED,
            skipped=f"{SPECIFICATION} is not installed",
        )
        events.result(missing)
        return [missing]
    results: list[CheckResult] = import_module(SPECIFICATION).run_all(events.result, larger=larger)
    return results


def read_included(path: Path) -> Included:
    """Reads what another checker adds: a JSON list of `CheckResult`, or a whole `Included`.

    Raises:
        msgspec.MsgspecError: The file holds something else.
        OSError: It cannot be read.
    """
    found = msgspec.json.decode(path.read_bytes(), type=list[CheckResult] | Included)
    return found if isinstance(found, Included) else Included(results=found)


def commit() -> str:
    """Returns the commit of the code that was checked, and whether it was changed since."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # An installed copy may lie inside another project's repository.
        if not git("ls-files", "--", "__init__.py"):
            return "not known"
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except OSError:
        return "not known"


def versions() -> dict[str, str]:
    """Returns the versions that matter."""
    found = {"Python": platform.python_version()}
    for name in ("beaver-raft", "transitions", "msgspec"):
        try:
            found[f"package {name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[f"package {name}"] = "not known"
    return found
