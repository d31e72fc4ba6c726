"""The table of `beaver bench`, for people and as JSON."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from typing import Any

from beaver.bench.measure import QUICK, Row, Sizes, run_all


def bench(*, quick: bool, directory: str | None, workers: int, as_json: bool) -> int:
    """Runs the benchmark and prints its table; returns the exit code.

    Args:
        quick: A tenth of the work, for a first impression.
        directory: Where the data is written: the disk that is measured.  Emptied after.
        workers: Worker processes of the measured server.
        as_json: One JSON object instead of a table.
    """

    def tell(name: str) -> None:
        if sys.stderr.isatty():
            print(f"measuring {name} ...", file=sys.stderr)  # noqa: T201 - progress

    with tempfile.TemporaryDirectory(prefix="beaver-bench-", dir=directory) as scratch:
        rows = run_all(scratch, QUICK if quick else Sizes(), workers, tell)
    sys.stdout.write((to_json(rows) if as_json else to_markdown(rows)) + "\n")
    return 0


def ratios(rows: list[Row]) -> dict[str, float]:
    """Returns each rate of syncs and single jobs as a ratio to the raw probe."""
    probe = next(row.value for row in rows if row.name == "raw sync probe")
    return {row.name: row.value / probe for row in rows if row.unit == "jobs/s"}


def to_json(rows: list[Row]) -> str:
    """Returns the rows, the ratios and what was measured on, as one JSON object."""
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rows": [row._asdict() for row in rows],
        "ratio_to_probe": ratios(rows),
    }
    return json.dumps(result, indent=2)


def to_markdown(rows: list[Row]) -> str:
    """Returns the rows as a Markdown table."""
    by_probe = ratios(rows)
    lines = ["| measured | value | | of raw sync rate | |", "|---|--:|---|--:|---|"]
    for row in rows:
        ratio = f"{by_probe[row.name]:.2f}" if row.name in by_probe else ""
        value = f"{row.value:,.0f}" if row.value >= 100 else f"{row.value:.3g}"
        lines.append(f"| {row.name} | {value} | {row.unit} | {ratio} | {row.note} |")
    return "\n".join(lines)
