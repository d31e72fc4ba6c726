"""The explorer sees: each bug sown on purpose yields a counterexample that tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beaver_spec.explorer.concrete import Broken, replay
from beaver_spec.explorer.explorer import Explorer
from beaver_spec.explorer.properties import PROPERTIES
from beaver_spec.report.telling import tell
from tests.spec.sown import BUGS, SCOPE_OF, Sown

pytestmark = pytest.mark.invariants


def test_every_property_of_the_explorer_has_a_bug_that_it_sees() -> None:
    assert set(PROPERTIES) <= {bug.property for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_sown_bug_yields_a_counterexample_that_a_test_can_keep(
    bug: Sown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story has numbered steps, a diagram, and a case that fails with the bug only."""
    scope = SCOPE_OF[bug.scope]
    explorer = Explorer(scope, model=bug.model, rules=bug.rules, ignore=bug.ignore)
    found = explorer.run()
    assert found.counterexample is not None
    assert found.counterexample.wrong.property == bug.property
    assert not found.complete

    story = tell(explorer, found.counterexample)
    assert [step.partition(".")[0] for step in story.steps] == [
        str(n) for n in range(1, len(story.steps) + 1)
    ]
    assert story.diagram.startswith("sequenceDiagram")
    assert all(len(line) <= 100 for line in story.test.splitlines() if "Scope(" not in line)

    case: dict[str, object] = {}
    exec(compile(story.test, "case", "exec"), case)
    run_case = case[f"test_{bug.property}"]
    run_case()  # type: ignore[operator]

    def broken(*args: object, **kwargs: object) -> object:
        return replay(*args, **kwargs, model=bug.model, rules=bug.rules)  # type: ignore[arg-type]

    monkeypatch.setitem(case, "replay", broken)
    with pytest.raises(Broken):
        run_case()  # type: ignore[operator]


CONFTEST = """
from functools import partial

from beaver_spec.explorer import concrete
from tests.spec.sown import BUGS

(bug,) = [bug for bug in BUGS if bug.name == {name!r}]
concrete.replay = partial(concrete.replay, model=bug.model, rules=bug.rules)
"""


@pytest.mark.parametrize("name", ["stale token accepted", "lost and never given back"])
def test_the_generated_file_fails_under_pytest_with_the_bug_and_passes_without(
    name: str, tmp_path: Path
) -> None:
    (bug,) = [bug for bug in BUGS if bug.name == name]
    explorer = Explorer(SCOPE_OF[bug.scope], model=bug.model, rules=bug.rules)
    found = explorer.run().counterexample
    assert found is not None
    story = tell(explorer, found)
    (tmp_path / "test_kept.py").write_text(story.test)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "."],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )

    fine = run()
    assert fine.returncode == 0, fine.stdout
    assert "1 passed" in fine.stdout
    (tmp_path / "conftest.py").write_text(CONFTEST.format(name=name))
    broken = run()
    assert broken.returncode == 1, broken.stdout
    assert (
        f"Broken: step {len(story.steps) - 1}" in broken.stdout or story.property in broken.stdout
    )
    assert "1 failed" in broken.stdout


def test_a_story_is_told_in_words_of_the_domain() -> None:
    (bug,) = [bug for bug in BUGS if bug.name == "stale token accepted"]
    explorer = Explorer(SCOPE_OF[bug.scope], model=bug.model)
    found = explorer.run().counterexample
    assert found is not None
    story = tell(explorer, found)
    assert story.steps[0] == "1. A client enqueues `a`: ENQUEUE of `a` (seq 1)."
    assert "A worker that outlived its server reports that `a` (token 2)" in story.steps[-2]
    assert story.message == "an outcome of a without the token in flight led to ACK"
    assert '("enqueue", 0, "same"),' in story.test
