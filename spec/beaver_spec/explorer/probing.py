"""Every command that can be put to a state, also those that nobody would send."""

from __future__ import annotations

from collections.abc import Sequence

from beaver_spec.explorer.properties import Ask
from beaver_spec.explorer.rows import JobRow


def probes(rows: tuple[JobRow, ...], *, several: bool, remote: bool) -> Sequence[Ask]:
    """Returns every command that can be put to a state with these rows.

    Args:
        rows: The jobs.
        several: Commands about two jobs at once, too.
        remote: Leases that end, too.
    """
    asks: list[Ask] = [
        ("repeated",),
        ("too-large",),
        ("bad-weight",),
        ("bad-bounds",),
        ("pause", True),
        ("pause", False),
        ("boot", (), True),
        ("boot", (), False),
    ]
    for job, row in enumerate(rows):
        asks += [("enqueue", job, "same"), ("enqueue", job, "other"), ("enqueue", job, "later")]
        asks += [("dispatch", job, row.label + 1, wait) for wait in (True, False)]
        asks += [(kind, job) for kind in ("cancel", "requeue", "discard")]
        if several:
            asks += _probes_of_several(rows, job)
        for label in {row.label, row.label + 1}:
            asks += [
                ("complete", job, label, -1),
                ("fail", job, label, "failed"),
                ("fail", job, label, "not_retryable"),
                ("expire", job, label),
                *([("lease", job, label)] if remote else ()),
                ("release", job, label, "snooze"),
                ("release", job, label, "never_started"),
                ("confirm", job, label),
            ]
    return asks


def _probes_of_several(rows: tuple[JobRow, ...], job: int) -> Sequence[Ask]:
    """Every pair that begins with a job: the same twice, and tokens of nobody, too."""
    asks: list[Ask] = []
    for other, row in enumerate(rows):
        labels = (rows[job].label + 1, row.label + 1)
        asks += [("dispatch-several", (job, other), labels, wait) for wait in (True, False)]
        asks += [
            ("complete-several", ((job, rows[job].label), (other, label)))
            for label in (row.label, row.label + 1)
        ]
    return asks
