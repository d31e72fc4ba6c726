"""Directives: what a job raises or returns to decide how its attempt ends.

Each of these may be raised or returned; both mean the same.  Anything else that is raised
is a failure, and anything else that is returned is the result.
"""

from __future__ import annotations

from datetime import timedelta


class Directive(Exception):
    """Base of the values that decide an outcome."""


class Retry(Directive):
    """The attempt failed; try again, after `delay` where it is given.

    It spends an attempt as any failure does.  Without `delay` the job's backoff decides.

    Args:
        delay: Seconds, a text such as `"5m"`, or a `timedelta`.
        error: Text for the log; the cause of the exception where it is empty.
    """

    def __init__(self, delay: float | str | timedelta | None = None, error: str = "") -> None:
        super().__init__(error or "the job asked for a retry")
        self.delay_ms = None if delay is None else _milliseconds(delay)
        self.error = error


class Snooze(Directive):
    """Not now: run again after `delay`, without spending an attempt.

    Args:
        delay: Seconds, a text such as `"5m"`, or a `timedelta`.
    """

    def __init__(self, delay: float | str | timedelta) -> None:
        super().__init__("the job snoozed")
        self.delay_ms = _milliseconds(delay)


class Cancel(Directive):
    """The job is no longer wanted; it ends in `cancelled`.

    Args:
        reason: Text for the log, shown wherever the job is.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the job cancelled itself")
        self.reason = reason


class Dead(Directive):
    """Trying again is pointless; the job ends in `dead`, whatever attempts are left."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the job gave up")
        self.reason = reason


class SoftStop(BaseException):
    """Raised inside a running job of the thread executor that must stop.

    No `Exception`, so that a job's `except Exception` does not swallow it.  Clean up in
    `finally` and let it pass: after a grace the whole worker is killed.
    """


class TimeLimit(SoftStop):
    """The attempt has run for longer than its timeout."""


class CancelRequested(SoftStop):
    """Somebody asked for the running job to be cancelled."""


def _milliseconds(delay: float | str | timedelta) -> int:
    if isinstance(delay, str):
        from beaver.text.durations import parse_duration_ms

        delay = parse_duration_ms(delay, "the delay") / 1000
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if not 0 <= seconds <= 30 * 86_400:
        raise ValueError(f"a delay of {seconds} s; it must lie between 0 s and 30 days")
    return round(seconds * 1000)
