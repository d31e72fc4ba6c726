"""The mutants that CI tries; a night tries all.

What lives here: which, by the promise that they break (`docs/explanation/promises.md`): two or
three for each, chosen for what would hurt most and for tests that take little time.
"""

from __future__ import annotations

from typing import Final

BY_PROMISE: Final[dict[str, tuple[str, ...]]] = {
    "P1": (
        "acknowledged-before-the-sync",
        "reply-told-with-the-batch-still-open",
        "unproven-frame-shipped",
    ),
    "P2": ("ledger-not-updated", "requeue-keeps-the-idempotency-key"),
    "P3": (
        "stale-token-accepted",
        "late-commit-of-a-deposed-writer-counts",
        "token-of-another-worker-accepted",
    ),
    "P4": ("events-replayed-twice", "tombstones-evicted-early"),
    "P5": ("resumed-queue-gets-no-turn", "cancel-forgotten-by-a-failure"),
    "P6": ("dead-with-attempts-left", "retry-without-bound"),
    "P7": ("crc-not-chained", "corruption-called-a-torn-tail"),
    "P8": ("http-takes-every-client", "discard-that-nobody-asked-for"),
    "P9": ("late-job-put-behind-the-others", "tie-of-turns-goes-to-the-wrong-queue"),
    "P10": ("body-started-without-its-permit", "timeout-logged-before-the-kill"),
    "P11": ("change-answered-before-its-sync", "unfinished-job-called-finished"),
    "P12": ("job-started-before-its-time", "stamps-go-back"),
}

QUICK: Final = frozenset(name for names in BY_PROMISE.values() for name in names)
