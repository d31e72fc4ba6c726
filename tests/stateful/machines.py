"""All machines, and how many times the examples of the profile each gets."""

from __future__ import annotations

from typing import Final

from tests.stateful import (
    test_agreement,
    test_commits,
    test_leaders,
    test_lifecycle,
    test_remote_workers,
    test_scheduling,
    test_storage,
)
from tests.stateful.running import Machine

MACHINES: Final[dict[Machine, float]] = {
    test_lifecycle.Lifecycle: test_lifecycle.TIMES,
    test_storage.Storage: test_storage.TIMES,
    test_scheduling.Scheduling: test_scheduling.TIMES,
    test_commits.Commits: test_commits.TIMES,
    test_agreement.Agreement: test_agreement.TIMES,
    test_leaders.Leaders: test_leaders.TIMES,
    test_remote_workers.Remotes: test_remote_workers.TIMES,
}
