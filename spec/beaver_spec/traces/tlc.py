"""A short trace under TLC: each event must be the action of its name in `Lifecycle.tla`.

What lives here: writing a trace as a TLA+ module, and reading TLC's answer.  It is slow, so
it is for traces of some hundreds of events; `traces.rules` does millions and knows more
rules.  The two were written one after the other from the same page, and tests make them
agree on traces of the real program and on each way to spoil one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from beaver_spec.specification.storage_tlc import Tlc, run_tlc
from beaver_spec.traces.fields import options_of
from beaver_spec.traces.lifecycle import REMOTE_FROM
from beaver_spec.traces.rules import LogStep, TraceVerdict

STEPS_MAX: Final = 2_000


def validate_with_tlc(tlc: Tlc, events: Iterable[LogStep]) -> TraceVerdict:
    """Walks along a trace that begins with seq 1 in `LifecycleTrace.tla`."""
    steps = list(events)
    assert steps, "a trace has events"
    assert len(steps) <= STEPS_MAX, "TLC is for short traces"
    text, jobs = as_module(steps)
    run = run_tlc(
        tlc,
        "LifecycleTrace",
        "LifecycleTrace",
        values={"Jobs": _set_of(jobs)},
        modules={"TraceEvents": text},
    )
    assert run.is_finished, run.output
    if run.broken:
        return TraceVerdict(True, len(steps), steps[-1].seq)
    # The start is a state, too; every event that fits adds one.
    index = run.depth - 1
    wrong = steps[index]
    return TraceVerdict(False, index, wrong.seq, f"{wrong.name}: no action of Lifecycle.tla fits")


def as_module(steps: Sequence[LogStep]) -> tuple[str, int]:
    """Returns a trace as the module `TraceEvents`, and how many jobs it has.

    Ids become numbers, and times their ranks: TLC's numbers have 32 bits.  An id that comes
    back after its job has completed or was discarded is another job.
    """
    times = {step.time_ms for step in steps}
    times |= {step.fields.get("run_at_ms", 0) for step in steps}
    rank = {time: number for number, time in enumerate(sorted(times | {0}))}
    numbers: dict[str, int] = {}
    finished: set[str] = set()
    count = 0
    lines: list[str] = []
    for step in steps:
        job_id = step.fields.get("job", "")
        if job_id and (job_id not in numbers or (step.name == "ENQUEUE" and job_id in finished)):
            count += 1
            numbers[job_id] = count
            finished.discard(job_id)
        if step.name in {"ACK", "DISCARD"}:
            finished.add(job_id)
        lines.append(_record(step, numbers.get(job_id, 0), rank))
    body = ",\n    ".join(lines)
    return f"---- MODULE TraceEvents ----\nTrace == <<\n    {body}\n>>\n====\n", max(count, 1)


def _record(step: LogStep, job: int, rank: dict[int, int]) -> str:
    fields = step.fields
    options = options_of(fields["spec"]) if step.name == "ENQUEUE" else None
    values: dict[str, Any] = {
        "name": f'"{step.name}"',
        "seq": step.seq,
        "time": rank[step.time_ms],
        "job": job,
        "token": fields.get("token", 0),
        "at": rank[fields.get("run_at_ms", 0)],
        "max": options[1] if options else 0,
        "suspect": "TRUE" if fields.get("suspect") or fields.get("power_cut") else "FALSE",
        "remote": "TRUE" if fields.get("worker", 0) >= REMOTE_FROM else "FALSE",
    }
    return f"[{', '.join(f'{name} |-> {value}' for name, value in values.items())}]"


def _set_of(count: int) -> str:
    return "{" + ", ".join(str(number) for number in range(1, count + 1)) + "}"
