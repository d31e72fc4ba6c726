"""Hypothesis profiles, and what several test folders share."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers

from tests.support import needs, seconds

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")

ALONE = {
    "bench/": "measures",
    "docs/test_docs": "runs its documents side by side itself",
    "mutants/": "tries several at once itself",
    "runtime/": "watches for stalls of a loop",
    "scenarios/test_many_queues": "measures",
    "scenarios/test_run.py::test_a_thousand_jobs_run_at_well_over_200_a_second": "measures",
    "scenarios/test_takeover.py::test_the_gap_is_a_small_part_of_a_start": "measures",
    "workers/test_starting": "counts how many are started within a time",
}
"""How the names begin of tests that want a machine to themselves.  All others have directories,
ports and processes of their own, wait for conditions, and may run beside each other."""

NIGHTLY = (
    "bench/test_ratios",
    "bench/test_recovery_cost",
    "chaos/test_power.py::test_a_snapshot_that_gets_its_name_before_the_sync_is_seen",
    "chaos/test_power.py::test_nothing_acknowledged_is_lost_in_a_power_cut[XFS]",
    "chaos/test_rounds.py::test_nothing_acknowledged_is_lost_and_nothing_completes_twice[27]",
    "docs/test_checking.py::test_what_is_skipped_fails_where_everything_is_required[anywhere-",
    "docs/test_contributing",
    "foreign/test_odd.py::test_a_server_lives_with_what_is_odd_and_legal[odd_fields]",
    "fuzz/test_readers.py::test_no_input_crashes_hangs_or_takes_memory_for_it[forged]",
    "fuzz/test_readers.py::test_no_input_crashes_hangs_or_takes_memory_for_it[http]",
    "http_api/test_attacks.py::test_dns_rebinding_by_a_second_host_or_by_none",
    "http_client/test_restarts",
    "keeper/test_turns.py::test_fifty_producers",
    "scenarios/test_foreign",
    "scenarios/test_memory.py::test_nobody_keeps_others_waiting_with_halves_of_frames",
    "scenarios/test_ownership.py::test_leftovers_are_killed_by_the_store_itself",
    "scenarios/test_reload.py::test_reloads_that_pile_up",
    "shipping/test_command.py::test_a_target_that_fails_is_tried_again_and_told",
    "shipping/test_shipper",
    "simulator/test_bugs.py::test_a_failure_is_shrunk_to_the_least_and_the_command_repeats_it_exac",
    "simulator/test_bugs.py::test_a_seeded_bug_is_found[an outcome without room is never tried",
    "simulator/test_bugs.py::test_a_seeded_bug_is_found[limits follow the wall clock]",
    "simulator/test_bugs.py::test_a_seeded_bug_is_found[the last frame is not rewritten]",
    "simulator/test_bugs.py::test_a_seeded_bug_is_found[the slot is written behind user code]",
    "simulator/test_determinism.py::test_the_trace_is_the_same_in_every_process",
    "simulator/test_determinism.py::test_the_trace_is_the_same_on_every_python_at_hand",
    "spec/test_report.py::test_counts_that_drift_from_the_pinned_ones_are_a_finding",
    "spec/test_report.py::test_scopes_run_side_by_side_and_report_how_far_they_are",
    "spec_tools/test_induction",
    "workers/test_recall.py::test_thousands_of_recalls_lose_nothing_and_repeat_nothing[thread]",
)
"""How the names begin of what is slow, seldom red, and has a quicker sister: left to the night,
so that CI takes less than half an hour."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if name.startswith(NIGHTLY):
            item.add_marker(pytest.mark.nightly)
        if not name.startswith(tuple(ALONE)):
            item.add_marker(pytest.mark.side_by_side)
        if name.startswith("stateful/"):  # They share one run of each machine.
            item.add_marker(pytest.mark.xdist_group("stateful"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the transcripts in tests/golden anew; the commit says why they changed",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(needs)
    config.pluginmanager.register(seconds.Seconds())


# What the stateful machines share with others says what it found, as tests do.
for name in ("played", "rot", "scan", "stores"):
    pytest.register_assert_rewrite(f"tests.stateful.{name}")

# Started with SIGINT ignored (`nohup`, some runners), the tests' processes would ignore it too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if PROFILE != "nightly" and hasattr(providers, "_get_local_constants"):
    # Hypothesis mixes in the constants of all modules of ours that are loaded by then: what is
    # tried would depend on which tests ran before.
    providers._get_local_constants = lambda: providers._local_constants

settings.register_profile(
    "ci",
    deadline=None,
    # The same examples every time: what CI says depends on the change alone.  `nightly` looks
    # for new ones.
    derandomize=True,
    max_examples=100,
    stateful_step_count=40,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "nightly",
    settings.get_profile("ci"),
    derandomize=False,
    max_examples=int(os.environ.get("BEAVER_EXAMPLES", "5000")),  # `dev.py nightly --minutes`
    stateful_step_count=100,
)
settings.register_profile(
    "mutants",  # One failure is enough: nothing is shrunk, and nothing is kept.
    settings.get_profile("ci"),
    max_examples=50,
    phases=(Phase.explicit, Phase.generate),
    database=None,
    print_blob=False,
)
settings.load_profile(PROFILE)
