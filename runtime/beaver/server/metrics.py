"""The metrics: counted without locks on the loop, handed over when they are scraped.

A `prometheus_client` counter takes a lock at each `inc()`, so the hot path counts in plain
integers and `Collector` turns them into metric families at scrape time.  `METRICS` is the
one list of names; the reference table in `docs/` is generated from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from beaver.engine.counters import CommitCounters, Histogram
from beaver.server.loop_stalls import LoopStalls
from beaver.server.queue_counters import QueueCounts, Taking, at_once
from beaver.server.throughput import Counts, Throughput
from beaver.structs.views import StatusView
from beaver_model.events import (
    ALL_EVENTS,
    Acked,
    AnyEvent,
    AttemptEnded,
    Cancelled,
    Died,
    Dispatched,
    Enqueued,
    Released,
    Retried,
    TimedOut,
)

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

LATENCY_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)

METRICS: Final[dict[str, tuple[str, str]]] = {
    "queue_jobs_enqueued_total": ("counter", "Jobs enqueued since the server started"),
    "queue_jobs_dispatched_total": ("counter", "Attempts handed to workers"),
    "queue_jobs_completed_total": ("counter", "Jobs completed"),
    "queue_jobs_failed_total": ("counter", "Attempts that failed, timeouts included"),
    "queue_jobs_dead_total": ("counter", "Jobs that died"),
    "queue_jobs_retried_total": ("counter", "Failed attempts that will be retried"),
    "queue_jobs_timed_out_total": ("counter", "Attempts that ran over a limit or lost their node"),
    "queue_jobs_released_total": ("counter", "Attempts given back without being counted"),
    "queue_jobs_cancelled_total": ("counter", "Jobs cancelled"),
    "queue_job_latency_seconds": ("histogram", "Time from the commit of DISPATCH to that of ACK"),
    "queue_recovery_time_seconds": ("gauge", "Time that the last recovery took, by phase"),
    "queue_jobs_pending": ("gauge", "Pending jobs by queue: the 100 largest, the rest as `other`"),
    "queue_jobs_in_flight": ("gauge", "Jobs held by a worker, by queue"),
    "queue_jobs_dead": ("gauge", "Dead jobs by queue"),
    "queue_jobs_scheduled": ("gauge", "Pending jobs that are scheduled for later"),
    "queue_oldest_pending_seconds": ("gauge", "How long the oldest ready job has waited, by queue"),
    "queue_paused": ("gauge", "1 if the queue is paused; for `other`, how many are"),
    "beaver_commits_total": ("counter", "Frames written to the log, one sync each"),
    "beaver_commits_gathered_total": (
        "counter",
        "Commits that waited briefly to collect more requests",
    ),
    "beaver_events_total": ("counter", "Events written to the log"),
    "beaver_log_bytes_total": ("counter", "Bytes written to the log"),
    "beaver_sync_seconds": ("histogram", "Time to write and sync one frame"),
    "beaver_batch_events": ("histogram", "Events in one frame"),
    "beaver_loop_stall_seconds": ("histogram", "Time the event loop was blocked"),
    "beaver_loop_stall_max_seconds": (
        "gauge",
        "Longest time it was blocked since the server was ready",
    ),
    "beaver_slots": ("gauge", "Worker processes: busy, idle, or starting"),
    "beaver_worker_starts_overdue_total": (
        "counter",
        "Workers killed because they hung while starting",
    ),
    "beaver_remote_workers": ("gauge", "Remote workers that are registered"),
    "beaver_remote_attempts": ("gauge", "Attempts that remote workers hold"),
    "beaver_remote_pulls": ("gauge", "Requests of remote workers that wait for a job"),
    "beaver_leases_expired_total": (
        "counter",
        "Attempts taken from remote workers that were silent for their lease",
    ),
    "beaver_state_bytes": ("gauge", "Estimated memory of jobs and tombstones"),
    "beaver_results_bytes": ("gauge", "Results not yet written to the history"),
    "beaver_last_seq": ("gauge", "Last durable seq"),
    "beaver_snapshot_seq": ("gauge", "Seq of the last snapshot"),
    "beaver_snapshot_seconds": ("gauge", "Time that the last snapshot took"),
    "beaver_snapshot_mismatches_total": (
        "counter",
        "Snapshots that were not read back as they were written: each is a bug in Beaver",
    ),
    "beaver_history_seq": ("gauge", "Last seq in the history, which lags while busy"),
    "beaver_epoch": ("gauge", "How often this store was started"),
    "beaver_commit_beside_loop": ("gauge", "1 while a writer process writes the log"),
    "beaver_sampled_rows_total": ("counter", "Jobs checked against the invariants"),
    "beaver_invariant_violations_total": (
        "counter",
        "Violated invariants: each is a bug in Beaver",
    ),
    "beaver_dispatch_halted": ("gauge", "1 after a violated invariant: nothing is dispatched"),
    "beaver_disk_full": ("gauge", "1 while new jobs are refused: the disk is full"),
    "beaver_archive_bytes": ("gauge", "Sealed segments of the log"),
    "beaver_archive_since_seconds": ("gauge", "When the log begins, in seconds since the epoch"),
    "beaver_free_bytes": ("gauge", "Free space of the disk that the data directory is on"),
    "beaver_ship_seq": ("gauge", "Last seq that a target of `beaver ship` holds, by target"),
    "beaver_ship_lag_seconds": (
        "gauge",
        "Age of the first event that a target does not hold; it grows where no shipper runs",
    ),
}


class Metrics:
    """What is counted.  Observes the engine's commits."""

    def __init__(self) -> None:
        self.counts: dict[type, int] = dict.fromkeys(ALL_EVENTS, 0)
        self.throughput = Throughput()
        self.latency = Histogram(LATENCY_SECONDS)
        self._dispatched_ms: dict[int, int] = {}
        self.snapshot_seq = 0
        self.snapshot_seconds = 0.0
        self.snapshot_mismatches = 0
        self.history_seq = 0
        self.recovery: dict[str, float] = {}
        self.sampled_rows = 0
        self.violations = 0

    def between(self, since_ms: int, until_ms: int, step_ms: int) -> dict[int, Counts]:
        """See `Throughput.between`."""
        return self.throughput.between(since_ms, until_ms, step_ms, self.counts)

    def observe(self, first_seq: int, now_ms: int, events: Sequence[AnyEvent]) -> None:
        """Counts a commit."""
        if now_ms >= self.throughput.due_ms:
            self.throughput.turn(now_ms, self.counts)
        counts, dispatched_ms = self.counts, self._dispatched_ms
        for seq, event in enumerate(events, first_seq):
            kind = type(event)
            counts[kind] += 1
            if kind is Dispatched:
                dispatched_ms[seq] = now_ms
            elif kind is Acked:
                assert isinstance(event, Acked)
                since_ms = dispatched_ms.pop(event.token, None)
                if since_ms is not None:
                    self.latency.observe((now_ms - since_ms) / 1000)
            elif isinstance(event, AttemptEnded):
                dispatched_ms.pop(event.token, None)


