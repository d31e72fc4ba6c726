"""Writes `docs/reference/model-check-sample.md` anew: `python -m tests.spec.sample`.

The sample is the report of a run over the scopes of CI, then what a counterexample looks
like, found in a model into which a bug was sown on purpose.
"""

from __future__ import annotations

from pathlib import Path

from beaver_spec import checking, document, rendering
from tests.spec.sown import BUGS, SCOPE_OF

SAMPLE = Path(__file__).parents[2] / "docs" / "reference" / "model-check-sample.md"
SOWN = "stale token accepted"

OPENING = """\
<!-- Written by `python -m tests.spec.sample`. -->

> A sample of what `beaver check` writes to `reports/model-check.md`, with a counterexample
> from a model with a sown bug at its end. Numbers of states are those pinned in
> `spec/beaver_spec/counts.json`; times are of one machine.
"""


def sample() -> str:
    found = checking.run(checking.chosen())
    (bug,) = [bug for bug in BUGS if bug.name == SOWN]
    row = checking.check_scope(SCOPE_OF[bug.scope], model=bug.model, rules=bug.rules)
    assert row.story is not None
    text = rendering.markdown(found)
    told = "\n\n".join(map(rendering.block_text, document.story_blocks(row.story)))
    intro = "The same report over a model that accepts an outcome without the token in flight:"
    return f"{OPENING}\n{text}\n# With a sown bug\n\n{intro}\n\n{told}\n"


if __name__ == "__main__":
    SAMPLE.write_text(sample())
