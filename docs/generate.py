#!/usr/bin/env python3
"""Writes the generated tables of the reference, so that they cannot drift from the code.

    python docs/generate.py            rewrites them
    python docs/generate.py --check    exits with 1 and names each page that is not up to date

A page under `docs/` holds a table between two comments:

    <!-- generated: settings -->
    ...
    <!-- end: settings -->

What stands around them is written by hand.  `BLOCKS` lists the tables; each must be used.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin

import msgspec
import vectors

import beaver_model.bounds
from beaver import errors
from beaver.access.roles import ROLES, Right
from beaver.cli.main import COMMANDS
from beaver.config.settings import SETTINGS
from beaver.journal.wal.recovery_table import RecoveryRow
from beaver.limits import LIMITS as JOB_LIMITS
from beaver.request.requests import KEYS
from beaver.server.http.api import ROUTES
from beaver.server.http.describing import document
from beaver.server.http.problems import TITLES
from beaver.server.metrics import METRICS
from beaver_model.bounds import INTEGER_MAX
from beaver_model.commands import REJECTIONS
from beaver_model.events import JOB_EVENTS, STORE_EVENTS, Cause
from beaver_model.lifecycle import MACHINE
from beaver_model.policy import WAITING
from beaver_model.rows import Spec
from beaver_model.states import JobState, Trigger

DOCS = Path(__file__).resolve().parent
LIMITS = (
    "beaver.system.descriptors",
    "beaver.server.connection",
    "beaver.server.budget",
    "beaver.transport.framing",
    "beaver.server.http.doors",
    "beaver.server.http.vestibule",
    "beaver.access.sessions",
    "beaver.access.links",
    "beaver.server.http.site",
    "beaver.server.http.jobs",
    "beaver.server.http.listing",
    "beaver.server.http.events",
    "beaver.server.http.feed",
    "beaver.server.http.bulk",
    "beaver.server.bulk.choosing",
    "beaver.server.bulk.sets",
    "beaver.server.bulk.carrying_out",
    "beaver.server.http.backup",
    "beaver.access.tokens",
    "beaver.server.queue_counters",
)
"""Modules whose constants bound what clients may take."""
BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def first_sentence(text: str | None) -> str:
    """Returns the first paragraph of a docstring, on one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def code(text: object) -> str:
    """Returns text set as code."""
    return f"`{text}`"


# -- the command line ---------------------------------------------------------------------


def commands() -> str:
    """Every command: what it does, its options, its examples."""
    parts = []
    for name, module in COMMANDS.items():
        command = getattr(import_module(f"beaver.cli.{module}"), f"{name}_command")
        text, _, examples = inspect.cleandoc(command.__doc__).partition("Examples:\n")
        arguments, options = _parameters(command)
        usage = " ".join(["beaver", name, *arguments, "[OPTIONS]"])
        parts.append(f"### beaver {name}\n\n{code(usage)}\n\n{text.strip()}\n")
        parts.append(table(("option", "meaning"), options))
        parts.append(f"```console\n{_prompted(examples)}\n```\n")
    return "\n".join(parts)


def _prompted(examples: str) -> str:
    return "\n".join(f"$ {line}" for line in textwrap.dedent(examples).strip().splitlines())


def _parameters(command: Callable[..., None]) -> tuple[list[str], list[tuple[str, str]]]:
    arguments: list[str] = []
    options: list[tuple[str, str]] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        info = get_args(parameter.annotation)[1]
        if type(info).__name__ == "ArgumentInfo":
            arguments.append(info.metavar)
            continue
        # Typer holds the first name for a default until it builds the command.
        names = [one for one in (info.default, *info.param_decls) if isinstance(one, str)]
        metavar = f" {code(info.metavar)}" if info.metavar else ""
        options.append((", ".join(map(code, names)) + metavar, info.help))
    return arguments, options


def exit_codes() -> str:
    """Exit codes, and the errors that end with each."""
    meanings = {
        0: "success",
        1: "a job failed, where a command waits for jobs",
        2: "wrong input: flags, job file, conflicting content, app import",
        3: "the data directory cannot be used now, or the server went away before it answered",
        4: "acknowledged data is corrupt",
        5: "a wait timed out",
        6: "no such job or queue, or no such data directory for a reading command",
        7: "storage failed: a write or a sync",
        8: "a file is of a newer format version",
    }
    by_code: dict[int, list[str]] = {number: [] for number in meanings}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.BeaverError):
            by_code[kind.exit_code].append(code(kind.__name__))
    rows = [(str(number), text, ", ".join(by_code[number])) for number, text in meanings.items()]
    rows += [
        ("128 + n", "ended by a second signal n; 130 by Ctrl-C, 141 by a closed pipe", ""),
        ("70", "a bug in Beaver: please report it", ""),
    ]
    return table(("code", "meaning", "errors"), rows)


