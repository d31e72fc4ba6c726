"""How the machines are run: the budget of a profile, and what a run has met.

What lives here: settings, the counting of what was met, and running each machine once a
session, so that the test of the coverage costs nothing of its own.  What may not: rules.

Profiles are registered in `tests/conftest.py`: `ci` tries the same examples every time,
`nightly` (`dev.py nightly`) fifty times as many new ones, with longer runs; `mutants` stops
at the first failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from beaver.structs.recovery import RecoveryReport
from beaver_model import Rejection
from beaver_model.commands import AnyCommand
from beaver_model.events import AnyEvent

Machine = type[RuleBasedStateMachine]


class Seen:
    """What the runs of this session have met, and how often."""

    def __init__(self) -> None:
        self.commands: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        """Rows of the recovery table, by label."""
        self.witnesses: Counter[str] = Counter()
        """Situations that a machine names, such as a crash inside a recovery."""

    def asked(self, command: AnyCommand, answer: Sequence[AnyEvent] | Rejection) -> None:
        """A command was decided."""
        self.commands[type(command).__name__] += 1
        if isinstance(answer, Rejection):
            self.rejections[answer.code] += 1
        else:
            self.events.update(event.NAME for event in answer)

    def logged(self, events: Sequence[AnyEvent]) -> None:
        """Events were committed."""
        self.events.update(event.NAME for event in events)

    def recovered(self, report: RecoveryReport) -> None:
        self.rows.update(report.rows)

    def witness(self, what: str, count: int = 1) -> None:
        self.witnesses[what] += count


SEEN = Seen()


def budget(times: float = 1.0, **others: object) -> settings:
    """Returns the settings of the profile in force, with so many times its examples."""
    values: dict[str, Any] = {
        "max_examples": max(1, round(times * settings().max_examples)),
        "suppress_health_check": list(HealthCheck),
        "deadline": None,
        **others,
    }
    return settings(**values)


def until_the_first_failure(times: float = 1.0) -> settings:
    """The budget of CI, for a sown bug: nothing is shrunk, and nothing is kept.

    Under every profile it is the examples of CI that have to find it, and so soon: with others
    the same bug may first be seen by another check than the one that is named.
    """
    ci = settings.get_profile("ci")
    return budget(
        times * ci.max_examples / settings().max_examples,
        derandomize=True,
        stateful_step_count=ci.stateful_step_count,
        phases=(Phase.explicit, Phase.generate),
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
    )


class Runs:
    """Runs each machine once, whoever asks for it."""

    def __init__(self) -> None:
        self._ended: dict[Machine, BaseException | None] = {}

    def __call__(self, machine: Machine, times: float) -> None:
        if machine not in self._ended:
            self._ended[machine] = _caught(
                lambda: run_state_machine_as_test(machine, settings=budget(times))
            )
        error = self._ended[machine]
        if error is not None:
            raise error

    def again(self, machine: Machine, times: float, number: int) -> None:
        """Runs a machine with other examples: those of a number, the same every time."""
        other = seed(number)(type(machine.__name__, (machine,), {}))
        run_state_machine_as_test(other, settings=budget(times, derandomize=False, database=None))


def _caught(work: Callable[[], None]) -> BaseException | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - raised again to whoever asks
        return error
    return None
