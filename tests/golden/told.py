"""The store that a transcript talks to: the real engine, log and recovery on a simulated disk.

Nothing happens by itself here but what the engine does: the transcript is the controller, the
workers, the clock and the fate of the machine.  Everything that is said is said in the order in
which it happened, so that a reader sees what had to be on disk before whom was told:

    decided   `decide` returned these events, and they are applied in memory
    synced    one frame is on disk
    told      somebody outside has the answer
    recovery  what a start found, by the rows of the recovery table

The commands stand in `Store.COMMANDS`; `tests/golden/README.md` lists them for readers.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from beaver.engine.engine import Engine
from beaver.engine.replies import Applied, Reply
from beaver.errors import BeaverError
from beaver.helper.work import prepare_segment, take_snapshot
from beaver.history.stories import tell
from beaver.inspect import queries
from beaver.inspect.explaining import why_sentence
from beaver.inspect.listing import event_line
from beaver.journal.wal.layout import Layout
from beaver.journal.wal.recovery_table import RecoveryRow
from beaver.replay.replaying import check
from beaver.request.rejections import error_of
from beaver.store.recovery import open_store
from beaver.structs.questions import Known
from beaver.text.durations import parse_duration_ms
from beaver_chaos.sim.disk import Fault, SimDisk, Stopped
from beaver_model import Offer, Rejection, Spec, fingerprint, select
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
    ConfirmCancel,
    Discard,
    Dispatch,
    Enqueue,
    Expire,
    Fail,
    NewJob,
    Release,
    Requeue,
    SetBounds,
    SetQueue,
)
from beaver_model.events import JobEvent
from beaver_model.rows import encode_spec
from beaver_model.states import JobState
from tests.stateful.played import stepped_loop
from tests.stateful.scan import advance
from tests.stateful.stores import MovedClock, nothing

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""
STORE = b"transcript-store"
SEGMENT_BYTES = 1 << 16
EXTEND_BYTES = 1 << 13
FINDS = {find.label: find for find in RecoveryRow}


class Store:
    """A data directory, perhaps with a server over it."""

    def __init__(self) -> None:
        self._disk = SimDisk("data")
        self._layout = Layout("data")
        self._clock = MovedClock(START_MS)
        self._engine: Engine | None = None
        self._started: set[int] = set()
        """The slots: tokens whose user code has begun."""
        self._power_was_cut = False
        self._said: list[str] = []

    def ask(self, commands: Sequence[str]) -> list[str]:
        """Carries out the commands of a block in one turn of the loop; returns what was said."""
        self._said = []
        try:
            for line in commands:
                words = shlex.split(line)
                options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
                names = [word for word in words[1:] if "=" not in word]
                self.COMMANDS[words[0]](self, *names, **options)
            if self._engine is not None:
                self._loop.settle()
        except Stopped:
            self._say("killed", "inside that write: nobody was told")
            self._end()
        except BeaverError as error:
            for text in str(error).splitlines():
                self._say("refused", text)
        return self._said

    def _say(self, who: str, what: str) -> None:
        self._said.append(f"{who:<9}{what}".rstrip())

    # -- the server ----------------------------------------------------------------------------

    def _start(self) -> None:
        assert self._engine is None, "a server is running"
        opened = open_store(
            self._disk,
            "data",
            clock=self._clock,
            create=not self._disk.exists(self._layout.log),
            store=STORE,
            segment_bytes=SEGMENT_BYTES,
            extend_bytes=EXTEND_BYTES,
        )
        report = opened.report
        for label in report.rows:
            self._say("recovery", f"{label.upper()}: {FINDS[label].found}")
        if report.torn_tail_bytes:
            self._say(
                "recovery", f"{report.torn_tail_bytes} bytes dropped, kept in {report.broken}"
            )
        base = "nothing" if report.base == "none" else f"the {report.base}"
        self._say("recovery", f"starts from {base} and replays {report.events} events")
        self._state, self._wal = opened.state, opened.journal
        self._loop = stepped_loop()
        with self._loop.running():
            self._engine = Engine(self._state, self._wal, self._clock, on_failure=self._failed)
        self._engine.observers.append(self._synced)
        boot = Boot(frozenset(self._started), self._power_was_cut)
        self._power_was_cut = False
        self._submit(boot, lambda reply: "the server is ready")

    def _synced(self, first_seq: int, now_ms: int, events: Sequence[Any]) -> None:
        last_seq = first_seq + len(events) - 1
        seqs = f"seq {first_seq}" if len(events) == 1 else f"seq {first_seq} to {last_seq}"
        self._say("synced", f"{seqs}, one frame")

    def _failed(self, error: BaseException) -> None:
        text = str(error).splitlines()[0]
        self._say("failed", text)
        self._say("killed", "the process ends itself: nobody is told")

    def _end(self) -> None:
        self._engine = None
        self._loop.discard()
        self._disk.kill()

    def _kill(self) -> None:
        """`kill -9`: the page cache and the slots live on."""
        self._say("killed", "what was not synced is known to nobody")
        self._end()

    def _cut_power(self) -> None:
        """Nothing survives that was not synced; the slots are gone, too."""
        if self._engine is not None:
            self._end()
        self._disk.crash(nothing)
        self._started.clear()
        self._say("killed", "with the whole machine; what was not synced is gone")
        self._power_was_cut = True

    def _stop(self) -> None:
        """A clean end."""
        assert self._engine is not None, "a server is running"
        self._engine.close()
        self._end()

    def _die_in_write(self, after: str) -> None:
        """The next write of the log is cut short by `kill -9` after so many bytes, or all."""
        done_bytes = -1 if after == "all" else int(after)
        self._disk.plan(self._disk.operations + 1, Fault(0, done_bytes, done=True))

    def _fail_sync(self) -> None:
        """The next sync of the log fails: the disk is broken."""
        self._disk.plan(self._disk.operations + 1, Fault(5, -1))

    def _rot(self, text: str) -> None:
        """One bit of the log changes where this text stands in it."""
        offset = self._disk.contents(self._layout.log).index(text.encode())
        self._disk.flip(self._layout.log, offset, 0)

    def _seal(self) -> None:
        """The log goes on in a next segment."""
        prepare_segment(self._disk, self._layout.next, SEGMENT_BYTES)
        self._wal.adopt(self._layout.next)
        assert self._wal.seal(), "the segment was ready"
        self._say("sealed", f"archive: {', '.join(self._disk.listdir(self._layout.archive))}")

    def _snapshot(self) -> None:
        assert self._engine is not None, "a server is running"
        taken = take_snapshot(self._disk, self._layout, self._engine.durable_seq, self._clock)
        self._say("snapshot", f"seq {taken.last_seq}, as the helper finds it in the log")

    # -- what is asked of it -------------------------------------------------------------------

    def _submit(self, command: AnyCommand, told: Callable[[Applied], str]) -> None:
        assert self._engine is not None, "no server is running"

        def answer(reply: Reply) -> str:
            if isinstance(reply, Rejection):
                return f"refused: {str(error_of(reply)).splitlines()[0]}"
            if not isinstance(reply, Applied):
                return f"refused: {str(reply).splitlines()[0]}"
            for seq, event in enumerate(reply.events, reply.first_seq):
                self._say("decided", f"{seq} {event.NAME} {_about(event)}")
            if not reply.events:
                return f"{told(reply)}; nothing changed"
            return told(reply)

        self._engine.change(command, answer, lambda text: self._say("told", text))

    def _change(self, command: AnyCommand) -> None:
        """Submits a command about a job; the answer is the word for its state."""
        job: str = command.job  # type: ignore[union-attr]
        self._submit(command, lambda _: self._word(job))

    def _enqueue(self, *jobs: str, payload: str = "null", at: str = "0", **options: str) -> None:
        made = tuple(_job(name, payload, at, options) for name in jobs)
        self._submit(Enqueue(made), lambda _: ", ".join(map(self._word, jobs)))

    def _word(self, job: str) -> str:
        tombstone = self._state.tombstone(job)
        if tombstone is not None:
            return f"{job} is {queries.state_word(tombstone.outcome)}"
        word = queries.changed_word(self._state, job)
        return f"{job} is to be cancelled" if word == "cancel_requested" else f"{job} is {word}"

    def _dispatch(self, worker: str = "1", idle: str = "yes") -> None:
        """A worker has a free slot: the policy says who gets it."""
        assert self._engine is not None, "a server is running"
        now_ms = self._engine.now_ms()
        advance(self._state, now_ms)
        row = select(self._state, Offer(idle=idle == "yes"), now_ms)
        if row is None:
            self._say("policy", "no job may run in this slot")
            return
        command = Dispatch(row.id, int(worker), prefetched=idle != "yes")
        self._submit(command, lambda reply: f"worker {worker} gets {row.id}, token {row.token}")

    def _begin(self, job: str) -> None:
        """The worker marks its slot and calls the function."""
        token = self._state.jobs[job].token
        self._started.add(token)
        self._say("slot", f"token {token} has started")

    def _token(self, job: str, token: str) -> int:
        if token:
            return int(token)
        row = self._state.jobs.get(job)
        return row.token if row is not None else 0

    def _ack(self, job: str, token: str = "", result: str = "null", child: str = "") -> None:
        children = (_job(child, "null", "0", {}),) if child else ()
        self._change(Complete(job, self._token(job, token), result.encode(), children))

    def _fail(self, job: str, token: str = "", error: str = "boom", retry: str = "yes") -> None:
        self._change(Fail(job, self._token(job, token), error, retry=retry == "yes"))

    def _expire(self, job: str, token: str = "", cause: str = "time_limit") -> None:
        self._change(Expire(job, self._token(job, token), cause))

    def _release(self, job: str, cause: str, token: str = "", delay: str = "0ms") -> None:
        delay_ms = parse_duration_ms(delay)
        self._change(Release(job, self._token(job, token), cause, delay_ms))

    def _confirm_cancel(self, job: str, token: str = "") -> None:
        self._change(ConfirmCancel(job, self._token(job, token)))

    def _requeue(self, job: str, payload: str = "") -> None:
        self._change(Requeue(job, payload.encode() if payload else None))

    def _set_queue(self, queue: str, paused: str = "", weight: str = "") -> None:
        command = SetQueue(
            queue, paused == "yes" if paused else None, int(weight) if weight else None
        )
        self._submit(command, lambda _: f"queue {queue} is set")

    def _set_bounds(self, tombstones: str) -> None:
        self._submit(SetBounds(int(tombstones)), lambda _: "the bounds are set")

    def _pass(self, duration: str) -> None:
        self._loop.pass_ms(parse_duration_ms(duration), self._clock)

    # -- what is asked about it ------------------------------------------------------------------

    def _jobs(self) -> None:
        for row in self._state.jobs.values():
            what = f"{queries.state_word(row.state)}, attempt {row.attempt}"
            if row.state == JobState.IN_FLIGHT:
                what += f", token {row.token} on worker {row.worker}"
            if row.extra is not None and row.extra.suspect:
                what += ", suspect"
            self._say("job", f"{row.id}: {what}")
        for job in self._state.tombstones:
            self._say("job", f"{self._word(job)}, and only its tombstone is left")

    def _explain(self, job: str) -> None:
        """As `beaver explain`: every event from the log, and why the job does not run now."""
        stories = tell(self._disk, self._layout, [Known(job)])
        advance(self._state, self._clock.wall_ms())
        view = queries.explain(self._state, job, stories.by_job[job])
        for event in view.events:
            self._said.append(event_line(event))
        self._said.append(why_sentence(view, running=self._engine is not None))

    def _replay(self) -> None:
        """As `beaver replay --check`: the files give the state that the server holds."""
        report = check(self._disk, "data")
        self._say("replay", f"{'ok' if report.ok else 'damaged'}, up to seq {report.last_seq}")
        if self._engine is not None and report.ok:
            agrees = report.fingerprint == fingerprint(self._state)
            self._say("replay", f"{'the same' if agrees else 'ANOTHER'} state as the server's")

    COMMANDS: ClassVar[dict[str, Callable[..., None]]] = {
        "start": _start,
        "stop": _stop,
        "kill": _kill,
        "cut-power": _cut_power,
        "die-in-write": _die_in_write,
        "fail-sync": _fail_sync,
        "rot": _rot,
        "seal": _seal,
        "snapshot": _snapshot,
        "enqueue": _enqueue,
        "dispatch": _dispatch,
        "begin": _begin,
        "ack": _ack,
        "fail": _fail,
        "expire": _expire,
        "release": _release,
        "cancel": lambda self, job: self._change(Cancel(job)),
        "confirm-cancel": _confirm_cancel,
        "requeue": _requeue,
        "discard": lambda self, job: self._change(Discard(job)),
        "set-queue": _set_queue,
        "set-bounds": _set_bounds,
        "pass": _pass,
        "jobs": _jobs,
        "explain": _explain,
        "replay": _replay,
    }


def _job(name: str, payload: str, at: str, options: dict[str, str]) -> NewJob:
    """A job of the task `echo`; numbers of its spec by their names."""
    given = {key: int(value) if value.isdigit() else value for key, value in options.items()}
    spec = msgspec.structs.replace(Spec("echo"), **given)
    raw = encode_spec(spec)
    run_at_ms = START_MS + parse_duration_ms(at) if at != "0" else 0
    # The digest of the request: the same content has the same.
    digest = (payload + repr(sorted(options.items())) + at).encode()[-12:].rjust(12)
    return NewJob(name, raw, payload.encode(), digest, run_at_ms)


def _about(event: Any) -> str:
    """The fields of an event that tell it from others of its kind."""
    shown = ("token", "cause", "epoch", "power_cut", "suspect", "worker", "queue", "paused")
    facts = [f"{name}={getattr(event, name)}" for name in shown if getattr(event, name, None)]
    return " ".join([event.job, *facts] if isinstance(event, JobEvent) else facts)