# -- configuration ------------------------------------------------------------------------


def settings() -> str:
    """Every setting, with its names in each layer."""
    rows = [
        (
            code(setting.name),
            setting.kind,
            setting.default_text(),
            setting.allowed_text(),
            code(setting.flag) if setting.run_flag else "",
            code(setting.variable) if setting.variable else "",
            setting.help,
        )
        for setting in SETTINGS.values()
    ]
    titles = ("name in YAML", "kind", "default", "allowed", "flag", "environment", "meaning")
    return table(titles, rows)


def job_limits() -> str:
    """Every limit that a user may meet, and what changes it."""
    rows = []
    for limit in JOB_LIMITS.values():
        value = f"{limit.value:,} {limit.unit}".strip()
        setting = code(limit.setting) if limit.setting else "nothing"
        if limit.ceiling:
            setting += f", up to {limit.ceiling:,}"
        rows.append((limit.bounds, value, setting, limit.otherwise))
    return table(("limit on", "value", "what changes it", "what to do about more"), rows)


# -- the model -------------------------------------------------------------------------------


def lifecycle_table() -> str:
    """Which event leads from which state to which."""
    rows = []
    for trigger in Trigger:
        moves: dict[str, list[str]] = {}
        for move in MACHINE.get_transitions(trigger.name.lower()):
            moves.setdefault(_state(move.dest), []).append(_state(move.source))
        rows += [
            (code(trigger.name), " or ".join(sources), target) for target, sources in moves.items()
        ]
    return table(("event", "from", "to"), rows)


def _state(name: object) -> str:
    return {"NEW": "(nothing)", "FORGOTTEN": "forgotten"}.get(str(name), str(name).lower())


def lifecycle_diagram() -> str:
    """The Machine as a Mermaid diagram."""
    ends = {JobState.NEW.name: "[*]", JobState.FORGOTTEN.name: "[*]"}
    lines = ["```mermaid", "stateDiagram-v2"]
    for trigger in Trigger:
        for move in MACHINE.get_transitions(trigger.name.lower()):
            source, target = str(move.source), str(move.dest)
            start, stop = ends.get(source, source.lower()), ends.get(target, target.lower())
            lines.append(f"    {start} --> {stop}: {trigger.name}")
    return "\n".join([*lines, "```"]) + "\n"


def events() -> str:
    """Every event of the log, with its fields in order."""
    rows = []
    for kind in JOB_EVENTS + STORE_EVENTS:
        fields = ", ".join(map(code, kind.__struct_fields__))
        tag = str(kind.__struct_config__.tag)
        rows.append((tag, code(kind.NAME), fields, first_sentence(kind.__doc__)))
    return table(("tag", "event", "fields", "meaning"), rows)


def event_fields() -> str:
    """Every field of every event as it stands in a frame: type, and what its absence means."""
    rows = []
    for kind in sorted(JOB_EVENTS + STORE_EVENTS, key=lambda kind: kind.__struct_config__.tag):
        fields = ", ".join(map(_field, msgspec.structs.fields(kind)))
        rows.append((str(kind.__struct_config__.tag), code(kind.NAME), fields))
    return table(("tag", "event", "fields, in order"), rows)


def options() -> str:
    """The options of a job as ENQUEUE holds them."""
    fields = msgspec.structs.fields(Spec)
    rows = [(str(index), _field(field)) for index, field in enumerate(fields)]
    return table(("index", "option"), rows)


def _field(field: msgspec.structs.FieldInfo) -> str:
    kind, bounds = field.type, ""
    if get_origin(kind) is Annotated:
        kind, meta = get_args(kind)
        if meta.ge is not None and meta.le != INTEGER_MAX:
            bounds = f" from {meta.ge}" if meta.le is None else f" {meta.ge} to {meta.le:,}"
        kind = "number" if meta.le == INTEGER_MAX else kind
        if meta.max_length is not None:
            exact = meta.min_length == meta.max_length
            bounds = f" of {'' if exact else 'at most '}{meta.max_length}"
    words = {
        "number": "number",
        int: "integer",
        str: "text",
        bytes: "bytes",
        bool: "boolean",
        float: "float",
    }
    what = words.get(kind, "bytes or nil" if kind == bytes | None else "array of texts")
    absent = "" if field.required else f" = {_absent(field.default)}"
    return f"{code(field.name)}: {what}{bounds}{absent}"


def _absent(value: Any) -> str:
    return json.dumps(int(value) if isinstance(value, IntEnum) else value)


def causes() -> str:
    """Every cause that an event may carry."""
    names = [value for name, value in vars(Cause).items() if not name.startswith("_")]
    return ", ".join(map(code, names)) + "\n"


def rejections() -> str:
    """Every refusal of the model."""
    return table(("refusal", "meaning"), [(code(k), v) for k, v in REJECTIONS.items()])


