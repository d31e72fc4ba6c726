"""Workers that run several attempts at once: threads and coroutines in one process.

Each attempt can end by itself, and can be stopped softly.  What does not stop is ended with
its process: then its neighbours, which have done nothing wrong, are given back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from beaver_model.events import Cause
from beaver_spec.explorer.moment import Moment
from beaver_spec.explorer.properties import Ask
from beaver_spec.explorer.world import DRAINING, RUNS, SPENT, Worker, set_phase


def attempts_end(m: Moment, place: int, worker: Worker) -> None:
    """User code of several attempts runs: each may end, and all end with their process."""
    running = [index for index, held in enumerate(worker) if held.phase in RUNS]
    if not running:
        return
    if not m.full:
        for index in running:
            _ends_by_itself(m, place, worker, index)
    _dies(m, place, worker, running)
    for offenders in _offenders(m, worker, running):
        _is_killed_for(m, place, worker, running, offenders)


def _ends_by_itself(m: Moment, place: int, worker: Worker, index: int) -> None:
    """The outcome of one attempt is read; the others run on."""
    held = worker[index]
    job, label = held.job, held.label
    asks: dict[str, Ask] = {"ok": ("complete", job, label, -1)}
    if m.scope.fails:
        asks["fail"] = ("fail", job, label, Cause.FAILED)
    if m.scope.timeouts:
        asks["softly"] = ("expire", job, label)
    for how, ask in asks.items():
        crew = m.with_worker(place, set_phase(worker, index, SPENT))
        m.submit(("finish", place, how, index), ask, crew=crew)


def _dies(m: Moment, place: int, worker: Worker, running: Sequence[int]) -> None:
    """The process is gone without a reason of ours, or at the end of the grace."""
    gone = m.with_worker(place, m.rules.after_kill(worker))
    held = [worker[index] for index in running]
    if m.globe.losses:
        asks: list[Ask] = [("fail", h.job, h.label, Cause.WORKER_LOST) for h in held]
        spent = m.rules.spend(m.globe_id, "losses")
        m.chain(("finish", place, "died"), asks, crew=gone, globe=spent)
    if m.globe.phase == DRAINING:
        asks = [("release", h.job, h.label, Cause.DRAIN) for h in held]
        m.chain(("finish", place, "drained"), asks, crew=gone)


def _offenders(m: Moment, worker: Worker, running: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yields the attempts that may be found too long, or cancelled for too long, at once."""
    bad = [i for i in running if m.scope.timeouts or m.cancel_is_durable(worker[i])]
    for count in range(1, len(bad) + 1):
        yield from combinations(bad, count)


def _is_killed_for(
    m: Moment, place: int, worker: Worker, running: Sequence[int], offenders: Sequence[int]
) -> None:
    """The grace is over for some: the process is killed, and what became of all is told."""
    cancelled = [m.cancel_is_durable(worker[index]) for index in offenders]
    is_cancel = m.rules.is_killed_for_cancels(cancelled)
    asks: list[Ask] = []
    for index in running:
        job, label, _ = worker[index]
        if index not in offenders:
            asks.append(("release", job, label, Cause.NEIGHBOUR))
        elif is_cancel:
            asks.append(("confirm", job, label))
        else:
            asks.append(("expire", job, label))
    crew = m.with_worker(place, m.rules.after_kill(worker))
    m.chain(("kill", place, *offenders), asks, crew=crew)
