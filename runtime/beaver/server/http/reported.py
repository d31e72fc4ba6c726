"""An outcome that comes once more after its answer was forgotten: the log remembers the first.

The token is the seq of a DISPATCH, which names the job; among the events of the job stands the
one that ended the attempt.  What the log does not tell of an outcome (its children, a delay that
the backoff has chosen) is not compared.
"""

from __future__ import annotations

from typing import Final

import msgspec

from beaver.dispatch.reports import Answer, Report
from beaver.errors import NotFound
from beaver.server.http.site import Site
from beaver.structs.messages import OutcomeKind
from beaver.structs.questions import Walked
from beaver.structs.views import ABSENT, EventView, ExplainView
from beaver.text import jsontext
from beaver.text.foreign import cut
from beaver_model.bounds import REMOTE_WORKERS_FROM
from beaver_model.events import Cause

_ONE_COMMIT: Final = 1
"""Bytes of a walk that goes no further than the first commit."""

_decode_walked: Final = msgspec.json.Decoder(Walked).decode
_decode_event: Final = msgspec.json.Decoder(EventView).decode
_decode_explained: Final = msgspec.json.Decoder(ExplainView).decode

_STATES: Final = {
    "ACK": "completed",
    "RETRY": "pending",
    "RELEASE": "pending",
    "DEAD": "dead",
    "CANCEL": "cancelled",
}


async def find_answer(site: Site, kind: str, report: Report) -> Answer | None:
    """Returns what an outcome was answered with, where the log says that it ended its attempt."""
    token, until_seq = report.outcome.token, site.engine.durable_seq
    if not 0 < token <= until_seq:
        return None
    walked = _decode_walked(await site.walk(token - 1, until_seq, _ONE_COMMIT))
    dispatched = next((event for event in walked.events if event.seq == token), None)
    if dispatched is None or dispatched.event != "DISPATCH":
        return None
    if (_decode_event(dispatched.json).worker or 0) < REMOTE_WORKERS_FROM:
        return None
    try:
        view = _decode_explained(await site.ask("explain", [dispatched.job]))
    except NotFound:
        return None
    end = next((e for e in view.events if e.token == token and e.event in _STATES), None)
    if end is None or not _is_that(kind, report, end):
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
