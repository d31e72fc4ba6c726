"""Experiments with faults as results for `beaver check`, and the table of faults and outcomes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from beaver_chaos.faults.table import Experiment, FaultResult, read_faults
from beaver_spec.report.report import Included, TableRow
from beaver_spec.results import CheckResult, Verdict

KIND: Final = "chaos"
TOOL: Final = "pytest -m chaos"
TITLE: Final = "Faults and outcomes"
REPORT: Final = "faults.json"
_HEADS: Final = [
    "fault", "injected", "acknowledged", "lost", "otherwise broken", "refused",
    "recovery: median", "longest", "outcome",
]  # fmt: skip
_GRAVEST_FIRST: Final = (
    FaultResult.LOST, FaultResult.BROKEN, FaultResult.MISSED, FaultResult.FAILED,
    FaultResult.SKIPPED, FaultResult.REFUSED, FaultResult.CAUGHT, FaultResult.HELD,
)  # fmt: skip
_VERDICTS: Final = {
    FaultResult.LOST: Verdict.VIOLATED,
    FaultResult.BROKEN: Verdict.VIOLATED,
    FaultResult.MISSED: Verdict.MISSED,
    FaultResult.FAILED: Verdict.ERROR,
    FaultResult.CAUGHT: Verdict.CAUGHT,
    FaultResult.SKIPPED: Verdict.SKIPPED,
    FaultResult.REFUSED: Verdict.HOLDS,
    FaultResult.HELD: Verdict.HOLDS,
}


class FaultRow(NamedTuple):
    """All experiments with one fault."""

    fault: str
    sown: str
    experiments: list[Experiment]
    outcome: FaultResult
    """The gravest of them."""

    @property
    def times(self) -> int:
        return sum(each.times for each in self.experiments if not each.skipped)

    @property
    def lost(self) -> int:
        return sum(each.lost for each in self.experiments)

    @property
    def recovery_s(self) -> list[float]:
        return [seconds for each in self.experiments for seconds in each.recovery_s]


def rows_of(experiments: Iterable[Experiment]) -> list[FaultRow]:
    """Returns a row for each fault in the order in which they came, sown bugs behind."""
    found: dict[tuple[str, str], list[Experiment]] = {}
    for each in _without_replaced(experiments):
        found.setdefault((each.sown, each.fault), []).append(each)
    rows = [
        FaultRow(fault, sown, own, min((e.outcome for e in own), key=_GRAVEST_FIRST.index))
        for (sown, fault), own in found.items()
    ]
    return sorted(rows, key=lambda row: bool(row.sown))


def _without_replaced(experiments: Iterable[Experiment]) -> list[Experiment]:
    """Leaves out what failed and was tried again; what showed a loss stays for good."""
    told = list(experiments)
    last = {(each.fault, each.where, each.sown): number for number, each in enumerate(told)}
    return [
        each
        for number, each in enumerate(told)
        if each.outcome is not FaultResult.FAILED
        or last[each.fault, each.where, each.sown] == number
    ]


def included(experiments: Iterable[Experiment]) -> Included:
    """Returns what the experiments add to the report of `beaver check`."""
    rows = rows_of(experiments)
    return Included(
        results=[_result(row) for row in rows],
        tables=[TableRow(title=TITLE, heads=_HEADS, rows=[_cells(row) for row in rows])],
    )


def write_faults(directory: Path) -> Included:
    """Writes `faults.json` beside the records of a directory, and returns what is in it."""
    found = included(read_faults(directory))
    data = msgspec.json.format(msgspec.json.encode(found), indent=1)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / REPORT).write_bytes(data + b"\n")
    return found


def markdown(found: Included) -> str:
    """Returns the table as Markdown."""
    (table,) = found.tables
    rows = [table.heads, ["---"] * len(table.heads), *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _name(row: FaultRow) -> str:
    return f"{row.fault}, with a bug: {row.sown}" if row.sown else row.fault


def _cells(row: FaultRow) -> list[str]:
    recovery_s = row.recovery_s
    return [
        _name(row),
        f"{row.times:,}",
        f"{sum(each.acknowledged for each in row.experiments):,}",
        f"{row.lost:,}",
        f"{sum(bool(each.broken) and not each.lost for each in row.experiments):,}",
        f"{sum(each.refused for each in row.experiments):,}",
        f"{statistics.median(recovery_s):.2f} s" if recovery_s else "",
        f"{max(recovery_s):.2f} s" if recovery_s else "",
        _shown(row.outcome),
    ]


def _shown(outcome: FaultResult) -> str:
    good = {Verdict.HOLDS, Verdict.CAUGHT, Verdict.SKIPPED}
    return outcome if _VERDICTS[outcome] in good else outcome.upper()


def _result(row: FaultRow) -> CheckResult:
    promise = "the checker sees what is lost" if row.sown else "nothing acknowledged is lost"
    skipped = sorted({each.skipped for each in row.experiments if each.skipped})
    return CheckResult(
        name=f"{_name(row)}: {promise}",
        kind=KIND,
        tool=TOOL,
        bounds={"injected": row.times},
        verdict=_VERDICTS[row.outcome],
        seconds=round(sum(row.recovery_s), 2),
        details=list(_details(row)),
        skipped="; ".join(skipped) if row.outcome is FaultResult.SKIPPED else "",
    )


def _details(row: FaultRow) -> Iterator[str]:
    """Yields where it was injected, then what was wrong."""
    places = Counter[str]()
    for each in row.experiments:
        if each.where and not each.skipped:
            places[each.where] += each.times
    for place, times in places.items():
        yield place if times == 1 else f"{place}: {times} times"
    for each in row.experiments:
        at = f"{each.where}: " if each.where else ""
        yield from (f"{at}{sentence}" for sentence in (*each.broken, *each.failed))
        if each.lost and not row.sown:
            yield f"{at}{each.lost} of {each.acknowledged} acknowledged are lost"