def waiting() -> str:
    """Every reason why a job may not run now."""
    return table(("reason", "meaning"), [(code(k), v) for k, v in WAITING.items()])


def bounds() -> str:
    """Every bound of the model, with the sentence that follows it in the source."""
    return table(("bound", "value", "meaning"), _constants(beaver_model.bounds))


def limits() -> str:
    """Every limit on what clients may take of a server, with the sentence that follows it."""
    rows = [row for name in LIMITS for row in _constants(import_module(name)) if row[2]]
    return table(("limit", "value", "meaning"), rows)


def _constants(module: ModuleType) -> list[tuple[str, str, str]]:
    """Returns name, value and meaning of the public numbers of a module."""
    body = ast.parse(inspect.getsource(module)).body
    rows = []
    for index, node in enumerate(body):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        target = node.target if isinstance(node, ast.AnnAssign) else target
        value = getattr(module, target.id, None) if isinstance(target, ast.Name) else None
        if not isinstance(target, ast.Name) or target.id.startswith("_"):
            continue
        if not isinstance(value, int | float):
            continue
        after = body[index + 1] if index + 1 < len(body) else None
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = first_sentence(str(after.value.value))
        rows.append((code(target.id), f"{value:,}", text))
    return rows


# -- the runtime ---------------------------------------------------------------------------


def recovery() -> str:
    """Every row of the recovery table."""
    rows = []
    for row in RecoveryRow:
        goes_on, found, done = row.value
        rows.append((code(row.name), "goes on" if goes_on else "refuses", found, done))
    return table(("row", "start", "found", "what is done"), rows)


def metrics() -> str:
    """Every metric."""
    rows = [(code(name), kind, text) for name, (kind, text) in METRICS.items()]
    return table(("metric", "kind", "meaning"), rows)


def job_keys() -> str:
    """The keys of a job in JSON."""
    return ", ".join(map(code, KEYS)) + "\n"


def http_routes() -> str:
    """Every route of HTTP, and who may use it."""
    rows = [
        (code(f"{route.method} {route.path}"), roles_with(route.right), route.summary)
        for route in ROUTES
    ]
    return table(("request", "roles", "what it does"), rows)


def roles_with(right: Right) -> str:
    """Returns the names of the roles that have a right."""
    if right is Right.ANYONE:
        return "no token"
    return ", ".join(role for role, rights in ROLES.items() if right in rights)


def http_problems() -> str:
    """Every problem that HTTP answers with."""
    rows = [(code(name), str(status), title) for name, (status, title) in TITLES.items()]
    return table(("`type`, after `urn:beaver:`", "status", "`title`"), rows)


def openapi() -> str:
    """The description of HTTP, for programs."""
    return document(ROUTES).decode() + "\n"


FILES: dict[str, Callable[[], str]] = {
    "reference/openapi.json": openapi,
    "reference/wal-vectors.json": vectors.text,
}
"""What is generated as a whole."""

BLOCKS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "exit-codes": exit_codes,
    "settings": settings,
    "job-limits": job_limits,
    "job-keys": job_keys,
    "lifecycle-table": lifecycle_table,
    "lifecycle-diagram": lifecycle_diagram,
    "events": events,
    "causes": causes,
    "event-fields": event_fields,
    "spec": options,
    "rejections": rejections,
    "waiting": waiting,
    "bounds": bounds,
    "limits": limits,
    "recovery": recovery,
    "metrics": metrics,
    "http-routes": http_routes,
    "http-problems": http_problems,
}


def regenerate(text: str, used: set[str]) -> str:
    """Returns a page with its tables as the code has them now."""

    def block(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        used.add(name)
        if name not in BLOCKS:
            sys.exit(f"no table is called {name}; there are {', '.join(BLOCKS)}")
        return f"{start}\n{BLOCKS[name]()}\n{end}"

    return BLOCK.sub(block, text)


def main(arguments: Sequence[str]) -> int:
    """Writes or checks every page; returns the exit code."""
    check = "--check" in arguments
    used: set[str] = set()
    stale: list[Path] = []
    pages = {
        path: regenerate(path.read_text(encoding="utf-8"), used) for path in DOCS.rglob("*.md")
    }
    whole = {DOCS / name: make() for name, make in FILES.items()}
    for path, after in sorted({**pages, **whole}.items()):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if after != before:
            stale.append(path)
            if not check:
                path.write_text(after, encoding="utf-8")
    said: list[Any] = [path.relative_to(DOCS.parent) for path in stale]
    for path in said:
        sys.stdout.write(f"{path}: {'not up to date' if check else 'written'}\n")
    unused = sorted(set(BLOCKS) - used)
    if unused:
        sys.stdout.write(f"tables that no page shows: {', '.join(unused)}\n")
    if check and stale:
        sys.stdout.write("run `python docs/generate.py` and commit what it writes\n")
    return 1 if unused or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
