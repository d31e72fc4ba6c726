"""Each seeded bug is reached and killed by its layer; the code as it is passes the same tests.

`pytest -m mutants` tries all, two at a time; with `and not nightly`, those of CI.  Either
writes `reports/mutants.json` and `reports/mutants.md`.  `pytest -m mutants -k NAME` tries one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS, SOWN_MIN
from tests.mutants.quick import BY_PROMISE, QUICK
from tests.mutants.report import write_reports
from tests.mutants.workshop import Mutant, MutantOutdated, Trial, Workshop, module_path, mutated

ROOT = Path(__file__).parents[2]
AT_ONCE = int(os.environ.get("BEAVER_MUTANTS_AT_ONCE", "2"))

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=[m.name for m in MUTANTS])
quick_or_nightly = pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(m, id=m.name, marks=[] if m.name in QUICK else [pytest.mark.nightly])
        for m in MUTANTS
    ],
)


class Trials:
    """The trials of the mutants that this run of pytest has selected, under way."""

    def __init__(self, workshop: Workshop, mutants: list[Mutant], pool: ThreadPoolExecutor) -> None:
        tests: dict[str, set[str]] = {}
        for mutant in mutants:
            tests.setdefault(mutant.layer, set()).update(mutant.tests)
        self.clean: dict[str, Future[Trial]] = {
            layer: pool.submit(workshop.try_clean, sorted(tests[layer])) for layer in tests
        }
        self.sown: dict[str, Future[Trial]] = {
            mutant.name: pool.submit(workshop.try_mutant, mutant) for mutant in mutants
        }


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> Iterator[Trials]:
    selected = set()
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "trials" in item.fixturenames:
            mutant = item.callspec.params["mutant"]
            assert isinstance(mutant, Mutant)
            selected.add(mutant.name)
    mutants = [mutant for mutant in MUTANTS if mutant.name in selected]
    pool = ThreadPoolExecutor(AT_ONCE)
    # Not below pytest's directory: trials make sockets, whose paths must be short.
    scratch = Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        under_way = Trials(Workshop(ROOT, scratch), mutants, pool)
        yield under_way
        if selected >= QUICK:
            write_reports(
                ROOT / "reports",
                mutants,
                {name: future.result() for name, future in under_way.clean.items()},
                {name: future.result() for name, future in under_way.sown.items()},
            )
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(scratch, ignore_errors=True)


@each_mutant
def test_the_edit_fits_the_code(mutant: Mutant) -> None:
    """Fast, so that whoever changes a mutated line hears of it at once."""
    source = module_path(ROOT, mutant.module).read_text()
    try:
        mutated(source, mutant, "mark")
    except MutantOutdated as error:
        pytest.fail(f"{error}\nThe code has changed: adapt the mutant in tests/mutants/sown.")


def test_names_are_unique_and_each_mutant_has_one_layer() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= SOWN_MIN
    for mutant in MUTANTS:
        folders = {test.split("::", 1)[0].rpartition("/")[0] for test in mutant.tests}
        assert folders == {mutant.layer}, mutant.name
        for test in mutant.tests:
            assert (ROOT / test.split("::", 1)[0]).exists(), test


def test_those_of_ci_break_each_promise() -> None:
    named = [name for names in BY_PROMISE.values() for name in names]
    assert len(named) == len(QUICK), "one stands under two promises"
    assert set(BY_PROMISE) == {f"P{number}" for number in range(1, 13)}
    assert min(map(len, BY_PROMISE.values())) > 1
    assert {mutant.name for mutant in MUTANTS} > QUICK


@pytest.mark.mutants
@quick_or_nightly
def test_it_is_reached_and_killed(mutant: Mutant, trials: Trials) -> None:
    trial = trials.sown[mutant.name].result()
    told = "\n".join([f"{mutant.name}: {mutant.why}", f"{mutant.module}", *trial.output])
    assert trial.exit_code is not None, f"the tests did not end in time: {told}"
    assert trial.exit_code in (0, 1), f"the tests could not be run: {told}"
    assert trial.reached, f"the mutated code never ran: {told}"
    assert trial.exit_code == 1, f"it survived: {told}"
    clean = trials.clean[mutant.layer].result()
    assert clean.passed, "\n".join([f"without the bug, {mutant.layer} fails too:", *clean.output])
