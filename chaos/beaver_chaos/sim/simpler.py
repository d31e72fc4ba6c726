"""Simpler plans: what a shrinker may try, the boldest first.

Each candidate is smaller in one respect: acts are left out; the setup comes nearer to the
plainest one; less time goes by; one client asks everything; a request holds fewer jobs; a
job does less; a fault's number is smaller.  None is larger in another, so trying ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from beaver_chaos.sim.faults import FAULTS
from beaver_chaos.sim.plan import Act, JobPlan, Plan, Script
from beaver_chaos.sim.text import PLAIN, PLAIN_JOB


def simpler(plan: Plan) -> Iterator[Plan]:
    """Yields the plans that are simpler than this one in one respect."""
    yield from _fewer_acts(plan)
    yield from _one_client(plan)
    yield from _plainer_setup(plan)
    yield from _fewer_jobs(plan)
    yield from _less_time(plan)
    yield from _plainer_jobs(plan)
    yield from _smaller_numbers(plan)


def _fewer_acts(plan: Plan) -> Iterator[Plan]:
    """Pieces are left out, large ones first (delta debugging; Zeller and Hildebrandt, 2002)."""
    acts = plan.acts
    size = len(acts) // 2
    while size:
        for start in range(0, len(acts), size):
            yield plan._replace(acts=acts[:start] + acts[start + size :])
        size //= 2


def _one_client(plan: Plan) -> Iterator[Plan]:
    yield _with_acts(
        plan, lambda act: act if act.kind in FAULTS else act._replace(args=(0, *act.args[1:]))
    )


def _plainer_setup(plan: Plan) -> Iterator[Plan]:
    yield plan._replace(setup=PLAIN)
    for name, value, plain in zip(plan.setup._fields, plan.setup, PLAIN, strict=True):
        for tried in _towards(value, plain):
            yield plan._replace(setup=plan.setup._replace(**{name: tried}))


def _fewer_jobs(plan: Plan) -> Iterator[Plan]:
    """A request is the same whenever it is sent again, so a job goes everywhere."""
    for name in _jobs(plan):
        acts = []
        for act in plan.acts:
            if act.kind == "enqueue":
                client, jobs = act.args
                left = tuple(job for job in jobs if job.id != name)
                if not left:
                    continue
                acts.append(act._replace(args=(client, left)))
            else:
                acts.append(act)
        yield plan._replace(acts=tuple(acts))


def _less_time(plan: Plan) -> Iterator[Plan]:
    """All comes earlier, or one act, and what follows with it."""
    yield _with_acts(plan, lambda act: act._replace(at_ms=act.at_ms // 2))
    for n, act in enumerate(plan.acts):
        before_ms = plan.acts[n - 1].at_ms if n else 0
        for at_ms in _towards(act.at_ms, before_ms):
            sooner_ms = act.at_ms - at_ms
            later = tuple(a._replace(at_ms=a.at_ms - sooner_ms) for a in plan.acts[n:])
            yield plan._replace(acts=plan.acts[:n] + later)


def _plainer_jobs(plan: Plan) -> Iterator[Plan]:
    for name, job in _jobs(plan).items():
        for tried in _plainer(job):
            yield _with_job(plan, name, tried)


def _plainer(job: JobPlan) -> Iterator[JobPlan]:
    yield PLAIN_JOB._replace(id=job.id)
    for n in range(len(job.scripts)):
        if len(job.scripts) > 1:
            yield job._replace(scripts=job.scripts[:n] + job.scripts[n + 1 :])
        script = job.scripts[n]
        simple = [Script("ok", script.ms), *(script._replace(ms=m) for m in _towards(script.ms, 1))]
        simple += [script._replace(children=c) for c in _towards(script.children, 0)]
        for tried in simple:
            yield job._replace(scripts=(*job.scripts[:n], tried, *job.scripts[n + 1 :]))
    for name, value, plain in zip(job._fields, job, PLAIN_JOB, strict=True):
        if name not in ("id", "scripts"):
            for number in _towards(value, plain):
                yield job._replace(**{name: number})


def _smaller_numbers(plan: Plan) -> Iterator[Plan]:
    """Arguments of an act other than its client, job and queue."""
    for n, act in enumerate(plan.acts):
        if act.kind == "enqueue":
            continue
        for place, value in enumerate(act.args):
            if place == 0 and act.kind not in FAULTS:
                continue
            # A reload to no workers would end all work, whatever the program does.
            plain = 1 if act.kind == "reload" and place == 1 else type(value)()
            for tried in _towards(value, plain):
                args = (*act.args[:place], tried, *act.args[place + 1 :])
                yield plan._replace(
                    acts=(*plan.acts[:n], act._replace(args=args), *plan.acts[n + 1 :])
                )


# -- pieces ------------------------------------------------------------------------------------


def _towards(value: Any, plain: Any) -> Sequence[Any]:
    """Returns values between the plain one and this one, the plain one first."""
    if value == plain or (isinstance(value, str) and not plain):
        return ()
    if isinstance(value, bool | str):
        return (plain,)
    if isinstance(value, float):
        return (plain, round((value + plain) / 2, 3)) if abs(value - plain) > 0.01 else (plain,)
    step = 1 if value > plain else -1
    return tuple(dict.fromkeys((plain, plain + (value - plain) // 2, value - step)))


def _jobs(plan: Plan) -> dict[str, JobPlan]:
    sent = (act.args[1] for act in plan.acts if act.kind == "enqueue")
    return {job.id: job for jobs in sent for job in jobs}


def _with_acts(plan: Plan, change: Callable[[Act], Act]) -> Plan:
    return plan._replace(acts=tuple(change(act) for act in plan.acts))


def _with_job(plan: Plan, name: str, job: JobPlan) -> Plan:
    def change(act: Act) -> Act:
        if act.kind != "enqueue":
            return act
        client, jobs = act.args
        return act._replace(args=(client, tuple(job if j.id == name else j for j in jobs)))

    return _with_acts(plan, change)
