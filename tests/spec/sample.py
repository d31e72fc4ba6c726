"""Writes `docs/reference/model-check-sample.md` anew.

    python -m tests.spec.sample                        explores, and injects real faults, first
    python -m tests.spec.sample reports/faults.json    with the faults that `dev.py chaos` wrote
    python -m tests.spec.sample --keep-faults          with those of an earlier run, from the page

The sample is the report of a run over the scopes of CI, with what the tests of `tests/chaos`
told of their faults, less the details, which name files of the machine; then what a
counterexample looks like, found in a model into which a bug was sown on purpose.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from beaver_chaos.faults.report import TITLE, write_faults
from beaver_chaos.faults.table import REPORTS_VARIABLE
from beaver_spec import checking
from beaver_spec.report import document, rendering
from beaver_spec.report.report import Included, TableRow
from beaver_spec.results import CheckResult, Verdict
from tests.spec.sown import BUGS, SCOPE_OF

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "docs" / "reference" / "model-check-sample.md"
SOWN = "stale token accepted"

OPENING = """\
<!-- Written by `python -m tests.spec.sample`. -->

> A sample of what `beaver check` writes to `reports/model-check.md`: the report of
> `beaver check --include reports/faults.json`, with the faults that `python3 dev.py chaos`
> injects (what it says of each one is left out here), and at its end a counterexample from a
> model with a sown bug. Numbers of states are those pinned in `spec/beaver_spec/counts.json`;
> times are of one machine.
"""


def injected() -> Included:
    """Injects real faults, which takes some minutes; returns what came of them.

    Raises:
        subprocess.CalledProcessError: A test failed, so there is nothing to show.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "chaos", "tests/chaos"]
        environment = {**os.environ, REPORTS_VARIABLE: directory}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        return write_faults(Path(directory))


def kept() -> Included:
    """Returns the faults of an earlier run, as the page shows them."""
    page = SAMPLE.read_text()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.partition(f"## {TITLE}\n")[2].partition("\n# ")[0].splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]
    results = [
        CheckResult(
            name=name, kind=kind, tool=tool, verdict=Verdict(verdict), seconds=float(seconds)
        )
        for kind, name, tool, verdict, _, seconds in re.findall(
            r"^\| (chaos) \| (.+) \| (.+) \| (\w+) \| (\d+) \| ([\d.]+) \|", page, re.MULTILINE
        )
    ]
    table = TableRow(title=TITLE, heads=cells[0], rows=cells[1:])
    return Included(results=results, tables=[table])


def sample(faults: Included) -> str:
    """Returns the page: a report that includes these faults, and a counterexample."""
    brief = [msgspec.structs.replace(result, details=[]) for result in faults.results]
    found = checking.run(
        checking.chosen(), included=[msgspec.structs.replace(faults, results=brief)]
    )
    (bug,) = [bug for bug in BUGS if bug.name == SOWN]
    row = checking.check_scope(SCOPE_OF[bug.scope], model=bug.model, rules=bug.rules)
    assert row.story is not None
    text = rendering.markdown(found)
    told = "\n\n".join(map(rendering.block_text, document.story_blocks(row.story)))
    intro = "The same report over a model that accepts an outcome without the token in flight:"
    return f"{OPENING}\n{text}\n# With a sown bug\n\n{intro}\n\n{told}\n"


if __name__ == "__main__":
    given = sys.argv[1:]
    if given == ["--keep-faults"]:
        faults = kept()
    else:
        faults = checking.read_included(Path(given[0])) if given else injected()
    SAMPLE.write_text(sample(faults))
