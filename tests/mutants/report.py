"""What the trials of the mutants gave, as results for `beaver check` and as a table to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from beaver_spec.results import CheckResult, Verdict
from tests.mutants.workshop import Mutant, Trial

KIND: Final = "mutants"
TOOL: Final = "pytest -m mutants"


def results(
    mutants: Sequence[Mutant], clean: Mapping[str, Trial], sown: Mapping[str, Trial]
) -> list[CheckResult]:
    """Returns a result for each layer without a bug, then one for each mutant.

    Args:
        mutants: Those that were tried.
        clean: By layer, its tests over the code as it is.
        sown: By the name of a mutant, its tests over the code with the bug.
    """
    found = [
        CheckResult(
            name=f"the tests of {layer} that are to kill mutants pass over the code as it is",
            kind=KIND,
            tool=TOOL,
            verdict=Verdict.HOLDS if trial.passed else Verdict.VIOLATED,
            seconds=round(trial.seconds, 2),
            details=[] if trial.passed else trial.output,
        )
        for layer, trial in clean.items()
    ]
    for mutant in mutants:
        trial = sown[mutant.name]
        details = [mutant.why, f"reached: {_yes(trial.reached)}"]
        details += [f"killed by {trial.killed_by}"] if trial.killed else mutant.tests
        found.append(
            CheckResult(
                name=f"{mutant.name} in {mutant.module} is killed by {mutant.layer}",
                kind=KIND,
                tool=TOOL,
                verdict=_verdict(trial),
                seconds=round(trial.seconds, 2),
                details=details if trial.killed else [*details, *trial.output],
            )
        )
    return found


def _verdict(trial: Trial) -> Verdict:
    if trial.killed:
        return Verdict.CAUGHT
    return Verdict.MISSED if trial.survived else Verdict.ERROR


def table(mutants: Sequence[Mutant], clean: Mapping[str, Trial], sown: Mapping[str, Trial]) -> str:
    """Returns the same as Markdown."""
    killed = sum(sown[mutant.name].killed for mutant in mutants)
    lines = [
        "# Mutants",
        "",
        f"{killed} of {len(mutants)} seeded bugs were reached and killed by their layer.",
        "",
        "| mutant | module | layer | reached | killed | seconds | what it would do |",
        "|---|---|---|---|---|---|---|",
    ]
    for mutant in mutants:
        trial = sown[mutant.name]
        lines.append(
            f"| {mutant.name} | `{mutant.module}` | `{mutant.layer}` | {_yes(trial.reached)} | "
            f"{_yes(trial.killed)} | {trial.seconds:.1f} | {mutant.why} |"
        )
    lines += ["", "The same tests over the code as it is:", ""]
    lines += ["| layer | passed | seconds |", "|---|---|---|"]
    lines += [
        f"| `{layer}` | {_yes(trial.passed)} | {trial.seconds:.1f} |"
        for layer, trial in clean.items()
    ]
    return "\n".join([*lines, ""])


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def write_reports(
    folder: Path,
    mutants: Sequence[Mutant],
    clean: Mapping[str, Trial],
    sown: Mapping[str, Trial],
) -> None:
    """Writes `mutants.json` (a list of `CheckResult`) and `mutants.md` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data = msgspec.json.format(msgspec.json.encode(results(mutants, clean, sown)), indent=1)
    (folder / "mutants.json").write_bytes(data + b"\n")
    (folder / "mutants.md").write_text(table(mutants, clean, sown))
