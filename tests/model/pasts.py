"""Pasts: what may have happened to a state, drawn, so that tests can go on from anywhere.

Jobs of several queues, tasks and priorities in every state; lanes with late ones and husks;
suspects, paused queues, tasks that nobody knows; tombstones that are evicted, and ids that
come again.  A past is plain data and leads to the same state each time it is lived.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from beaver_model import JobState, Offer, Rejection, Row, State, apply, decide, legal, select
from beaver_model.bounds import ADVANCE_MAX
from beaver_model.commands import (
    AnyCommand,
    Boot,
    Cancel,
    Complete,
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
from beaver_model.events import Acked, AnyEvent, Cause, Dispatched
from beaver_model.legality import JudgedFrame
from beaver_model.rows import Spec, encode_spec

Ask = tuple[Any, ...]
"""What happens, with picks in place of jobs and tokens."""

BEGIN_MS: Final = 1_000_000
QUEUES: Final = ("default", "mail", "bulk")
TASKS: Final = ("send", "fetch")
JOBS_MAX: Final = 24
FAR_MS: Final = 10_000_000
LIVES_MAX: Final = 500
"""Jobs that a life hands out at its end before the test takes it for endless."""

SPECS: Final = tuple(
    encode_spec(Spec(task, queue, priority, timeout_ms, attempts, backoff_base_ms=50))
    for queue, task, priority, timeout_ms, attempts in (
        # Most are of one lane, and not of one spec.
        *(("default", "send", 5, timeout_ms, 3) for timeout_ms in (1_000, 1_000, 2_000)),
        ("default", "send", 5, 1_000, 2),
        ("default", "send", 5, 1_000, 1),
        ("default", "send", 3, 1_000, 3),
        ("default", "fetch", 5, 1_000, 3),
        ("mail", "send", 5, 1_000, 3),
        ("mail", "send", 5, 2_000, 1),
        ("bulk", "fetch", 0, 1_000, 3),
    )
)
ENDS: Final = ("ok", "ok", "ok", "fail", "fatal", "expire", "drain", "drain", "snooze")


def drawn_jobs(
    draw: Random, palette: Sequence[int], *, plain: bool, beyond: int = 0
) -> tuple[Ask, ...]:
    """Draws jobs of one request: number, spec, after how many ms, tags."""
    after_ms = draw.choice(((0,), (0, 0, 0, 0, -50, 20, 300, 90_000)))
    tags = draw.choice((((),), ((), (), ("blue",))))
    return tuple(
        (
            number,
            draw.choice(palette),
            0 if plain else draw.choice(after_ms),
            () if plain else draw.choice(tags),
        )
        for number in draw.sample(range(JOBS_MAX + beyond), draw.randrange(1, 9))
    )


def drawn_ask(draw: Random, palette: Sequence[int]) -> Ask:
    """Draws something that happens."""
    match draw.choices(WORDS, WEIGHTS)[0]:
        case "enqueue":
            return "enqueue", drawn_jobs(draw, palette, plain=draw.random() < 0.6)
        case "dispatch":
            offer = Offer(idle=draw.random() < 0.7)
            return "dispatch", offer, draw.randrange(1, 3), draw.randrange(1, 9)
        case "dispatch any":
            return "dispatch any", draw.randrange(30), draw.randrange(1, 3)
        case "end":
            return "end", draw.randrange(30), draw.choice(ENDS)
        case "boot":
            return "boot", draw.randrange(8), draw.random() < 0.5
        case "queue":
            paused = draw.choice((None, False, False, True))
            return "queue", draw.choice(QUEUES), paused, draw.choice((None, 1, 3, 100))
        case "bounds":
            return "bounds", draw.choice((0, 1, 3, 100)), draw.choice((0, 0, 40))
        case "known":
            return "known", draw.choice((None, None, frozenset({"send"})))
        case "time":
            return "time", draw.choice((0, 1, 25, 60, 1_000))
        case word:
            return word, draw.randrange(30)


WORDS: Final = (
    *("enqueue", "dispatch", "dispatch any", "end", "boot", "cancel", "requeue", "discard"),
    *("queue", "bounds", "known", "time"),
)
WEIGHTS: Final = (8, 5, 3, 10, 2, 2, 2, 1, 2, 2, 1, 4)


def drawn_palette(draw: Random) -> Sequence[int]:
    """Draws the specs of a past: few as a rule, so that lanes get long."""
    return draw.choice((range(3), range(3), (0, 7), (0, 5), (0, 4, 8), (0, 6), range(len(SPECS))))


class Case(NamedTuple):
    """What has happened, what is done at once or one by one, and what happens then."""

    past: list[Ask]
    act: Ask
    future: list[Ask]


def cases(kinds: Sequence[str]) -> st.SearchStrategy[Case]:
    """Draws cases of some acts; a shorter past is the beginning of a longer one."""
    return st.builds(
        lambda seed, length, after: drawn_case(kinds, seed, length, after),
        st.binary(min_size=8, max_size=8),
        st.integers(0, 8) | st.integers(8, 50),
        st.integers(0, 6),
    )


def drawn_case(kinds: Sequence[str], seed: bytes, length: int, after: int) -> Case:
    draw = Random(seed)
    palette = drawn_palette(draw)
    past: list[Ask] = [
        ("enqueue", drawn_jobs(draw, palette, plain=True)),
        *(drawn_ask(draw, palette) for _ in range(length)),
    ]
    # Seeds are drawn again and again; what is done then is still another thing.
    draw = Random(seed + bytes([length, after]))
    setup, act = drawn_act(draw, palette, draw.choice(kinds))
    return Case([*past, *setup], act, [drawn_ask(draw, palette) for _ in range(after)])


def drawn_act(draw: Random, palette: Sequence[int], kind: str) -> tuple[list[Ask], Ask]:
    """Draws an act, and what makes it likely that there is something to act on."""
    more: Ask = ("enqueue", drawn_jobs(draw, palette, plain=True, beyond=6))
    go: Ask = ("dispatch", Offer(), 1, draw.randrange(9))
    cut: list[Ask] = [more, go, ("boot", 0, True)]
    picks = [draw.randrange(30) for _ in range(draw.randrange(3, 9))]
    idle = draw.random() < 0.6
    tasks = draw.choice((None, None, frozenset({"send"})))
    queues = draw.choice((None, None, frozenset({"mail", "default"})))
    match kind:
        case "enqueued":
            jobs = drawn_jobs(draw, palette, plain=draw.random() < 0.6, beyond=12)
            return [], (kind, jobs)
        case "handed out":
            offer = Offer(tasks, queues, idle)
            return draw.choice(([], [more])), (kind, offer, len(picks), draw.choice((1, 1, 2)))
        case "dispatched" | "pending" | "any":
            return draw.choice(([], [more])), (kind, picks, draw.choice((1, 2)), idle)
        case "suspects":
            return cut, (kind, picks, 1, idle)
        case "acked" | "completed":
            return draw.choice(([more, go], [*cut, more, go])), (kind, picks)
        case "booted":
            return [more, go], (kind, draw.random() < 0.5)
    raise AssertionError(kind)


class Life:
    """A state, and the clock that it goes by.  The same asks lead to the same state."""

    def __init__(self, past: Sequence[Ask]) -> None:
        self.state = State()
        self.now_ms = BEGIN_MS
        self.live(past)

    def live(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            if ask[0] == "time":
                self.now_ms += ask[1]
            elif ask[0] == "known":
                self.state.set_known_tasks(ask[1])
            elif ask[0] == "dispatch":
                self._dispatch(*ask[1:])
            else:
                command = command_of(self.state, ask, self.now_ms)
                if command is not None:
                    self.ask(command)

    def _dispatch(self, offer: Offer, worker: int, count: int) -> None:
        for _ in range(count):
            row = self.select(offer)
            if row is not None:
                self.ask(Dispatch(row.id, worker, prefetched=not offer.idle))

    def select(self, offer: Offer) -> Row | None:
        self.advance()
        return select(self.state, offer, self.now_ms)

    def advance(self) -> None:
        while self.state.advance(self.now_ms) == ADVANCE_MAX:
            pass

    def decide(self, command: AnyCommand) -> list[AnyEvent] | Rejection:
        return decide(self.state, command, self.now_ms)

    def ask(self, command: AnyCommand) -> list[AnyEvent] | Rejection:
        """Decides and applies one by one."""
        decision = self.decide(command)
        if not isinstance(decision, Rejection):
            self.apply(decision)
        return decision

    def apply(self, events: Sequence[AnyEvent]) -> None:
        frame = JudgedFrame(self.now_ms, self.state.last_seq + 1, events)
        for event in events:
            assert (reason := legal(self.state, event, frame)) is None, reason
            apply(self.state, event, self.now_ms)

    def hand_out(self, offer: Offer) -> list[str]:
        """Lives to the end: returns what `select` gives one after the other, in whose turn."""
        found: list[str] = []
        for now_ms in (self.now_ms, self.now_ms + FAR_MS):
            self.now_ms = now_ms
            while (row := self.select(offer)) is not None:
                assert len(found) < LIVES_MAX
                found.append(row.id)
                self.apply([Dispatched(row.id, 1)])
                if row.suspect:
                    # The next one waits for it.
                    self.apply([Acked(row.id, self.state.last_seq, b"")])
        return found


def job_of(job: Ask, now_ms: int) -> NewJob:
    number, spec, after_ms, tags = job
    run_at_ms = now_ms + after_ms if after_ms else 0
    return NewJob(f"job-{number}", SPECS[spec], b"null", b"digest-%05d" % 0, run_at_ms, tags)


def nth(rows: Sequence[Row], pick: int) -> Row | None:
    return rows[pick % len(rows)] if rows else None


def rows_in(state: State, *states: JobState) -> list[Row]:
    return [row for row in state.jobs.values() if row.state in states]


def command_of(state: State, ask: Ask, now_ms: int) -> AnyCommand | None:
    """Returns the command of an ask, or `None` where there is no such job."""
    match ask:
        case ("enqueue", jobs):
            return Enqueue([job_of(job, now_ms) for job in jobs])
        case ("dispatch any", pick, worker):
            row = nth(rows_in(state, JobState.PENDING), pick)
            return None if row is None else Dispatch(row.id, worker)
        case ("end", pick, how):
            row = nth(list(state.in_flight.values()), pick)
            return None if row is None else end_of(row, how)
        case ("boot", started, power_cut):
            begun = [t for n, t in enumerate(state.in_flight) if started >> n % 3 & 1]
            return Boot(frozenset(begun), power_cut)
        case ("queue", name, paused, weight):
            return SetQueue(name, paused, weight)
        case ("bounds", most, age_ms):
            return SetBounds(most, age_ms)
        case (word, pick):
            row = nth(list(state.jobs.values()), pick)
            if row is None:
                return None
            commands: dict[str, AnyCommand] = {
                "cancel": Cancel(row.id),
                "requeue": Requeue(row.id),
            }
            return commands.get(word, Discard(row.id))
    raise AssertionError(ask)


def end_of(row: Row, how: str) -> AnyCommand:
    job, token = row.id, row.token
    ends: dict[str, AnyCommand] = {
        "ok": Complete(job, token, b"1"),
        "fail": Fail(job, token, "broken"),
        "fatal": Fail(job, token, "broken", retry=False),
        "expire": Expire(job, token),
        "drain": Release(job, token, Cause.DRAIN),
        "snooze": Release(job, token, Cause.SNOOZE, 20),
    }
    return ends[how]
