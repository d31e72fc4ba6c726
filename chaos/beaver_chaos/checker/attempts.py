"""What the log says of attempts and of the servers that began them, against what workers ran.

What lives here: dispatches, how they ended, and where servers began; the comparison with the
workers' own account.  What may not: the lifecycle of a job (`history`), processes, files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from beaver_model.bounds import REMOTE_WORKERS_FROM
from beaver_model.events import (
    Acked,
    AnyEvent,
    Booted,
    Cancelled,
    CancelRequested,
    Cause,
    Died,
    Discarded,
    Dispatched,
    Enqueued,
    JobEvent,
    QueueSet,
    Released,
    Requeued,
    Retried,
    TimedOut,
)
from beaver_model.state import State


class RunLine(NamedTuple):
    """One line of the workers' account."""

    ended: bool
    """True if the job's code ended, False if it began."""
    token: int
    pid: int
    job: str


_WITHOUT_SERVER: Final = (Enqueued, CancelRequested, Cancelled, Requeued, Discarded, QueueSet)
"""Events that need no server: a keeper or a lone producer logs them."""


class Attempts:
    """Every DISPATCH of a log, and what became of it."""

    def __init__(self, say: Callable[[str], None], queue_of: Callable[[str], str]) -> None:
        """Begins with an empty log.

        Args:
            say: Told each violation.
            queue_of: Returns the queue of a job; empty where it is not known.
        """
        self._say, self._queue_of = say, queue_of
        self._last_seq = self._began_behind = 0
        self._boot = 0
        self._starts: list[tuple[int, int]] = []
        """Of each server: the least seq at which whoever came behind its predecessor may have
        begun, since from there on nothing is logged that needs a server, and its BOOT."""
        self._alone_from = 1
        """From here on nothing is logged that needs a server."""
        self._waits: dict[str, list[tuple[int, bool]]] = {}
        """By queue: from which seq on its jobs waited for the sync of their DISPATCH, or did
        not."""
        self._power_cuts: list[int] = []
        self._dispatches: dict[int, Dispatched] = {}
        self._lost: list[tuple[int, int]] = []
        """Attempts that were charged at a start: the BOOT, and the token."""
        self._never_started: dict[int, str] = {}
        self._acks: dict[int, str] = {}

    def begin(self, state: State) -> None:
        """Begins behind a state, whose attempts are trusted."""
        for row in state.in_flight.values():
            self._dispatches[row.token] = Dispatched(row.id, row.worker)
        for name, queue in state.queues.items():
            self._waits[name] = [(state.last_seq, queue.row.durable_dispatch)]
        self._last_seq = self._began_behind = state.last_seq

    def follow(self, seq: int, event: AnyEvent) -> None:
        """Takes the next event of the log."""
        self._last_seq = seq
        if isinstance(event, Booted):
            self._starts.append((self._alone_from, seq))
            self._boot = seq
            if event.power_cut:
                self._power_cuts.append(seq)
        elif isinstance(event, QueueSet):
            self._waits.setdefault(event.queue, []).append((seq, event.durable_dispatch))
        if not isinstance(event, _WITHOUT_SERVER):
            self._alone_from = seq + 1

    def note(self, seq: int, event: JobEvent) -> None:
        """Takes what an event of a job that is known says of an attempt."""
        if isinstance(event, Dispatched):
            self._dispatches[seq] = event
        elif isinstance(event, Acked):
            self._acks[event.token] = event.job
        elif isinstance(event, Retried | TimedOut | Released | Died):
            if event.cause == Cause.NODE_LOST:
                self._lost.append((self._boot, event.token))
            if event.cause == Cause.NEVER_STARTED:
                self._never_started[event.token] = event.job

    def compare(self, runs: Sequence[RunLine], *, closed: bool = False) -> None:
        """Checks what workers ran.  The runs were read before the log was.

        A job of a queue that has opted out of a durable DISPATCH may run with a token that a
        crash then took; see `_may_be_lost`.

        Args:
            runs: The workers' account.
            closed: The log was closed.  Otherwise a server writes it, or was killed at its end.
        """
        starts = self._starts if closed else [*self._starts, (self._alone_from, self._last_seq + 1)]
        ran: dict[int, tuple[int, bool]] = {}
        """By token: the process, and whether a crash may have taken it."""
        newest: dict[str, int] = {}
        last_of: dict[int, int] = {}
        last_logged_of: dict[int, int] = {}
        for run in runs:
            token, pid = run.token, run.pid
            if run.ended:
                if newest.get(run.job) != token and not self._is_remote(token):
                    self._say(
                        f"token {token} of job {run.job} still ran when its attempt with token "
                        f"{newest.get(run.job)} had begun"
                    )
                continue
            may_be_lost = self._may_be_lost(run, last_logged_of.get(pid, 0), starts)
            first, first_may_be_lost = ran.get(token, (0, True))
            if first == pid or not (first_may_be_lost or may_be_lost):
                self._say(
                    f"token {token} of job {run.job} ran twice, in processes {first} and {pid}"
                )
            dispatch = self._dispatches.get(token)
            if dispatch is not None and dispatch.job == run.job:
                last_logged_of[pid] = token
            elif dispatch is None and token <= self._began_behind:
                pass  # Before what is kept of the log.
            elif not may_be_lost:
                self._say(
                    f"process {pid} ran job {run.job} with token {token}, which is no DISPATCH of "
                    "that job in the log"
                )
            if self._never_started.get(token) == run.job and not may_be_lost:
                self._say(f"token {token} of job {run.job} ran, and was given back as not started")
            if token < last_of.get(pid, 0) and not self._is_remote(token):
                self._say(f"process {pid} began token {token} after token {last_of[pid]}")
            newest[run.job] = last_of[pid] = token
            ran[token] = (pid, may_be_lost)

    def _is_remote(self, token: int) -> bool:
        """True for an attempt at a remote worker: it is fenced only, and starts in any order."""
        dispatch = self._dispatches.get(token)
        return dispatch is not None and dispatch.worker >= REMOTE_WORKERS_FROM

    def _may_be_lost(self, run: RunLine, before: int, starts: Sequence[tuple[int, int]]) -> bool:
        """True where a crash may have taken the DISPATCH of an attempt that had started.

        Its queue had opted out of waiting for it, and the next server (or a keeper or a lone
        producer before it) began at or below its seq, or the log ends there so far, while its
        worker had started nothing that is logged behind that.  A job whose ENQUEUE went with it
        may be of any queue.

        Args:
            run: Where the attempt began.
            before: Last token that its worker had started and that is in the log.
            starts: Where others may have begun, each from its least seq to its last.
        """
        queue = self._queue_of(run.job)
        queues = (queue,) if queue else self._waits
        return any(
            begin <= end and not (self._waited(queue, begin) and self._waited(queue, end))
            for first, boot in starts
            for begin, end in [(max(first, before + 1), min(boot, run.token))]
            for queue in queues
        )

    def _waited(self, queue: str, seq: int) -> bool:
        """True where jobs of a queue waited for the sync of their DISPATCH before `seq`."""
        return next((w for at, w in reversed(self._waits.get(queue, ())) if at < seq), True)

    def compare_charges(
        self, runs: Sequence[RunLine], *, power_was_cut: bool = False, at_once: bool = False
    ) -> None:
        """Checks that what completed or was charged did run.  Read the runs after the log.

        A worker says that it starts an attempt before the attempt's code can: in between it
        may be killed, with one attempt that is charged and never ran; but not with two.

        Args:
            runs: The workers' account.
            power_was_cut: The machine did go down, and then everything in flight is charged.
            at_once: Nothing comes between what a worker says and the code's first step.
        """
        ran = {(run.token, run.job) for run in runs}
        for token, name in self._acks.items():
            if (token, name) not in ran:
                self._say(f"job {name} completed with token {token}, which no worker ran")
        charged: Counter[tuple[int, int]] = Counter()
        for boot, token in self._lost:
            dispatch = self._dispatches.get(token)
            if power_was_cut and boot in self._power_cuts:
                continue
            if dispatch is not None and (token, dispatch.job) not in ran:
                charged[boot, dispatch.worker] += 1
        for (boot, worker), count in charged.items():
            if count > (0 if at_once else 1):
                self._say(
                    f"the BOOT at seq {boot} charged {count} attempts of worker {worker} that "
                    "never ran"
                )
        for boot in () if power_was_cut else self._power_cuts:
            self._say(f"the BOOT at seq {boot} says that the machine went down; it did not")
