"""Jobs that run again and again, in the two ways that there are.

    beaver run -A periodic:app                          (in this directory)
    beaver enqueue clean_up '{"every": 5}' --id clean-up
    beaver enqueue report '{"number": 1, "every": 5}' --id report-1

`clean_up` is one job that snoozes: it never completes, costs no attempts by it, and ends
when somebody cancels it (or after 10,000 snoozes).  `report` is a chain: each run enqueues
the next one in the same commit as its own success, so the chain can neither break nor
fork, and each run has a result of its own.

Both drift by the time that a run takes.  Enqueueing the same id again is a no-op, so a
deployment may do so each time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from beaver import Beaver, JobContext, Snooze

app = Beaver("data")


@app.job
def clean_up(every: float) -> None:
    """Does its work, then comes back."""
    print("cleaned up")
    raise Snooze(every)


@app.job(max_attempts=5, backoff="1s")
def report(ctx: JobContext, number: int, every: float, last: int | None = None) -> str:
    """Writes a report and enqueues the next one, up to `last`."""
    if last is None or number < last:
        following = report.options(id=f"report-{number + 1}", delay=timedelta(seconds=every))
        ctx.enqueue(following, number + 1, every, last)
    return f"report {number} of {datetime.now(UTC):%Y-%m-%d}"
