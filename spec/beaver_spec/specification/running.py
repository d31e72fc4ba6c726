"""Runs every check of the specification whose tool is installed, and reports the missing ones.

    python -m beaver_spec.specification.running [--larger] [NAME ...]

What lives here: which checks there are, and running them side by side.  Each check stands
with its tool: TLC in `storage`, Spin in `specification.release`, z3 in `induction`, and the
validator of logs in `traces`.  With `BEAVER_REQUIRE_ALL=1` a missing tool is a failure.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

from beaver_spec.results import CheckResult, Verdict
from beaver_spec.specification import release, storage
from beaver_spec.specification.storage_tlc import Missing, find_tlc

Tell = Callable[[CheckResult], None]
"""Called with each result as it comes."""

REQUIRE_ALL: Final = "BEAVER_REQUIRE_ALL"


class Check(NamedTuple):
    """One check: a name to choose it by, and what runs it."""

    name: str
    run: Callable[[], CheckResult]


def run_all(
    tell: Tell | None = None, *, larger: bool = False, only: Sequence[str] = ()
) -> list[CheckResult]:
    """Runs the specification's checks, two at a time.

    Args:
        tell: Called with each result, from whichever thread has it.
        larger: Bounds for a long run instead of those of CI.
        only: Run those whose names contain one of these.

    Returns:
        The results, in the order of the table; those of a missing tool are SKIPPED, or
        ERROR where `BEAVER_REQUIRE_ALL=1` asks for all.
    """
    checks, skipped = all_checks(larger=larger)
    if only:
        checks = [check for check in checks if any(part in check.name for part in only)]
    tell = tell or _tell_nobody
    for result in skipped:
        tell(result)

    def run(check: Check) -> CheckResult:
        result = check.run()
        tell(result)
        return result

    # TLC and Spin are processes of their own: threads are enough to wait for them.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        others = [pool.submit(run, check) for check in checks if not check.name.startswith("z3")]
        # z3 is no process of its own, and one thread at a time may use it.
        own = {check.name: run(check) for check in checks if check.name.startswith("z3")}
    results = [future.result() for future in others]
    return [*skipped, *own.values(), *results]


def all_checks(*, larger: bool = False) -> tuple[list[Check], list[CheckResult]]:
    """Returns the checks that can run here, and results for those that cannot."""
    checks: list[Check] = []
    skipped: list[CheckResult] = []
    for name, kind, tool, listing in (
        ("the log and snapshots, by induction", "induction", "z3", _induction),
        ("segments, snapshots and lives of jobs", "storage", "TLC", _storage),
        ("the engine's release rule", "release", "Spin", _release),
    ):
        try:
            checks += listing(larger)
        except Missing as missing:
            skipped.append(_skipped(name, kind, tool, str(missing)))
    return checks, skipped


def _storage(larger: bool) -> list[Check]:
    tlc = find_tlc()
    checks: list[Check] = []
    for model in storage.MODELS:
        name = f"tlc {model.config}"
        checks.append(Check(name, partial(storage.check, tlc, model, larger=larger)))
        for sown in model.sown:
            run = partial(storage.check_sown, tlc, model, sown)
            checks.append(Check(f"{name} {sown.switch}", run))
        for switch in model.spared:
            run = partial(storage.check_spared, tlc, model, switch)
            checks.append(Check(f"{name} without {switch}", run))
    return checks


def _release(larger: bool) -> list[Check]:
    spin = release.find_spin()
    sown = [Check(f"spin release {b}", partial(release.check_sown, spin, b)) for b in release.SOWN]
    return [Check("spin release", partial(release.check, spin, larger=larger)), *sown]


def _induction(larger: bool) -> list[Check]:
    if importlib.util.find_spec("z3") is None:
        raise Missing("there is no z3 (PyPI: z3-solver)")
    from beaver_spec.induction import proof
    from beaver_spec.induction.log import LOG
    from beaver_spec.induction.pruning import PRUNING

    checks: list[Check] = []
    for system in (LOG, PRUNING):
        name = f"z3 {system.name}"
        checks.append(Check(name, partial(proof.prove, system)))
        checks += [Check(f"{name} {b}", partial(proof.sow, system, b)) for b in system.bugs]
    return checks


def _tell_nobody(result: CheckResult) -> None:
    pass


def _skipped(name: str, kind: str, tool: str, why: str) -> CheckResult:
    is_required = os.environ.get(REQUIRE_ALL) == "1"
    return CheckResult(
        name=name,
        kind=kind,
        tool=tool,
        verdict=Verdict.ERROR if is_required else Verdict.SKIPPED,
        details=[f"{REQUIRE_ALL}=1 asks for it"] if is_required else [],
        skipped=why,
    )


def main(arguments: list[str]) -> int:
    """Runs the checks and prints them; returns 1 where one is not as it should be."""
    only = [argument for argument in arguments if not argument.startswith("--")]

    def tell(result: CheckResult) -> None:
        lines = [f"{result.verdict:<9}{result.seconds:7.1f} s {result.states:>9}  {result.name}"]
        lines += [f"            {result.skipped}"] if result.skipped else []
        lines += [f"            {line}" for line in result.details] if only or not result.ok else []
        print("\n".join(lines), flush=True)  # noqa: T201 - a command of its own

    results = run_all(tell, larger="--larger" in arguments, only=only)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