class Collector:
    """Turns the counters into metric families; one is registered for each server."""

    def __init__(
        self,
        metrics: Metrics,
        counters: CommitCounters,
        status: Callable[[], StatusView],
        take_queues: Callable[[], Taking],
        results_bytes: Callable[[], int],
        stalls: LoopStalls,
    ) -> None:
        """Takes where the counters come from.

        Args:
            metrics: What was counted of events.
            counters: What was counted of commits.
            status: The state at a glance, without its queues.
            take_queues: Begins to look at the queues, which may be many.
            results_bytes: What waits for its projection.
            stalls: How long the event loop was blocked.
        """
        self._metrics, self._counters, self._stalls = metrics, counters, stalls
        self._status, self._results_bytes = status, results_bytes
        self._take_queues = take_queues
        self._queues: QueueCounts | None = None

    async def prepare(self) -> None:
        """Looks at the queues while others have their turns; the next `collect` uses it."""
        taking = self._take_queues()
        while True:
            try:
                next(taking)
            except StopIteration as end:
                self._queues = end.value
                return
            await asyncio.sleep(0)

    def collect(self) -> Iterator[Any]:
        """Yields every family of `METRICS`, in that order."""
        values = self._values()
        for name, (kind, text) in METRICS.items():
            yield _family(name, kind, text, values[name])

    def _values(self) -> dict[str, Any]:
        counts, counters, status = self._metrics.counts, self._counters, self._status()
        queues, self._queues = self._queues or at_once(self._take_queues()), None
        local = [worker for worker in status.workers if not worker.capacity]
        busy = sum(1 for worker in local if worker.job is not None)
        starting = sum(1 for worker in local if not worker.ready)
        storage = status.storage
        return {
            "queue_jobs_enqueued_total": counts[Enqueued],
            "queue_jobs_dispatched_total": counts[Dispatched],
            "queue_jobs_completed_total": counts[Acked],
            "queue_jobs_failed_total": counts[Retried] + counts[TimedOut] + counts[Died],
            "queue_jobs_dead_total": counts[Died],
            "queue_jobs_retried_total": counts[Retried],
            "queue_jobs_timed_out_total": counts[TimedOut],
            "queue_jobs_released_total": counts[Released],
            "queue_jobs_cancelled_total": counts[Cancelled],
            "queue_job_latency_seconds": self._metrics.latency,
            "queue_recovery_time_seconds": ("phase", self._metrics.recovery),
            "queue_jobs_pending": ("queue", queues.pending),
            "queue_jobs_in_flight": ("queue", queues.in_flight),
            "queue_jobs_dead": ("queue", queues.dead),
            "queue_jobs_scheduled": status.scheduled,
            "queue_oldest_pending_seconds": ("queue", queues.oldest_s),
            "queue_paused": ("queue", queues.paused),
            "beaver_commits_total": counters.commits,
            "beaver_commits_gathered_total": counters.gathered,
            "beaver_events_total": counters.events,
            "beaver_log_bytes_total": counters.bytes,
            "beaver_sync_seconds": counters.syncs,
            "beaver_batch_events": counters.batches,
            "beaver_loop_stall_seconds": self._stalls.lengths,
            "beaver_loop_stall_max_seconds": self._stalls.longest_s,
            "beaver_slots": (
                "state",
                {
                    "busy": busy,
                    "idle": len(local) - busy - starting,
                    "starting": starting,
                },
            ),
            "beaver_worker_starts_overdue_total": status.starts_overdue,
            "beaver_remote_workers": len(status.workers) - len(local),
            "beaver_remote_attempts": status.remote_attempts,
            "beaver_remote_pulls": status.remote_pulls,
            "beaver_leases_expired_total": status.leases_expired,
            "beaver_state_bytes": status.state_bytes,
            "beaver_results_bytes": self._results_bytes(),
            "beaver_last_seq": status.last_seq,
            "beaver_snapshot_seq": self._metrics.snapshot_seq,
            "beaver_snapshot_seconds": self._metrics.snapshot_seconds,
            "beaver_snapshot_mismatches_total": self._metrics.snapshot_mismatches,
            "beaver_history_seq": self._metrics.history_seq,
            "beaver_epoch": status.epoch,
            "beaver_commit_beside_loop": int(status.commit_path == "writer"),
            "beaver_sampled_rows_total": self._metrics.sampled_rows,
            "beaver_invariant_violations_total": self._metrics.violations,
            "beaver_dispatch_halted": int(bool(status.halted)),
            "beaver_disk_full": int(status.disk_full),
            "beaver_archive_bytes": storage.archive_bytes if storage else 0,
            "beaver_archive_since_seconds": storage.since_ms / 1000 if storage else 0,
            "beaver_free_bytes": storage.free_bytes if storage else 0,
            "beaver_ship_seq": ("target", {ship.target: ship.seq for ship in status.ships}),
            "beaver_ship_lag_seconds": (
                "target",
                {ship.target: ship.lag_seconds for ship in status.ships},
            ),
        }


def _family(name: str, kind: str, text: str, value: Any) -> Any:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    if isinstance(value, Histogram):
        buckets, total = [], 0
        for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else f"{bound:g}", float(total)))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=value.total)
    family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    if not isinstance(value, tuple):
        return family(name, text, value=value)
    label, by_label = value
    metric = family(name, text, labels=[label])
    for key, number in by_label.items():
        metric.add_metric([key], number)
    return metric


def registry_of(collector: Collector) -> CollectorRegistry:
    """Returns a registry that holds one server's metrics and those of its process."""
    from prometheus_client import (
        CollectorRegistry,
        PlatformCollector,
        ProcessCollector,
    )

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(collector)
    return registry
