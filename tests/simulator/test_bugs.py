"""The simulator sees: each seeded bug is found within a bounded number of seeds."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter

import pytest

from beaver.cli.main import main
from beaver_chaos.sim.plan import Plan, Script, draw_plan
from beaver_chaos.sim.shrink import kind_of, shrink, timeline
from beaver_chaos.sim.simulator import RunReport, run_plan, run_seed
from beaver_chaos.sim.text import PLAIN, PLAIN_JOB, plan_of, text_of
from tests.simulator.bugs import BUGS

pytestmark = pytest.mark.simulator

RAN = RunReport(draw_plan(0), [], "", 0, 0, 0.0, [], Counter())


def hunt(name: str) -> RunReport | None:
    """Returns the first run in which a bug is noticed as it should be."""
    bug = BUGS[name]
    for seed in range(bug.seeds):
        report = run_seed(seed, favour=bug.favour)
        if any(re.search(bug.noticed, violation) for violation in report.violations):
            return report
    return None


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[name].sow(monkeypatch)
    report = hunt(name)
    assert report is not None, f"{name}: not found within {BUGS[name].seeds} seeds"


@pytest.mark.parametrize(
    ("name", "acts", "workers"),
    [
        ("timeout without kill", 1, 2),
        ("reply before sync", 1, 1),
        ("a start that hangs is waited for", 2, 1),
        ("BOOT forgets what had started", 2, 1),
    ],
)
def test_a_failure_is_shrunk_to_the_least_and_the_command_repeats_it_exactly(
    name: str,
    acts: int,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The least that is known: a job that runs twice at once needs two workers, a start that
    hangs a reload or a dead worker before it.  And it is the bug's: without it nothing fails.
    """
    BUGS[name].sow(monkeypatch)
    report = hunt(name)
    assert report is not None
    shrunk = shrink(report)
    assert kind_of(shrunk.report.violations[0]) == kind_of(report.violations[0])
    assert len(shrunk.plan.acts) <= acts
    assert shrunk.plan.setup.workers == workers
    program, *arguments = shlex.split(shrunk.command)
    assert program == "beaver"
    assert main([*arguments, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["failure"]
    assert told["violations"] == shrunk.report.violations
    assert told["timeline"] == timeline(shrunk.report)
    assert any("VIOLATION" in line for line in told["timeline"])
    monkeypatch.undo()
    assert run_plan(shrunk.plan).violations == []


def test_every_number_is_shrunk_as_far_as_the_failure_allows() -> None:
    """A failure that needs just these: found whatever else there is."""

    def run(plan: Plan) -> RunReport:
        holds = [act for act in plan.acts if act.kind == "stop_server" and act.args[0] >= 17]
        jobs = [j for a in plan.acts if a.kind == "enqueue" for j in a.args[1]]
        long = [job for job in jobs if any(script.ms > 20 for script in job.scripts)]
        together = holds and long and holds[-1].at_ms >= 40 and plan.setup.workers >= 2
        return RAN._replace(plan=plan, violations=["wrong: j1 after 3 ms"] if together else [])

    plan = next(
        plan
        for plan in (draw_plan(seed, 60, "stop_server") for seed in range(100))
        if len(plan.acts) >= 60 and run(plan).violations
    )
    shrunk = shrink(run(plan), run=run).plan
    assert shrunk.setup == PLAIN._replace(workers=2)
    (enqueue,) = (act for act in shrunk.acts if act.kind == "enqueue")
    (hold,) = (act for act in shrunk.acts if act.kind == "stop_server")
    assert len(shrunk.acts) == 2
    assert (hold.at_ms, hold.args) == (40, (17,))
    (job,) = enqueue.args[1]
    assert enqueue.args[0] == 0
    assert job == PLAIN_JOB._replace(id=job.id, scripts=(Script("ok", 21),))


def test_no_plan_is_lost_when_it_is_written_and_read() -> None:
    for seed in range(300):
        plan = draw_plan(seed)
        assert plan_of(text_of(plan)) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "truncated"),
        ('{"seed":1}', "acts"),
        ('{"seed":1,"acts":[[0,"dance",[]]]}', "no act 'dance'"),
        ('{"seed":1,"acts":[[0,"enqueue",[5,[]]]]}', "a client"),
        ('{"seed":1,"acts":[[0,"enqueue",[0,[{"name":"j"}]]]]}', "no such fields: name"),
        ('{"seed":1,"acts":[],"setup":{"workers":"two"}}', "int"),
    ],
)
def test_what_is_no_plan_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan_of(text)
