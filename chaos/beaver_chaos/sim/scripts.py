"""What simulated jobs do: scripts as payloads, and the outcome of each.

What may not live here: when an attempt runs, and where (`sim.pool`).
"""

from __future__ import annotations

from beaver.request.requests import build_request
from beaver.structs.messages import Attempt, Backoff, Outcome, OutcomeKind, Request
from beaver.text import jsontext
from beaver_chaos.sim.plan import TASK, JobPlan, Script


def payload_of(job: JobPlan) -> bytes:
    """Returns the scripts of a job as its payload."""
    return jsontext.encode({"runs": [list(script) for script in job.scripts]}, 1 << 20, "payload")


def request_of(job: JobPlan) -> Request:
    """Returns the request that sends a job."""
    return build_request(
        TASK,
        payload_of(job),
        job_id=job.id,
        queue=job.queue,
        priority=job.priority,
        delay_ms=job.delay_ms or None,
        timeout_ms=job.timeout_ms,
        max_attempts=job.max_attempts,
        backoff=Backoff(0, job.backoff_ms, job.backoff_ms, 0.1),
    )


def outcome_of(attempt: Attempt, script: Script) -> Outcome:
    """Returns what a worker reports of an attempt that did what its script says."""
    token, job, ms = attempt.token, attempt.job, float(script.ms)
    match script.how:
        case "ok":
            children = tuple(_child(job, n) for n in range(script.children))
            return Outcome(token, job, OutcomeKind.OK, b"%d" % token, children=children)
        case "fail":
            return Outcome(token, job, OutcomeKind.FAILED, error="failed", elapsed_ms=ms)
        case "dead":
            return Outcome(token, job, OutcomeKind.DEAD, error="hopeless", elapsed_ms=ms)
        case "snooze":
            return Outcome(token, job, OutcomeKind.SNOOZE, delay_ms=20, elapsed_ms=ms)
        case "cancel":
            return Outcome(token, job, OutcomeKind.CANCELLED, elapsed_ms=ms)
        case _:
            return Outcome(token, job, OutcomeKind.TIMED_OUT, error="too long", elapsed_ms=ms)


def _child(parent: str, number: int) -> Request:
    plan = JobPlan(f"{parent}.{number}", "default", 5, (Script("ok", 1),), 400, 3, 5, 0)
    return request_of(plan)
