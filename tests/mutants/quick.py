"""The mutants that CI tries; a night tries all.

What lives here: which, by the promise that they break (`docs/explanation/promises.md`).  Each
promise has several, in different layers where more than one holds it, and each layer that
kills mutants at all is here.  They are chosen for what would hurt most and for tests that
take little time.
"""

from __future__ import annotations

from typing import Final

BY_PROMISE: Final[dict[str, tuple[str, ...]]] = {
    "P1": (
        "acknowledged-before-the-sync",
        "duplicate-answered-before-the-sync-of-the-original",
        "refusal-told-before-the-sync",
        "answers-told-after-a-failed-write",
        "batch-told-when-the-writer-gets-it",
        "dispatched-before-the-sync",
        "reply-told-with-the-batch-still-open",
        "burst-of-requests-answered-at-once",
        "more-than-100-told-before-the-sync-in-a-simulated-run",
        "more-than-8-told-before-the-sync-in-group-commit",
        "frame-appended-without-its-sync",
        "half-a-frame-followed-by-others",
        "keeper-ends-on-requests",
        "farewell-before-the-last-commit",
        "unproven-frame-shipped",
    ),
    "P2": (
        "ledger-not-updated",
        "requeue-keeps-the-idempotency-key",
        "suspects-counted-for-ever",
        "attempts-of-a-dead-worker-still-held",
    ),
    "P3": (
        "an-attempt-may-outlive-its-server",
        "late-commit-of-a-deposed-writer-counts",
        "stale-token-accepted",
        "what-is-not-safe-is-sent-again-by-url",
        "boot-applied-without-its-epoch",
        "stale-token-is-legal-in-a-log",
        "any-token-accepted-in-some-interleaving",
        "batch-completes-a-job-twice",
        "token-of-another-worker-accepted",
    ),
    "P4": (
        "events-replayed-twice",
        "replay-starts-one-late",
        "tombstones-evicted-early",
        "a-job-twice-in-a-commit-is-replayed",
        "what-was-read-ahead-is-taken-as-it-was",
        "a-rare-row-left-out-of-snapshots",
    ),
    "P5": (
        "resumed-queue-gets-no-turn",
        "end-of-a-lane-forgotten",
        "unknown-task-dispatched",
        "cancel-forgotten-by-a-failure",
        "the-end-of-the-log-is-not-looked-through",
    ),
    "P6": (
        "dead-with-attempts-left",
        "retry-without-bound",
        "timeouts-without-bound",
        "snoozes-without-bound",
        "suspect-rule-dropped",
        "last-attempt-prefetched",
        "boot-forgets-started-tokens",
        "started-tokens-forgotten-at-boot",
    ),
    "P7": (
        "padding-of-any-kind",
        "members-of-a-backup-not-compared",
        "crc-not-chained",
        "corruption-called-a-torn-tail",
        "torn-tail-not-zeroed",
        "cut-of-a-torn-tail-not-synced",
        "last-frame-not-rewritten",
        "failed-sync-tried-again",
        "short-write-accepted",
        "missing-segment-not-noticed",
        "frames-need-not-follow",
        "snapshot-not-synced-before-its-rename",
        "pruned-below-the-newest-snapshot",
        "pruned-before-the-snapshot-is-durable",
        "pruned-before-the-comparison",
    ),
    "P8": (
        "a-wrong-token-sets-all-rows-of-an-outbox-aside",
        "http-takes-every-client",
        "discard-that-nobody-asked-for",
        "those-who-do-not-read-not-bounded-together",
        "fast-json-believed-without-reading-it",
        "frame-limit-off-by-one",
        "links-are-followed",
        "default-queue-within-the-bound",
        "unknown-task-not-told",
    ),
    "P9": (
        "late-job-put-behind-the-others",
        "run-over-priorities",
        "tie-of-turns-goes-to-the-wrong-queue",
    ),
    "P10": (
        "timeout-logged-before-the-kill",
        "body-started-without-its-permit",
        "worker-reported-gone-before-its-subprocesses",
        "log-is-not-locked",
    ),
    "P11": ("change-answered-before-its-sync", "unfinished-job-called-finished"),
    "P12": (
        "job-started-before-its-time",
        "batch-dispatches-jobs-before-their-time",
        "stamps-go-back",
        "limit-taken-from-the-wall-clock",
    ),
}

QUICK: Final = frozenset(name for names in BY_PROMISE.values() for name in names)
