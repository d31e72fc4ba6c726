"""An outcome that comes once more after its answer was forgotten: the log remembers the first.

What the log does not tell of an outcome (its children, a delay that the backoff has chosen) is not
compared.
"""

from __future__ import annotations

from typing import Final

from beaver.dispatch.reports import Answer, Report
from beaver.server.http.site import Site
from beaver.structs.messages import OutcomeKind
from beaver.structs.views import ABSENT, EventView
from beaver.text import jsontext
from beaver.text.foreign import cut
from beaver_model.bounds import REMOTE_WORKERS_FROM
from beaver_model.events import Cause

_STATES: Final = {
    "ACK": "completed",
    "RETRY": "pending",
    "RELEASE": "pending",
    "DEAD": "dead",
    "CANCEL": "cancelled",
}


async def find_answer(site: Site, kind: str, report: Report) -> Answer | None:
    """Returns what an outcome was answered with, where the log says that it ended its attempt.

    Many that ask at once cost one reading of the log.
    """
    token = report.outcome.token
    _, until_seq = await site.read(lambda _: None)  # What has ended it may not be durable yet.
    if not 0 < token <= until_seq:
        return None
    told = await site.service.ending(token, until_seq)
    if told is None or told.worker < REMOTE_WORKERS_FROM:
        return None
    end = told.end
    if end is None or end.event not in _STATES or not _is_that(kind, report, end):
        return None
    return Answer(_STATES[end.event], end.seq, report.mark)


def _is_that(kind: str, report: Report, end: EventView) -> bool:
    """True where an outcome leads to that event."""
    outcome = report.outcome
    if end.event == "ACK":
        if kind != "ack":
            return False
        result = b"null" if end.result is ABSENT else bytes(end.result)
        return jsontext.canonical_of(result) == jsontext.canonical_of(outcome.result)
    if end.event == "CANCEL":
        return kind != "ack"
    if end.event == "RELEASE":
        if kind == "release":
            return end.cause == Cause.DRAIN
        return kind == "snooze" and end.cause == Cause.SNOOZE and _waits(end, outcome.delay_ms)
    if kind == "snooze":
        return end.cause == Cause.SNOOZE_LIMIT
    if kind != "fail" or (end.error or "") != cut(outcome.error):
        return False
    if end.event == "RETRY":
        is_late = outcome.delay_ms is None or _waits(end, outcome.delay_ms)
        return outcome.kind == OutcomeKind.FAILED and end.cause == Cause.FAILED and is_late
    is_final = outcome.kind == OutcomeKind.DEAD
    return end.cause == (Cause.NOT_RETRYABLE if is_final else Cause.FAILED)


def _waits(end: EventView, delay_ms: int | None) -> bool:
    return max(0, (end.run_at or end.time_ms) - end.time_ms) == (delay_ms or 0)
